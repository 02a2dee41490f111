"""Questions of a benchmark as documents of lmms-eval: written from `Samples`, and read by the tasks of this folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from interp.data import Samples
from interp.data.lines import needs
from interp.errors import DataError
from interp.inputs.prompt import PAPER_PROMPT
from interp.inputs.sample import Sample
from interp.metrics.scorers import OpenRecall, Strict
from interp.study.study import as_samples

__all__ = ["recall", "right", "to_target", "to_text", "to_visual", "write"]

BLANK = Image.new("L", (1, 1))
"""Scorers look at texts alone."""


def write(
    samples: Samples | Sequence[Sample], folder: str | os.PathLike[str], *, split: str = "test"
) -> Path:
    """Writes samples with answers as a data set on disk that lmms-eval's `load_from_disk` reads; returns the folder.

    Columns: `id`, `images` (a list), `prompt` (the question under `PAPER_PROMPT`, options lettered), `question`,
    `options`, `answer`, and `modality`, `subject` and `kind` of `meta`, "" where there is none.

    Args:
        samples: The questions, as `Samples` or a list; those without an answer are refused, because lmms-eval would
            count them as wrong.
        folder: The data set's folder.
        split: The name of its only split, which the tasks expect to be "test".

    Raises:
        StudyError: `samples` are neither `Samples` nor a list of samples.
        DataError: There are no samples, one has no answer or cannot be read, or the library `datasets` is missing.
    """
    datasets = needs("datasets")
    samples = as_samples(samples)
    if not len(samples) or any(sample.answer is None for sample in samples):
        raise DataError(f"{samples.name}: expected questions with answers. Choose a split that has them.")
    texts = {
        name: datasets.Value("string")
        for name in ("id", "prompt", "question", "answer", "modality", "subject", "kind")
    }
    lists = {"images": datasets.List(datasets.Image()), "options": datasets.List(datasets.Value("string"))}
    rows = [_row(sample) for sample in samples]
    table = datasets.Dataset.from_list(rows, features=datasets.Features({**texts, **lists}))
    target = Path(folder)
    datasets.DatasetDict({split: table}).save_to_disk(str(target))
    return target


def _row(sample: Sample) -> dict[str, Any]:
    meta = {name: str(sample.meta.get(name) or "") for name in ("modality", "subject", "kind")}
    images = [sample.load(number).convert("RGB") for number in range(len(sample.images))]
    return {
        "id": sample.id,
        "images": images,
        "prompt": PAPER_PROMPT.text(sample),
        "question": sample.question,
        "options": list(sample.options or ()),
        "answer": sample.answer,
        **meta,
    }


def to_visual(doc: Mapping[str, Any]) -> list[Image.Image]:
    """A document's images."""
    return [image.convert("RGB") for image in doc["images"]]


def to_text(doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, Any] | None = None) -> str:
    """A document's prompt."""
    return str(doc["prompt"])


def to_target(doc: Mapping[str, Any]) -> str:
    """A document's answer."""
    return str(doc["answer"])


def right(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """1 for an answer that is right by `Strict`, the package's own rule, else 0."""
    (score,) = Strict().scores([results[0]], [_asked(doc)], PAPER_PROMPT)
    return {"strict": float(score or 0.0)}


def recall(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """LLaVA-Med's recall of an open answer, and the one that counts each word once."""
    scorers = {"recall": OpenRecall(), "clean_recall": OpenRecall(clean=True)}
    found = {
        name: scorer.scores([results[0]], [_asked(doc)], PAPER_PROMPT)[0] for name, scorer in scorers.items()
    }
    return {name: float(score or 0.0) for name, score in found.items()}


def _asked(doc: Mapping[str, Any]) -> Sample:
    options = tuple(doc["options"]) or None
    return Sample(image=BLANK, question=doc["question"], answer=doc["answer"], options=options, id=doc["id"])
