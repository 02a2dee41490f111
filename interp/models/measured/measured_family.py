"""The adapter for a model without one: it measures where the image tokens look."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Int
from torch import nn

from interp.errors import ModelError
from interp.inputs.footprints import Footprints, Size, concatenate
from interp.inputs.text import count
from interp.models.base import Attends, Family
from interp.models.measured.behaviour import Behaviour, observe
from interp.models.measured.embedder import Embedder, fitted
from interp.models.measured.measurement import Measurement, measure

__all__ = ["Measured"]

_VERSION = 2
_LOADER = "interp-loader"


@dataclass(frozen=True, eq=False)
class _Sample:
    """What was measured of a sample's images, and the footprints of all its image tokens."""

    images: tuple[Measurement, ...]
    footprints: Footprints


@dataclass(frozen=True, eq=False)
class _Bound:
    """What belongs to one model: the model, what was observed of it, and the measurements so far."""

    model: Any
    processor: Any
    first: nn.Module
    behaviour: Behaviour
    found: dict[Any, _Sample] = field(default_factory=dict)


class Measured(Family):
    """Footprints found by measuring, for any model whose image tokens are positions of its decoder's sequence.

    `interp.load(id, adapter="measured")` and `interp.wrap(model, processor, adapter="measured")` bind it to the model:
    they observe which ids are image tokens and what rows attend to. Each image size is measured when it first comes.
    """

    name = "measured"
    model_types: ClassVar[tuple[str, ...]] = ()
    layout = "measured: patterns painted into the image, and what they change in each token"

    def __init__(self, bound: _Bound | None = None) -> None:
        self._bound = bound
        if bound is not None:
            self.attends: Attends = bound.behaviour.attends  # pyright: ignore[reportIncompatibleVariableOverride]
            self.first_position = bound.behaviour.first_position  # pyright: ignore[reportAttributeAccessIssue]
            self.nested_images = bound.behaviour.nested_images  # pyright: ignore[reportAttributeAccessIssue]

    def matches(self, config: Any) -> bool:
        """Whether the adapter is bound to a model of that config's type. It is never chosen without being named."""
        return self._bound is not None and (
            getattr(config, "model_type", None) == self._bound.model.config.model_type
        )

    def layers(self, model: nn.Module) -> list[nn.Module]:
        """Returns the layers of `get_decoder()`, also where that is a causal model around its decoder."""
        decoder: Any = model.get_decoder()  # pyright: ignore[reportCallIssue]
        return list((decoder if hasattr(decoder, "layers") else decoder.model).layers)

    def bound(self, model: Any, processor: Any) -> Measured:
        """Returns the adapter of this model: its image ids and its attention are observed in a few forward passes.

        Raises:
            ModelError: Nothing that enters the decoder changes with an image, or rows attend in a way that is none of
                `interp.models.base.Attends`.
        """
        layers = self.layers(model)
        try:
            embedder = _embedder(model, processor, layers[0], 2)
        except ModelError:  # a processor that takes one image alone
            embedder = _embedder(model, processor, layers[0], 1)
        return Measured(_Bound(model, processor, layers[0], observe(embedder, layers)))

    @property
    def identity(self) -> str:
        """What the footprints depend on besides the model and its processor, for the identity of a run."""
        ids = () if self._bound is None else self._bound.behaviour.ids
        return f"measured v{_VERSION}, image ids {list(ids)}, attends {self.attends}"

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """All measurements so far, in the order they were made."""
        found = () if self._bound is None else self._bound.found.values()
        return tuple(one for made in found for one in made.images)

    @property
    def behaviour(self) -> Behaviour:
        """What was observed of the model: image ids, attention, positions."""
        return self._need().behaviour

    def measured(self, size: Size, processor: Any) -> Measurement:
        """Returns the measurement of a single image of (width, height), whether it can be used or not."""
        return self._measured((size,), processor).images[0]

    def inputs(self, size: Size, processor: Any) -> Mapping[str, Any]:
        """Returns what the processor makes of a grey image of (width, height)."""
        bound = self._need()
        return _embedder(bound.model, processor, bound.first, 1).inputs([_grey(size)])

    def describe(self) -> str:
        """Returns a line for reports: the number of measured sizes, the expected share of right tokens, the cost."""
        made = self.measurements
        if not made:
            return "footprints are measured; no image size was measured yet"
        trusts = [one.trust for one in made]
        return (
            f"footprints were measured at {count(len(made), 'image size')}, expected to be right for "
            f"{min(trusts):.0%} to {max(trusts):.0%} of the tokens, {sum(one.n_images for one in made)} pictures run"
        )

    def image_positions(self, input_ids: Any, config: Any) -> Int[np.ndarray, " token"]:
        """Returns the positions of the ids that were observed to change with an image."""
        return np.flatnonzero(np.isin(np.asarray(input_ids).reshape(-1), self._need().behaviour.ids))

    def footprints(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns the measured footprints; each image size is measured once, with its processor's settings.

        Images of a sample are measured one by one, or together where they give another number of tokens together than
        alone.

        Raises:
            ModelError: A measurement cannot be used, or a loader's thread asks for one that was not made yet.
        """
        if not sizes:
            return concatenate([])
        n = len(self.image_positions(inputs["input_ids"][0], config))
        alone = [self._measured((size,), processor) for size in sizes]
        if sum(len(one.footprints) for one in alone) != n and len(sizes) > 1:
            alone = [self._measured(tuple(sizes), processor)]
        for sample in alone:
            for one in sample.images:
                one.check()
        if len(alone) == 1:
            return alone[0].footprints
        return concatenate([one.footprints for one in alone])

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns the processor's image placeholder for each image and then the text."""
        head = "" if system is None else f"{system}\n"
        return head + _placeholder(self._need().processor) * n_images + f"\n{text}"

    def _need(self) -> _Bound:
        if self._bound is None:
            raise ModelError(
                'the adapter "measured" measures a model that is on hand: use interp.load(…, adapter="measured") or '
                'interp.wrap(model, processor, adapter="measured").'
            )
        return self._bound

    def _measured(self, sizes: tuple[Size, ...], processor: Any) -> _Sample:
        """Returns the measurement of each image of a sample of these sizes, made now or before."""
        bound = self._need()
        key = (sizes, repr(vars(getattr(processor, "image_processor", SimpleNamespace()))))
        if key not in bound.found:
            if threading.current_thread().name.startswith(_LOADER):
                raise ModelError(
                    f"images of {sizes} (width, height) were not measured yet; a loader leaves that to the computation."
                )
            embedder = _embedder(bound.model, processor, bound.first, len(sizes))
            made = tuple(measure(embedder, sizes, i) for i in range(len(sizes)))
            at = self.image_positions(embedder.ids([_grey(size) for size in sizes]), bound.model.config)
            bound.found[key] = _Sample(made, _of_all(made, at))
        return bound.found[key]


def _embedder(model: Any, processor: Any, first: nn.Module, n_images: int) -> Embedder:
    fallback = "\nand\n".join([_placeholder(processor)] * n_images) + "\nwhere is it?"
    return fitted(model, processor, first, n_images, fallback)


def _grey(size: Size) -> np.ndarray:
    return np.full((size[1], size[0], 3), 127, np.uint8)


def _placeholder(processor: Any) -> str:
    """Returns what stands for an image in a prompt."""
    named = (getattr(one, "image_token", None) for one in (processor, processor.tokenizer))
    return next((str(one) for one in named if one), "<image>")


def _of_all(made: Sequence[Measurement], at: Int[np.ndarray, " token"]) -> Footprints:
    """Returns the footprints of all image tokens of a sample; those that no image changes have none (newlines).

    Args:
        made: What was measured of each image.
        at: The positions of all image tokens.
    """
    boxes, views = np.full((len(at), 4), np.nan), np.full(len(at), "", dtype="<U16")
    image = np.full(len(at), -1)
    for i, one in enumerate(made):
        rows = np.searchsorted(at, one.positions)
        boxes[rows], views[rows], image[rows] = one.footprints.boxes, one.footprints.views, i
    for row in range(len(at)):  # a token that no image changes belongs to the one before it
        if image[row] < 0:
            image[row], views[row] = (image[row - 1], views[row - 1]) if row else (0, "")
    whole = len(made) == 1 and len(made[0].positions) == len(at)
    return Footprints(boxes, made[0].footprints.grid if whole else None, views, image)
