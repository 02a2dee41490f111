"""The `Adapter` protocol of a model family, and how the adapter of a model is found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Protocol, runtime_checkable

import numpy as np
import transformers
from jaxtyping import Int
from packaging.version import Version
from torch import nn
from transformers import CONFIG_MAPPING

from interp.errors import ModelError
from interp.inputs.footprints import Footprints
from interp.inputs.text import meant
from interp.models.refusals import ANSWERS_ONLY, AnswersOnly, answers, refusal

__all__ = [
    "BUILT_IN",
    "Adapter",
    "adapters",
    "attends_in",
    "built_in",
    "find",
    "installed",
    "is_available",
    "needed",
]

BUILT_IN: tuple[str, ...] = (
    "interp.models.families.llava:Llava",
    "interp.models.families.llava:LlavaNext",
    "interp.models.families.llava:LlavaNextVideo",
    "interp.models.families.llava:LlavaOnevision",
    "interp.models.families.qwen_and_glm:Qwen2Vl",
    "interp.models.families.qwen_and_glm:Qwen25Vl",
    "interp.models.families.qwen_and_glm:Qwen3Vl",
    "interp.models.families.qwen_and_glm:Qwen3VlMoe",
    "interp.models.families.qwen_and_glm:Glm4v",
    "interp.models.families.qwen_and_glm:Glm46V",
    "interp.models.families.qwen_and_glm:Glm4vMoe",
    "interp.models.families.qwen_and_glm:Qwen35",
    "interp.models.families.qwen_and_glm:Qwen35Moe",
    "interp.models.families.internvl:InternVl",
    "interp.models.families.cohere:AyaVision",
    "interp.models.families.cohere:Cohere2Vision",
    "interp.models.families.gemma:Gemma3",
    "interp.models.families.gemma:Gemma3n",
    "interp.models.families.llama:Llama4",
    "interp.models.families.gemma:Gemma4",
    "interp.models.families.gemma:Gemma4Unified",
    "interp.models.families.lfm2_vl:Lfm2Vl",
    "interp.models.families.idefics:Idefics3",
    "interp.models.families.idefics:Idefics2",
    "interp.models.families.aria:Aria",
    "interp.models.families.blip2:Blip2",
    "interp.models.families.blip2:InstructBlip",
    "interp.models.families.idefics:SmolVlm",
    "interp.models.families.minicpmv:MiniCpmV46",
    "interp.models.families.molmo2:Molmo2",
    "interp.models.families.gemma:PaliGemma",
    "interp.models.families.mistral3:Mistral3",
    "interp.models.families.llama:Mllama",
    "interp.models.families.llava:Vila",
    "interp.models.families.deepseek_vl:DeepseekVl",
    "interp.models.families.deepseek_vl:DeepseekVlHybrid",
    "interp.models.families.llava:VipLlava",
    "interp.models.families.llava:FastVlm",
    "interp.models.families.ovis2:Ovis2",
    "interp.models.families.ocr:GotOcr2",
    "interp.models.families.ocr:LightOnOcr",
    "interp.models.families.kimi_k25:KimiK25",
)
"""The built-in families, module:class; imported on first use."""

NEEDS = {"got_ocr2": "5.23", "minicpmv4_6": "5.23", "vipllava": "5.23"}
"""Family → the oldest transformers whose processor is called in the way that the family's adapter and tests expect."""

_MEASURED = "measured"
_OURS = "interp_"
"""How the model types of our own classes begin (`interp.models.modeling`)."""

_GROUP = "interp.adapters"
_PARTS = ("name", "matches", "layers", "image_positions", "footprints", "fallback_prompt")


