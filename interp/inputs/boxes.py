"""Boxes: half-open rectangles in pixels of the original image, and the formats that they are read from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from interp.errors import BoxError
from interp.inputs.text import brief

__all__ = ["FORMATS", "Box", "BoxLike", "as_boxes", "check_format"]

Size = tuple[int, int]  # (width, height)

FORMATS = ("xyxy", "xywh", "cxcywh", "fraction")
"""Formats of a box: its corners; a corner and the size; the centre and the size; its corners as fractions of the
image. All but the last are in pixels."""

_SLACK = 0.5  # pixels that a box may reach outside its image
_ROUNDING = 1e-3  # how far a fraction may lie outside [0, 1]


@dataclass(frozen=True)
class Box:
    """A half-open rectangle `[x0, x1) × [y0, y1)` in pixels of the original image.

    Args:
        x0: Left edge.
        y0: Top edge.
        x1: Right edge, larger than `x0`.
        y1: Bottom edge, larger than `y0`.
        image: Index of the image in its sample (0-based). Leave it out for a video, whose boxes name a frame.
        frame: Index of the frame in the sample's video (0-based, among the frames that were chosen). A box on a video
            names one; a box on an image has None. `image` is then the same number.
        pixels: Whether the edges are certainly pixels. Otherwise a box whose edges are all at most 1 is taken for
            fractions of its image and refused. It does not count in comparisons.

    Raises:
        BoxError: An edge is not a finite number, the box is empty or inverted, or it names an image and a frame.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    image: int = 0
    pixels: bool = field(default=False, compare=False, repr=False)
    frame: int | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for name in ("x0", "y0", "x1", "y1"):
            object.__setattr__(self, name, _finite(name, getattr(self, name)))
        if isinstance(self.image, bool) or not isinstance(self.image, int | np.integer) or self.image < 0:
            raise BoxError(
                f"a box's image is an index 0, 1, … into the sample's images; got {brief(self.image)}."
            )
        object.__setattr__(self, "image", int(self.image))
        if self.frame is not None:
            self._place_in_video()
        if not (self.x1 > self.x0 and self.y1 > self.y0):
            raise BoxError(
                f"a box needs x1 > x0 and y1 > y0; got {self.as_tuple()}. Boxes are (x0, y0, x1, y1) in pixels: "
                'if these are (x, y, width, height), pass (x, y, x + width, y + height), or box_format="xywh" to '
                f"the sample or the reader.{_advice(self.as_tuple())}"
            )

    def _place_in_video(self) -> None:
        """Checks the frame, and gives `image` its number."""
        whole = isinstance(self.frame, int | np.integer) and not isinstance(self.frame, bool)
        if not whole or self.frame < 0:  # type: ignore[operator]
            raise BoxError(
                f"a box's frame is an index 0, 1, … into the frames of the sample's video; got {brief(self.frame)}."
            )
        if self.image not in (0, self.frame):
            raise BoxError(
                f"a box names an image or a frame of a video; got image={self.image} and frame={self.frame}. Leave "
                "image= out: a sample has one video."
            )
        object.__setattr__(self, "frame", int(self.frame))  # type: ignore[arg-type]
        object.__setattr__(self, "image", self.frame)

    @property
    def area(self) -> float:
        """Area in square pixels, positive."""
        return (self.x1 - self.x0) * (self.y1 - self.y0)

    @property
    def place(self) -> str:
        """The image or frame as messages name it: "image 0", "frame 3"."""
        return f"image {self.image}" if self.frame is None else f"frame {self.frame}"

    def as_tuple(self) -> tuple[float, float, float, float]:
        """The four edges `(x0, y0, x1, y1)`, without the image index."""
        return (self.x0, self.y0, self.x1, self.y1)

    def clip(self, width: float, height: float) -> Box:
        """The part of the box inside a `width` × `height` image.

        Raises:
            BoxError: Nothing of the box is inside, or a size that is no finite number.
        """
        width, height = _finite("width", width), _finite("height", height)
        x0, y0, x1, y1 = max(self.x0, 0.0), max(self.y0, 0.0), min(self.x1, width), min(self.y1, height)
        if not (x1 > x0 and y1 > y0):
            raise BoxError(
                f"box {self.as_tuple()} has no part inside its {width:g}×{height:g} image, so nothing is "
                "left to clip. Check the box's image and its units (pixels of the original image, not "
                "fractions)."
            )
        return Box(x0, y0, x1, y1, self.image, self.pixels, self.frame)

    @property
    def may_be_fractions(self) -> bool:
        """Whether every edge is at most 1 and the box is not marked as one in pixels."""
        return not self.pixels and _at_most_one(self.as_tuple())

    def check_units(self, size: Size) -> None:
        """Raises `BoxError` when the edges look like fractions of an image of (width, height): all are at most 1."""
        if self.may_be_fractions and max(size) > 1:
            raise BoxError(
                f"every edge of box {self.as_tuple()} is at most 1, but its image is {size[0]}×{size[1]} pixels."
                f'{_advice(self.as_tuple())} If these are pixels, say so: box_format="xyxy", or '
                "Box(…, pixels=True)."
            )

    def check_inside(self, size: Size) -> None:
        """Raises `BoxError` when the box does not fit an image of (width, height).

        It reaches more than 0.5 px outside, or its edges look like fractions of the image (`check_units`).
        """
        if not isinstance(size, tuple | list | np.ndarray) or len(size) != 2:
            raise BoxError(f"an image's size is (width, height) in pixels; got {size!r}.")
        for name, side in zip(("width", "height"), size, strict=True):
            _finite(name, side)
        self.check_units(size)
        width, height = size
        if self.is_beyond(size):
            raise BoxError(
                f"box {self.as_tuple()} reaches outside {self.place}, which is {width}×{height} pixels "
                "(width×height). Boxes are in pixels of the original image as displayed (EXIF rotation "
                f"applied). To cut the box to the image, call box.clip({width}, {height}); if the source writes "
                '(x, y, width, height), pass box_format="xywh".'
            )

    def is_beyond(self, size: Size) -> bool:
        """Whether the box reaches more than 0.5 px outside an image of (width, height)."""
        x0, y0, x1, y1 = self.as_tuple()
        return min(x0, y0) < -_SLACK or x1 > size[0] + _SLACK or y1 > size[1] + _SLACK


