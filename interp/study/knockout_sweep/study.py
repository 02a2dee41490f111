"""Blocks attention between groups of tokens, layer by layer, and follows the answer's probability."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interp.errors import StudyError
from interp.indicators.indicator_checks import MOST_LAYERS, check_whole
from interp.study.knockout_sweep.flows import Flow, Window, as_flows, default_flows, usual_width, windows
from interp.study.knockout_sweep.result import KnockoutResult
from interp.study.knockout_sweep.task import KnockoutTask
from interp.study.runs import GridCell
from interp.study.study import RULES, Study, field, one_of, whole_number

__all__ = ["KnockoutSweep"]


def _flows(flows: Any) -> tuple[tuple[str, Flow], ...] | None:
    return None if flows is None else as_flows(flows)


class KnockoutSweep(Study[KnockoutResult]):
    """Blocks attention between groups of tokens in a few layers at a time: how does the answer change?

        interp.KnockoutSweep(data=interp.data.bundled("natural")).run().report("flow.html")
        interp.KnockoutSweep(data=samples, flows={"nodule→last": (interp.word("nodule"), "last")}, by="head")

    For each sample, flow and window of layers the flow's keys are hidden from its queries in every head of these
    layers (by="head": in one head), and the probability of the answer's first token is compared with the unedited
    model's, on the same sample. Everything before the lowest blocked layer is run once per sample
    (`interp.tracing.variants.knockouts`).

    Args:
        data: Samples; a plain list becomes `Samples`. target="answer" and accuracy need their answers, flows from "box"
            or "elsewhere" their boxes.
        model: Id, `ModelSpec`, or an opened model (which only one process can use).
        flows: Name → (keys, queries), selectors of `interp.Site` or "box", "elsewhere" (see `Flow`); or texts such as
            "image→last". By default image→question, image→last, question→last and, where samples have boxes, box→last
            and box→after_image, each with the same number of image tokens elsewhere as control.
        by: "layer window": a window around each layer. "layer": each layer alone. "head": each head alone.
        window: The number of layers of a window, odd or even; by default 9 of 32 layers, and in proportion in other
            depths. `interp.study.knockout_sweep.flows` says how windows are centred and cut off at the ends.
        stride: The number of layers from one window's centre, or one blocked layer, to the next.
        mode: The knockout's mode: "renormalise" or "zero" (see `interp.Knockout`).
        target: "answer": the first token of the sample's own answer, as the model spells it. "greedy": the first token
            of the unedited model's answer.
        prompt: How the question is put.
        rule: When a token belongs to a box; with "masks", when it shares a pixel with the sample's masks.
        seed: The seed of the draw of tokens elsewhere, and of the bootstrap.
        batch: The number of blocked passes that run together. Part of the hash, because other batches round
            differently.

    Raises:
        StudyError: There are no samples, a choice is unknown, a width, stride, `batch` or `seed` is out of range, a
            `window` is given without by="layer window", or a field has the wrong type.

    Source: attention knockout of Geva et al., arXiv 2304.14767; flows of multimodal models as in arXiv 2411.18620.
    """

    flows: tuple[tuple[str, Flow], ...] | None = field(default=None, converter=_flows)
    by: str = field(default="layer window", validator=one_of("layer window", "layer", "head"))
    window: int | None = field(default=None, validator=whole_number(1, or_none=True))
    stride: int = field(default=1, validator=whole_number(1))
    mode: str = field(default="renormalise", validator=one_of("renormalise", "zero"))
    target: str = field(default="answer", validator=one_of("answer", "greedy"))
    rule: str = field(default="touch", validator=one_of(*RULES))
    batch: int = field(default=32, validator=whole_number(1))

    name = "knockout-sweep"
    title = "Information flow"
    page = "interp.study.knockout_sweep.page"

    def check(self) -> None:
        """Refuse a window's width where single layers are blocked."""
        if self.by != "layer window" and self.window is not None:
            raise StudyError(
                f'window= is for by="layer window"; by={self.by!r} blocks one layer at a time. Leave it out.'
            )

    @property
    def question(self) -> str:
        """What the study answers, in a sentence."""
        return "Between which tokens, and in which layers, must attention pass for the answer?"

    @property
    def blocked(self) -> dict[str, Flow]:
        """The flows by name: the given ones, or the default ones for these data."""
        if self.flows is not None:
            return dict(self.flows)
        return default_flows(boxes=any(sample.masks or sample.boxes for sample in self.data))

    def windows(self, n_layers: int) -> tuple[Window, ...]:
        """The windows of layers that are blocked together in a model of `n_layers` layers.

        Raises:
            StudyError: A window has more layers than the model, or `n_layers` is out of range.
        """
        check_whole("n_layers", n_layers, 1, StudyError, most=MOST_LAYERS)
        width = (self.window or usual_width(n_layers)) if self.by == "layer window" else 1
        return windows(n_layers, width, self.stride)

    def task(self, mllm: Any) -> KnockoutTask:
        """The study as work for the runner."""
        return KnockoutTask(self, mllm)

    def collect(self, whole: Any, cells: tuple[GridCell, ...], folder: Path) -> KnockoutResult:
        """The result of this study, or of a grid over it."""
        return KnockoutResult.of(whole, cells, folder)
