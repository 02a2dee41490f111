"""Conventions of boxes in text: what the four numbers mean that a model of some family writes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from interp.errors import BoxError
from interp.inputs.prompt import Prompt
from interp.inputs.text import brief

__all__ = ["ASK", "BOX_CONVENTIONS", "BoxConvention", "convention_of"]

Frame = Literal["image", "resized", "padded"]
SYNTAXES = ("json", "tags", "location tokens", "patch tokens", "lists")
FRAMES = ("image", "resized", "padded")
ORDERS = ("xyxy", "yxyx")
ASK = "{question} Give the bounding box of the region that shows it."
_PHRASE = "Please provide the bounding box coordinate of the region this sentence describes: {question}"


@dataclass(frozen=True)
class BoxConvention:
    """How a model writes a box: its syntax, and what the four numbers mean.

    Args:
        name: What it is called.
        syntax: "json" (objects with `bbox_2d`), "tags" (`<box>…</box>`), "location tokens" (`<loc0123>`), "patch
            tokens" (Kosmos-2's `<patch_index_0123>`), or "lists" (`[0.1, 0.2, 0.3, 0.4]` anywhere).
        scale: What stands for the whole side of the frame: 1 for fractions, 1000, 1024, the 32 cells of Kosmos-2.
            None: pixels.
        frame: What the numbers are relative to: "image", the original image; "resized", the image as the processor
            resized it; "padded", the image padded to a square of its longer side, offset ⌊(s − side)/2⌋.
        order: "xyxy" or "yxyx".
        template: How such a model is asked for a box; see `prompt`.
        source: Where the convention was read.

    Raises:
        BoxError: An unknown syntax, frame or order, or a scale that is no number above 0.
    """

    name: str
    syntax: str
    scale: float | None
    frame: Frame = "image"
    order: str = "xyxy"
    template: str = ASK
    source: str = ""

    def __post_init__(self) -> None:
        for field, value, known in (
            ("syntax", self.syntax, SYNTAXES),
            ("frame", self.frame, FRAMES),
            ("order", self.order, ORDERS),
        ):
            if not isinstance(value, str) or value not in known:
                raise BoxError(
                    f"{field} of a box convention is one of {', '.join(map(repr, known))}; got {brief(value)}."
                )
        real = isinstance(self.scale, int | float) and not isinstance(self.scale, bool)
        if self.scale is not None and not (real and math.isfinite(self.scale) and self.scale > 0):
            raise BoxError(
                "scale is what stands for the whole side, a number above 0, or None for pixels; got "
                f"{brief(self.scale)}."
            )

    @property
    def prompt(self) -> Prompt:
        """The prompt that asks a model of this convention for a box: `{question}` is what it should show."""
        return Prompt(template=self.template)

    def to_dict(self) -> dict[str, Any]:
        """What the numbers of a study depend on."""
        return {
            "name": self.name,
            "syntax": self.syntax,
            "scale": self.scale,
            "frame": self.frame,
            "order": self.order,
        }


_CONVENTIONS = (
    BoxConvention(
        "qwen2_5_vl",
        "json",
        None,
        "resized",
        template='{question} Output its bounding box in JSON format: [{{"bbox_2d": [x0, y0, x1, y1], "label": "…"}}]',
        source="Qwen2.5-VL's cookbook spatial_understanding.ipynb; QwenLM/Qwen3-VL#931 on the resized image",
    ),
    BoxConvention(
        "qwen3_vl",
        "json",
        1000,
        template='{question} Output its bounding box in JSON format: [{{"bbox_2d": [x0, y0, x1, y1], "label": "…"}}]',
        source="Qwen3-VL's cookbook spatial_understanding.ipynb: relative coordinates 0 to 1000",
    ),
    BoxConvention(
        "qwen2_vl",
        "tags",
        1000,
        template="Detect the bounding box: {question}",
        source="the model card and report of Qwen2-VL, arXiv 2409.12191, from memory: not checked against the code",
    ),
    BoxConvention(
        "qwen_vl",
        "tags",
        1000,
        template="Give the bounding box: {question}",
        source="Qwen-VL's README, arXiv 2308.12966, from memory: not checked against the code",
    ),
    BoxConvention(
        "internvl",
        "tags",
        1000,
        template=_PHRASE.replace("{question}", "<ref>{question}</ref>"),
        source="OpenGVLab/InternVL#285: int(x / width * 1000) of the original image",
    ),
    BoxConvention(
        "medmo",
        "tags",
        1000,
        template="{question} Detect and localize it in this image.",
        source="the README of genmilab/MedMO: `Fractures <box>[[156, 516, 231, 607], …]</box>`. It does not say what "
        "the numbers mean: 0 to 1000, as of Qwen3-VL that MedMO is built on, is an assumption",
    ),
    BoxConvention(
        "paligemma",
        "location tokens",
        1024,
        order="yxyx",
        template="detect {question}",
        source="the README of big_vision's PaliGemma: y0 x0 y1 x1 in 1024 bins of the image",
    ),
    BoxConvention(
        "kosmos2",
        "patch tokens",
        32,
        template="<grounding><phrase>{question}</phrase>",
        source="transformers' processing_kosmos2.py",
    ),
    BoxConvention(
        "llava",
        "lists",
        1,
        "padded",
        template=_PHRASE,
        source="haotian-liu/LLaVA#606: fractions of the image padded to a square",
    ),
    BoxConvention(
        "shikra",
        "lists",
        1,
        "padded",
        template=_PHRASE,
        source="Shikra, arXiv 2306.15195, from memory: its code pads to a square before it normalises; not checked",
    ),
    BoxConvention(
        "fractions",
        "lists",
        1,
        source="[x0, y0, x1, y1] as fractions of the original image: for models that are asked for them",
    ),
)

BOX_CONVENTIONS: Mapping[str, BoxConvention] = MappingProxyType({one.name: one for one in _CONVENTIONS})
"""The conventions by name; each says where it was read, and what could not be checked."""
_OF_FAMILY = {
    "qwen2_vl": "qwen2_vl",
    "qwen2_5_vl": "qwen2_5_vl",
    "qwen3_vl": "qwen3_vl",
    "qwen3_vl_moe": "qwen3_vl",
    "internvl": "internvl",
    "paligemma": "paligemma",
}
"""Model family → convention, where the family's own training has one. LLaVA's family holds models that state none."""


def convention_of(name: Any, family: str | None = None) -> BoxConvention:
    """The convention: as it is, by its name, or with None that of a model's family.

    Args:
        name: A `BoxConvention`, a name of `BOX_CONVENTIONS`, or None.
        family: The family of a model, as `mllm.family` names it.

    Raises:
        BoxError: No such convention, or a family that has none of its own.
    """
    if isinstance(name, BoxConvention):
        return name
    known = ", ".join(map(repr, BOX_CONVENTIONS))
    if name is None:
        found = _OF_FAMILY.get(str(family))
        if found is None:
            raise BoxError(
                f"models of the family {family!r} have no convention of their own for boxes. Name the one that this "
                f"model was trained with: convention= takes {known}, or an interp.BoxConvention."
            )
        return BOX_CONVENTIONS[found]
    if not isinstance(name, str) or name not in BOX_CONVENTIONS:
        raise BoxError(f"convention is one of {known}, or an interp.BoxConvention; got {brief(name)}.")
    return BOX_CONVENTIONS[name]
