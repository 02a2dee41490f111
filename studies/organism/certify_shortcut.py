"""Certify what causes the shortcut organism's answers: python -m studies.organism.certify_shortcut

Three tables, printed and written as CSV under --out: whether answers follow the marker and ignore the object and
everything else (certified at the input, no indicator consulted); what hiding the marker's tokens does to the answer,
against the object's and as many elsewhere; and where each layer looks, scored against the marker and the object.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import interp
from interp.cli import run_script
from interp.data.scenes import MarkedScene, Question, marked_scenes
from interp.report.tables import write_csv
from interp.stats import paired
from studies.organism.certify import interval, log_probabilities, word_ids

INDICATOR = interp.indicators.Attention(relative_to=interp.GENERIC_PROMPT)


@dataclass(frozen=True)
class Options:
    """What to certify and where the tables go."""

    model: str = "shortcut-organism"
    out: Path = Path("runs/shortcut-certificate")
    n: int = 300
    """Number of held-out marked scenes, each with one colour question."""
    seed: int = 1
    """Seed of the held-out scenes; the bundled test set has seed 0."""
    batch: int = 16


@dataclass(frozen=True)
class Case:
    """One question about three versions of a marked scene."""

    marked: MarkedScene
    question: Question
    recoloured: MarkedScene
    """The same scene with another colour of the marker."""
    elsewhere: MarkedScene
    """The same marker in a new scene where the object has another colour."""


def made(options: Options) -> list[Case]:
    """Returns held-out cases. The marker's colour is never the object's."""
    rng = np.random.default_rng(options.seed)
    return [
        Case(marked, question, marked.recoloured(rng), marked.elsewhere_changed(question.thing.shape, rng))
        for marked, question in marked_scenes("test", options.n, options.seed)
    ]


def asked(cases: list[Case], version: str) -> list[interp.Sample]:
    """Returns each case's question about one version of its scene."""
    return [interp.Sample(getattr(case, version).render(), case.question.text) for case in cases]


def certificate(mllm: interp.Mllm, cases: list[Case], batch: int) -> pd.DataFrame:
    """Returns one row per case: whether the answer is the marker's, follows it, and ignores the rest."""

    def said(version: str) -> np.ndarray:
        return log_probabilities(mllm, asked(cases, version), batch).argmax(-1)

    plain = said("marked")
    frame = pd.DataFrame(
        {
            "says the marker's colour": plain == word_ids(mllm, [c.marked.colour for c in cases]),
            "says the object's colour": plain == word_ids(mllm, [c.question.answer for c in cases]),
            "follows the marker": said("recoloured") == word_ids(mllm, [c.recoloured.colour for c in cases]),
            "ignores the rest": said("elsewhere") == word_ids(mllm, [c.elsewhere.colour for c in cases]),
        }
    )
    frame["certified"] = frame.drop(columns="says the object's colour").all(axis=1)
    return frame


def hiding(mllm: interp.Mllm, cases: list[Case], options: Options) -> pd.DataFrame:
    """Returns the fall of the answer's log-probability (nats) when some image tokens are hidden at every layer."""
    rng = np.random.default_rng(options.seed)
    samples = asked(cases, "marked")
    hidden: dict[str, list[np.ndarray]] = {"marker": [], "as many elsewhere": [], "object asked about": []}
    for case, sample in zip(cases, samples, strict=True):
        tokens = mllm.encode([sample]).tokens[0]
        marker = tokens.mask([case.marked.box])
        other = np.zeros_like(marker)
        other[rng.choice(np.flatnonzero(~marker), marker.sum(), replace=False)] = True
        thing = tokens.mask([case.question.thing.box]) & ~marker
        for name, mask in zip(hidden, (marker, other, thing), strict=True):
            hidden[name].append(mask)
    pick, words = np.arange(len(cases)), word_ids(mllm, [c.marked.colour for c in cases])
    before = log_probabilities(mllm, samples, options.batch)[pick, words]
    falls = {
        name: before - log_probabilities(mllm, samples, options.batch, masks)[pick, words]
        for name, masks in hidden.items()
    }
    rows = [{"hidden": name, **interval(fall)} for name, fall in falls.items()]
    difference = paired(falls["marker"], falls["as many elsewhere"], None)
    rows.append({"hidden": "marker − elsewhere", "mean": difference.mean, "low": difference.low,
                 "high": difference.high, "n": difference.n, "groups": difference.n_groups})  # fmt: skip
    return pd.DataFrame(rows)


def looks(mllm: interp.Mllm, cases: list[Case], batch: int) -> pd.DataFrame:
    """Returns the relative AR of every layer against the marker and against the object in question."""
    rows = []
    for at in range(0, len(cases), batch):
        part = cases[at : at + batch]
        maps = INDICATOR(mllm, asked(part, "marked"))
        for i, case in enumerate(part):
            boxes = {"marker": case.marked.box, "object": case.question.thing.box}
            for what, box in boxes.items():
                ratio = interp.metrics.attention_ratio(maps[i].values, maps.tokens[i].mask([box]))
                rows += [{"layer": n, "scored against": what, "ar": value} for n, value in enumerate(ratio)]
    frame = pd.DataFrame(rows)
    parts = [part for _, part in frame.groupby(["layer", "scored against"])]
    return pd.DataFrame(
        [{**part.iloc[0][["layer", "scored against"]], **interval(part.ar.to_numpy())} for part in parts]
    )


def main(options: Options) -> None:
    torch.set_num_threads(1)  # so small a model loses time to a second thread
    mllm, cases = interp.load(options.model), made(options)
    frame = certificate(mllm, cases, options.batch)
    certified = [case for case, kept in zip(cases, frame.certified, strict=True) if kept]
    tables = {
        "certified at the input": pd.DataFrame(
            [{"what": what, **interval(frame[what].to_numpy(float))} for what in frame]
        ),
        "hiding tokens": hiding(mllm, certified, options),
        "where layers look": looks(mllm, certified, options.batch),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        print(f"\n{name}\n{table.to_string(index=False, float_format=lambda v: f'{v:.3f}')}")
        write_csv(table, options.out / f"{name.replace(' ', '-')}.csv")


if __name__ == "__main__":
    run_script(main, Options)
