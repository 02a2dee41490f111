"""A sample: images, a question, the boxes its answer rests on, and the group it belongs to."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from interp.errors import BoxError, ImageError, SampleError
from interp.inputs.images import ImageLike, image_size, load_image, normalise

__all__ = ["Box", "BoxLike", "ImageLike", "Sample", "as_boxes"]

_KEYS = ("question", "boxes", "answer", "options", "group", "meta", "id")
_SLACK = 0.5  # pixels that a box may reach outside its image


@dataclass(frozen=True)
class Box:
    """A half-open rectangle `[x0, x1) × [y0, y1)` in pixels of the original image.

    Args:
        x0: Left edge.
        y0: Top edge.
        x1: Right edge, larger than `x0`.
        y1: Bottom edge, larger than `y0`.
        image: Index of the image in its sample (0-based).

    Raises:
        BoxError: An edge is not a finite number, or the box is empty or inverted.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    image: int = 0

    def __post_init__(self) -> None:
        for name in ("x0", "y0", "x1", "y1"):
            object.__setattr__(self, name, _finite(name, getattr(self, name)))
        if isinstance(self.image, bool) or not isinstance(self.image, int | np.integer) or self.image < 0:
            raise BoxError(f"a box's image is an index 0, 1, … into the sample's images; got {self.image!r}.")
        object.__setattr__(self, "image", int(self.image))
        if not (self.x1 > self.x0 and self.y1 > self.y0):
            raise BoxError(
                f"a box needs x1 > x0 and y1 > y0; got {self.as_tuple()}. Boxes are (x0, y0, x1, y1): "
                "if these are (x, y, width, height), pass (x, y, x + width, y + height)."
            )

    @property
    def area(self) -> float:
        """Area in square pixels, positive."""
        return (self.x1 - self.x0) * (self.y1 - self.y0)

    def as_tuple(self) -> tuple[float, float, float, float]:
        """The four edges `(x0, y0, x1, y1)`, without the image index."""
        return (self.x0, self.y0, self.x1, self.y1)

    def clip(self, width: float, height: float) -> Box:
        """The part of the box inside a `width` × `height` image.

        Raises:
            BoxError: Nothing of the box is inside.
        """
        x0, y0, x1, y1 = max(self.x0, 0.0), max(self.y0, 0.0), min(self.x1, width), min(self.y1, height)
        if not (x1 > x0 and y1 > y0):
            raise BoxError(
                f"box {self.as_tuple()} has no part inside its {width:g}×{height:g} image, so nothing is "
                "left to clip. Check the box's image and its units (pixels of the original image, not "
                "fractions)."
            )
        return Box(x0, y0, x1, y1, self.image)

    def check_inside(self, size: tuple[int, int]) -> None:
        """Raises `BoxError` when the box reaches more than 0.5 px outside an image of (width, height)."""
        width, height = size
        x0, y0, x1, y1 = self.as_tuple()
        if min(x0, y0) < -_SLACK or x1 > width + _SLACK or y1 > height + _SLACK:
            raise BoxError(
                f"box {self.as_tuple()} reaches outside image {self.image}, which is {width}×{height} pixels "
                "(width×height). Boxes are in pixels of the original image as displayed (EXIF rotation "
                f"applied). To cut the box to the image, call box.clip({width}, {height})."
            )


BoxLike: TypeAlias = Box | Sequence[Any] | np.ndarray


def _finite(name: str, value: Any) -> float:
    """Returns `value` as a float; the error names the edge."""
    number = value if isinstance(value, int | float | np.integer | np.floating) else None
    if number is None or isinstance(value, bool) or not math.isfinite(number):
        raise BoxError(f"a box's edges are finite numbers of pixels; got {name}={value!r}.")
    return float(number)


def as_boxes(boxes: Iterable[BoxLike]) -> tuple[Box, ...]:
    """Returns the boxes as `Box` values; accepts `Box`, tuples `(x0, y0, x1, y1[, image])` and array rows.

    Raises:
        BoxError: One of them is not a box, or a single box was given where a list is expected.
    """
    if isinstance(boxes, Box):
        raise BoxError(f"expected a list of boxes, got one box; write boxes=[{boxes.as_tuple()}].")
    if isinstance(boxes, str | bytes | Mapping) or not isinstance(boxes, Iterable):
        raise BoxError(f"expected a list of boxes (x0, y0, x1, y1), got {boxes!r}.")
    return tuple(_as_box(box) for box in boxes)


