"""Certify what the organism knows and what causes its answers: python -m studies.organism.certify

Four tables, printed and written as CSV under --out: answers on held-out scenes and on medical slices;
where each layer looks; whether the answer follows the object and ignores its surroundings (certified at the input,
no indicator consulted); and what hiding the box's tokens does to the answer, against as many tokens elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.progress import track

import interp
from interp.cli import run_script
from interp.data.scenes import Scene, natural_scenes
from interp.report.tables import write_csv
from interp.stats import bootstrap, paired
from interp.study import choose_layer
from studies.organism.counterfactuals import Counterfactual, counterfactual

CHANCE = {"colour": 1 / 6, "size": 1 / 2, "side": 1 / 2}


@dataclass(frozen=True)
class Options:
    """What to certify and where the tables go."""

    model: str = "organism"
    out: Path = Path("runs/certificate")
    n: int = 600
    """Number of held-out scenes, a third of them for each question type."""
    seed: int = 1
    """Seed of the held-out scenes; the bundled test set has seed 0."""
    batch: int = 16


def log_probabilities(
    mllm: interp.Mllm, samples: list[interp.Sample], batch: int, hidden: list[np.ndarray] | None = None
) -> np.ndarray:
    """Returns (sample, token_id) log-probabilities after the prompt (nats), with `hidden` image tokens knocked out."""
    found = []
    for at in track(range(0, len(samples), batch), description="forward passes", transient=True):
        edits = []
        if hidden is not None:
            keys = interp.image_mask(hidden[at : at + batch])
            edits = [interp.Knockout(interp.Site(queries="after_image", keys=keys))]
        logits = mllm.trace(samples[at : at + batch], edits=edits).logits.values
        found.append(torch.from_numpy(logits).double().log_softmax(-1).numpy())
    return np.concatenate(found)


def word_ids(mllm: interp.Mllm, words: Iterable[str | None]) -> np.ndarray:
    """Returns the vocabulary index of each one-word answer."""
    return np.array([mllm.processor.tokenizer.convert_tokens_to_ids(word) for word in words])


def ask(scenes: Iterable[Scene], cases: list[Counterfactual]) -> list[interp.Sample]:
    """Returns each case's question about another version of its scene."""
    return [
        interp.Sample(image=scene.render(), question=case.question.text)
        for scene, case in zip(scenes, cases, strict=True)
    ]


def interval(values: np.ndarray, groups: Iterable[str | None] | None = None) -> dict[str, object]:
    """Returns the mean and its 95 % interval from resampled groups."""
    found = bootstrap(values, None if groups is None else list(groups))
    return {"mean": found.mean, "low": found.low, "high": found.high, "n": found.n, "groups": found.n_groups}


def answers(mllm: interp.Mllm, options: Options) -> pd.DataFrame:
    """Returns accuracy by question type on held-out scenes and by modality on medical test slices."""
    rows = []
    natural = interp.data.bundled("natural", n=options.n, seed=options.seed)
    for name, data in (("natural", natural), ("medical", interp.data.bundled("medical"))):
        samples = list(data)
        right = log_probabilities(mllm, samples, options.batch).argmax(-1) == word_ids(
            mllm, [s.answer for s in samples]
        )
        kind = "about" if name == "natural" else "modality"
        asked = [s.question.split()[1] if name == "medical" else str(s.meta[kind]) for s in samples]
        frame = pd.DataFrame(
            {"right": right, "group": [s.group for s in samples], "answer": [s.answer for s in samples]}
        )
        frame["of"] = [
            f"{s.meta[kind]}, {what}" if name == "medical" else what
            for s, what in zip(samples, asked, strict=True)
        ]
        for of, part in frame.groupby("of"):
            most = part.answer.value_counts(normalize=True).iloc[0]
            rows.append({"data": name, "asked": of, "chance": CHANCE.get(str(of), most), "most frequent answer": most,
                         **interval(part.right.to_numpy(float), part.group)})  # fmt: skip
    return pd.DataFrame(rows)


