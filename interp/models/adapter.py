"""What `interp` needs to know about a model family, and how a family is found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int
from torch import nn

from interp.errors import ModelError
from interp.inputs.footprints import Footprints
from interp.models.refusals import refusal

__all__ = ["BUILT_IN", "Adapter", "adapters", "built_in", "find", "installed"]

BUILT_IN: tuple[str, ...] = (
    "interp.models.llava:Llava",
    "interp.models.llava_next:LlavaNext",
    "interp.models.llava_next:LlavaOnevision",
    "interp.models.qwen:Qwen2Vl",
    "interp.models.qwen:Qwen25Vl",
    "interp.models.qwen:Qwen3Vl",
    "interp.models.internvl:InternVl",
    "interp.models.gemma3:Gemma3",
    "interp.models.idefics:Idefics3",
    "interp.models.idefics:SmolVlm",
    "interp.models.paligemma:PaliGemma",
    "interp.models.mistral3:Mistral3",
    "interp.models.vila:Vila",
)
"""The built-in families, module:class; imported when they are first asked for."""

_GROUP = "interp.adapters"
_PARTS = ("name", "matches", "layers", "image_positions", "footprints", "fallback_prompt")


@runtime_checkable
class Adapter(Protocol):
    """One model family: five short methods and a fallback prompt. Pure transformers; no tracing.

    `interp.models.base.Family` has the methods most families share; subclass it and write `footprints`. An
    adapter that does not may also have these, and is treated as said where it has not:

    - `attends` ("causal"): "image_blocks" when image tokens also see the later ones of their own run (gemma3),
      "prefix" when every prompt token sees the whole prompt (paligemma). Decides where a row may look and whether
      an image prefix is exact.
    - `first_position` (0): the position id of a prompt's first token, for families whose `position_ids` follow
      the attention mask (paligemma: 1).
    - `layout` (""): one line for people on what the image tokens are.
    - `examples` (()): hub ids of the family.
    - `tiny()` (none): a small model with random weights and its processor, so that `interp check NAME` can check
      the family by its name.
    """

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
    """Every adapter in the order they are asked: those installed, then the built-in families.

    Raises:
        ModelError: An installed adapter cannot be imported or lacks a part.
    """
    return [*installed().values(), *built_in()]


def built_in() -> Iterator[Adapter]:
    """The families that come with `interp`, one by one."""
    for path in BUILT_IN:
        module, name = path.split(":")
        yield getattr(import_module(module), name)()


def installed() -> dict[str, Adapter]:
    """The adapters of installed packages (entry point group `interp.adapters`), by where each comes from.

    Raises:
        ModelError: One cannot be imported or lacks a part.
    """
    return {_origin(entry): _loaded(entry) for entry in entry_points(group=_GROUP)}


def find(config: Any, adapter: Adapter | str | None = None) -> Adapter:
    """The adapter for a config.

    The one given, or of that name; else the installed one that matches; else the built-in family that matches.
    An installed adapter comes before a built-in one, so a package can replace a family.

    Args:
        config: of the model.
        adapter: an adapter, or the name of one.

    Raises:
        ModelError: None matches, two installed ones do, a model without a spatial map (`refusals`), or the one
            given lacks a part.
    """
    if isinstance(adapter, str):
        return _named(adapter)
    if adapter is not None:
        return _complete(adapter, "adapter=")
    kind = getattr(config, "model_type", None) or type(config).__name__
    packages = installed()
    found = _one(
        packages, (o for o, a in packages.items() if _matches(a, config)), f"the model type {kind!r}"
    )
    if found is not None:
        return found
    for candidate in built_in():
        if candidate.matches(config):
            return candidate
    reason = refusal(config)
    if reason is not None:
        raise ModelError(reason)
    names = ", ".join(a.name for a in adapters())
    raise ModelError(
        f"no adapter knows the model type {kind!r}; families: {names}. Ways on: write an adapter "
        "(docs/new_model.md: one short file) and pass it, as interp.load(…, adapter=…), or, for a model you have "
        "built yourself, as interp.wrap(hf_model, processor, adapter=…); or install a package that has one."
    )


def _named(name: str) -> Adapter:
    packages = installed()
    found = _one(packages, (o for o, a in packages.items() if a.name == name), f"the name {name!r}")
    for candidate in built_in() if found is None else ():
        if candidate.name == name:
            found = candidate
    if found is None:
        names = ", ".join(a.name for a in adapters())
        raise ModelError(
            f"no adapter is named {name!r}; there are: {names}. Pass an Adapter object, or install one."
        )
    return found


def _one(packages: Mapping[str, Adapter], origins: Iterable[str], wanted: str) -> Adapter | None:
    """The only one of these installed adapters, None without any."""
    candidates = list(origins)
    if len(candidates) > 1:
        listed = " and ".join(f"{packages[o].name!r} ({o})" for o in candidates)
        raise ModelError(
            f"{len(candidates)} installed adapters claim {wanted}: {listed}. Uninstall one of the packages, or "
            "pass adapter= with the adapter you mean."
        )
    return packages[candidates[0]] if candidates else None


def _matches(adapter: Adapter, config: Any) -> bool:
    try:
        return bool(adapter.matches(config))
    except Exception as error:  # whatever a plug-in raises on a config it did not expect
        raise ModelError(
            f"the installed adapter {adapter.name!r} cannot judge a {type(config).__name__} "
            f"({type(error).__name__}: {error}). Its matches(config) should say no to configs of other families; "
            "repair or uninstall it."
        ) from error


def _origin(entry: Any) -> str:
    """The package and the object of an entry point, as people know them."""
    package = getattr(getattr(entry, "dist", None), "name", None)
    return f"{entry.name} = {entry.value}" + (f" of {package}" if package else "")


def _loaded(entry: Any) -> Adapter:
    """The adapter an entry point names: an instance, or a class without arguments."""
    try:
        loaded = entry.load()
        made = loaded() if isinstance(loaded, type) else loaded
    except Exception as error:  # whatever a plug-in's import raises
        raise ModelError(
            f"the installed adapter {_origin(entry)} cannot be imported ({type(error).__name__}: {error}). "
            "Repair or uninstall the package that declares it."
        ) from error
    return _complete(made, f"the entry point {_origin(entry)}")


def _complete(adapter: Any, where: str) -> Adapter:
    """The adapter, or a ModelError naming what it lacks."""
    missing = [part for part in _PARTS if not hasattr(adapter, part)]
    if missing or isinstance(adapter, type):
        lacks = ", ".join(missing) or "nothing, but it is a class: pass an instance"
        raise ModelError(f"{where} needs an adapter with {', '.join(_PARTS)}; {adapter!r} lacks {lacks}.")
    return adapter