BoxLike: TypeAlias = Box | Sequence[Any] | np.ndarray


def _at_most_one(edges: Iterable[float]) -> bool:
    return all(abs(edge) <= 1 for edge in edges)


def _advice(edges: Iterable[float]) -> str:
    """What to write instead of fractions; empty where the edges are none."""
    if not _at_most_one(edges):
        return ""
    return (
        ' These look like fractions of the image: for (x0, y0, x1, y1) pass box_format="fraction"; multiply '
        "fractions in another order by the image's width and height first."
    )


def _finite(name: str, value: Any) -> float:
    """Returns `value` as a float; the error names the edge."""
    try:
        numeric = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
        number = float(value) if numeric else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise BoxError(f"a box's edges are finite numbers of pixels; got {name}={brief(value)}.")
    return number


def check_format(box_format: str | None) -> None:
    """Raises `BoxError` unless the format is None or one of `FORMATS`."""
    if box_format is not None and (not isinstance(box_format, str) or box_format not in FORMATS):
        raise BoxError(
            f"box_format is one of {', '.join(map(repr, FORMATS))}, or None for (x0, y0, x1, y1) in pixels; got "
            f"{brief(box_format)}."
        )


def as_boxes(
    boxes: Iterable[BoxLike],
    box_format: str | None = None,
    size_of: Callable[[int], Size] | None = None,
    *,
    video: bool = False,
) -> tuple[Box, ...]:
    """Returns the boxes as `Box` values; accepts `Box`, tuples of four numbers `(…[, image])` and array rows.

    A `Box` is in pixels already, whatever the format.

    Args:
        boxes: The boxes.
        box_format: One of `FORMATS`. None stands for "xyxy"; then a box of which every edge is at most 1 is refused
            as soon as its image is known to be larger. With "xyxy" it is one of pixels.
        size_of: Returns (width, height) of an image by its index; "fraction" needs it.
        video: Whether they are of a video; then a fifth number is the frame, and each box names one.

    Raises:
        BoxError: One of them is not a box or, of a video, names no frame; a single box was given where a list is
            expected; the format is unknown.
    """
    check_format(box_format)
    if isinstance(boxes, Box):
        raise BoxError(f"expected a list of boxes, got one box; write boxes=[{boxes.as_tuple()}].")
    if isinstance(boxes, str | bytes | Mapping) or not isinstance(boxes, Iterable):
        raise BoxError(f"expected a list of boxes (x0, y0, x1, y1), got {brief(boxes)}.")
    try:
        listed = list(boxes)
    except TypeError as error:  # an array or tensor without dimensions
        raise BoxError(f"expected a list of boxes (x0, y0, x1, y1), got {brief(boxes)}.") from error
    found = tuple(_as_box(box, box_format, size_of, video) for box in listed)
    if video:
        _check_frames(found)
    return found


