"""Removals: hide image tokens from attention, replace their embeddings, or paint over their pixels.

Each removal favours the indicators that are built on it, so measure faithfulness with several. `windows` and `blocks`
say which neighbouring tokens are removed together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int, UInt8
from scipy.ndimage import gaussian_filter
from torch import Tensor

from interp.errors import MapError, SiteError
from interp.indicators.indicator_checks import (
    check_call,
    check_one_of,
    check_whole,
    layers_to_json,
    mixing_layers_of,
    site_layers,
)
from interp.indicators.maps import One, label_map
from interp.inputs.prompt import Prompt, Target
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.metrics.numbers import plain_array
from interp.tracing import Batch, Cost, Mllm
from interp.tracing.cost import Meter
from interp.tracing.passes.progress_bar import progress_bar
from interp.tracing.site import Layers
from interp.tracing.target import forced_values
from interp.tracing.variants.cached_pass import Replaced
from interp.tracing.variants.target_pass import AnyPass, KeptTarget, prompt_pass

__all__ = [
    "BLUR",
    "HideTokens",
    "PaintPixels",
    "Removal",
    "Removed",
    "ReplaceEmbeddings",
    "alone",
    "blocks",
    "checked_masks",
    "in_order",
    "places",
    "windows",
]


@dataclass(frozen=True, eq=False)
class Removed:
    """The target's value under each variant, and without any removal.

    Attributes:
        values: One value per variant, in nats, in the order of the masks.
        plain: The value without any removal, in nats.
        cost: The cost of everything, including the plain pass.
    """

    values: Float[np.ndarray, " variant"]
    plain: float
    cost: Cost


@runtime_checkable
class Removal(Protocol):
    """A way to remove image tokens. A frozen value: it compares, hashes and serialises."""

    @property
    def name(self) -> str:
        """The name in tables and figures."""
        ...

    def scores(
        self,
        mllm: Mllm,
        sample: Sample | Batch,
        masks: Bool[np.ndarray, "variant token"],
        *,
        prompt: Prompt | None = None,
        target: Target = Target("greedy"),  # noqa: B008 – a frozen value
        batch: int = 32,
    ) -> Removed:
        """The target's value under each variant.

        Args:
            mllm: The model.
            sample: The sample, or a batch of it alone.
            masks: masks[v, j] is True where variant v removes image token j. A variant that removes nothing has the
                plain value.
            prompt: The prompt around the question; by default `PAPER_PROMPT`, or that of the batch.
            target: The answer whose log-probability is the value. "greedy" is the unchanged model's answer, in every
                variant.
            batch: Variants in one pass at most; values do not depend on it, except for rounding.

        Raises:
            MapError: Masks that are not boolean with one column per image token.
        """
        ...

    def to_dict(self) -> dict[str, Any]:
        """Everything its numbers depend on, as JSON values."""
        ...


def checked_masks(masks: Any, n: int, batch: int = 1) -> Bool[np.ndarray, "variant token"]:
    """The masks as a boolean array.

    Raises:
        MapError: Another type, another number of columns than image tokens, or a batch below 1.
    """
    check_whole("batch", batch, 1)
    found = plain_array(masks, "masks are boolean, (variant, token)", MapError)
    if found.dtype != bool or found.ndim != 2 or found.shape[1] != n:
        raise MapError(
            f"masks are boolean, (variant, token), with one column for each of the sample's {n} image tokens, True "
            f"where a token is removed; got {found.dtype} of shape {found.shape}."
        )
    return found


VARIANTS = "variants"
"""The unit of progress bars over one sample's variants."""
SHORT = 16
"""Variants with fewer rows than this share a pass with more than `batch` others."""
LOGITS = 2**25
"""The most logits held at once where variants are short."""


