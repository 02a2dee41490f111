"""The vision tower of a family: its layers, and its patches' geometry where the tower is of a usual form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import nn

from interp.errors import ModelError
from interp.inputs.footprints import Footprints, Size, select
from interp.inputs.patch_map import Patches, PatchMap, PatchWeights, TowerSequence

__all__ = [
    "block_order",
    "leading_tokens",
    "merged",
    "merged_side",
    "patch_map",
    "patches_of_latents",
    "split_views",
    "subdivided",
    "tower_attention",
    "tower_heads",
    "tower_layers",
    "turned",
    "usual_patches",
]

_CLASS_TOKEN = (
    "blip_2_vision_model",
    "clip_vision_model",
    "dinov2",
    "dinov2_with_registers",
    "instructblip_vision_model",
    "internvl_vision",
    "vit",
)
"""Towers, by model_type, that put a class token before their patches."""


def tower_layers(model: nn.Module) -> list[nn.Module]:
    """The layers of a model's vision tower, in order: the longest list of modules with an attention each.

    Raises:
        ModelError: transformers names no image encoder of the model, or it has no such layers.
    """
    find = getattr(model, "get_encoder", None)
    tower = None if find is None else find(modality="image")
    if tower is None or tower is model or not isinstance(tower, nn.Module):
        raise ModelError(
            f"{type(model).__name__} has no module that transformers calls its image encoder, so the layers of its "
            "vision tower are not known. Give the adapter vision_layers(model)."
        )
    lists = [list(one) for one in tower.modules() if isinstance(one, nn.ModuleList) and len(one)]
    found = [one for one in lists if all(_attention(layer) is not None for layer in one)]
    if not found:
        raise ModelError(
            f"the vision tower of {type(model).__name__} ({type(tower).__name__}) has no list of layers whose "
            "attention goes through transformers' attention interface. Its attention cannot be read or edited."
        )
    return max(found, key=len)


def tower_attention(layer: nn.Module) -> nn.Module:
    """The attention module of a layer of the tower.

    Raises:
        ModelError: It has none of transformers' form.
    """
    found = _attention(layer)
    if found is None:
        raise ModelError(
            f"{type(layer).__name__} has no attention module of transformers' form (with `is_causal` or "
            "`num_key_value_groups`, a `config` and a number of heads), so its attention cannot be read or edited."
        )
    return found


def tower_heads(attention: nn.Module) -> int | None:
    """The number of heads of an attention module of the tower; None for a module of another kind."""
    through = hasattr(attention, "is_causal") or hasattr(
        attention, "num_key_value_groups"
    )  # Llama 4 has the second alone
    if not (through and hasattr(attention, "config")):
        return None
    found: Any = getattr(attention, "num_heads", getattr(attention.config, "num_attention_heads", None))
    return None if found is None else int(found)


def _attention(layer: nn.Module) -> nn.Module | None:
    return next((one for one in layer.children() if tower_heads(one) is not None), None)


def leading_tokens(config: Any) -> tuple[str, ...]:
    """The tokens that a tower puts before its patches: a class token, registers."""
    vision = config.vision_config
    registers = int(getattr(vision, "num_register_tokens", 0) or 0)
    return ("cls",) * (vision.model_type in _CLASS_TOKEN) + ("register",) * registers


def merged_side(config: Any) -> int:
    """How many patches lie along the side of a token, as configs of the usual families say; 1 where none does."""
    ratio = getattr(config, "downsample_ratio", None)
    if ratio:
        return round(1 / ratio)
    for part in (config, config.vision_config):
        for name in ("spatial_merge_size", "scale_factor", "downsample_factor", "hidden_stride"):
            if getattr(part, name, None):
                return int(getattr(part, name))
    return 1


def subdivided(cells: Footprints, grid: tuple[int, int], k: int) -> Footprints:
    """Each cell of a row-major grid cut into k×k: one row-major grid again.

    The cells must not be clipped: a cell's parts are taken to be of equal size.
    """
    rows, cols = grid
    x0, y0, x1, y1 = np.moveaxis(cells.boxes.reshape(rows, 1, cols, 1, 4), -1, 0)
    row, col = np.arange(k).reshape(1, k, 1, 1), np.arange(k).reshape(1, 1, 1, k)
    wide, high = (x1 - x0) / k, (y1 - y0) / k
    edges = (x0 + wide * col, y0 + high * row, x0 + wide * (col + 1), y0 + high * (row + 1))
    boxes = np.stack(np.broadcast_arrays(*edges), axis=-1).reshape(-1, 4)
    n = k * k
    return Footprints(boxes, (rows * k, cols * k), np.repeat(cells.views, n), np.repeat(cells.image, n))


def merged(grid: tuple[int, int], k: int) -> PatchWeights:
    """The weights of a row-major grid of tokens, each made of k×k patches of a row-major grid."""
    rows, cols = grid
    numbers = np.arange(rows * cols * k * k).reshape(rows, k, cols, k).transpose(0, 2, 1, 3)
    return PatchWeights.members(list(numbers.reshape(rows * cols, k * k)), rows * cols * k * k)


def block_order(grid: tuple[int, int], k: int) -> Int[np.ndarray, " patch"]:
    """The row-major number of each patch in a sequence of k×k blocks, row by row, and row by row in a block."""
    rows, cols = grid
    return np.arange(rows * cols * k * k).reshape(rows, k, cols, k).transpose(0, 2, 1, 3).reshape(-1)


def patch_map(
    adapter: Any, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
) -> PatchMap:
    """Where the patches of one sample are in the vision tower, as an adapter says; arguments as in its `footprints`.

    Raises:
        ModelError: The adapter has no `patches`, or the tower is of a form that has no such map.
    """
    of = getattr(adapter, "patches", None)
    if of is None:
        raise ModelError(
            f"the adapter {adapter.name!r} does not say where the patches of its vision tower are. Subclass "
            "interp.models.base.Family, or give it patches(sizes, inputs, processor, config)."
        )
    return PatchMap.of(of(sizes, inputs, processor, config), sizes)


def usual_patches(footprints: Footprints, inputs: Mapping[str, Any], config: Any, k: int) -> Patches:
    """The patches of a tower of a usual form: each token is k×k patches, each grid of tokens one sequence.

    Qwen-like towers, whose inputs have `image_grid_thw`, keep the patches of a token together. If such a tower has
    windows, the patches come window by window.

    Raises:
        ModelError: The tokens are not whole grids, or there are videos.
    """
    sequences, weights, start = [], [], 0
    orders = _orders(inputs, config, k)
    for number, grid in enumerate(_grids(footprints, inputs, config, k)):
        stop = start + grid[0] * grid[1]
        if stop > len(footprints):
            raise ModelError(
                f"the vision tower's grids hold more tokens than the {len(footprints)} of the prompt. Give the adapter "
                "patches(sizes, inputs, processor, config)."
            )
        cells = subdivided(select(footprints, slice(start, stop)), grid, k)
        sequences.append(TowerSequence(cells, None if orders is None else orders[number]))
        weights.append(merged(grid, k))
        start = stop
    return Patches(tuple(sequences), leading_tokens(config), PatchWeights.stacked(weights))


def patches_of_latents(views: Sequence[Footprints], n_latents: int, leading: tuple[str, ...] = ()) -> Patches:
    """The patches of a tower that a resampler reads, each view one sequence: no latent has patches of its own.

    Args:
        views: Each view's patches, one row-major grid; padding has no area.
        n_latents: How many latents the sample has.
        leading: The tokens that the tower puts before each sequence.
    """
    n = sum(map(len, views))
    return Patches(tuple(map(TowerSequence, views)), leading, PatchWeights.members([[]] * n_latents, n))


def split_views(patches: Footprints, inputs: Mapping[str, Any]) -> list[Footprints]:
    """The patches of each view of `pixel_values`, all views with equally many."""
    n = int(np.prod(inputs["pixel_values"].shape[:-3])) if len(patches) else 0
    parts = np.split(np.arange(len(patches)), n) if n else []
    return [select(patches, at) for at in parts]


def turned(
    footprints: Footprints, grid: tuple[int, int], inputs: Mapping[str, Any], config: Any, k: int
) -> Patches:
    """The patches of a usual tower where each view's tokens, a grid (rows, cols), run down the columns.

    Patches stay row-major; the other arguments are those of `usual_patches`.
    """
    n = grid[0] * grid[1]
    column_major = np.arange(n).reshape(grid).T.reshape(-1)
    starts = np.arange(0, len(footprints), n)
    row_major = (starts[:, None] + np.argsort(column_major)).reshape(-1)
    boxes, views, image = (one[row_major] for one in (footprints.boxes, footprints.views, footprints.image))
    found = usual_patches(Footprints(boxes, grid, views, image), inputs, config, k)
    weights = found.weights
    back = replace(weights, token=row_major[weights.token])
    return replace(found, weights=back)


def _grids(footprints: Footprints, inputs: Mapping[str, Any], config: Any, k: int) -> list[tuple[int, int]]:
    """The grid of tokens of each sequence."""
    n = len(footprints)
    if inputs.get("pixel_values_videos") is not None:
        raise ModelError("the patches of a video are not mapped yet; pass its frames as images.")
    if not n:
        return []
    if inputs.get("image_grid_thw") is not None:
        return [(int(rows) // k, int(cols) // k) for _, rows, cols in inputs["image_grid_thw"]]
    if footprints.grid is not None:
        return [footprints.grid] * (n // (footprints.grid[0] * footprints.grid[1]))
    found = [_grid_of(footprints.boxes[footprints.image == i]) for i in np.unique(footprints.image)]
    if all(one is not None for one in found) and len(set(footprints.views.tolist())) == 1:
        return [one for one in found if one is not None]
    side = int(_first(config.vision_config.image_size)) // int(_first(config.vision_config.patch_size)) // k
    if not side or n % side**2:
        raise ModelError(
            f"{n} image tokens are not whole grids of {side}×{side}, one for each view of the vision tower. Give the "
            "adapter patches(sizes, inputs, processor, config)."
        )
    return [(side, side)] * (n // side**2)


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple | list) else value


def _grid_of(boxes: np.ndarray) -> tuple[int, int] | None:
    """(rows, cols) if the boxes are one row-major grid."""
    if np.isnan(boxes).any():
        return None
    rows, cols = len(np.unique(boxes[:, 1])), len(np.unique(boxes[:, 0]))
    if rows * cols != len(boxes):
        return None
    ordered = (np.diff(boxes[:, 1].reshape(rows, cols), axis=0) > 0).all()
    return (rows, cols) if ordered and (np.diff(boxes[:, 0].reshape(rows, cols), axis=1) > 0).all() else None


def _orders(inputs: Mapping[str, Any], config: Any, k: int) -> list[np.ndarray] | None:
    """Each image's patches in the order of a Qwen-like tower; None for other towers."""
    grids = inputs.get("image_grid_thw")
    if grids is None:
        return None
    found = []
    for frames, rows, cols in ([int(n) for n in one] for one in grids):
        if frames != 1:
            raise ModelError(f"expected images of one frame, got image_grid_thw with {frames} frames.")
        order = block_order((rows // k, cols // k), k)
        window = getattr(config.vision_config, "window_size", None)
        if window and hasattr(config.vision_config, "fullatt_block_indexes"):
            side = window // config.vision_config.patch_size // k
            row, col = np.indices((rows // k, cols // k)).reshape(2, -1)
            # windows row by row, in each its tokens row by row
            units = np.lexsort((col, row, col // side, row // side))
            order = order.reshape(-1, k * k)[units].reshape(-1)
        found.append(order)
    return found
