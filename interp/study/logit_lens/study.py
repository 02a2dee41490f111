"""The logit lens at image tokens: at which layer do the tokens of an object say its word?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interp.study.fields import RULES, field, one_of, some_of, words
from interp.study.logit_lens.task import WORDS, LensSweepTask
from interp.study.result import GridResult
from interp.study.runs import GridCell
from interp.study.study import Study

__all__ = ["LensSweep"]


class LensSweep(Study[GridResult]):
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
        rule: When a token belongs to a box; with "masks", when it shares a pixel with the sample's masks.
        seed: Decides whose word is the control; also of the bootstrap.
        batch: Samples per forward pass. Part of the hash: other batches round differently.

    Raises:
        StudyError: No samples, unknown words or an unknown rule, or something of the wrong type.

    Source: nostalgebraist's logit lens (2020); of image tokens: Neo et al., arXiv 2410.07149.
    """

    words: tuple[str, ...] = field(default=WORDS, converter=words, validator=some_of(WORDS))
    rule: str = field(default="touch", validator=one_of(*RULES))

    name = "lens-sweep"
    title = "Logit lens"
    page = "interp.study.logit_lens.page"

    @property
    def question(self) -> str:
        """What the study answers, in a sentence."""
        return "At which layer do the tokens of the box say the object's word?"

    def task(self, mllm: Any) -> LensSweepTask:
        """The study as work for the runner."""
        return LensSweepTask(self, mllm)

    def collect(self, whole: Any, cells: tuple[GridCell, ...], folder: Path) -> GridResult:
        """The result of this study, or of a grid over it."""
        return GridResult.of(whole, cells, folder)
