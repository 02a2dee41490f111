"""What each head does: where it looks, what it says, and what is lost without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interp.study.head_roles.result import HeadTable
from interp.study.head_roles.task import HeadRolesTask
from interp.study.runs import GridCell
from interp.study.study import Study, field, one_of, true_or_false

__all__ = ["HeadRoles"]


class HeadRoles(Study[HeadTable]):
    """A table of heads and what each does, from the last prompt token's row of attention and from the answer.

    Let a be the head's row, a_j its weight on image token j, n the number of image tokens, and p = a / Σ_j a_j over the
    image:

    - `image_share`: Σ_j a_j, in [0, 1]. Higher: more of the row goes to the image.
    - `entropy`: −Σ p ln p / ln n, in [0, 1]. 1: uniform over the image; 0: one token. NaN without weight there.
    - `sink_share`: the weight on the prompt's first token, in [0, 1]. Higher: the head attends to the sink and adds
      little (Xiao et al. 2023).
    - `position`: 1 − JS(p, p′) / ln 2, in [0, 1], where p′ is the map of the same question on another sample's image.
      1: the same map for both images, by position or uniform (`entropy` tells them apart); 0: maps without overlap. NaN
      where the other image has another number of tokens, where a sample has several images, and where no other sample
      can lend one.
    - `ablation`: ln P(answer) − ln P(answer without the head), in nats. Above 0: the head supports the answer. The
      head's output at the last prompt token is set to zero (`interp.AblateHeads(Site(heads=[…]), "zero")`); the answer
      is one token.
    - `copying`: from the weights alone, in [−1, 1]; see `interp.tracing.derived.ov_circuits.copying_scores`.

    The table describes the heads on these samples. Test a head that is chosen here for one measure on other samples.

    Args:
        data: Samples with one image each; a plain list becomes `Samples`.
        model: Id, `ModelSpec`, or an opened model (which only one process can use).
        target: "greedy": the first token the model says. "answer": the first token of the sample's own answer.
        ablate: Whether to ablate each head, which takes layers × heads suffixes per sample. Without it a sample takes
            two forward passes.
        prompt: How the question is put.
        seed: Seed that decides which image a sample borrows, and seed of the bootstrap.
        batch: Samples per forward pass, and heads ablated in one pass. Part of the hash.

    Raises:
        StudyError: There are no samples, the target is unknown, or a field has the wrong type.

    Source: Elhage et al. 2021 (copying); arXiv 2309.17453 (sinks); arXiv 2411.16724 (share of the image); zero ablation
    as in arXiv 2211.00593.
    """

    target: str = field(default="greedy", validator=one_of("greedy", "answer"))
    ablate: bool = field(default=True, validator=true_or_false)

    name = "head-roles"
    title = "Head roles"
    page = "interp.study.head_roles.page"

    @property
    def question(self) -> str:
        """What the study answers, in a sentence."""
        return "What does each head do?"

    def task(self, mllm: Any) -> HeadRolesTask:
        """The study as work for the runner."""
        return HeadRolesTask(self, mllm)

    def collect(self, whole: Any, cells: tuple[GridCell, ...], folder: Path) -> HeadTable:
        """The result of this study, or of a grid over it."""
        return HeadTable.of(whole, cells, folder)