@dataclass(frozen=True)
class HideTokens:
    """Hides image tokens from rows of the decoder's attention: their scores are −∞ before the softmax.

    The tokens still pass through the model, but no row after the image attends to them. The value is exact: it equals
    `mllm.score` under `Knockout` edits at the same place. Rows and layers that cannot differ from the unedited pass run
    once for all variants. Only PaliGemma, whose prompt rows see the whole prompt, runs whole prompts.

    Args:
        layers: "all", or the layers where the tokens are hidden, 0-based; passes start at the lowest. In gated DeltaNet
            layers of a hybrid model, which "all" includes, the tokens' write to the state is erased; "attention"
            selects the other layers.
        queries: The rows they are hidden from. "after_image": every row after the last image token, including those of
            an answer of several tokens. "last": the rows that predict the answer (the prompt's last row, for an answer
            of one token); what the question's rows read from the image still reaches them.

    Raises:
        SiteError: Other queries, or layers that are not indices; when called, layers the model does not have.
    """

    layers: Layers = "all"
    queries: Literal["after_image", "last"] = "after_image"

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", site_layers(self.layers))
        check_one_of("queries of HideTokens", self.queries, ("after_image", "last"), SiteError)

    @property
    def name(self) -> str:
        """The name in tables and figures."""
        return "knockout"

    def scores(
        self,
        mllm: Mllm,
        sample: Sample | Batch,
        masks: Bool[np.ndarray, "variant token"],
        *,
        prompt: Prompt | None = None,
        target: Target = Target("greedy"),  # noqa: B008 – a frozen value
        batch: int = 32,
    ) -> Removed:
        """The target's value under each variant; see `Removal`. More than `batch` short variants share a pass."""
        check_call(mllm, prompt, target)
        layers = mixing_layers_of(mllm, self.layers)
        scored = KeptTarget.of(mllm, sample, prompt, target, layers=(min(layers),))
        masks = checked_masks(masks, scored.tokens.n, batch)
        chosen = np.flatnonzero(masks.any(axis=1))
        values = np.full(len(masks), scored.plain)
        with Meter(mllm.device) as meter:
            if len(chosen):
                values[chosen] = scored.values(
                    lambda kept: self._run(kept, masks[chosen], layers, batch, meter)
                )
        return Removed(values, scored.plain, scored.cost + meter.cost)

    def to_dict(self) -> dict[str, Any]:
        """The removal as JSON values."""
        layers = layers_to_json(self.layers)
        return {"removal": "hide_tokens", "layers": layers, "queries": self.queries}

    def _run(
        self,
        kept: AnyPass,
        masks: Bool[np.ndarray, "variant token"],
        layers: Sequence[int],
        batch: int,
        meter: Meter,
    ) -> Iterator[Float[Tensor, "variant ..."]]:
        """The variants' logits, batch by batch."""
        tokens = kept.tokens
        rows = tokens.length - kept.keep if self.queries == "last" else int(tokens.image[-1]) + 1
        stop = kept.stop(rows)
        few = SHORT * batch // (tokens.length - stop), LOGITS // (kept.keep * kept.mllm.vocabulary_size)
        size = max(batch, min(few))

        def hiding(part: Bool[np.ndarray, "variant token"]) -> Float[Tensor, "variant ..."]:
            hidden = np.zeros((len(part), tokens.length), bool)
            hidden[:, tokens.image] = part
            on = torch.from_numpy(hidden).to(kept.device)
            cells = kept.hiding(on, rows, stop, layers)
            return kept.run(len(part), stop, meter, start=min(layers), hidden=cells)

        with progress_bar("hiding tokens", len(masks), show=len(masks) > size, noun=VARIANTS) as advance:
            for start in range(0, len(masks), size):
                yield from kept.fitting(masks[start : start + size], hiding)
                advance(len(masks[start : start + size]))


Stream = Mapping[int, Float[Tensor, "one _ hidden"]]
"""What enters the decoder at image tokens. Key −1: the input of the first layer. Key ℓ: what is added after layer ℓ."""