def looks(options: Options) -> pd.DataFrame:
    """Returns the relative AR of every layer on test scenes; the layer marked was chosen on validation scenes."""

    def sweep(split: str, kind: str) -> interp.LayerSweep:
        data = interp.data.bundled(kind, split=split, **({"n": 200} if kind == "natural" else {}))
        return interp.LayerSweep(model=options.model, data=data, metrics=("ar", "kl_gain"))

    frames = []
    for kind in ("natural", "medical"):
        choice = choose_layer(sweep("validation", kind).run(options.out), "ar")
        summary = sweep("test", kind).run(options.out).summary()
        summary["chosen on validation"] = summary.layer == next(iter(choice.layers.values()))
        frames.append(summary.assign(data=kind))
    columns = [
        "data",
        "layer",
        "chosen on validation",
        "metric",
        "control",
        "mean",
        "low",
        "high",
        "n",
        "n_groups",
    ]
    return pd.concat(frames).loc[:, columns]


def certificate(mllm: interp.Mllm, options: Options) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns how often answers follow the object and ignore the rest, and the effect of hiding the box."""
    rng = np.random.default_rng(options.seed)
    made = [
        counterfactual(scene, question, rng)
        for scene, question in natural_scenes("test", options.n, options.seed)
    ]
    cases = [case for case in made if case is not None]
    plain = ask((case.scene for case in cases), cases)
    truth, flipped = (
        word_ids(mllm, words)
        for words in ([c.question.answer for c in cases], [c.inside_answer for c in cases])
    )
    before = log_probabilities(mllm, plain, options.batch)
    inside = log_probabilities(mllm, ask((c.inside for c in cases), cases), options.batch).argmax(-1)
    outside = log_probabilities(mllm, ask((c.outside for c in cases), cases), options.batch).argmax(-1)
    frame = pd.DataFrame({
        "asked": [c.question.about for c in cases], "right": before.argmax(-1) == truth,
        "follows the object": inside == flipped, "ignores the rest": outside == truth,
    })  # fmt: skip
    frame["certified"] = frame.right & frame["follows the object"] & frame["ignores the rest"]
    rows = [{"asked": about, "what": what, **interval(part[what].to_numpy(float))}
            for about, part in frame.groupby("asked") for what in frame.columns[1:]]  # fmt: skip
    kept = [i for i in range(len(cases)) if frame.certified[i]]
    return pd.DataFrame(rows), hiding(
        mllm, options, [cases[i] for i in kept], [plain[i] for i in kept], truth[kept], before[kept]
    )


def hiding(
    mllm: interp.Mllm, options: Options, cases: list[Counterfactual], samples: list[interp.Sample],
    truth: np.ndarray, before: np.ndarray,
) -> pd.DataFrame:  # fmt: skip
    """Returns the fall of the answer's log-probability (nats) when its box, or as many other tokens, are hidden."""
    rng = np.random.default_rng(options.seed)
    boxes, others, rivals = [], [], []
    for case, sample in zip(cases, samples, strict=True):
        tokens = mllm.encode([sample]).tokens[0]
        box = tokens.mask([case.question.thing.box])
        beside = [t.box for t in case.scene.things if t != case.question.thing]
        other = np.zeros_like(box)
        other[rng.choice(np.flatnonzero(~box), min(box.sum(), (~box).sum()), replace=False)] = True
        boxes.append(box)
        others.append(other)
        rivals.append(tokens.mask(beside) & ~box if beside else np.zeros_like(box))
    pick = np.arange(len(samples))
    falls = [
        before[pick, truth] - log_probabilities(mllm, samples, options.batch, hidden)[pick, truth]
        for hidden in (boxes, others, rivals)
    ]
    about = np.array([case.question.about for case in cases])
    rows = []
    for kind in (*CHANCE, "all"):
        chosen = (about == kind) | (kind == "all")
        box, other, rival = (fall[chosen] for fall in falls)
        difference = paired(box, other, None)
        falls_of = {
            "box hidden": box.mean(),
            "as many elsewhere": other.mean(),
            "all other objects": rival.mean(),
            "difference": difference.mean,
        }
        rows.append(
            {"asked": kind, **falls_of, "low": difference.low, "high": difference.high, "n": difference.n}
        )
    return pd.DataFrame(rows)


def main(options: Options) -> None:
    torch.set_num_threads(1)  # so small a model loses time to a second thread
    mllm = interp.load(options.model)
    certified, hidden = certificate(mllm, options)
    tables = {"answers": answers(mllm, options), "certified at the input": certified, "hiding the box": hidden,
              "where layers look": looks(options)}  # fmt: skip
    options.out.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        print(f"\n{name}\n{table.to_string(index=False, float_format=lambda v: f'{v:.3f}')}")
        write_csv(table, options.out / f"{name.replace(' ', '-')}.csv")


if __name__ == "__main__":
    run_script(main, Options)
