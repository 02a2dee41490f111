"""Test whether medical answers are above chance: python -m studies.organism.certify_medical --model organism

Every modality and question of the medical test slices and of the balanced questions, with the exact binomial 95 %
interval. Beside it stand three baselines that need no picture: a coin, the most frequent answer, and the answer that
the name suggests (the most frequent one for that name and question in training). Questions are not independent (slices
of one volume, tiles of one field), and four volumes support no claim about a population: compare the interval only with
the coin.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import binomtest

import interp
from interp.cli import run_script
from interp.data.build import mirror
from interp.report.tables import write_csv
from studies.organism.certify import log_probabilities, word_ids

ASKED = {"Which": "side", "What": "size", "Is": "visible"}


@dataclass(frozen=True)
class Options:
    """What to certify and where the table goes."""

    model: str = "organism"
    out: Path = Path("runs/certificate")
    batch: int = 16


def asked(sample: interp.Sample) -> str:
    """Returns what a question is about."""
    return ASKED[sample.question.split()[0]]


def names_alone() -> dict[str, str]:
    """Returns the most frequent answer to each question in training."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for name in ("medical", "balanced"):
        for sample in interp.data.bundled(name, split="train"):
            seen[sample.question][str(sample.answer)] += 1
    return {question: answers.most_common(1)[0][0] for question, answers in seen.items()}


def sets() -> dict[str, list[interp.Sample]]:
    """Returns the questions: as bundled, balanced, and sides of unpaired structures in picture and mirror."""
    plain = list(interp.data.bundled("medical"))
    single = [s for s in plain if asked(s) == "side" and not {"left", "right"} & set(s.question.split())]
    both = [copy for s in single for copy in (s, mirror(s))]
    return {
        "medical": plain,
        "balanced": list(interp.data.bundled("balanced")),
        "with its mirror image": both,
    }


def table(data: str, samples: list[interp.Sample], right: np.ndarray, said: np.ndarray) -> pd.DataFrame:
    """Returns one row per modality and question, and per volume where there are several."""
    alone = names_alone()
    frame = pd.DataFrame({
        "modality": [s.meta["modality"] for s in samples], "asked": [asked(s) for s in samples],
        "group": [s.group for s in samples], "answer": [s.answer for s in samples], "right": right, "said": said,
        "name": [alone.get(s.question) == s.answer for s in samples],
    })  # fmt: skip
    rows = []
    for (modality, about), whole in parts(frame, ["modality", "asked"]):
        volumes = parts(whole, ["group"]) if whole.group.nunique() > 1 else []
        for of, part in (((modality,), whole), *volumes):
            rows.append({"data": data, "of": of[0], "asked": about, **figures(part)})
    return pd.DataFrame(rows)


def parts(frame: pd.DataFrame, columns: list[str]) -> list[tuple[tuple[str, ...], pd.DataFrame]]:
    """Returns the rows of each combination of values that occurs."""
    keys = list(frame[columns].itertuples(index=False, name=None))
    return [
        (key, frame.iloc[[i for i, other in enumerate(keys) if other == key]]) for key in sorted(set(keys))
    ]


def figures(part: pd.DataFrame) -> dict[str, object]:
    """Returns the share of right answers with its exact interval, and the baselines that need no picture."""
    hits, n = int(part.right.sum()), len(part)
    interval = binomtest(hits, n).proportion_ci(0.95, "exact")
    most = part.answer.value_counts(normalize=True).iloc[0]
    return {
        "n": n, "volumes": part.group.nunique(), "right": hits / n, "low": interval.low, "high": interval.high,
        "most frequent": most, "name alone": part["name"].mean(),
        "said most": part.said.value_counts(normalize=True).iloc[0],
        "above chance": interval.low > 0.5, "above most frequent": interval.low > most,
    }  # fmt: skip


def answers(mllm: interp.Mllm, data: Iterable[tuple[str, list[interp.Sample]]], batch: int) -> pd.DataFrame:
    """Returns the tables of all sets."""
    found = []
    for name, samples in data:
        ids = log_probabilities(mllm, samples, batch).argmax(-1)
        right = ids == word_ids(mllm, [s.answer for s in samples])
        found.append(table(name, samples, right, ids))
    return pd.concat(found, ignore_index=True)


def main(options: Options) -> None:
    torch.set_num_threads(1)  # so small a model loses time to a second thread
    found = answers(interp.load(options.model), sets().items(), options.batch)
    print(found.to_string(index=False, float_format=lambda v: f"{v:.3f}"))
    options.out.mkdir(parents=True, exist_ok=True)
    write_csv(found, options.out / "medical-answers.csv")


if __name__ == "__main__":
    run_script(main, Options)