@dataclass(frozen=True)
class ReplaceEmbeddings:
    """Replaces the embeddings of image tokens before the decoder; the rest of the prompt stays the same.

    All later tokens see the change, image tokens too. The vision tower runs once. Where a family also adds image
    features between layers (Qwen3-VL's deepstack), these are replaced in the same way.

    Args:
        by: "mean", the mean over the sample's own image tokens (of all its images, separators included); "zero"; or
            "other", the same token of another image.
        other: The sample whose image is used with by="other"; its question is ignored.

    Raises:
        MapError: Another `by`; `other` without by="other", or the reverse; when called, an image with another number of
            image tokens.
    """

    by: Literal["mean", "zero", "other"] = "mean"
    other: Sample | None = None

    def __post_init__(self) -> None:
        check_one_of("by of ReplaceEmbeddings", self.by, ("mean", "zero", "other"))
        fits = isinstance(self.other, Sample) if self.by == "other" else self.other is None
        if not fits:
            raise MapError(
                f'by="other" needs other=, an interp.Sample, and other values of by= take no other=; got '
                f"by={self.by!r}, other={self.other!r}."
            )

    @property
    def name(self) -> str:
        """The name in tables and figures."""
        return f"{self.by} embedding"

    def scores(
        self,
        mllm: Mllm,
        sample: Sample | Batch,
        masks: Bool[np.ndarray, "variant token"],
        *,
        prompt: Prompt | None = None,
        target: Target = Target("greedy"),  # noqa: B008 – a frozen value
        batch: int = 32,
    ) -> Removed:
        """The target's value under each variant; see `Removal`. Each runs from its first replaced token on."""
        check_call(mllm, prompt, target)
        scored = KeptTarget.of(mllm, sample, prompt, target)
        masks = checked_masks(masks, scored.tokens.n, batch)
        values = np.full(len(masks), scored.plain)
        bar = progress_bar("replacing embeddings", int(masks.any(axis=1).sum()), noun=VARIANTS)
        with Meter(mllm.device) as meter, bar as advance:
            fill = self._fill(mllm, scored.batch, stream_of(scored.parts[0].kept, meter), meter)
            for part in in_order(masks, batch):
                values[part] = scored.values(
                    lambda kept, part=part: self._run(kept, masks[part], fill, meter)
                )
                advance(len(part))
        return Removed(values, scored.plain, scored.cost + meter.cost)

    def to_dict(self) -> dict[str, Any]:
        """The removal as JSON values, the other sample by its fingerprint."""
        other = {} if self.other is None else {"other": self.other.fingerprint}
        return {"removal": "replace_embeddings", "by": self.by, **other}

    def _fill(self, mllm: Mllm, asked: Batch, own: Stream, meter: Meter) -> Stream:
        """The replacements of the image tokens, one for each or one for all."""
        if self.other is None:
            return {
                i: one.mean(dim=1, keepdim=True) if self.by == "mean" else torch.zeros_like(one[:, :1])
                for i, one in own.items()
            }
        (sample,) = asked.samples
        batch = mllm.encode(sample.replace(**self.other.pictures, boxes=(), masks=()), asked.prompt)
        found = stream_of(prompt_pass(mllm, batch, meter), meter)
        n, wanted = found[-1].shape[1], own[-1].shape[1]
        if n != wanted:
            raise MapError(
                f"a token is replaced by the same token of the other sample; that has {n} image tokens, but sample "
                f"{sample.id} has {wanted}. Use an image of the same size."
            )
        return found

    def _run(
        self, kept: AnyPass, masks: Bool[np.ndarray, "variant token"], fill: Stream, meter: Meter
    ) -> Iterator[Float[Tensor, "variant ..."]]:
        stop = kept.stop(int(kept.tokens.image[masks.any(axis=0)][0]))

        def replacing(part: Bool[np.ndarray, "variant token"]) -> Float[Tensor, "variant ..."]:
            chosen = torch.from_numpy(part).to(kept.device)
            entering, *added = (Replaced(chosen, one) for one in fill.values())
            added = dict(zip(list(fill)[1:], added, strict=True))
            return kept.run(len(part), stop, meter, entering=entering, added=added)

        yield from kept.fitting(masks, replacing)


def stream_of(kept: AnyPass, meter: Meter) -> Stream:
    """The `Stream` at the image tokens, −1 first."""
    return {-1: kept.stream(0, meter), **kept.added_at_image(meter)}


