"""Maps, which every indicator returns: one labelled map over image tokens per sample; how they are made and shown."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, overload

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float
from PIL import Image

from interp.errors import InterpError, MapError
from interp.indicators.indicator_checks import check_call
from interp.inputs import archive
from interp.inputs.archive import SAVE_ADVICE, token_map, token_record
from interp.inputs.notebook import block, thumbnails
from interp.inputs.overlays import overlay
from interp.inputs.pictures import bounded, heated, strengths
from interp.inputs.prompt import Prompt, Target
from interp.inputs.sample import Sample
from interp.inputs.sample_list import as_samples
from interp.inputs.text import brief, count
from interp.inputs.tokens import TokenMap
from interp.tracing import Batch, Cost, Mllm, Prefix
from interp.tracing.cost import Meter
from interp.tracing.execution import apart
from interp.tracing.passes.micro_batches import BATCH_SIZE, MicroBatch, Places, in_batches, in_order
from interp.tracing.passes.prefix_pass import Samples, given_as

__all__ = [
    "BATCH_SIZE",
    "COLUMNS",
    "ONE_MAP",
    "BatchIndicator",
    "Maps",
    "SampleIndicator",
    "Samples",
    "label_map",
    "load_maps",
    "map_each_sample",
    "map_frame",
    "map_lines",
    "maps_html",
    "maps_in_batches",
]


ONE_MAP = ("token",)
"""`dims` of an indicator that gives one map, not one per layer."""
DIMS = (ONE_MAP, ("layer", "token"), ("layer", "head", "token"))


One = Callable[[Batch], tuple[xr.DataArray, Cost]]
"""A function from a batch of one sample to its map and the cost of the map."""
COLUMNS = ("sample", "token", "position", "image", "x0", "y0", "x1", "y1", "view", "value")
SHOWN, LAYERS, IMAGES, SIDE, VALUES = 3, 4, 4, 180, 4
"""Samples, layers and images that a notebook shows, pixels of a picture, and values in a line of text."""


@dataclass(frozen=True, eq=False, repr=False)
class Maps(Sequence[xr.DataArray]):
    """One map per sample, in the samples' order: `maps[i]` is a DataArray ([layer, [head,]] token).

    Larger means more important. Tokens are numbered 0 … N−1 as in `tokens[i].image`; samples may differ in N.
    A slice is `Maps` again, with the cost of the whole call. A notebook shows the maps over the images.

    Args:
        arrays: The maps.
        tokens: Where each map's tokens are in its sample's prompt and image.
        cost: Time, memory and passes of the whole call.
        logits: (sample, token_id) after the last prompt token, if the indicator ran the prompt; else None.
        samples: The samples that the maps belong to, for drawing; empty where they are missing, as in a file.

    Raises:
        MapError: The numbers of maps, token maps and samples differ, a map has other dimensions, or it does not have
            one value per image token.
    """

    arrays: tuple[xr.DataArray, ...]
    tokens: tuple[TokenMap, ...]
    cost: Cost
    logits: xr.DataArray | None = None
    samples: tuple[Sample, ...] = ()

    def __post_init__(self) -> None:
        for name, kind in (("arrays", xr.DataArray), ("tokens", TokenMap), ("samples", Sample)):
            given = getattr(self, name)
            if not isinstance(given, tuple | list) or not all(isinstance(one, kind) for one in given):
                raise MapError(f"{name} is a tuple of {kind.__name__}, one per sample; got {brief(given)}.")
        if self.logits is not None and not isinstance(self.logits, xr.DataArray):
            raise MapError(f"logits is a DataArray (sample, token_id), or None; got {self.logits!r}.")
        if len(self.arrays) != len(self.tokens):
            raise MapError(
                f"each map needs its TokenMap; got {count(len(self.arrays), 'map')} and "
                f"{count(len(self.tokens), 'TokenMap')}."
            )
        if self.samples and len(self.samples) != len(self.arrays):
            raise MapError(
                f"samples is one Sample per map, or none; got {count(len(self.samples), 'sample')} for "
                f"{count(len(self.arrays), 'map')}."
            )
        if self.logits is not None and self.logits.sizes["sample"] != len(self.arrays):
            raise MapError(
                f"logits has one row per map; got {dict(self.logits.sizes)} for {count(len(self.arrays), 'map')}."
            )
        for i, (array, tokens) in enumerate(zip(self.arrays, self.tokens, strict=True)):
            if array.dims not in DIMS or array.sizes["token"] != tokens.n:
                raise MapError(
                    f"map {i} must be ([layer, [head,]] token) with one value for each of the {tokens.n} "
                    f"image tokens; got {dict(array.sizes)}. Reduce other dimensions and keep every image token."
                )

    def __len__(self) -> int:
        return len(self.arrays)

    @overload
    def __getitem__(self, index: int) -> xr.DataArray: ...

    @overload
    def __getitem__(self, index: slice) -> Maps: ...

    def __getitem__(self, index: int | slice) -> xr.DataArray | Maps:
        if not isinstance(index, slice):
            return self.arrays[index]
        logits = None if self.logits is None else self.logits.isel(sample=index)
        own = {"tokens": self.tokens[index], "logits": logits, "samples": self.samples[index]}
        return replace(self, arrays=self.arrays[index], **own)

    def __repr__(self) -> str:
        shapes = sorted({" × ".join(f"{dim} {size}" for dim, size in a.sizes.items()) for a in self.arrays})
        names = ", ".join(dict.fromkeys(str(one.name) for one in self.arrays if one.name is not None))
        head = f"Maps({len(self)} × [{'; '.join(shapes)}]{f' of {names}' if names else ''})"
        return "\n".join([head, *(f"  {line}" for line in map_lines(self.arrays))])

    def _repr_html_(self) -> str:
        """What a notebook shows: the maps of the first samples over their images."""
        return maps_html(self.arrays, self.tokens, self.samples, repr(self).partition("\n")[0])

    def to_dataframe(self) -> pd.DataFrame:
        """Returns one row per value: sample, [layer, [head,]] token, position, image, x0, y0, x1, y1, view, value.

        `sample` counts the maps from 0; `position` is the token's unpadded position in its prompt. x0 … y1 is its
        footprint in pixels of the original image, NaN for a token without area; `image` is the image or the first
        frame it shows.
        """
        frames = [
            map_frame(array, tokens, i)
            for i, (array, tokens) in enumerate(zip(self.arrays, self.tokens, strict=True))
        ]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(COLUMNS))

    def save(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Writes the maps to one file that holds no code, whole or not at all, and returns its path.

        `interp.load_maps(path)` reads it. Token maps, cost and logits are kept; samples and their images are not.

        Args:
            path: The file, such as "maps.safetensors".

        Raises:
            MapError: No path. Inside `mllm.nn.trace`, where `.save()` keeps a value, write `nnsight.save(maps)`.
            RunError: The file cannot be written.
        """
        if path is None:
            raise MapError(SAVE_ADVICE.format(what="maps"))
        return archive.write(
            path,
            "maps",
            {
                "arrays": self.arrays,
                "tokens": [token_record(one) for one in self.tokens],
                "cost": asdict(self.cost),
                "logits": self.logits,
            },
        )


