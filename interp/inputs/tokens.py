"""Where each token of one prompt lies: its position in the sequence and, for image tokens, its place in the image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from interp.errors import BoxError, ImageTokenMismatch, InterpError, MapError, SiteError
from interp.inputs.footprints import CrossKeys, covered_area, squash
from interp.inputs.masks import Mask, covered_by, union
from interp.inputs.notebook import token_map_html
from interp.inputs.sample import Box, BoxLike, as_boxes
from interp.inputs.text import count, word_spellings

__all__ = ["TokenMap", "Word", "word"]

_BUILT_IN = ("last", "after_image", "text", "image")
_RULES = ("touch", "center", "stretch")
_NO_QUESTION = " A generic prompt has no question; nor has one that the chat template rewrites."
_SLIVER = 1e-6  # share of a cell: a smaller overlap is a rounding error and does not count


@dataclass(frozen=True)
class Word:
    """A word of the question or several consecutive words; built by `word`."""

    text: str

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not word_spellings(self.text):
            raise SiteError(f"a word consists of letters or digits of the question; got {self.text!r}.")


def word(text: str) -> Word:
    """Returns a word of the question, or several that follow each other, for a site's queries or keys.

    Every occurrence counts, whatever its case, its accents' encoding (composed or not) and its width. In scripts
    without spaces between words, such as Chinese or Thai, a word is found wherever its characters are.
    """
    return Word(text)


@dataclass(frozen=True, eq=False, repr=False)
class TokenMap:
    """One sample's tokens, by unpadded position: 0 is the sample's own first token.

    Attributes:
        image: (token,) positions of the image tokens, increasing.
        footprints: (token, 4) xyxy in pixels of the original image; NaN rows are tokens without area.
        grid: (rows, cols) if the image tokens are row-major grids of that shape; otherwise None.
        views: (token,) name of each token's view.
        image_index: (token,) index of each token's image in the sample; in a video, of its first frame.
        sizes: (width, height) of each image or frame.
        length: S, the number of tokens of the prompt.
        spans: Named groups of text positions, such as "question".
        words: The question's words in order, each with its positions.
        cross: The keys of cross-attention layers (mllama), of which `image` are then columns; None for other families.
        frames: (token, 2) the half-open range of the frames that a token stands for: some models merge two frames into
            a token. Of images it is `image_index` and `image_index` + 1.
        frame_times: (frame,) the time of each frame of a video in seconds; empty for images.

    Raises:
        ImageTokenMismatch: The numbers of footprints and of image tokens differ.
        MapError: Another array has the wrong shape or range.
    """

    image: Int[np.ndarray, " token"]
    footprints: Float[np.ndarray, "token 4"]
    grid: tuple[int, int] | None
    views: np.ndarray
    image_index: Int[np.ndarray, " token"]
    sizes: tuple[tuple[int, int], ...]
    length: int
    spans: Mapping[str, Int[np.ndarray, " position"]] = field(default_factory=dict)
    words: tuple[tuple[str, tuple[int, ...]], ...] = ()
    cross: CrossKeys | None = None
    frames: Int[np.ndarray, "token 2"] = None  # type: ignore[assignment] - set when the map is made
    frame_times: Float[np.ndarray, " frame"] = field(default_factory=lambda: np.empty(0))

    counted = "image tokens"
    """What `image` are, in errors."""
    whole = "prompt tokens"
    """What `length` counts, in errors."""
    _repr_html_ = token_map_html

    def __post_init__(self) -> None:
        if isinstance(self.length, bool) or not isinstance(self.length, int | np.integer):
            raise MapError(f"length is the number of tokens of the prompt; got {self.length!r}.")
        try:
            self._convert()
        except InterpError:
            raise
        except (AttributeError, LookupError, TypeError, ValueError, OverflowError, RuntimeError) as error:
            raise MapError(
                "a TokenMap takes image, image_index and footprints as arrays of numbers, grid as (rows, cols) or "
                "None, sizes as (width, height) of each image, spans as names with positions, and words as pairs of a "
                f"word and its positions; numpy or Python says: {type(error).__name__}: {error}."
            ) from error

    def _convert(self) -> None:
        image = _positions("image", self.image, self.length if self.cross is None else self.cross.n)
        footprints = _unchanging(self.footprints, np.float64).reshape(-1, 4)
        if len(footprints) != len(image):
            raise ImageTokenMismatch(
                f"the prompt holds {len(image)} image tokens but there are {len(footprints)} footprints. The "
                "adapter's image_positions and footprints must agree."
            )
        views = _unchanging(self.views, np.str_) if len(image) else np.empty(0, str)
        index = _unchanging(self.image_index, np.int64).reshape(-1)
        frames = np.stack([index, index + 1], axis=1) if self.frames is None else self.frames
        times = _unchanging(self.frame_times, np.float64).reshape(-1)
        self._put(image, footprints, views, index, _unchanging(frames, np.int64).reshape(-1, 2), times)
        self._check()

    def _put(
        self, image: Any, footprints: Any, views: Any, image_index: Any, frames: Any, times: Any
    ) -> None:
        """Stores read-only copies, because many objects share one map."""
        spans = {name: _positions(name, at, self.length) for name, at in dict(self.spans).items()}
        words = tuple((text, _word_positions(text, at, self.length)) for text, at in self.words)
        sizes = tuple((int(w), int(h)) for w, h in self.sizes)
        grid = None if self.grid is None else (int(self.grid[0]), int(self.grid[1]))
        for array in (image, footprints, views, image_index, frames, times, *spans.values()):
            array.setflags(write=False)
        values = (image, footprints, grid, views, image_index, sizes, int(self.length), spans, words)
        values = (*values, self.cross, frames, times)
        for name, value in zip(self.__dataclass_fields__, values, strict=True):
            object.__setattr__(self, name, value)

    def _check(self) -> None:
        if self.views.shape != (self.n,) or self.image_index.shape != (self.n,):
            raise MapError(
                f"views and image_index need one entry per image token, ({self.n},); got {self.views.shape} "
                f"and {self.image_index.shape}."
            )
        if self.n and not (self.image_index.min() >= 0 and self.image_index.max() < len(self.sizes)):
            raise MapError(
                f"image_index counts images from 0, and sizes= has {count(len(self.sizes), 'image')}; got values from "
                f"{self.image_index.min()} to {self.image_index.max()}."
            )
        self._check_frames()
        if self.grid is not None and (min(self.grid) < 1 or self.n % (self.grid[0] * self.grid[1])):
            raise MapError(f"{self.n} image tokens are not whole grids of {self.grid[0]}×{self.grid[1]}.")
        wrong = sorted({name for name in self.spans if name in _BUILT_IN})
        if wrong:
            raise MapError(
                f"spans must not redefine the built-in groups {', '.join(_BUILT_IN)}; got {wrong}."
            )

    def _check_frames(self) -> None:
        frames = self.frames
        if len(frames) != self.n or (
            self.n
            and not (
                (frames[:, 0] == self.image_index).all()
                and (frames[:, 1] > frames[:, 0]).all()
                and frames.max() <= len(self.sizes)
            )
        ):
            raise MapError(
                f"frames are one half-open range for each image token, ({self.n}, 2), from its image_index on; it "
                f"ends within the {count(len(self.sizes), 'frame')}; got shape {frames.shape}."
            )
        if len(self.frame_times) not in (0, len(self.sizes)):
            raise MapError(
                f"frame_times has one time per frame ({count(len(self.sizes), 'frame')}); got "
                f"{len(self.frame_times)}."
            )

    def reworded(
        self,
        image: Int[np.ndarray, " token"],
        length: int,
        spans: Mapping[str, Int[np.ndarray, " position"]],
        words: tuple[tuple[str, tuple[int, ...]], ...],
    ) -> TokenMap:
        """Returns the map of the same images in another prompt; arguments as the attributes of these names.

        Raises:
            ImageTokenMismatch: Another number of image tokens.
            MapError: Positions that do not increase or lie outside the prompt, or a span with a built-in name.
        """
        if len(image) != self.n or any(name in _BUILT_IN for name in spans):  # `replace` says what is wrong
            return replace(self, image=image, length=length, spans=spans, words=words)
        found = object.__new__(TokenMap)
        for name in self.__dataclass_fields__:
            object.__setattr__(found, name, getattr(self, name))
        for name, value in (("length", length), ("spans", spans), ("words", words)):
            object.__setattr__(found, name, value)
        kept = (self.footprints, self.views, self.image_index, self.frames, self.frame_times)
        found._put(_positions("image", image, length), *kept)
        return found

    def __repr__(self) -> str:
        sizes = ", ".join(f"{width}×{height}" for width, height in self.sizes) or "none"
        shown = f"images {sizes}"
        if self.is_video:
            shown = f"video of {len(self.sizes)} frames of {self.sizes[0][0]}×{self.sizes[0][1]}"
        return f"TokenMap({self.length} tokens, {self.n} of them image tokens, grid {self.grid}, {shown})"

    @cached_property
    def n(self) -> int:
        """N, the number of image tokens."""
        return len(self.image)

    @property
    def image_end(self) -> int:
        """The first position after the last image token, or after the last image's placeholder; 0 without one."""
        if self.cross is not None:
            return self.cross.first_text
        return int(self.image[-1]) + 1 if self.n else 0

    @property
    def placeholders(self) -> Int[np.ndarray, " position"]:
        """The positions of the sequence that hold the image: its tokens, or what stands for them."""
        return self.image if self.cross is None else self.cross.placeholders

    @cached_property
    def is_video(self) -> bool:
        """Whether the images are the frames of a video."""
        return len(self.frame_times) > 0

    @property
    def times(self) -> Float[np.ndarray, "token 2"]:
        """The times of the first and of the last frame that each token stands for, in seconds; NaN for images."""
        if not self.is_video:
            return np.full((self.n, 2), np.nan)
        frames = self.frames
        return np.stack([self.frame_times[frames[:, 0]], self.frame_times[frames[:, 1] - 1]], axis=1)

    def shows(self, image: int) -> Bool[np.ndarray, " token"]:
        """Returns which image tokens stand for image `image`, or for frame `image` of a video."""
        return (self.frames[:, 0] <= image) & (image < self.frames[:, 1])

    def positions(self, group: str | Word) -> Int[np.ndarray, " position"]:
        """Returns the unpadded positions of a group, increasing.

        "last": the last prompt token. "after_image": every token after the last image token, template included.
        "text": every token that is not an image token. "image": the image tokens; where the image is no part of the
        sequence, their columns among the keys of cross-attention layers. "question": the user's words only.
        `interp.word("nodule")`: every occurrence of a word of the question.

        Raises:
            SiteError: The group is unknown, or the question does not hold the word.
        """
        if isinstance(group, Word):
            return self._word(group)
        if not isinstance(group, str):
            raise SiteError(f"a group is a name such as 'last', or interp.word(…); got {group!r:.200}.")
        if group == "last":
            return np.array([self.length - 1])
        if group == "after_image":
            return np.arange(self.image_end, self.length)
        if group == "text":
            return np.setdiff1d(np.arange(self.length), self.placeholders)
        if group == "image":
            return self.image
        if group in self.spans:
            return self.spans[group]
        hint = _NO_QUESTION if group == "question" else ""
        known = ", ".join(repr(name) for name in (*_BUILT_IN, *self.spans))
        raise SiteError(f"this prompt has the groups {known} and interp.word(…); got {group!r}.{hint}")

    def mask(self, boxes: Iterable[BoxLike | Mask], rule: str = "touch") -> Bool[np.ndarray, " token"]:
        """Returns which image tokens belong to the boxes or masks (to any of several).

        "touch": the footprint and the box share area. On a grid these are the cells floor(min/cell) to
        ceil(max/cell), exclusive. A box edge exactly between two cells (to 1e-6 of a cell) touches only one.
        "center": the centre of the visible footprint lies in the box.
        "stretch": the mapping of the official code, which stretches the original image over the grid whatever
        the true preprocessing is. It differs from "touch" on padded or cropped images. An edge exactly between two
        cells touches only one; the code's own rounding there takes another cell in 0 to 2 % of boxes, by the
        image's size.
        For `sample.masks`, a pixel inside takes the place of the box: a token belongs to a mask if its footprint and
        a pixel inside share area, or if its centre lies in such a pixel.

        A box in a part of the image that the model does not see gives an empty mask; see `lost_area`.

        Raises:
            BoxError: A box reaches more than 0.5 px outside its image or names a missing image; a mask has another
                size than its image or no pixel inside; boxes and masks together.
            ImageError: A mask's file cannot be read.
            MapError: The rule is unknown, or "stretch" is used without one grid per image.

        Source: arXiv 2603.14323 and its code.
        """
        if not isinstance(rule, str) or rule not in _RULES:
            raise MapError(f"rule is one of {', '.join(_RULES)}; got {rule!r}.")
        found, given = np.zeros(self.n, bool), _listed(boxes)
        if _are_masks(given):
            for i, inside in self._masks(given):
                found[self.shows(i)] |= self._in_pixels(inside, i, rule)
            return found
        for box in self._boxes(given):
            mine = self.shows(box.image)
            inside = self._stretched(box) if rule == "stretch" else _inside(self.footprints[mine], box, rule)
            found[mine] |= inside
        return found

    def coverage(self, boxes: Iterable[BoxLike | Mask]) -> Float[np.ndarray, " token"]:
        """Fraction of each footprint that the union of the boxes or masks covers, in [0, 1]; exact.

        Of a token that stands for several frames it is the mean over them.

        Tokens without area get 0. Positive exactly where `mask(boxes, "touch")` is True. Of `sample.masks` it follows
        the outline where boxes would count the whole rectangle; metrics take it instead of a mask.

        Raises:
            BoxError, ImageError: As in `mask`.
        """
        given = _listed(boxes)
        if _are_masks(given):
            return self._mask_coverage(given)
        boxes = self._boxes(given)
        covered = np.zeros(self.n)
        for i in {box.image for box in boxes}:
            mine = self.shows(i)
            edges = np.array([box.as_tuple() for box in boxes if box.image == i])
            covered[mine] += covered_area(self.footprints[mine], edges)
        covered /= self._n_frames
        fraction = np.divide(covered, self._areas(), out=np.zeros(self.n), where=covered > 0)
        return np.where(self.mask(boxes), np.clip(fraction, 0.0, 1.0), 0.0)

    def lost_area(self, boxes: Iterable[BoxLike | Mask]) -> Float[np.ndarray, " box"]:
        """Returns the fraction of each box that no footprint covers, in [0, 1]: 0 all visible, 1 cropped away.

        Of masks it is the fraction of each mask's pixels; a pixel counts as seen where a footprint holds its centre.

        Raises:
            BoxError, ImageError: As in `mask`.
        """
        given = _listed(boxes)
        if _are_masks(given):
            return np.array([self._lost_pixels(mask) for mask in given])
        boxes = self._boxes(given)
        lost = np.empty(len(boxes))
        for k, box in enumerate(boxes):
            seen = covered_area(np.array([box.as_tuple()]), self.footprints[self.shows(box.image)])
            lost[k] = 1.0 - seen[0] / box.area
        lost[lost < _SLIVER] = 0.0
        return lost

    def to_pixels(
        self, values: Float[np.ndarray, " token"], image: int | None = None, *, frame: int | None = None
    ) -> Float[np.ndarray, "row col"]:
        """Returns one value per pixel of the original image, (height, width).

        `image` is the place of the image in the sample, by default 0; of a video, `frame` is that of the frame, and it
        has no default. A token that stands for several frames has its value in each.

        A pixel takes the value of the token whose footprint holds its centre. Where several views cover a
        pixel, their values are averaged. Pixels without a token are NaN.

        Raises:
            MapError: There is not one value per image token, no frame of a video is named, or the sample has no such
                image or frame.
        """
        image = self._place(image, frame)
        try:
            given: Any = values
            values = np.asarray(given.detach().cpu() if hasattr(given, "detach") else given, float)
        except (TypeError, ValueError) as error:
            raise MapError(
                f"to_pixels needs numbers, one per image token; got {values!r} ({error})."
            ) from error
        if values.shape != (self.n,):
            raise MapError(
                f"to_pixels needs one value per image token, shape ({self.n},); got {values.shape}."
            )
        if not 0 <= image < len(self.sizes):
            what = "frame" if self.is_video else "image"
            raise MapError(
                f"the sample has {count(len(self.sizes), what)}, counted from 0; got {what}={image}."
            )
        width, height = self.sizes[image]
        total, hits = np.zeros((height, width)), np.zeros((height, width), int)
        shown = self.shows(image) & ~np.isnan(self.footprints).any(axis=1)
        pixels = np.ceil(self.footprints[shown] - 0.5).astype(int)
        for (x0, y0, x1, y1), value in zip(pixels, values[shown], strict=True):
            total[y0:y1, x0:x1] += value
            hits[y0:y1, x0:x1] += 1
        return np.divide(total, hits, out=np.full((height, width), np.nan), where=hits > 0)

    def _place(self, image: Any, frame: Any) -> int:
        """The image or frame that `to_pixels` draws, by its place."""
        if frame is not None and (image is not None or not self.is_video):
            why = (
                "pass image= or frame=, not both"
                if image is not None
                else "this sample has images and no video"
            )
            raise MapError(f"frame= names a frame of a video; {why}. Leave it out.")
        place = frame if frame is not None else image
        if place is None and self.is_video:
            raise MapError(
                f"a map of a video has {len(self.sizes)} frames; name one: to_pixels(values, frame=0)."
            )
        place = 0 if place is None else place
        if isinstance(place, bool) or not isinstance(place, int | np.integer):
            raise MapError(f"image is the place of an image in the sample, counted from 0; got {place!r}.")
        return int(place)

    def millimetres(self, pixel_mm: float | tuple[float, float]) -> Float[np.ndarray, "token 4"]:
        """Returns the footprints in millimetres, xyxy from the upper left corner of each image; NaN rows stay NaN.

        Args:
            pixel_mm: The size of a pixel of the original image, one number or (x, y); the readers of volumes put it
                into `sample.meta["pixel_mm"]`.

        Raises:
            MapError: Something other than one or two finite numbers above 0.
        """
        try:
            size = np.broadcast_to(np.asarray(pixel_mm, float), (2,))
        except (TypeError, ValueError, RuntimeError):  # the last one of tensors
            size = np.zeros(2)
        if isinstance(pixel_mm, bool | str) or not (np.isfinite(size) & (size > 0)).all():
            raise MapError(
                f"pixel_mm is the size of a pixel, one number above 0 or (x, y); got {pixel_mm!r:.200}."
            )
        return self.footprints * np.tile(size, 2)

    def _masks(self, masks: Sequence[Mask]) -> list[tuple[int, Bool[np.ndarray, "row col"]]]:
        """Each image's index with its pixels inside any of its masks."""
        for mask in masks:
            if mask.image >= len(self.sizes):
                raise BoxError(
                    f"{mask!r} names image {mask.image}, but the sample has {count(len(self.sizes), 'image')}, counted "
                    "from 0."
                )
        images = sorted({mask.image for mask in masks})
        return [(i, union([mask for mask in masks if mask.image == i], self.sizes[i])) for i in images]

    def _mask_coverage(self, masks: Sequence[Mask]) -> Float[np.ndarray, " token"]:
        """`coverage` of masks."""
        found = np.zeros(self.n)
        for i, inside in self._masks(masks):
            mine = self.shows(i)
            areas, covered = self._areas()[mine], covered_by(self.footprints[mine], inside)
            fraction = np.divide(covered, areas, out=np.zeros(len(areas)), where=covered > 0)
            found[mine] += np.where(fraction > _SLIVER, np.clip(fraction, 0.0, 1.0), 0.0)
        return found / self._n_frames

    def _in_pixels(self, inside: Bool[np.ndarray, "row col"], i: int, rule: str) -> np.ndarray:
        """Which tokens of image `i` belong to the pixels inside, by the rule."""
        footprints = self.footprints[self.shows(i)]
        if rule == "center":
            seen = ~np.isnan(footprints).any(axis=1)
            x, y = ((footprints[:, edge] + footprints[:, edge + 2]) / 2 for edge in (0, 1))
            column, row = (np.nan_to_num(at).astype(int) for at in (x, y))
            return (
                seen & inside[np.minimum(row, inside.shape[0] - 1), np.minimum(column, inside.shape[1] - 1)]
            )
        cells = (
            squash(self.sizes[i], self._one_grid(len(footprints))).boxes if rule == "stretch" else footprints
        )
        areas = np.prod(cells[:, 2:] - cells[:, :2], axis=1)
        return covered_by(cells, inside) > _SLIVER * np.nan_to_num(areas)

    def _lost_pixels(self, mask: Mask) -> float:
        """The fraction of a mask's pixels whose centres lie in no footprint."""
        ((i, inside),) = self._masks([mask])
        seen = ~np.isnan(self.to_pixels(np.ones(self.n), image=i))
        return 1.0 - float((inside & seen).sum() / inside.sum())

    @property
    def _n_frames(self) -> Int[np.ndarray, " token"]:
        """How many frames each token stands for."""
        return self.frames[:, 1] - self.frames[:, 0]

    def _areas(self) -> Float[np.ndarray, " token"]:
        return np.prod(self.footprints[:, 2:] - self.footprints[:, :2], axis=1)

    def _boxes(self, boxes: Iterable[BoxLike]) -> tuple[Box, ...]:
        """The boxes, each checked against its image."""
        boxes = as_boxes(boxes, video=self.is_video)
        for box in boxes:
            if box.image >= len(self.sizes):
                raise BoxError(
                    f"box {box.as_tuple()} names {box.place}, but the sample has "
                    f"{count(len(self.sizes), 'frame' if self.is_video else 'image')}, counted from 0."
                )
            box.check_inside(self.sizes[box.image])
        return boxes

    def _stretched(self, box: Box) -> Bool[np.ndarray, " token_of_image"]:
        """The box's cells if the image is stretched over the grid."""
        rows, cols = self._one_grid(int(self.shows(box.image).sum()))
        width, height = self.sizes[box.image]
        across = _touched(box.x0 * cols / width, box.x1 * cols / width, cols)
        down = _touched(box.y0 * rows / height, box.y1 * rows / height, rows)
        return np.outer(down, across).reshape(-1)

    def _one_grid(self, n: int) -> tuple[int, int]:
        """The grid, if the `n` tokens of an image form it."""
        if self.grid is None or n != self.grid[0] * self.grid[1]:
            raise MapError(
                'rule "stretch" needs one grid per image (the official code has no tiles or newline '
                f'tokens); this image has {n} tokens and the grid {self.grid}. Use rule="touch".'
            )
        return self.grid

    def _word(self, wanted: Word) -> Int[np.ndarray, " position"]:
        """Positions of every occurrence of `wanted` among the question's words."""
        target = word_spellings(wanted.text)
        words = [(spelled, at) for text, at in self.words for spelled in word_spellings(text)]
        starts = range(len(words) - len(target) + 1)
        runs = [words[i : i + len(target)] for i in starts]
        found = [at for run in runs if [text for text, _ in run] == target for _, at in run]
        if not found:
            known = " ".join(text for text, _ in self.words)
            raise SiteError(
                f"the question does not hold the word {wanted.text!r}; its words are: {known or '(none)'}."
            )
        return np.unique(np.concatenate([np.array(at, int) for at in found]))