@runtime_checkable
class Adapter(Protocol):
    """A model family, described by five short methods and a fallback prompt. It uses transformers only, no tracing.

    `interp.models.base.Family` has the methods that most families share: subclass it and write `footprints`. An adapter
    may also have these attributes (the defaults are in parentheses):

    - `attends` ("causal"): "image_blocks" if image tokens also see the later tokens of their own run (gemma3), or
      "prefix" if every prompt token sees the whole prompt (paligemma); see `interp.models.base.Attends` for the
      others. It decides what a row may see and whether an image prefix is exact.
    - `attends_in(config)` (`attends`): the same, where a model's config decides it (gemma4).
    - `begun(text, processor)` (`text`): the rendered prompt with the token in front that the processor would put there
      (molmo2). Places in the prompt are counted in this text.
    - `joined(name, samples)` (along the first axis): one image input for several samples, joined from what the
      processor made of each sample; None for inputs that are joined along their first axis (molmo2).
    - `first_position` (0): the position id of a prompt's first token, for families whose `position_ids` follow
      the attention mask (paligemma: 1).
    - `nested_images` (True): whether the processor takes the images of a sample as a list of their own (got_ocr2: no).
    - `leading_images` (False): whether the processor puts image tokens in front of a prompt that holds no placeholder
      (blip-2).
    - `several_images` (True): whether a sample may show several images; if not, `footprints` refuses them (blip-2).
    - `image_reads_prompt` (False): whether the features of the image depend on the words of the prompt, so that no
      image prefix is kept (instructblip).
    - `maps` ("self"): "cross" if the image tokens are keys of cross-attention layers, outside of the sequence (mllama).
      Then `image_positions` are the placeholders that stand for images, a method `cross_keys(inputs, placeholders,
      config)` returns the image tokens' columns among those keys and an `interp.inputs.footprints.CrossKeys`, and a
      cross-attention layer has its attention at `.cross_attn`. "composed" if image tokens are latents of a resampler
      (idefics2): then `footprints` have no area, a method `latent_patches` with the same arguments returns those of
      the resampler's keys, and `resampler(model)` returns an `interp.models.base.Resampler`.
    - `layout` (""): one line that describes the image tokens for readers.
    - `examples` (()): hub ids of the family.
    - `video` (False): whether it takes videos. Then `video_footprints(size, n_frames, inputs, processor, config)`
      returns the footprints of a video's tokens, and `image_positions` their positions (docs/video.md).
    - `vision_layers(model)` and `patches(sizes, inputs, processor, config)`: the layers of the vision tower and where
      its patches are (`interp.inputs.patch_map.Patches`), for `Site(tower="vision")`. `Family` has both for towers of a
      usual form; an adapter without `patches` has no readable tower.
    - `bound(model, processor)` (none): a function that `interp.wrap` calls with the transformers model and its
      processor; it returns the adapter of that model. "measured" needs the model itself to find footprints.
    - `identity` (none): a text that is part of a run's identity, where footprints depend on more than the class.
    - `tiny()` (none): a function that returns a small model with random weights and its processor, so that
      `interp check NAME` can check the family by its name.
    """

    name: str

    def matches(self, config: Any) -> bool:
        """Whether a transformers config is of this family."""
        ...

    def layers(self, model: nn.Module) -> list[nn.Module]:
        """Returns the decoder layers in order; each has its attention at `.self_attn` (or `.cross_attn`), or instead a
        gated DeltaNet at `.linear_attn` or a short convolution at `.conv`."""
        ...

    def image_positions(self, input_ids: Any, config: Any) -> Int[np.ndarray, " token"]:
        """Returns the positions of the image tokens in one sample's unpadded ids, increasing."""
        ...

    def footprints(
        self, sizes: Sequence[tuple[int, int]], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns the footprint of each image token of one sample, in the order of `image_positions`.

        Args:
            sizes: (width, height) of each image of the sample.
            inputs: The output of the processor for this sample alone.
            processor: The transformers processor.
            config: The model's config.
        """
        ...

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns the whole prompt; used if the processor has no chat template."""
        ...


def attends_in(adapter: Adapter, config: Any) -> Any:
    """Returns the adapter's `attends` for a model with this config; "causal" where it says nothing."""
    by_config = getattr(adapter, "attends_in", None)
    return getattr(adapter, "attends", "causal") if by_config is None else by_config(config)


def adapters() -> list[Adapter]:
    """Returns every adapter in the order of preference: the installed ones, then the built-in families.

    Raises:
        ModelError: An installed adapter cannot be imported or lacks a part.
    """
    return [*installed().values(), *built_in()]


def built_in() -> Iterator[Adapter]:
    """Yields the families that come with `interp`."""
    for path in BUILT_IN:
        module, name = path.split(":")
        yield getattr(import_module(module), name)()


def installed() -> dict[str, Adapter]:
    """Returns the adapters of installed packages (entry point group `interp.adapters`) by their origin.

    Raises:
        ModelError: An adapter cannot be imported or lacks a part.
    """
    return {_origin(entry): _loaded(entry) for entry in entry_points(group=_GROUP)}


def is_available(adapter: Adapter) -> bool:
    """Whether the installed transformers can build models of a family.

    It can if it maps one of the family's model types to a config class, and is not older than the family needs
    (`NEEDS`). Types of `interp`'s own classes (`interp_…`) always work; an adapter that names no types counts as
    available, since only its own `matches` can tell.
    """
    theirs = [kind for kind in getattr(adapter, "model_types", ()) if not kind.startswith(_OURS)]
    return needed(adapter) is None and (not theirs or any(kind in CONFIG_MAPPING for kind in theirs))


def needed(adapter: Adapter) -> str | None:
    """Returns the oldest transformers that a family needs if the installed one is older; else None."""
    least = NEEDS.get(adapter.name)
    return least if least and Version(transformers.__version__) < Version(least) else None


def find(config: Any, adapter: Adapter | str | None = None) -> Adapter:
    """Returns the adapter for a config.

    It is the given adapter, or the one of the given name, or the installed adapter that matches the config, or the
    built-in family that matches. Installed adapters come before built-in ones, so a package can replace a family.

    Args:
        config: The model's config.
        adapter: An adapter or the name of one; None to find the one that matches. "answers_only" is for a model that
            only has to answer: it needs no adapter of its family.

    Raises:
        ModelError: No adapter matches, several installed ones do, the model has no spatial map (`refusals`), or the
            given adapter lacks a part.
    """
    if isinstance(adapter, str) and adapter == ANSWERS_ONLY:
        if not answers(config):
            raise ModelError(f"adapter={ANSWERS_ONLY!r} is for models that answer. {refusal(config)}")
        return AnswersOnly(refusal(config) or "Open it without adapter= for these.")
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
            return _recent(candidate)
    reason = refusal(config)
    if reason is not None:
        if not answers(config):
            raise ModelError(reason)
        raise ModelError(
            f"{reason} To let it answer without a map, for a table of answers, pass adapter={ANSWERS_ONLY!r}."
        )
    names = ", ".join(a.name for a in adapters())
    raise ModelError(
        f"no adapter knows the model type {kind!r}; families: {names}. Ways on: write an adapter "
        "(docs/new_model.md: one short file) and pass it, as interp.load(…, adapter=…), or, for a model you have "
        "built yourself, as interp.wrap(hf_model, processor, adapter=…); install a package that has one; or let the "
        'footprints be measured, with adapter="measured".'
    )


def _recent(adapter: Adapter) -> Adapter:
    """Returns the adapter after comparing the installed transformers with what its family needs.

    Raises:
        ModelError: The installed transformers is older than the family needs.
    """
    if (least := needed(adapter)) is not None:
        raise ModelError(
            f"{adapter.name} needs transformers {least} or newer; got {transformers.__version__}, where its processor "
            f"has another interface, so footprints could be wrong. Upgrade: pip install 'transformers>={least}'."
        )
    return adapter


def _named(name: str) -> Adapter:
    if name == _MEASURED:
        return import_module("interp.models.measured").Measured()
    packages = installed()
    found = _one(packages, (o for o, a in packages.items() if a.name == name), f"the name {name!r}")
    for candidate in built_in() if found is None else ():
        if candidate.name == name:
            found = candidate
    if found is None:
        names = [*(a.name for a in adapters()), _MEASURED]
        raise ModelError(
            f"no adapter is named {name!r}; there are: {', '.join(names)}.{meant(name, names)} Pass an Adapter object, "
            "or install one."
        )
    return found


def _one(packages: Mapping[str, Adapter], origins: Iterable[str], wanted: str) -> Adapter | None:
    """Returns the only one of these installed adapters; None if there are none."""
    candidates = list(origins)
    if len(candidates) > 1:
        listed = " and ".join(f"{packages[o].name!r} ({o})" for o in candidates)
        raise ModelError(
            f"{len(candidates)} installed adapters match {wanted}: {listed}. Uninstall one of the packages, or "
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
    """Returns the package and the object of an entry point, as text."""
    package = getattr(getattr(entry, "dist", None), "name", None)
    return f"{entry.name} = {entry.value}" + (f" of {package}" if package else "")


def _loaded(entry: Any) -> Adapter:
    """Returns the adapter that an entry point names: an instance, or a class without arguments."""
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
    """Returns the adapter after checking that it is complete."""
    missing = [part for part in _PARTS if not hasattr(adapter, part)]
    if missing or isinstance(adapter, type):
        lacks = ", ".join(missing) or "nothing, but it is a class: pass an instance"
        raise ModelError(f"{where} needs an adapter with {', '.join(_PARTS)}; {adapter!r} lacks {lacks}.")
    return adapter
