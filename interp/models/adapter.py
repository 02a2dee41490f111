"""What `interp` needs to know about a model family, and how a family is found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int
from torch import nn

from interp.errors import ModelError
from interp.footprints import Footprints
from interp.models.llava import Llava

__all__ = ["Adapter", "adapters", "find"]


@runtime_checkable
class Adapter(Protocol):
    """One model family: five short methods and a fallback prompt. Pure transformers; no tracing."""

    name: str

    def matches(self, config: Any) -> bool:
        """Whether a transformers config is of this family."""
        ...

    def layers(self, model: nn.Module) -> list[nn.Module]:
        """The decoder layers, in order; each has its attention at `.self_attn`."""
        ...

    def image_positions(self, input_ids: Any, config: Any) -> Int[np.ndarray, " token"]:
        """Positions of the image tokens in one sample's unpadded ids, increasing."""
        ...

    def footprints(
        self, sizes: Sequence[tuple[int, int]], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """The footprint of each image token of one sample, in the order of `image_positions`.

        Args:
            sizes: (width, height) of each image of the sample.
            inputs: What the processor returned for this sample alone.
            processor: The transformers processor.
            config: The model's config.
        """
        ...

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """The whole prompt, when the processor has no chat template."""
        ...


def adapters() -> list[Adapter]:
    """The built-in families, then those installed under the entry point group `interp.adapters`.

    Raises:
        ModelError: An installed adapter cannot be imported.
    """
    return [Llava(), *(_installed(entry) for entry in entry_points(group="interp.adapters"))]


def find(config: Any, adapter: Adapter | str | None = None) -> Adapter:
    """The adapter for a config: the one given (or named), else the first that matches.

    Raises:
        ModelError: None matches, or the one given lacks a method.
    """
    known = adapters()
    names = ", ".join(a.name for a in known)
    if isinstance(adapter, str):
        named = [a for a in known if a.name == adapter]
        if not named:
            raise ModelError(
                f"no adapter is named {adapter!r}; there are: {names}. Pass an Adapter object, or install "
                "one."
            )
        return named[0]
    if adapter is not None:
        return _complete(adapter, "adapter=")
    for candidate in known:
        if candidate.matches(config):
            return candidate
    raise ModelError(
        f"no adapter knows the model type {getattr(config, 'model_type', type(config).__name__)!r}; "
        f"families: {names}. Three ways on: pass adapter= with an object of five short methods "
        "(interp.models.Adapter); build the model yourself and use interp.wrap(hf_model, processor, "
        "adapter=…); or, if this is an original checkpoint (LLaVA's own layout, not transformers'), load the "
        "folder whose config.json names a family above."
    )


def _installed(entry: Any) -> Adapter:
    """The adapter an entry point names: an instance, or a class without arguments."""
    try:
        loaded = entry.load()
        made = loaded() if isinstance(loaded, type) else loaded
    except Exception as error:  # whatever a plug-in's import raises
        raise ModelError(
            f"the adapter {entry.name!r} ({entry.value}) cannot be imported ({type(error).__name__}: "
            f"{error}). Repair or uninstall the package that declares it."
        ) from error
    return _complete(made, f"the entry point {entry.name!r}")


def _complete(adapter: Any, where: str) -> Adapter:
    """The adapter, or a ModelError naming what it lacks."""
    parts = ("name", "matches", "layers", "image_positions", "footprints", "fallback_prompt")
    missing = [part for part in parts if not hasattr(adapter, part)]
    if missing or isinstance(adapter, type):
        lacks = ", ".join(missing) or "nothing, but it is a class: pass an instance"
        raise ModelError(f"{where} needs an adapter with {', '.join(parts)}; {adapter!r} lacks {lacks}.")
    return adapter
