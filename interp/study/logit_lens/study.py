"""The study of the logit lens: at which layer do the tokens of an object say its word?"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.errors import StudyError
from interp.inputs.prompt import PAPER_PROMPT
from interp.study.lens import check_fields
from interp.study.logit_lens.task import WORDS, LensSweepTask
from interp.study.result import GridResult
from interp.study.runs import GridCell, run_study
from interp.study.study import study_labels

__all__ = ["LensSweep"]

CHOICES = {"rule": ("touch", "center", "stretch")}


@dataclass(frozen=True, kw_only=True)
class LensSweep:
    """What the unembedding reads at each image token after each layer: the word, inside the boxes and outside?

    For each sample, word and layer: the word's log-probability under the logit lens, averaged over the tokens of the
    boxes and over the others. Control: another sample's word, which the same tokens should not say. Needs the extra
    `lens` and a family that TransformerLens knows.

    The result's `scores` have columns word, layer (−1: what enters the first), of ("own word" | "another's word"),
    measure, value. Measures: "inside", "outside" (mean log-probability, nats), "gap" (inside − outside), "auroc" (of
    the map over tokens by the boxes; ½ is chance), "first inside" and "first outside" (share of tokens at which the
    word is the likeliest of all).

    Args:
        data: Samples with boxes; a plain list becomes `Samples`.
        model: Id, `ModelSpec`, or an opened model (which only one process can use).
        words: Which words of a sample: "label" (the last word of `meta["label"]`), "answer". A word of several
            tokens, and a sample without one, are failures.
        prompt: How the question is put.
        rule: When a token belongs to a box.
        seed: Decides whose word is the control; also of the bootstrap.
        batch: Samples per forward pass. Part of the hash: other batches round differently.

    Raises:
        StudyError: No samples, unknown words or an unknown rule, or something of the wrong type.

    Source: nostalgebraist's logit lens (2020); of image tokens: Neo et al., arXiv 2410.07149.
    """

    data: Any
    model: Any = "organism"
    words: Any = ("label", "answer")
    prompt: Any = PAPER_PROMPT
    rule: str = "touch"
    seed: int = 0
    batch: int = 8

    name = "lens-sweep"
    title = "Logit lens"

    def __post_init__(self) -> None:
        check_fields(self, CHOICES)
        words = (self.words,) if isinstance(self.words, str) else tuple(self.words)
        if not words or set(words) - set(WORDS) or len(set(words)) < len(words):
            raise StudyError(f"words are some of {', '.join(WORDS)}; got {self.words!r}.")
        object.__setattr__(self, "words", words)

    @property
    def question(self) -> str:
        """What the study answers, in a sentence."""
        return "At which layer do the tokens of the box say the object's word?"

    @property
    def labels(self) -> dict[str, str]:
        """Short names of the model and the data."""
        return study_labels(self)

    def replace(self, **changes: Any) -> LensSweep:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def run(
        self,
        out: str | os.PathLike[str] = "runs",
        *,
        workers: int = 1,
        progress: bool = True,
        part: tuple[int, int] | None = None,
    ) -> GridResult:
        """The study's result; what is already under `out` is not computed again. See `run_study`."""
        return run_study(self, out, workers=workers, progress=progress, part=part)

    def task(self, mllm: Any) -> LensSweepTask:
        """The study as work for the runner."""
        return LensSweepTask(self, mllm)

    def collect(self, whole: Any, cells: tuple[GridCell, ...], folder: Path) -> GridResult:
        """The result of this study, or of a grid over it."""
        return GridResult(whole, cells, folder)
