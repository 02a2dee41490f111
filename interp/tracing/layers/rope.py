"""How far a model's rotary positions reach, and frequencies that depend on the length of what is run.

With longrope and dynamic NTK scaling, transformers takes the rotary frequencies from the longest sequence of a pass.
Samples on two sides of such a limit then need separate passes, and keys from one side cannot be used on the other.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from interp.errors import ModelError

__all__ = ["Rope", "position_ids", "settle"]


@dataclass(frozen=True)
class Rope:
    """A text config's positions.

    Attributes:
        limit: how many positions the model takes; None where its config does not say.
        scalings: for each scaling that depends on the length: up to which length it is not at work, and whether every
            length beyond has frequencies of its own (dynamic NTK) or all share them (longrope).
        several_axes: whether an image's positions turn along several axes, so that they are fewer than its tokens.
        temperature: from which length queries are scaled by how far they are from the start (Llama 4's layers without
            rope); None where they never are.
    """

    limit: int | None = None
    scalings: tuple[tuple[int, bool], ...] = ()
    several_axes: bool = False
    temperature: int | None = None

    @classmethod
    def of(cls, config: Any) -> Rope:
        """The positions of a text config."""
        largest: Any = getattr(config, "max_position_embeddings", None)
        parts = list(_parameters(getattr(config, "rope_parameters", None)))
        scalings = []
        for part in parts:
            kind = str(part.get("rope_type", ""))
            if "dynamic" in kind:
                scalings.append((int(largest), True))
            elif kind == "longrope":
                scalings.append((int(part["original_max_position_embeddings"]), False))
        limit = None if largest is None else max([int(largest), *(_scaled(one, largest) for one in parts)])
        axes = any("mrope_section" in part for part in parts)
        tuned = getattr(config, "attn_temperature_tuning", False) and not all(config.no_rope_layers)
        return cls(limit, tuple(dict.fromkeys(scalings)), axes, int(config.floor_scale) if tuned else None)

    def kind(self, length: int) -> tuple[int, ...]:
        """What the frequencies of a pass of this length depend on: the same for lengths that share them."""
        return tuple(0 if length <= start else (length if each else 1) for start, each in self.scalings)

    def shared(self, lengths: Sequence[int]) -> bool:
        """Whether passes of these numbers of tokens are known to have the same frequencies."""
        kinds = {self.kind(length) for length in lengths}
        return len(kinds) < 2 and not (self.several_axes and any(map(any, kinds)))

    def groups(self, lengths: Sequence[int]) -> list[list[int]]:
        """The places of lengths that share frequencies, group by group."""
        found: dict[tuple[int, ...], list[int]] = {}
        for place, length in enumerate(lengths):
            found.setdefault(self.kind(length), []).append(place)
        return list(found.values())


def _parameters(value: Any) -> Iterator[Mapping[str, Any]]:
    """The rope's parameters: one mapping, or one for each kind of layer."""
    if not isinstance(value, Mapping):
        return
    if "rope_type" in value:
        yield value
    for part in value.values():
        yield from _parameters(part)


def _scaled(part: Mapping[str, Any], largest: int) -> int:
    """How many positions a scaling extends the model to."""
    factor, kind = part.get("factor"), str(part.get("rope_type", ""))
    original = part.get("original_max_position_embeddings")
    if original is None and (kind == "linear" or "dynamic" in kind):
        original = largest
    return 0 if factor is None or original is None else int(original * factor)


def settle(hf: Any, inputs: Mapping[str, Tensor]) -> None:
    """Makes the frequencies of the next pass depend on that pass alone, and refuses one that cannot be right.

    Args:
        hf: the transformers model.
        inputs: the arguments of the pass; `attention_mask` covers the cache too.

    Raises:
        ModelError: samples that need different frequencies, keys in the cache that were made with others, or padding
            where queries are scaled by column.
    """
    rope = Rope.of(hf.config.get_text_config(decoder=True))
    mask = inputs["attention_mask"]
    if rope.temperature is not None and mask.shape[1] >= rope.temperature and not bool(mask.all()):
        raise ModelError(
            f"from position {rope.temperature - 1} on, this model scales its queries by how far they are from the "
            f"start, padding included; this batch has {mask.shape[1]} columns and is padded, so results would depend "
            "on the padding. Run the samples one by one: batch_size=1."
        )
    if not rope.scalings:
        return
    if any(each for _, each in rope.scalings):
        _forget(hf)
    starts, stops = _reach(inputs)
    limits = ", ".join(str(start) for start, _ in rope.scalings)
    if len(rope.groups(stops)) > 1:
        raise ModelError(
            f"the frequencies of this model's rotary positions depend on the longest sample of a batch (beyond "
            f"{limits} positions); these have {stops}. Run the samples one by one, or group them by length."
        )
    cached = inputs["attention_mask"].shape[1] > inputs["input_ids"].shape[1]
    if cached and len(rope.groups([*starts, *stops])) > 1:
        raise ModelError(
            f"the frequencies of this model's rotary positions change beyond {limits} positions, so tokens after "
            f"position {min(starts)} cannot use the cached keys of earlier ones. Ask for fewer tokens, or a shorter "
            "prompt."
        )


def _reach(inputs: Mapping[str, Tensor]) -> tuple[list[int], list[int]]:
    """The first position of each sample in a pass, and the one after its last."""
    positions = inputs["position_ids"]
    own = inputs["attention_mask"][:, -inputs["input_ids"].shape[1] :].bool()
    low, high = (positions, positions) if positions.ndim == 2 else (positions.amin(0), positions.amax(0))
    starts = low.masked_fill(~own, torch.iinfo(low.dtype).max).amin(-1)
    return starts.tolist(), (high.masked_fill(~own, -1).amax(-1) + 1).tolist()


def _forget(hf: nn.Module) -> None:
    """Undoes what dynamic scaling keeps of earlier, longer passes."""
    end = "original_inv_freq"
    for module in hf.modules():
        for name, original in list(module.named_buffers(recurse=False)):
            if name.endswith(end) and hasattr(module, "original_max_seq_len"):
                kind = name.removesuffix(end)
                module.register_buffer(f"{kind}inv_freq", original, persistent=False)
                setattr(module, f"{kind}max_seq_len_cached", module.original_max_seq_len)


def position_ids(hf: Any, inputs: Mapping[str, Tensor], first: int = 0) -> Tensor:
    """(sample, position); or (axis, sample, position) for models that turn image tokens along several axes.

    Padding does not count. They are passed explicitly with every forward pass: what transformers would work
    out alone depends on what the model ran before.

    Args:
        hf: the transformers model.
        inputs: a whole batch, with `attention_mask`.
        first: the position of a prompt's first token.
    """
    index = getattr(getattr(hf, "model", hf), "get_rope_index", None)
    if index is not None and not inputs.keys().isdisjoint(("image_grid_thw", "video_grid_thw")):
        known = inspect.signature(index).parameters
        return index(**{name: value for name, value in inputs.items() if name in known})[0]
    return (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0) + first