def _listed(boxes: Any) -> Any:
    """The boxes or masks as a list, so that an iterator is read once; what is no list of them, as it is."""
    single = isinstance(boxes, Box | Mask | str | bytes | Mapping | np.ndarray)
    return list(boxes) if isinstance(boxes, Iterable) and not single else boxes


def _are_masks(given: Any) -> bool:
    """Whether these are masks rather than boxes.

    Raises:
        BoxError: One mask instead of a list, or boxes and masks together.
    """
    if isinstance(given, Mask):
        raise BoxError("expected a list of boxes or masks, got one mask; write [mask].")
    masks = [isinstance(one, Mask) for one in given] if isinstance(given, list) else []
    if any(masks) and not all(masks):
        raise BoxError(
            "expected boxes or masks, got both. Pass sample.boxes or sample.masks: a box that holds a mask counts more "
            "than the mask."
        )
    return any(masks)


def _inside(footprints: Float[np.ndarray, "token 4"], box: Box, rule: str) -> Bool[np.ndarray, " token"]:
    """Whether each footprint touches the box or has its centre in it; False for NaN footprints."""
    x0, y0, x1, y1 = np.ascontiguousarray(footprints.T)
    return _inside_axis(x0, x1, box.x0, box.x1, rule) & _inside_axis(y0, y1, box.y0, box.y1, rule)


