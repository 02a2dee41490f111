"""A sample: images or a video, a question, the boxes its answer rests on, and the group it belongs to."""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image

from interp.errors import BoxError, ImageError, SampleError
from interp.inputs.boxes import Box, BoxLike, as_boxes
from interp.inputs.images import ImageLike, LazyImage, image_size, load_image, normalise
from interp.inputs.masks import Mask, MaskLike, as_masks
from interp.inputs.notebook import sample_html
from interp.inputs.text import brief, count, faulty_text, storable
from interp.inputs.video import FIELDS, Video, as_video, content

__all__ = ["Box", "BoxLike", "ImageLike", "Sample", "as_boxes", "content"]

SHOWN = 4
"""Images that a line of text names."""
_KEYS = ("question", "boxes", "masks", "answer", "options", "group", "meta", "id")


class Sample:
    """One question about one or more images or a video, with the boxes its answer rests on. Immutable.

    Args:
        image: Path, PIL image or `(H, W[, C])` uint8 array. `image=x` means `images=[x]`.
        question: The question, in the user's own words.
        boxes: Half-open `(x0, y0, x1, y1)` in pixels of the original image. A `Box` can name another image. On a video
            each names its frame: `Box(x0, y0, x1, y1, frame=3)` or `(x0, y0, x1, y1, 3)`.
        answer: The expected answer, if known.
        options: The choices of a multiple-choice question, in order, each once.
        group: The patient, volume or scene the sample comes from. Statistics resample groups, not samples. Without
            one, samples of the same image form a group (`Samples.groups`).
        meta: Any other information. It is kept, but it is not part of the fingerprint.
        images: Several images, in the order the model sees them.
        id: The sample's name; by default the first 12 characters of the fingerprint.
        box_format: How `boxes` are written: "xyxy", "xywh" or "cxcywh" in pixels, or "fraction" for
            `(x0, y0, x1, y1)` as fractions of the image, whose size is then read at once. None stands for "xyxy",
            but refuses boxes that look like fractions.
        masks: Which pixels the answer rests on: paths of grey or palette images, PIL images or (H, W) arrays of the
            size of the image; a `Mask` can name another image or a label. Where no boxes are given, `boxes` are the
            smallest ones that hold each mask. On a video, a mask's `image` is its frame.
        video: A video instead of images: frames as a list of images or one (frame, H, W[, C]) uint8 array, a
            folder of frame images ordered by the numbers in their names, or a video file (extra `video`). `images` are
            then the frames that were taken, and `load(i)` reads frame i.
        fps: Frames per second of frames: frame i is at i / fps seconds. A video file has times of its own.
        times: The time of each frame in seconds, increasing; in place of `fps`.
        n_frames: How many frames to take, evenly spaced from the first to the last. None takes all.
        video_fps: How many frames to take per second; in place of `n_frames`.

    Raises:
        SampleError: No image, more than one of `image`, `images` and `video`, a video without times, a field of the
            wrong type, or text that cannot be stored: lone surrogates and control characters.
        ImageError: An array or object that is not an image. Files are opened only when needed.
        BoxError: A value that is not a box or a mask, or fractions given as pixels of an image in memory. (`check`
            compares boxes and masks with the sizes of all images.)
    """

    __slots__ = (
        "_boxes",
        "_cache",
        "_fault",
        "_id",
        "answer",
        "group",
        "images",
        "masks",
        "meta",
        "options",
        "question",
        "video",
    )

    images: tuple[ImageLike, ...]
    video: Video | None
    question: str
    masks: tuple[Mask, ...]
    answer: str | None
    options: tuple[str, ...] | None
    group: str | None
    meta: Mapping[str, Any]
    _repr_html_ = sample_html

    def __init__(
        self,
        image: ImageLike | None = None,
        question: str = "",
        boxes: Iterable[BoxLike] = (),
        answer: str | None = None,
        options: Sequence[str] | np.ndarray | None = None,
        group: str | int | None = None,
        meta: Mapping[str, Any] | None = None,
        *,
        images: Sequence[ImageLike] | None = None,
        id: str | None = None,
        box_format: str | None = None,
        masks: Iterable[MaskLike] = (),
        video: Any = None,
        fps: float | None = None,
        times: Sequence[float] | np.ndarray | None = None,
        n_frames: int | None = None,
        video_fps: float | None = None,
    ) -> None:
        put = object.__setattr__
        put(self, "_cache", {})
        put(self, "_fault", None)
        chosen = {"fps": fps, "times": times, "n_frames": n_frames, "video_fps": video_fps}
        put(self, "video", _video(video, image, images, chosen))
        put(self, "images", _images(self.video, image, images))
        put(self, "question", _text("question", question))
        put(self, "answer", None if answer is None else _text("answer", answer))
        put(self, "options", _options(options))
        put(self, "group", _group(group))
        put(self, "meta", _meta(meta))
        put(self, "_id", None if id is None else _text("id", id))
        put(self, "_boxes", as_boxes(boxes, box_format, self._size, video=self.video is not None))
        put(self, "masks", as_masks(masks))
        self._check_units(in_memory=True)

    @classmethod
    def unusable(
        cls,
        reason: str,
        *,
        id: str,
        group: str | int | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> Sample:
        """Returns a stand-in for a row that could not be read, with no images.

        A study records it as a failure with this reason. Its `check`, `sizes`, `image` and `load` raise the reason.
        """
        sample, put = cls.__new__(cls), object.__setattr__
        put(sample, "_cache", {})
        put(sample, "_fault", storable(reason))
        empty = {
            "images": (),
            "video": None,
            "question": "",
            "answer": None,
            "options": None,
            "_boxes": (),
            "masks": (),
        }
        for name, value in {
            **empty,
            "group": _group(group),
            "meta": _meta(meta),
            "_id": _text("id", id),
        }.items():
            put(sample, name, value)
        return sample

    @property
    def boxes(self) -> tuple[Box, ...]:
        """The boxes; where only masks were given, the smallest box that holds each of them.

        Raises:
            BoxError: A mask has no pixel inside.
            ImageError: A mask's file cannot be read.
        """
        if self._boxes or not self.masks:
            return self._boxes
        boxes = (mask.box for mask in self.masks)
        return tuple(boxes if self.video is None else (replace(box, frame=box.image) for box in boxes))

    @property
    def image(self) -> ImageLike:
        """The first image, as given; an image in memory was copied."""
        self._check_usable()
        return self.images[0]

    @property
    def pictures(self) -> dict[str, Any]:
        """The images or the video as an argument of `Sample` and of `replace`: what this sample shows, and no more."""
        return {"images": self.images} if self.video is None else {"video": self.video}

    @property
    def id(self) -> str:
        """The given id, else 12 hex characters of the fingerprint (of the paths where a file is unreadable)."""
        return self._id if self._id is not None else self._digest()[:12]

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 of images, question, boxes, masks, answer, options and group.

        Files are hashed by their bytes, images in memory by their RGB pixels. The value is computed once; if a
        file changes afterwards, make a new sample.

        Raises:
            ImageError: A file that cannot be read.
        """
        if self._fault is not None:
            return self._hash([f"unusable {self._fault}"])
        if "fingerprint" not in self._cache:
            masks = [mask.fingerprint for mask in self.masks]
            self._cache["fingerprint"] = self._hash(self.image_fingerprints, masks)
        return self._cache["fingerprint"]

    @property
    def image_fingerprints(self) -> tuple[str, ...]:
        """Hex SHA-256 of each image, as `fingerprint` counts it. Samples of the same images have the same ones.

        Of a video it is one for each frame, which also depends on the other frames and on their times.

        Raises:
            ImageError: A file that cannot be read.
        """
        self._check_usable()
        if "images" not in self._cache:
            self._cache["images"] = (
                tuple(content(raw, i) for i, raw in enumerate(self.images))
                if self.video is None
                else self.video.frame_fingerprints
            )
        return self._cache["images"]

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(width, height) of each image or frame as displayed; reads file headers only.

        Raises:
            ImageError: A file that is missing, not an image, or too large; frames of several sizes.
        """
        self._check_usable()
        if "sizes" not in self._cache:
            self._cache["sizes"] = (
                tuple(image_size(raw, i) for i, raw in enumerate(self.images))
                if self.video is None
                else (self.video.size,) * len(self.video)
            )
        return self._cache["sizes"]

    @property
    def is_usable(self) -> bool:
        """Whether the sample can be shown to a model; False for one made by `unusable`."""
        return self._fault is None

    @property
    def fault(self) -> str | None:
        """Why the row that the sample stands for could not be read; None for a sample that is usable."""
        return self._fault

    @property
    def in_memory(self) -> tuple[bool, ...]:
        """Whether each image is in memory rather than in a file, or its size is known without reading."""
        return tuple(
            raw.known_size is not None
            if isinstance(raw, LazyImage)
            else not isinstance(raw, str | os.PathLike)
            for raw in self.images
        )

    def load(self, i: int = 0) -> Image.Image:
        """Image `i`, or frame `i` of a video, as upright 8-bit RGB.

        EXIF rotation is applied, 16-bit grey is scaled by its own minimum and maximum, and transparent pixels
        become black.

        Raises:
            ImageError: Missing, corrupt, truncated or too large; the message names the file.
        """
        self._check_usable()
        if not isinstance(i, int | np.integer) or not 0 <= i < len(self.images):
            raise SampleError(
                f"the sample has {count(len(self.images), 'image')}, 0 … {len(self.images) - 1}; got {brief(i)}."
            )
        return load_image(self.images[i], i)

    def check(self) -> None:
        """Raises `BoxError` when a box or a mask does not fit its image; opens the headers of images that have any.

        A box does not fit if it reaches more than 0.5 px outside, names a missing image, or looks like fractions of
        the image. A mask fits if it has its image's size and a pixel inside; its file is read.

        Raises:
            BoxError: As above.
            SampleError: The sample stands for a row that could not be read.
        """
        self._check_usable()
        for box in self._boxes:
            if box.frame is not None and self.video is None:
                raise BoxError(
                    f"box {box.as_tuple()} names frame {box.frame}, but the sample has no video. Write image=."
                )
            if box.image >= len(self.images):
                raise BoxError(
                    f"box {box.as_tuple()} names {box.place}, but the sample has {self._n_images}, counted from 0."
                )
            box.check_inside(self.sizes[box.image])
        for mask in self.masks:
            if mask.image >= len(self.images):
                raise BoxError(
                    f"{mask!r} names image {mask.image}, but the sample has {self._n_images}, counted from 0."
                )
            mask.check(self.sizes[mask.image])

    def check_units(self) -> None:
        """Raises `BoxError` when a box looks like fractions of its image.

        Raises:
            BoxError: As above.
            SampleError: The sample stands for a row that could not be read.
        """
        self._check_usable()
        self._check_units(in_memory=False)

    def replace(self, **changes: Any) -> Sample:
        """Returns a copy with some fields changed. A default id changes with the content.

        Of a sample that stands for an unreadable row only `group`, `meta` and `id` change.
        """
        if self._fault is not None:
            own: dict[str, Any] = {"group": self.group, "meta": self.meta, "id": self._id}
            return Sample.unusable(
                self._fault, **(own | {name: changes[name] for name in own if name in changes})
            )
        _check_fields(changes)
        if any(changes.get(name) is not None for name in ("image", "images", "video")):
            changes = {"image": None, "images": None, "video": None, **changes}
        return Sample(**{**self._fields(), **changes})

    def to_dict(self) -> dict[str, Any]:
        """Returns the sample as JSON values, which `from_dict` reads.

        Raises:
            SampleError: An image or a frame lives in memory only, or meta is not JSON.
            BoxError: A mask lives in memory only.
        """
        self._check_usable()
        try:
            meta = json.loads(json.dumps(dict(self.meta), allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise SampleError(
                f"meta of sample {self.id} holds a value that JSON cannot store: {error}. Turn it into a text or a "
                "number, such as str(value), or leave it out."
            ) from error
        return {
            **self._source(),
            "question": self.question,
            "boxes": [[*box.as_tuple(), box.image] for box in self._boxes],
            "answer": self.answer,
            "options": None if self.options is None else list(self.options),
            "group": self.group,
            "meta": meta,
            "id": self._id,
            **({"box_format": "xyxy"} if any(box.pixels for box in self._boxes) else {}),
            **({"masks": [mask.to_dict() for mask in self.masks]} if self.masks else {}),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Sample:
        """Returns the sample that `to_dict` wrote. `image` is accepted in place of `images`.

        Raises:
            SampleError: A key that is not a field of a sample.
        """
        if not isinstance(record, Mapping):
            raise SampleError(f"from_dict reads a mapping of a sample's fields; got {brief(record)}.")
        _check_fields(record)
        return cls(**record)

    def _source(self) -> dict[str, Any]:
        """The images or the video as JSON values."""
        if self.video is not None:
            if self.video.spec is None:
                raise SampleError(
                    f"the video of sample {self.id} has frames in memory and no path to write down. Save them to a "
                    "folder and build the sample from it."
                )
            return dict(self.video.spec)
        for i, raw in enumerate(self.images):
            if not isinstance(raw, str | os.PathLike):
                raise SampleError(
                    f"image {i} of sample {self.id} is in memory ({type(raw).__name__}) and has no path to "
                    "write down. Save it to a file and build the sample from that path."
                )
        return {"images": [os.fspath(raw) for raw in self.images if isinstance(raw, str | os.PathLike)]}

    @property
    def _n_images(self) -> str:
        """How many images or frames, for messages."""
        return count(len(self.images), "image" if self.video is None else "frame")

    def _fields(self) -> dict[str, Any]:
        return (
            self.pictures
            | {"id": self._id, "boxes": self._boxes}
            | {key: getattr(self, key) for key in _KEYS if key not in ("id", "boxes")}
        )

    def _digest(self) -> str:
        """The fingerprint, or a hash of the paths where files cannot be read, so that every sample has an id."""
        try:
            return self.fingerprint
        except ImageError:
            images = [
                f"unreadable {raw if isinstance(raw, str | os.PathLike) else i}"
                for i, raw in enumerate(self.images)
            ]
            return self._hash(images, [repr(mask) for mask in self.masks])

    def _hash(self, images: Iterable[str], masks: Sequence[str] = ()) -> str:
        words: list[Any] = list(images)
        words += [self.question, [(*box.as_tuple(), box.image) for box in self._boxes]]
        words += [self.answer, self.options, self.group]
        words += [["masks", *masks]] if masks else []
        return hashlib.sha256(json.dumps(words).encode()).hexdigest()

    def _size(self, i: int) -> tuple[int, int]:
        """(width, height) of image `i`, for a box in fractions of it."""
        if i >= len(self.images):
            raise BoxError(f"a box names image {i}, but the sample has {self._n_images}, counted from 0.")
        return self.sizes[i]

    def _check_usable(self) -> None:
        if self._fault is not None:
            raise SampleError(self._fault)

    def _check_units(self, *, in_memory: bool) -> None:
        """Raises `BoxError` for fractions given as pixels; with `in_memory` only where no file must be opened."""
        if "units" in self._cache:
            return
        for box in self._boxes:
            known = box.may_be_fractions and box.image < len(self.images)
            if known and (not in_memory or self.in_memory[box.image]):
                box.check_units(image_size(self.images[box.image], box.image))
        if not in_memory:
            self._cache["units"] = True

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a Sample is immutable; use sample.replace({name}=…).")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a Sample is immutable; use sample.replace(…).")

    def __eq__(self, other: object) -> bool:
        return self._digest() == other._digest() if isinstance(other, Sample) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._digest())

    def __reduce__(self) -> tuple[Any, ...]:
        if self._fault is not None:
            fields = {"reason": self._fault, "id": self._id, "group": self.group, "meta": dict(self.meta)}
            return _rebuild_unusable, (fields,)
        return _rebuild, ({**self._fields(), "meta": dict(self.meta)}, dict(self._cache))

    def __repr__(self) -> str:
        if self._fault is not None:
            return f"Sample.unusable({self._fault!r}, id={self._id!r})"
        images = [_image_name(raw) for raw in self.images]
        masks = f", masks={len(self.masks)}" if self.masks else ""
        more = f", and {len(images) - SHOWN} more" if len(images) > SHOWN else ""
        shown = f"[{', '.join(images[:SHOWN])}{more}]" if self.video is None else f"video={self.video!r}"
        return f"Sample({shown}, {brief(self.question)}, boxes={len(self._boxes)}{masks}, answer={brief(self.answer)})"


def _image_name(raw: ImageLike) -> str:
    """An image in the sample's `repr`: its path, the name of one that is read later, else its type."""
    if isinstance(raw, LazyImage):
        return raw.name
    return storable(os.fspath(raw)) if isinstance(raw, str | os.PathLike) else type(raw).__name__


def _check_fields(given: Iterable[Any]) -> None:
    """Raises `SampleError` for a name that is not a field of a sample."""
    fields = ("image", "images", *_KEYS, "box_format", *FIELDS)
    unknown = sorted(str(name) for name in given if name not in fields)
    if unknown:
        raise SampleError(
            f"a sample has the fields {', '.join(fields)}; got {brief(unknown)}. Put extras under meta."
        )


def _rebuild(fields: dict[str, Any], cache: dict[str, Any]) -> Sample:
    """Returns an unpickled sample with the values that were already computed."""
    sample = Sample(**fields)
    sample._cache.update(cache)
    return sample


def _rebuild_unusable(fields: dict[str, Any]) -> Sample:
    return Sample.unusable(**fields)


def _gather(image: ImageLike | None, images: Sequence[ImageLike] | None) -> tuple[ImageLike, ...]:
    """The images, from either argument."""
    if image is not None and images is not None:
        raise SampleError("pass image= for one image or images=[…] for several, not both.")
    if isinstance(images, str | os.PathLike | Image.Image):
        raise SampleError("images= is a list; for one image pass image=.")
    if isinstance(images, Mapping | set | frozenset | bytes) or not isinstance(images, Iterable | None):
        raise SampleError(
            f"images= is a list of images in the order the model sees them; got {brief(images)}."
        )
    found = (image,) if image is not None else tuple(images if images is not None else ())
    if not found:
        raise SampleError("a sample needs at least one image: pass image=, images=[…] or video=.")
    return found


def _video(video: Any, image: Any, images: Any, options: Mapping[str, Any]) -> Video | None:
    """The video, if one is given; its options belong to it, and images do not."""
    if video is not None:
        if image is not None or images is not None:
            raise SampleError(
                "a sample shows images or a video, not both. For single frames pass images=[…] alone."
            )
        return as_video(video, **options)
    given = next((name for name, value in options.items() if value is not None), None)
    if given is not None:
        raise SampleError(f"{given}= belongs to a video; pass video= with its frames or its file.")
    return None


def _images(video: Video | None, image: Any, images: Any) -> tuple[ImageLike, ...]:
    """The images from whichever argument, or the frames of the video."""
    if video is not None:
        return video.frames
    return tuple(normalise(raw, i) for i, raw in enumerate(_gather(image, images)))


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise SampleError(f"{name} must be text; got {type(value).__name__} {brief(value)}.")
    if problem := faulty_text(name, value):
        raise SampleError(problem)
    return value


def _group(group: Any) -> str | None:
    if group is None:
        return None
    if isinstance(group, bool) or not isinstance(group, str | int | np.integer):
        raise SampleError(
            f"group is a text, a whole number or None; got {type(group).__name__} {brief(group)}. A missing value of "
            "a table is None, not NaN; for another kind of value pass str(value)."
        )
    return _text("group", str(group))


def _meta(meta: Any) -> Mapping[str, Any]:
    if not isinstance(meta, Mapping | None):
        raise SampleError(f"meta is a mapping of names to values; got {type(meta).__name__} {brief(meta)}.")
    if problem := faulty_text("meta", meta or {}):
        raise SampleError(problem)
    return MappingProxyType(dict(meta or {}))


def _options(options: Any) -> tuple[str, ...] | None:
    """The choices in order; refuses what has no order of its own, and choices that are not there or there twice."""
    if options is None:
        return None
    if isinstance(options, str):
        raise SampleError(f"options is a list of choices; got one text {options!r}.")
    if (
        not isinstance(options, Sequence | np.ndarray)
        or isinstance(options, bytes)
        or getattr(options, "ndim", 1) != 1
    ):
        raise SampleError(
            f"options is a list of choices in the order that letters them; got {type(options).__name__} "
            f'{brief(options)}. Write options=["first", "second"], or sort them: options=sorted(…).'
        )
    found = tuple(
        _text("an option", str(option) if isinstance(option, np.str_) else option) for option in options
    )
    if not found or not all(option.strip() for option in found):
        raise SampleError(
            f"options are choices that are not empty; got {brief(options)}. Leave options out where there are none."
        )
    same = [unicodedata.normalize("NFC", option.strip()) for option in found]
    twice = next((option for option in same if same.count(option) > 1), None)
    if twice is not None:
        raise SampleError(
            f"each option is given once; {twice!r} is given {same.count(twice)} times. Leave out those that repeat one."
        )
    return found