def _as_box(box: BoxLike) -> Box:
    if isinstance(box, Box):
        return box
    if isinstance(box, int | float | np.number):
        raise BoxError(
            f"expected a list of boxes, got a bare number {box!r}; write boxes=[(x0, y0, x1, y1)]."
        )
    listed = isinstance(box, Sequence | np.ndarray) and not isinstance(box, str | bytes)
    edges: list[Any] = [e.item() if isinstance(e, np.generic) else e for e in box] if listed else []
    if len(edges) not in (4, 5):
        raise BoxError(f"a box is (x0, y0, x1, y1) or (x0, y0, x1, y1, image); got {box!r}.")
    if len(edges) == 5 and isinstance(edges[4], float) and edges[4].is_integer():
        edges[4] = int(edges[4])  # a row of a float array
    return Box(*edges)


class Sample:
    """One question about one or more images, with the boxes its answer rests on. Immutable.

    Args:
        image: Path, PIL image or `(H, W[, C])` uint8 array. `image=x` means `images=[x]`.
        question: The question, in the user's own words.
        boxes: Half-open `(x0, y0, x1, y1)` in pixels of the original image. A `Box` can name another image.
        answer: The expected answer, if known.
        options: The choices of a multiple-choice question.
        group: The patient, volume or scene the sample comes from. Statistics resample groups, not samples.
        meta: Any other information. It is kept, but it is not part of the fingerprint.
        images: Several images, in the order the model sees them.
        id: The sample's name; by default the first 12 characters of the fingerprint.

    Raises:
        SampleError: No image, both `image` and `images`, or a field of the wrong type.
        ImageError: An array or object that is not an image. Files are opened only when needed.
        BoxError: A value that is not a box. (`check` compares boxes with the sizes of their images.)
    """

    __slots__ = ("_cache", "_id", "answer", "boxes", "group", "images", "meta", "options", "question")

    images: tuple[ImageLike, ...]
    question: str
    boxes: tuple[Box, ...]
    answer: str | None
    options: tuple[str, ...] | None
    group: str | None
    meta: Mapping[str, Any]

    def __init__(
        self,
        image: ImageLike | None = None,
        question: str = "",
        boxes: Iterable[BoxLike] = (),
        answer: str | None = None,
        options: Sequence[str] | None = None,
        group: str | int | None = None,
        meta: Mapping[str, Any] | None = None,
        *,
        images: Sequence[ImageLike] | None = None,
        id: str | None = None,
    ) -> None:
        put = object.__setattr__
        put(self, "images", tuple(normalise(raw, i) for i, raw in enumerate(_gather(image, images))))
        put(self, "question", _text("question", question))
        put(self, "boxes", as_boxes(boxes))
        put(self, "answer", None if answer is None else _text("answer", answer))
        put(self, "options", _options(options))
        put(self, "group", None if group is None else str(group))
        put(self, "meta", MappingProxyType(dict(meta or {})))
        put(self, "_id", None if id is None else _text("id", id))
        put(self, "_cache", {})

    @property
    def image(self) -> ImageLike:
        """The first image, as given; an image in memory was copied."""
        return self.images[0]

    @property
    def id(self) -> str:
        """The given id, else 12 hex characters of the fingerprint (of the paths where a file is unreadable)."""
        return self._id if self._id is not None else self._digest()[:12]

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 of images, question, boxes, answer, options and group.

        Files are hashed by their bytes, images in memory by their RGB pixels. The value is computed once; if a
        file changes afterwards, make a new sample.

        Raises:
            ImageError: A file that cannot be read.
        """
        if "fingerprint" not in self._cache:
            self._cache["fingerprint"] = self._hash(self.image_fingerprints)
        return self._cache["fingerprint"]

    @property
    def image_fingerprints(self) -> tuple[str, ...]:
        """Hex SHA-256 of each image, as `fingerprint` counts it. Samples of the same images have the same ones.

        Raises:
            ImageError: A file that cannot be read.
        """
        if "images" not in self._cache:
            self._cache["images"] = tuple(_content(raw, i) for i, raw in enumerate(self.images))
        return self._cache["images"]

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(width, height) of each image as displayed; reads file headers only.

        Raises:
            ImageError: A file that is missing, not an image, or too large.
        """
        if "sizes" not in self._cache:
            self._cache["sizes"] = tuple(image_size(raw, i) for i, raw in enumerate(self.images))
        return self._cache["sizes"]

    def load(self, i: int = 0) -> Image.Image:
        """Image `i` as upright 8-bit RGB.

        EXIF rotation is applied, 16-bit grey is scaled by its own minimum and maximum, and transparent pixels
        become black.

        Raises:
            ImageError: Missing, corrupt, truncated or too large; the message names the file.
        """
        if not 0 <= i < len(self.images):
            raise SampleError(
                f"the sample has {len(self.images)} image(s), 0 … {len(self.images) - 1}; got {i}."
            )
        return load_image(self.images[i], i)

    def check(self) -> None:
        """Raises `BoxError` when a box reaches more than 0.5 px outside its image or names a missing image."""
        for box in self.boxes:
            if box.image >= len(self.images):
                raise BoxError(
                    f"box {box.as_tuple()} names image {box.image}, but the sample has {len(self.images)} "
                    "image(s), counted from 0."
                )
            box.check_inside(self.sizes[box.image])

    def replace(self, **changes: Any) -> Sample:
        """Returns a copy with some fields changed. A default id changes with the content."""
        if "image" in changes:
            changes.setdefault("images", None)
        return Sample(**{**self._fields(), **changes})

    def to_dict(self) -> dict[str, Any]:
        """Returns the sample as JSON values, which `from_dict` reads.

        Raises:
            SampleError: An image lives in memory only, or meta is not JSON.
        """
        paths = [os.fspath(raw) for raw in self.images if isinstance(raw, str | os.PathLike)]
        for i, raw in enumerate(self.images):
            if not isinstance(raw, str | os.PathLike):
                raise SampleError(
                    f"image {i} of sample {self.id} is in memory ({type(raw).__name__}) and has no path to "
                    "write down. Save it to a file and build the sample from that path."
                )
        try:
            meta = json.loads(json.dumps(dict(self.meta), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise SampleError(
                f"meta of sample {self.id} holds a value that JSON cannot store: {error}."
            ) from error
        return {
            "images": paths,
            "question": self.question,
            "boxes": [[*box.as_tuple(), box.image] for box in self.boxes],
            "answer": self.answer,
            "options": None if self.options is None else list(self.options),
            "group": self.group,
            "meta": meta,
            "id": self._id,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Sample:
        """Returns the sample that `to_dict` wrote. `image` is accepted in place of `images`.

        Raises:
            SampleError: A key that is not a field of a sample.
        """
        unknown = set(record) - {"image", "images", *_KEYS}
        if unknown:
            known = ", ".join(("image", "images", *_KEYS))
            raise SampleError(
                f"a sample has the fields {known}; got {sorted(unknown)}. Put extras under meta."
            )
        return cls(**record)

    def _fields(self) -> dict[str, Any]:
        return {"images": self.images, "id": self._id} | {
            key: getattr(self, key) for key in _KEYS if key != "id"
        }

    def _digest(self) -> str:
        """The fingerprint, or a hash of the paths where files cannot be read, so that every sample has an id."""
        try:
            return self.fingerprint
        except ImageError:
            return self._hash(
                [
                    f"unreadable {raw if isinstance(raw, str | os.PathLike) else i}"
                    for i, raw in enumerate(self.images)
                ]
            )

    def _hash(self, images: Iterable[str]) -> str:
        words: list[Any] = list(images)
        words += [self.question, [(*box.as_tuple(), box.image) for box in self.boxes]]
        words += [self.answer, self.options, self.group]
        return hashlib.sha256(json.dumps(words).encode()).hexdigest()

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a Sample is immutable; use sample.replace({name}=…).")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a Sample is immutable; use sample.replace(…).")

    def __eq__(self, other: object) -> bool:
        return self._digest() == other._digest() if isinstance(other, Sample) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._digest())

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, ({**self._fields(), "meta": dict(self.meta)}, dict(self._cache))

    def __repr__(self) -> str:
        images = ", ".join(
            os.fspath(r) if isinstance(r, str | os.PathLike) else type(r).__name__ for r in self.images
        )
        return f"Sample([{images}], {self.question!r}, boxes={len(self.boxes)}, answer={self.answer!r})"


def _rebuild(fields: dict[str, Any], cache: dict[str, Any]) -> Sample:
    """Returns an unpickled sample with the values that were already computed."""
    sample = Sample(**fields)
    sample._cache.update(cache)
    return sample


def _content(raw: ImageLike, i: int) -> str:
    """Hex hash of a file's bytes or of an in-memory image's RGB pixels."""
    if not isinstance(raw, str | os.PathLike):
        rgb = load_image(raw, i)
        return hashlib.sha256(f"{rgb.size}".encode() + rgb.tobytes()).hexdigest()
    try:
        with open(raw, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ImageError(f"image {os.fspath(raw)!r} cannot be read ({error}). Check the path.") from error


def _gather(image: ImageLike | None, images: Sequence[ImageLike] | None) -> tuple[ImageLike, ...]:
    """The images, from either argument."""
    if image is not None and images is not None:
        raise SampleError("pass image= for one image or images=[…] for several, not both.")
    if isinstance(images, str | os.PathLike | Image.Image):
        raise SampleError("images= is a list; for one image pass image=.")
    found = (image,) if image is not None else tuple(images if images is not None else ())
    if not found:
        raise SampleError("a sample needs at least one image: pass image= or images=[…].")
    return found


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise SampleError(f"{name} must be text; got {type(value).__name__} {value!r}.")
    return value


def _options(options: Sequence[str] | None) -> tuple[str, ...] | None:
    if options is None:
        return None
    if isinstance(options, str):
        raise SampleError(f"options is a list of choices; got one text {options!r}.")
    return tuple(_text("an option", option) for option in options)
