"""The study of information flow: between which tokens, and in which layers, must attention pass for the answer?"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.data import Samples
from interp.errors import StudyError
from interp.inputs.prompt import PAPER_PROMPT, Prompt
from interp.run import canonical
from interp.study.knockout_sweep.flows import Flow, Window, as_flows, default_flows, usual_width, windows
from interp.study.knockout_sweep.result import KnockoutResult
from interp.study.knockout_sweep.task import KnockoutTask
from interp.study.model_spec import as_model, open_model
from interp.study.runs import GridCell, run_study
from interp.study.study import study_labels

if TYPE_CHECKING:
    from interp.tracing import Mllm

__all__ = ["KnockoutSweep"]

BY = ("layer window", "layer", "head")
CHOICES = {
    "by": BY,
    "mode": ("renormalise", "zero"),
    "target": ("answer", "greedy"),
    "rule": ("touch", "center", "stretch"),
}


@dataclass(frozen=True, kw_only=True)
class KnockoutSweep:
    """Attention between groups of tokens, blocked in a few layers at a time: what becomes of the answer?

        interp.KnockoutSweep(data=interp.data.bundled("natural")).run().report("flow.html")
        interp.KnockoutSweep(data=samples, flows={"nodule→last": (interp.word("nodule"), "last")}, by="head")

    For each sample, flow and window of layers the flow's keys are hidden from its queries in every head of these
    layers (by="head": in one head), and the probability of the answer's first token is compared with the unedited
    model's, on the same sample. Everything before the lowest blocked layer is run once per sample
    (`interp.tracing.knockout_variants`).

    Args:
        data: Samples; a plain list becomes `Samples`. Their answers are needed by target="answer" and for
            accuracy, their boxes by flows from "box" or "elsewhere".
        model: Id, `ModelSpec`, or an opened model (which only one process can use).
        flows: Name → (keys, queries), selectors of `interp.Site` or "box", "elsewhere" (see `Flow`); or texts such
            as "image→last". By default image→question, image→last, question→last and, where samples have boxes,
            box→last and box→after_image, each with as many image tokens elsewhere as control.
        by: "layer window": a window around each layer. "layer": each layer alone. "head": each head alone.
        window: Layers of a window, odd or even; by default 9 in 32 layers, and in proportion
            (`interp.study.knockout_sweep.flows` says how windows are centred and what happens at the ends).
        stride: Layers from one window's centre to the next, or from one layer to the next.
        mode: Of the knockout: "renormalise" or "zero" (see `interp.Knockout`).
        target: "answer": the first token of the sample's own answer, as the model spells it. "greedy": the first
            token the unedited model says.
        prompt: How the question is put.
        rule: When a token belongs to a box.
        seed: Draws the tokens elsewhere; also of the bootstrap.
        batch: Blocked passes side by side. Part of the hash: other batches round differently.

    Raises:
        StudyError: No samples, an unknown choice, a width, stride, `batch` or `seed` that is no such whole number,
            a `window` without by="layer window", or something of the wrong type.

    Source: attention knockout of Geva et al., arXiv 2304.14767; flows of multimodal models as in arXiv 2411.18620.
    """

    data: Any  # checked and turned into Samples, a ModelSpec and so on below
    model: Any = "organism"
    flows: Any = None
    by: str = "layer window"
    window: int | None = None
    stride: int = 1
    mode: str = "renormalise"
    target: str = "answer"
    prompt: Any = PAPER_PROMPT
    rule: str = "touch"
    seed: int = 0
    batch: int = 32

    name = "knockout-sweep"
    title = "Information flow"

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", as_model(self.model))
        object.__setattr__(self, "data", _samples(self.data))
        if self.flows is not None:
            object.__setattr__(self, "flows", as_flows(self.flows))
        _check(self)

    @property
    def question(self) -> str:
        """What the study answers, in a sentence."""
        return "Between which tokens, and in which layers, must attention pass for the answer?"

    @property
    def labels(self) -> dict[str, str]:
        """Short names of the model and the data."""
        return study_labels(self)

    @property
    def blocked(self) -> dict[str, Flow]:
        """The flows by name: those given, or the default ones for these data."""
        if self.flows is not None:
            return dict(self.flows)
        return default_flows(boxes=any(sample.boxes for sample in self.data))

    def windows(self, n_layers: int) -> tuple[Window, ...]:
        """What is blocked together in a model of so many layers.

        Raises:
            StudyError: A window of more layers than there are.
        """
        width = (self.window or usual_width(n_layers)) if self.by == "layer window" else 1
        return windows(n_layers, width, self.stride)

    def to_dict(self, mllm: Mllm | None = None) -> dict[str, Any]:
        """The study as JSON: everything its numbers depend on, with model and data by fingerprint.

        Args:
            mllm: The opened model, when there is one; otherwise it is opened to take its fingerprint.
        """
        return self.task(open_model(self.model) if mllm is None else mllm).to_dict()

    def to_json(self, mllm: Mllm | None = None) -> str:
        """The canonical text of `to_dict`; the first 12 hex digits of its sha256 name the run's folder."""
        return canonical(self.to_dict(mllm))

    def replace(self, **changes: Any) -> KnockoutSweep:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def run(
        self,
        out: str | os.PathLike[str] = "runs",
        *,
        workers: int = 1,
        progress: bool = True,
        part: tuple[int, int] | None = None,
    ) -> KnockoutResult:
        """The study's result; what is already under `out` is not computed again.

        Args:
            out: The folder that holds runs; this one's is `knockout-sweep-<hash>`.
            workers: Processes, each with its own copy of the model; the bytes are the same for any number.
            progress: Show progress on stderr.
            part: (i, n) computes only part i of n; the result can be read once every part is under `out`.
        """
        return run_study(self, out, workers=workers, progress=progress, part=part)

    def task(self, mllm: Any) -> KnockoutTask:
        """The study as work for the runner."""
        return KnockoutTask(self, mllm)

    def collect(self, whole: Any, cells: tuple[GridCell, ...], folder: Path) -> KnockoutResult:
        """The result of this study, or of a grid over it."""
        return KnockoutResult(whole, cells, folder)


def _samples(data: Any) -> Samples:
    if not isinstance(data, Samples):
        if not isinstance(data, Sequence) or isinstance(data, str):
            raise StudyError(
                f'data is Samples or a list of Sample, such as interp.data.bundled("natural"); got '
                f"{type(data).__name__}."
            )
        data = Samples(data)
    if len(data) == 0:
        raise StudyError(f"the data {data.name!r} hold no sample. Was a filter too strict?")
    return data


def _check(study: KnockoutSweep) -> None:
    for name, known in CHOICES.items():
        if getattr(study, name) not in known:
            raise StudyError(f"{name} is one of {', '.join(known)}; got {getattr(study, name)!r}.")
    if not isinstance(study.prompt, Prompt):
        raise StudyError(f"prompt is an interp.Prompt; got {study.prompt!r}. Write Prompt(template=…).")
    if study.by != "layer window" and study.window is not None:
        raise StudyError(
            f'window= is for by="layer window"; by={study.by!r} blocks one layer at a time. Leave it out.'
        )
    least = {"stride": 1, "batch": 1, "seed": 0, **({} if study.window is None else {"window": 1})}
    for name, low in least.items():
        value = getattr(study, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise StudyError(f"{name} is a whole number ≥ {low}; got {value!r}.")