def load_maps(path: str | os.PathLike[str]) -> Maps:
    """Returns the maps that `Maps.save` wrote, without their samples.

    Raises:
        MapError: No such file, or one that is damaged, of another kind or of a later version.
    """
    content = archive.read(path, "maps")
    tokens = tuple(token_map(record) for record in content["tokens"])
    return Maps(tuple(content["arrays"]), tokens, Cost(**content["cost"]), content["logits"])


def label_map(
    values: Float[np.ndarray, ...],
    tokens: TokenMap,
    name: str,
    layers: Sequence[int] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """The map ([layer, [head,]] token), float32, with "position", the unpadded position of each image token.

    Args:
        values: The map's values; the last axis is the image tokens.
        tokens: Where the sample's tokens are.
        name: What the values are.
        layers: The layers of the first axis, if it is the layers. The second axis, if there is one, is every head.
        attrs: Attributes of the array.

    Raises:
        MapError: Values that are not finite.
    """
    if not np.isfinite(values).all():
        raise MapError(
            f"the map of {name} holds NaN or infinity. Does the model overflow in its dtype? Load it with "
            'dtype="float32".'
        )
    dims = [*("layer", "head")[: values.ndim - 1], "token"]
    coords: dict[str, Any] = {"token": np.arange(tokens.n), "position": ("token", tokens.image)}
    if layers is not None:
        coords["layer"] = list(layers)
    if "head" in dims:
        coords["head"] = np.arange(values.shape[1])
    bounded = np.clip(values, -np.finfo(np.float32).max, np.finfo(np.float32).max)
    return xr.DataArray(
        bounded.astype(np.float32), dims=dims, coords=coords, name=name, attrs=dict(attrs or {})
    )


Together = Callable[[Any, Samples, Prompt | None, Target], Maps]
"""A function from a model, samples that run together, a prompt and a target to their maps."""


def maps_in_batches(
    together: Together,
    mllm: Any,
    samples: Samples,
    prompt: Prompt | None,
    target: Target,
    batch_size: int,
    progress: bool,
) -> Maps:
    """The maps of any number of samples, in micro-batches; the arguments are those of an indicator's call."""

    def run(own: Any, some: MicroBatch) -> Maps:
        groups = apart(own, some.samples, prompt, (), ()) if isinstance(own, Mllm) else None
        if groups is None:
            return together(own, some.samples, prompt, target)
        return _joined([(at, together(own, given, prompt, target)) for at, given, *_ in groups])

    given = samples if isinstance(samples, Batch | Prefix) else as_samples(samples)
    return _shown_on(given, _joined(in_batches(mllm, given, run, batch_size=batch_size, progress=progress)))


def _shown_on(given: tuple[Sample, ...] | Batch | Prefix, maps: Maps) -> Maps:
    """The maps with the samples they belong to, so that they can be drawn over the images."""
    return replace(maps, samples=given if isinstance(given, tuple) else tuple(given.samples))


def _joined(parts: Sequence[tuple[Places, Maps]]) -> Maps:
    """The maps of all samples, from those of micro-batches."""
    if len(parts) == 1:
        return parts[0][1]
    logits = [(at, one.logits.values) for at, one in parts if one.logits is not None]
    return Maps(
        tuple(in_order([(at, one.arrays) for at, one in parts])),
        tuple(in_order([(at, one.tokens) for at, one in parts])),
        reduce(add, (one.cost for _, one in parts)),
        xr.DataArray(np.stack(in_order(logits)), dims=["sample", "token_id"], name="logits")
        if logits
        else None,
    )


def map_each_sample(
    mllm: Mllm,
    samples: Samples,
    prompt: Prompt | None,
    one: One,
    batch_size: int = BATCH_SIZE,
    progress: bool = True,
) -> Maps:
    """The maps of samples, computed one by one whatever `batch_size` is, so that no map depends on other samples."""

    def run(own: Mllm, some: MicroBatch) -> Maps:
        with Meter(mllm.device) as meter:
            batch = given_as(own, some.samples, prompt)
        assert isinstance(batch, Batch)
        array, cost = one(batch)
        return Maps((array,), batch.tokens, meter.cost + cost)

    plain = samples.batch if isinstance(samples, Prefix) else samples
    encoded = plain if isinstance(plain, Batch) else as_samples(plain)
    options: dict[str, Any] = {"batch_size": batch_size, "progress": progress, "alone": True}
    return _shown_on(encoded, _joined(in_batches(mllm, encoded, run, **options)))


class BatchIndicator:
    """The base of indicators that compute the maps of a micro-batch together, in `_together`."""

    def __call__(
        self,
        mllm: Any,
        samples: Samples,
        *,
        prompt: Prompt | None = None,
        target: Target = Target("greedy"),  # noqa: B008 – a frozen value
        batch_size: int = BATCH_SIZE,
        progress: bool = True,
    ) -> Maps:
        """Returns the maps of these samples, in their order, computed in micro-batches as in `Mllm.trace`.

        Args:
            mllm: The model; for baselines anything that encodes samples.
            samples: The samples, or a batch or prefix of them. A prefix is used where it is exact, and its cost is not
                counted again.
            prompt: The prompt around the question; by default `PAPER_PROMPT`, or that of the batch or prefix.
            target: The answer whose log-probability is explained. Attention, rollout, value-weighted and
                vision attention, feature maps and baselines ignore it.
            batch_size: The most samples in one pass; except for rounding the maps do not depend on it.
            progress: Whether to show a bar where there are several micro-batches.

        Returns:
            Maps of float32 arrays ([layer, [head,]] token), with "position", the unpadded position of each image token.

        Raises:
            InterpError: Samples or prompts that cannot be encoded, or layers the model does not have.
        """
        check_call(mllm, prompt, target)
        return maps_in_batches(self._together, mllm, samples, prompt, target, batch_size, progress)

    def _together(self, mllm: Any, samples: Samples, prompt: Prompt | None, target: Target) -> Maps:
        """The maps of samples that run together."""
        raise NotImplementedError


class SampleIndicator:
    """The base of indicators that compute the map of each sample alone, in the function that `_one` returns."""

    def __call__(
        self,
        mllm: Mllm,
        samples: Samples,
        *,
        prompt: Prompt | None = None,
        target: Target = Target("greedy"),  # noqa: B008 – a frozen value
        batch_size: int = BATCH_SIZE,
        progress: bool = True,
    ) -> Maps:
        """Returns the maps of these samples, in their order, computed one by one.

        Args:
            mllm: The model.
            samples: The samples, or a batch or prefix of them.
            prompt: The prompt around the question; by default `PAPER_PROMPT`, or that of the batch or prefix.
            target: The answer whose log-probability is explained.
            batch_size: Checked, but without effect: each sample is encoded and run alone.
            progress: Whether to show a bar.

        Returns:
            Maps of float32 arrays ([layer,] token), with "position", the unpadded position of each image token.

        Raises:
            InterpError: Samples or prompts that cannot be encoded, or layers the model does not have.
        """
        check_call(mllm, prompt, target)
        return map_each_sample(mllm, samples, prompt, self._one(mllm, target), batch_size, progress)

    def _one(self, mllm: Mllm, target: Target) -> One:
        """From a batch of one sample to its map and the cost of the map."""
        raise NotImplementedError


def map_lines(arrays: Sequence[xr.DataArray]) -> Iterator[str]:
    """The first values of the first maps, and how many more maps there are."""
    for i, array in enumerate(arrays[:SHOWN]):
        values = array.values.reshape(-1)
        more = " …" if values.size > VALUES else ""
        yield f"[{i}] {' '.join(f'{value:.3g}' for value in values[:VALUES])}{more}"
    if len(arrays) > SHOWN:
        yield f"and {len(arrays) - SHOWN} more"


def map_frame(array: xr.DataArray, tokens: TokenMap, sample: int) -> pd.DataFrame:
    """The values of one map, one a row, with the place of each token."""
    levels = [str(dim) for dim in array.dims[:-1]]
    places = {
        dim: array[dim].values if dim in array.coords else np.arange(array.sizes[dim]) for dim in levels
    }
    index = pd.MultiIndex.from_product([*places.values(), range(tokens.n)], names=[*levels, "token"])
    frame = index.to_frame(index=False)
    at = frame["token"].to_numpy()
    frame.insert(0, "sample", sample)
    corners = tokens.footprints[at].T
    columns = {"position": tokens.image[at], "image": tokens.image_index[at]}
    columns |= dict(zip(("x0", "y0", "x1", "y1"), corners, strict=True))
    return frame.assign(**columns, view=tokens.views[at], value=array.values.reshape(-1))


def maps_html(
    arrays: Sequence[xr.DataArray], tokens: Sequence[TokenMap], samples: Sequence[Sample], title: str
) -> str:
    """The maps of the first samples as HTML: each image with its maps, several layers beside each other.

    Heads are averaged. Without samples the maps are drawn on a plain light background.
    """
    pictures: list[tuple[str, Image.Image]] = []
    for i, (array, own) in enumerate(zip(arrays[:SHOWN], tokens[:SHOWN], strict=True)):
        sample = samples[i] if samples else None
        for image in range(min(len(own.sizes), IMAGES)):
            where = f"sample {i}" + (f", image {image + 1}" if len(own.sizes) > 1 else "")
            pictures += [
                (f"{where}, {name}", _over(sample, own, values, image)) for name, values in _layers(array)
            ]
    return block(title, thumbnails(pictures, left=len(arrays) - SHOWN, of="sample"))


def _layers(array: xr.DataArray) -> list[tuple[str, np.ndarray]]:
    """Name and values (token,) of up to four layers, evenly spaced, the last among them."""
    if "head" in array.dims:
        name, array = "mean of heads", array.mean("head")
    else:
        name = "map"
    if "layer" not in array.dims:
        return [(name, array.values)]
    n = array.sizes["layer"]
    places = np.unique(np.linspace(0, n - 1, min(n, LAYERS)).round().astype(int))
    labels: Any = array["layer"].values if "layer" in array.coords else np.arange(n)
    more = f" ({name})" if name != "map" else ""
    return [(f"layer {labels[place]}{more}", array.values[place]) for place in places]


def _over(sample: Sample | None, tokens: TokenMap, values: np.ndarray, image: int) -> Image.Image:
    """One map over its image, or on a plain background where the image is missing or cannot be read."""
    if sample is not None:
        with suppress(InterpError):
            return overlay(sample, tokens, values, image, SIDE)
    return heated(tokens.to_pixels(strengths(values), image=image), bounded(tokens.sizes[image], SIDE))