def in_order(masks: Bool[np.ndarray, "variant token"], size: int) -> Iterator[np.ndarray]:
    """Batches of variants that remove something, in the order of their first removed token, at most `size` in each.

    The first tokens of a batch lie within an eighth of the image, so that few unchanged tokens run again.
    """
    chosen = np.flatnonzero(masks.any(axis=1))
    first = masks[chosen].argmax(axis=1)
    chosen, first = chosen[order := np.argsort(first, kind="stable")], first[order]
    while len(chosen):
        n = min(size, int(np.searchsorted(first, first[0] + masks.shape[1] // 8, side="right")))
        yield chosen[:n]
        chosen, first = chosen[n:], first[n:]


Picture = UInt8[np.ndarray, "_ _ channel"]
BLUR = 0.1
"""Standard deviation of the blur, as a share of the image's shorter side."""


@dataclass(frozen=True)
class PaintPixels:
    """Paints over the footprints of image tokens in the original image, which is then processed like any image.

    A pixel is painted when its centre lies in a removed token's footprint. Tokens of other views or overlapping tiles
    that show the same pixels change too, and so do neighbours, through resizing. A token without footprint (a
    newline, padding) has no pixels: removing it changes nothing.

    Args:
        by: "grey", (128, 128, 128); "mean", the image's own mean colour; "blur", the image under a Gaussian blur whose
            standard deviation is a tenth of its shorter side.

    Raises:
        MapError: Another `by`.
    """

    by: Literal["grey", "blur", "mean"] = "grey"

    def __post_init__(self) -> None:
        check_one_of("by of PaintPixels", self.by, ("grey", "blur", "mean"))

    @property
    def name(self) -> str:
        """The name in tables and figures."""
        return f"{self.by} pixels"

    def scores(
        self,
        mllm: Mllm,
        sample: Sample | Batch,
        masks: Bool[np.ndarray, "variant token"],
        *,
        prompt: Prompt | None = None,
        target: Target = Target("greedy"),  # noqa: B008 – a frozen value
        batch: int = 32,
    ) -> Removed:
        """The target's value under each variant; see `Removal`. Each is a whole pass, vision tower included."""
        check_call(mllm, prompt, target)
        scored = KeptTarget.of(mllm, sample, prompt, target)
        tokens, (sample,) = scored.tokens, scored.batch.samples
        masks = checked_masks(masks, tokens.n, batch)
        seen = ~np.isnan(tokens.footprints).any(axis=1)
        chosen = np.flatnonzero((masks & seen).any(axis=1))
        pictures = [np.asarray(sample.load(i)) for i in range(len(sample.images))]
        fills = [self.fill(picture) for picture in pictures]
        values = np.full(len(masks), scored.plain)

        def painted(part: Int[np.ndarray, " variant"]) -> Float[np.ndarray, " variant"]:
            shown = [paint_tokens(pictures, fills, tokens, masks[v]) for v in part]
            made = [_repainted(sample, one) for one in shown]
            return forced_values(mllm, mllm.encode(made, scored.batch.prompt), scored.aim, meter)

        bar = progress_bar("painting over pixels", len(chosen), noun=VARIANTS)
        with Meter(mllm.device) as meter, bar as advance:
            for start in range(0, len(chosen), batch):
                part = chosen[start : start + batch]
                values[part] = np.concatenate(scored.parts[0].kept.fitting(part, painted))
                advance(len(part))
        return Removed(values, scored.plain, scored.cost + meter.cost)

    def fill(self, picture: Picture) -> Picture:
        """The paint for every pixel of an image."""
        if self.by == "grey":
            return np.full_like(picture, 128)
        if self.by == "mean":
            return np.broadcast_to(np.rint(picture.mean(axis=(0, 1))).astype(np.uint8), picture.shape)
        sigma = BLUR * min(picture.shape[:2])
        blurred = gaussian_filter(picture.astype(np.float32), sigma=(sigma, sigma, 0), mode="nearest")
        return np.rint(blurred).clip(0, 255).astype(np.uint8)

    def to_dict(self) -> dict[str, Any]:
        """The removal as JSON values."""
        return {"removal": "paint_pixels", "by": self.by, **({"sigma": BLUR} if self.by == "blur" else {})}


def paint_tokens(
    pictures: list[Picture], fills: list[Picture], tokens: TokenMap, removed: Bool[np.ndarray, " token"]
) -> list[Picture]:
    """The images with the removed tokens' footprints filled."""
    painted = [picture.copy() for picture in pictures]
    seen = removed & ~np.isnan(tokens.footprints).any(axis=1)
    edges = np.ceil(tokens.footprints[seen] - 0.5).astype(int)
    for frames, (x0, y0, x1, y1) in zip(tokens.frames[seen], edges, strict=True):
        for image in range(*frames):
            painted[image][y0:y1, x0:x1] = fills[image][y0:y1, x0:x1]
    return painted


def _repainted(sample: Sample, pictures: list[Picture]) -> Sample:
    """The sample with other pixels in its images or frames."""
    if sample.video is None:
        return sample.replace(images=pictures, image=None, id=None)
    return sample.replace(video=pictures, times=sample.video.times, id=None)


def alone(removal: Removal, mllm: Mllm, target: Target, batch: int, name: str) -> One:
    """From a sample to its map plain − value, with each image token removed alone."""

    def one(encoded: Batch) -> tuple[xr.DataArray, Cost]:
        (tokens,) = encoded.tokens
        found = removal.scores(mllm, encoded, np.eye(tokens.n, dtype=bool), target=target, batch=batch)
        return label_map(found.plain - found.values, tokens, name, attrs={"plain": found.plain}), found.cost

    return one


def places(tokens: TokenMap) -> Float[np.ndarray, "token 2"]:
    """The place of each image token in its image, (row, column), counted in tokens; NaN without footprint.

    On a grid these are the token's row and column. Otherwise, as with tiles, they are the centre of the footprint in
    units of the image's smallest footprint, so that tokens of several views that show the same place get the same
    numbers.
    """
    boxes = tokens.footprints
    hollow = np.isnan(boxes).any(axis=1)
    if tokens.grid is not None:
        index = np.arange(tokens.n) % (tokens.grid[0] * tokens.grid[1])
        found = np.stack(np.divmod(index, tokens.grid[1]), axis=1).astype(float)
    else:
        found = np.full((tokens.n, 2), np.nan)
        for image in np.unique(tokens.image_index[~hollow]):
            mine = (tokens.image_index == image) & ~hollow
            sizes = (boxes[mine, 2:] - boxes[mine, :2])[:, ::-1]
            centres = (boxes[mine, :2] + boxes[mine, 2:])[:, ::-1] / 2
            found[mine] = centres / np.median(_smallest(sizes, tokens.views[mine]), axis=0) - 0.5
    found[hollow] = np.nan
    return found


def _smallest(sizes: Float[np.ndarray, "token 2"], views: np.ndarray) -> Float[np.ndarray, "token_of_view 2"]:
    """The sizes of the view with the smallest footprints; footprints at the edge of an image may be cut."""
    each = [sizes[views == view] for view in np.unique(views)]
    return min(each, key=lambda own: float(np.median(np.prod(own, axis=1))))


def windows(tokens: TokenMap, side: int) -> Bool[np.ndarray, "window token"]:
    """For each image token, the tokens in the square of `side` × `side` tokens around it; `side` is odd.

    A window holds tokens of the same image and view and is cut off at the image's edge. The window of a token without
    footprint is empty.
    """
    at, boxes = places(tokens), tokens.footprints
    if tokens.grid is None:  # each view has its own size of tokens
        at, size = ((boxes[:, :2] + boxes[:, 2:]) / 2)[:, ::-1], (boxes[:, 2:] - boxes[:, :2])[:, ::-1]
    else:
        size = np.ones((tokens.n, 2))
    with np.errstate(invalid="ignore"):
        near = (np.abs(at[:, None] - at[None]) < side / 2 * size[:, None]).all(axis=2)
    same = (tokens.image_index[:, None] == tokens.image_index) & (tokens.views[:, None] == tokens.views)
    return near & same


def blocks(tokens: TokenMap, side: int, shift: Sequence[int] = (0, 0)) -> Int[np.ndarray, " token"]:
    """The number of the block of `side` × `side` tokens that each image token lies in; −1 without footprint.

    Blocks tile each image, starting `shift` tokens before its upper left corner; blocks at the edges are cut off.
    Numbers run from 0 without gaps, row by row, image after image.
    """
    at = places(tokens)
    known = ~np.isnan(at).any(axis=1)
    cells = np.floor((at[known] + 1e-9 + np.asarray(shift)) / side).astype(int)
    keys = np.column_stack([tokens.image_index[known], cells])
    found = np.full(tokens.n, -1)
    if known.any():
        found[known] = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)
    return found
