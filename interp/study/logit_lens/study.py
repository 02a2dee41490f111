"""Reads words at image tokens: at which layer do an object's tokens give its word, through one of several lenses?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interp.errors import InterpError, StudyError
from interp.study.logit_lens.task import WORDS, LensSweepTask
from interp.study.logit_lens.wording import wording_of
from interp.study.result import GridResult
from interp.study.runs import GridCell
from interp.study.study import RULES, Study, field, one_of, some_of, words
from interp.tracing.word_lenses.lens_names import LOGIT, as_lens

__all__ = ["LensSweep"]


def _as_lens(lens: Any) -> Any:
    try:
        return as_lens(lens)
    except InterpError as error:
        raise StudyError(str(error)) from error


class LensSweep(Study[GridResult]):
    """What a lens reads at each image token after each layer: how strongly the word, inside the boxes and outside.

    For each sample, word and layer: the word's score under the lens, averaged over the tokens of the boxes and over the
    other tokens. Control: another sample's word at the same tokens. The logit lens and the Jacobian lens need the extra
    `lens` and a family that TransformerLens knows.

    The result's `scores` have columns word, layer (−1: what enters the first), of ("own word" | "another's word"),
    measure, value. Measures: "inside", "outside" (mean score: log-probability in nats, or cosine similarity under the
    contextual lens), "gap" (inside − outside; higher: the word is read inside the boxes), "auroc" (of the map, with the
    boxes as truth; ½ is chance), "first inside" and "first outside" (share of tokens at which the word ranks first in
    the vocabulary, or among the words of the contextual lens's corpus). Tokens without a footprint on the image, and
    tokens that the lens did not read, are left out.

    Args:
        data: Samples with boxes; a plain list becomes `Samples`.
        model: Id, `ModelSpec`, or an opened model (which only one process can use).
        lens: "logit", "contextual", "jacobian" or "patchscope", or one of `interp.tracing.word_lenses` with settings:
            `LatentLens`, `JacobianLens`, `Patchscope`. As an axis of a `Grid` it compares lenses.
        words: Which words of a sample: "label" (the last word of `meta["label"]`), "answer". A word that the lens
            cannot read (one of several tokens; under the contextual lens, one that its corpus lacks) and a sample
            without the word are failures.
        prompt: How the question is put.
        rule: When a token belongs to a box; with "masks", when it shares a pixel with the sample's masks.
        seed: The seed that decides whose word is the control, and the seed of the bootstrap.
        batch: Samples per forward pass. Part of the hash: other batches round differently.

    Raises:
        StudyError: There are no samples, the lens, the words or the rule are unknown, or a field has the wrong type.

    Source: nostalgebraist's logit lens (2020); for image tokens: Neo et al., arXiv 2410.07149. The other lenses name
    their sources.
    """

    lens: Any = field(default=LOGIT, converter=_as_lens)
    words: tuple[str, ...] = field(default=WORDS, converter=words, validator=some_of(WORDS))
    rule: str = field(default="touch", validator=one_of(*RULES))

    name = "lens-sweep"
    page = "interp.study.logit_lens.page"

    @property
    def title(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride] - it depends on the lens
        """The title in reports, which is the lens's name."""
        return wording_of([self.lens]).title

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