def _check_frames(boxes: Iterable[Box]) -> None:
    for box in boxes:
        if box.frame is None:
            raise BoxError(
                f"box {box.as_tuple()} is of a video and names no frame. Write Box(x0, y0, x1, y1, frame=3), or "
                "(x0, y0, x1, y1, 3); for something that stays in its place, one box for each frame."
            )


def _as_box(
    box: Any, box_format: str | None, size_of: Callable[[int], Size] | None, video: bool = False
) -> Box:
    if isinstance(box, Box):
        return replace(box, pixels=True) if box_format == "xyxy" else box
    if isinstance(box, int | float | np.number):
        raise BoxError(
            f"expected a list of boxes, got a bare number {brief(box)}; write boxes=[(x0, y0, x1, y1)]."
        )
    listed = isinstance(box, Sequence) or (isinstance(box, np.ndarray) and box.ndim == 1)
    values: list[Any] = list(box) if listed and not isinstance(box, str | bytes) else []
    edges = [value.item() if isinstance(value, np.generic) else value for value in values]
    if len(edges) not in (4, 5):
        raise BoxError(f"a box is (x0, y0, x1, y1) or (x0, y0, x1, y1, image); got {brief(box)}.")
    if len(edges) == 5 and isinstance(edges[4], float) and edges[4].is_integer():
        edges[4] = int(edges[4])  # a row of a float array
    if box_format in (None, "xyxy"):
        made = Box(*edges, pixels=box_format == "xyxy")
    else:
        made = _converted(edges, str(box_format), size_of)
    return replace(made, frame=made.image) if video and len(edges) == 5 else made


def _converted(edges: list[Any], box_format: str, size_of: Callable[[int], Size] | None) -> Box:
    """The box of four numbers in another format than corners in pixels, and perhaps the index of its image."""
    names = {"xywh": "xywh", "cxcywh": ("cx", "cy", "w", "h"), "fraction": ("x0", "y0", "x1", "y1")}
    a, b, c, d = (_finite(name, edge) for name, edge in zip(names[box_format], edges, strict=False))
    image = edges[4:]
    if box_format == "fraction":
        return _from_fractions((a, b, c, d), image, size_of)
    if not (c > 0 and d > 0):
        raise BoxError(
            f"a box of format {box_format!r} needs a width and a height above 0; got {(a, b, c, d)}. "
            "Leave out boxes without an area."
        )
    x, y = (a, b) if box_format == "xywh" else (a - c / 2, b - d / 2)
    return Box(x, y, x + c, y + d, *image)


def _from_fractions(
    edges: tuple[float, float, float, float], image: list[Any], size_of: Callable[[int], Size] | None
) -> Box:
    """The box in pixels of its image."""
    if not all(-_ROUNDING <= edge <= 1 + _ROUNDING for edge in edges):
        raise BoxError(
            f'a box of format "fraction" lies between 0 and 1; got {edges}. Leave box_format out for pixels.'
        )
    box = Box(*edges, *image, pixels=True)
    if size_of is None:
        raise BoxError(f"the box {edges} is in fractions of an image whose size is not known; give pixels.")
    width, height = size_of(box.image)
    x0, y0, x1, y1 = (min(max(edge, 0.0), 1.0) for edge in edges)
    return Box(x0 * width, y0 * height, x1 * width, y1 * height, box.image, pixels=True)
