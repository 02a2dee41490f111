"""LoRA: a base model's tensors with low-rank changes, merged one at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from interp.errors import ModelError
from interp.inputs.text import count
from interp.models.checkpoints.tensors import Tensors, read_file

__all__ = ["Merged", "adapter_config", "merged"]


_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_TRAINED = "non_lora_trainables.bin"
_UNKNOWN = ("rank_pattern", "alpha_pattern", "modules_to_save", "use_dora", "layer_replication")
"""Settings that change the arithmetic. No LLaVA adapter uses them."""


@dataclass(frozen=True, eq=False)
class Merged:
    """A base's tensors; some are replaced, and some have W + scale · B A instead of W.

    Attributes:
        base: The base model's tensors.
        low: Name of the changed weight → the adapter's names of A and B.
        adapter: The adapter's tensors.
        trained: Tensors that replace the base's or are new: name in the base → name in their file.
        replacing: The tensors of that file.
        scale: The factor of the product.
    """

    base: Tensors
    adapter: Tensors
    low: dict[str, tuple[str, str]]
    replacing: Tensors
    trained: dict[str, str]
    scale: float

    @cached_property
    def lost(self) -> frozenset[str]:
        """Returns the adapter's names whose weight the base lacks."""
        known = set(self.base.names())
        return frozenset(one for name, pair in self.low.items() if name not in known for one in pair)

    def names(self) -> Sequence[str]:
        """Returns the base's names and then the new ones; changes of unknown weights keep their own names."""
        known = set(self.base.names())
        new = [name for name in self.trained if name not in known]
        return [*self.base.names(), *new, *sorted(self.lost)]

    def meta(self, name: str) -> Tensor:
        """Returns shape and dtype of a tensor."""
        if name in self.trained:
            return self.replacing.meta(self.trained[name])
        return self.adapter.meta(name) if name in self.lost else self.base.meta(name)

    def read(self, name: str) -> Tensor:
        """Returns a tensor; a changed one is summed in float32 and rounded to the base's dtype."""
        if name in self.trained:
            return self.replacing.read(self.trained[name])
        if name not in self.low:
            return self.base.read(name)
        a, b = (self.adapter.read(one).float() for one in self.low[name])
        weight = self.base.read(name)
        if (len(b), a.shape[1]) != tuple(weight.shape) or len(a) != b.shape[1]:
            raise ModelError(
                f"the adapter's {tuple(b.shape)} × {tuple(a.shape)} for {name} does not fit the base's "
                f"{tuple(weight.shape)}. Is it an adapter of another base?"
            )
        return (weight.float() + self.scale * (b @ a)).to(weight.dtype)


def merged(folder: Path, base: Tensors) -> Merged:
    """Returns the base merged with the adapter in a folder and with its `non_lora_trainables.bin`.

    Raises:
        ModelError: Files are missing, or a setting is not supported.
    """
    settings = adapter_config(folder)
    path = next((folder / name for name in _FILES if (folder / name).is_file()), None)
    if path is None or not (folder / _TRAINED).is_file():
        raise ModelError(
            f"{folder} should hold {' or '.join(_FILES)}, and {_TRAINED}. Is the download complete?"
        )
    adapter, replacing = read_file(path), read_file(folder / _TRAINED)
    return Merged(
        base=base,
        adapter=adapter,
        low=_pairs(adapter, path),
        replacing=replacing,
        trained={_plain(name): name for name in replacing.names()},
        scale=_scale(settings, folder),
    )


def adapter_config(folder: Path) -> dict[str, Any]:
    """Returns PEFT's settings of the adapter in a folder.

    Raises:
        ModelError: The file is not a JSON object.
    """
    try:
        return dict(json.loads((folder / "adapter_config.json").read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(
            f"{folder}/adapter_config.json cannot be read ({type(error).__name__}: {error}). Name the folder that "
            "PEFT's save_pretrained wrote, or copy it again."
        ) from error


def _scale(settings: dict[str, Any], folder: Path) -> float:
    unknown = [name for name in _UNKNOWN if settings.get(name)]
    if settings.get("fan_in_fan_out") or settings.get("bias", "none") != "none" or unknown:
        raise ModelError(
            f"{folder}/adapter_config.json asks for {', '.join(unknown) or 'fan_in_fan_out or trained biases'}, which "
            "this reader does not merge. Merge it with PEFT and load the result."
        )
    rank = settings["r"]
    return settings["lora_alpha"] / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _pairs(adapter: Tensors, path: Path) -> dict[str, tuple[str, str]]:
    """Returns a dict of weight → the names of its A and B."""
    names, pairs = set(adapter.names()), {}
    for name in adapter.names():
        stem, found, tail = name.partition(".lora_A.")
        other = f"{stem}.lora_B.{tail}"
        if found and other in names:
            pairs[_plain(stem) + ".weight"] = (name, other)
    used = {one for pair in pairs.values() for one in pair}
    if used != names:
        odd = sorted(names - used)
        raise ModelError(
            f"{path} should hold pairs of lora_A and lora_B; without a partner: {count(len(odd), 'tensor')}, "
            f"{', '.join(odd[:8])}. Was it cut off?"
        )
    return pairs


def _plain(name: str) -> str:
    """Returns a name as in the base, without PEFT's prefix."""
    bare = name.removeprefix("base_model.")
    return (
        bare.removeprefix("model.")
        if bare.startswith(("model.model.", "model.lm_head.")) or bare == "model.lm_head"
        else bare
    )