def _inside_axis(low: np.ndarray, high: np.ndarray, start: float, end: float, rule: str) -> np.ndarray:
    """As `_inside`, along one axis."""
    sliver = _SLIVER * (high - low)
    if rule == "touch":
        return np.minimum(high, end) - np.maximum(low, start) > sliver
    centre = (low + high) / 2
    return (centre >= start - sliver) & (centre < end - sliver)


def _touched(low: float, high: float, n: int) -> Bool[np.ndarray, " cell"]:
    """Which of n cells lie in floor(low) … ceil(high), exclusive, with the tolerance of "touch"."""
    cells = np.arange(n)
    return (cells >= np.floor(low + _SLIVER)) & (cells < np.ceil(high - _SLIVER))


def _unchanging(values: Any, kind: type[np.generic]) -> np.ndarray:
    """A copy of the values, or the values themselves where they are another map's, which cannot change."""
    fixed = isinstance(values, np.ndarray) and issubclass(values.dtype.type, kind) and _fixed(values)
    return values if fixed else np.array(values, kind)


def _fixed(values: np.ndarray) -> bool:
    """Whether neither the array nor the one that it is a view of can be written to."""
    base = values.base
    return not values.flags.writeable and (
        base is None or (isinstance(base, np.ndarray) and not base.flags.writeable)
    )


def _word_positions(text: str, at: Sequence[int], length: int) -> tuple[int, ...]:
    """A word's positions, checked as `_positions` checks; a word has too few for numpy to be faster."""
    found = tuple(map(int, at))
    increasing = all(one < after for one, after in pairwise(found))
    if found and not (increasing and found[0] >= 0 and found[-1] < length):
        _positions(text, found, length)
    return found


def _positions(name: str, positions: Any, length: int) -> Int[np.ndarray, " position"]:
    """Returns the positions after checking that they increase and lie inside the prompt."""
    found = np.array(positions, int).reshape(-1)
    if len(found) and (found[0] < 0 or found[-1] >= length or (found[1:] <= found[:-1]).any()):
        raise MapError(
            f"positions of {name!r} must increase and lie in 0 … {length - 1} (unpadded); got {found[0]} … "
            f"{found[-1]}."
        )
    return found
