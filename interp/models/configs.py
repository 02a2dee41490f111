"""Reads and checks a checkpoint's config before anything large is loaded, without running the checkpoint's code.

Settings with which transformers would fetch code from the hub and run it are refused.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from importlib.metadata import requires
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import transformers
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    PreTrainedConfig,
)
from transformers import modeling_flash_attention_utils as flash

from interp.errors import ModelError
from interp.models.adapter import built_in
from interp.models.modeling import register
from interp.models.refusals import refusal

__all__ = [
    "import_bitsandbytes",
    "layer_configs",
    "original_layout",
    "package_missing",
    "raw_config",
    "read_config",
    "refuse_kernels",
]


_WRAP = (
    "build the model yourself, if you trust its code, and use interp.wrap(hf_model, processor, adapter=…) with an "
    "adapter for it (docs/new_model.md)"
)
_COPY = 'take a copy in transformers\' layout (on the hub often the same name with "-hf")'


_MOST = {
    "num_hidden_layers": 1_000,
    "depth": 1_000,
    "num_attention_heads": 10_000,
    "num_key_value_heads": 10_000,
    "hidden_size": 100_000,
    "intermediate_size": 1_000_000,
    "head_dim": 10_000,
    "vocab_size": 10_000_000,
    "image_size": 100_000,
    "patch_size": 10_000,
    "num_channels": 100,
}
"""Setting of a config → a number that no model reaches."""


_EXPERTS = (None, "eager", "grouped_mm", "batched_mm")
_QUANTISERS = ("mxfp4", "fp8", "nvfp4", "fbgemm_fp8", "eetq", "metal", "gguf")
"""Quantisation methods whose kernels transformers takes from the hub."""
_TRUST = "or, if you trust that code, load the model with transformers and use interp.wrap(model, processor)."
_WAY = f"Pass attn_implementation='sdpa' to load it with the attention that comes with torch; {_TRUST}"


def read_config(where: str, options: Mapping[str, Any]) -> PreTrainedConfig:
    """Returns the config at a folder or hub id; its transformers class takes images and text.

    Args:
        where: A folder with a config.json, or a hub id.
        options: `local_files_only` and `revision`, as for `from_pretrained`.

    Raises:
        ModelError: The config cannot be reached or read, transformers does not know its model type or layout, the
            model takes no images, or it has no spatial map.
    """
    raw = raw_config(where, options)
    kind = raw.get("model_type")
    if not isinstance(kind, str):
        raise ModelError(
            f'the config.json of {where} names no "model_type", so the model is unknown. Pass a folder that '
            "save_pretrained wrote, or a hub id of a transformers model."
        )
    original = original_layout(raw)
    if original is not None:
        raise ModelError(
            f"{where} is {original}, but not one that this version reads: its config.json or its files differ from "
            f"what the original code saves. Ways on: {_COPY} and name that; or {_WRAP}."
        )
    register()
    if kind not in CONFIG_MAPPING:
        raise ModelError(_unknown(where, kind, raw))
    _check_vision(where, kind, raw)
    _check_text(where, kind, raw)
    _check_sizes(where, raw)
    config = _built(where, options)
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise ModelError(_not_of_images(where, config))
    _check_feature_layer(where, config)
    if "auto_map" in raw:
        model: Any = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)]
        warnings.warn(
            f"{where} comes with its own code ({_code(raw)}), which is not run; transformers' {model.__name__} is "
            "used instead.",
            stacklevel=3,
        )
    return config


def original_layout(raw: Mapping[str, Any]) -> str | None:
    """Returns the name of a checkpoint's original layout, as text; None for transformers' own layout.

    Args:
        raw: The content of its config.json.
    """
    if "llm_cfg" in raw and "vision_tower_cfg" in raw:
        return "a checkpoint in VILA's original layout"
    if "mm_vision_tower" in raw or "mm_projector_type" in raw:
        return "a checkpoint in LLaVA's original layout"
    if raw.get("model_type") == "internvl_chat":
        return "a checkpoint in InternVL's original layout"
    return None


def raw_config(where: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the content of the config.json of a folder or hub id.

    Raises:
        ModelError: The file cannot be read, or is not a JSON object.
    """
    folder = Path(where)
    try:
        if folder.is_dir():
            raw = json.loads((folder / "config.json").read_text("utf-8"))
        else:
            raw, _ = PreTrainedConfig.get_config_dict(where, **options)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(
            f"the config.json of {where} is not JSON ({error}). Was it cut off? Copy the file again."
        ) from error
    except Exception as error:  # whatever the hub's client raises
        raise ModelError(
            f"the config of {where} cannot be read ({type(error).__name__}: {error}). It is treated as a hub id. Is "
            "the hub reachable, is the name right, and do you have access? Offline, pass the folder of a copy: "
            'interp.load("/path/to/folder").'
        ) from error
    if not isinstance(raw, dict) or not raw:
        raise ModelError(
            f"the config.json of {where} should hold a JSON object; it holds "
            f"{str(raw)[:80]!r}. Copy the file again."
        )
    return raw


def package_missing(where: str, error: ImportError) -> ModelError:
    """Returns the error for a model that needs a package that is not installed; transformers raised `error`."""
    return ModelError(
        f"the model at {where} needs a package that is not installed ({' '.join(str(error).split())}). Install it; "
        "timm (pip install timm) needs the torchvision that belongs to your torch."
    )


def _built(where: str, options: Mapping[str, Any]) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(where, **options, trust_remote_code=False)
    except ImportError as error:  # timm's, for the towers of Gemma 3n and FastVLM
        raise package_missing(where, error) from error
    except Exception as error:  # whatever a config with wrong values raises
        raise ModelError(
            f"transformers {transformers.__version__} cannot read the config.json of {where} ({type(error).__name__}: "
            f"{error}). Was it written by another version, or changed by hand?"
        ) from error


def _check_vision(where: str, kind: str, raw: Mapping[str, Any]) -> None:
    """Checks that the config has a vision part; transformers would silently use a default one."""
    expected = getattr(CONFIG_MAPPING[kind], "sub_configs", {})
    if "vision_config" in expected and not raw.get("vision_config"):
        reason = refusal(SimpleNamespace(**{**raw, "model_type": kind}))
        if reason is not None:  # to add the part would not help
            raise ModelError(f"{where}: {reason}")
        raise ModelError(
            f'the config.json of {where} is of the model type {kind!r} but has no "vision_config". Its images would go '
            "through a vision tower of transformers' default sizes. Name a folder that save_pretrained wrote, or add "
            "the part."
        )


def _check_text(where: str, kind: str, raw: Mapping[str, Any]) -> None:
    """Checks that the config says how large the decoder is; transformers would make one of its default size."""
    expected = getattr(CONFIG_MAPPING[kind], "sub_configs", {})
    if "text_config" in expected and not raw.get("text_config") and "hidden_size" not in raw:
        raise ModelError(
            f'the config.json of {where} is of the model type {kind!r} but has no "text_config". Its decoder would '
            "have transformers' default size. Name a folder that save_pretrained wrote, or add the part."
        )


def _check_sizes(where: str, raw: Mapping[str, Any]) -> None:
    """Refuses sizes beyond any model's before transformers makes layers of them, which takes hours or all memory."""
    for name, value in raw.items():
        if isinstance(value, Mapping):
            _check_sizes(where, value)
        elif isinstance(value, int) and name in _MOST and value > _MOST[name]:
            raise ModelError(
                f"the config.json of {where} says {name}={value}, and no model has more than {_MOST[name]}. Was the "
                "file changed? Copy it again."
            )


def _check_feature_layer(where: str, config: Any) -> None:
    """Checks that the tower has the layer whose output becomes the image's features."""
    layer = getattr(config, "vision_feature_layer", None)
    depth = getattr(getattr(config, "vision_config", None), "num_hidden_layers", None)
    layers = layer if isinstance(layer, list | tuple) else [layer]
    if layer == 0 and type(layer) is int:
        raise ModelError(
            f"the config.json of {where} has vision_feature_layer=0, which transformers treats as not set. Write [0] "
            "for the input of the tower's first layer."
        )
    if layer is None or not isinstance(depth, int):
        return
    if not layers or not all(type(one) is int and -depth - 1 <= one <= depth for one in layers):
        raise ModelError(
            f"the config.json of {where} takes the image's features from vision_feature_layer={layer!r}, but its tower "
            f"has the layers {-depth - 1} … {depth}, where 0 is the input of the first. Was the file changed?"
        )


def _unknown(where: str, kind: str, raw: Mapping[str, Any]) -> str:
    reason = refusal(SimpleNamespace(**{**raw, "model_type": kind}))
    if reason is not None:
        return f"{where}: {reason}"
    if any(kind in getattr(family, "model_types", ()) for family in built_in()):
        return (
            f"{where} is of the model type {kind!r}, a family that interp knows and transformers "
            f"{transformers.__version__} does not. Install a newer one: pip install -U {_newest()!r}."
        )
    code = f"; its own code ({_code(raw)}) is not run" if "auto_map" in raw else ""
    return (
        f"{where} is of the model type {kind!r}, which transformers {transformers.__version__} does not know{code}. "
        f"Ways on: {_COPY}; or {_WRAP}. adapter= alone is for model types that transformers knows."
    )


def _newest() -> str:
    """Returns the requirement on transformers that `interp` declares, such as "transformers<5.25,>=5.17"."""
    declared = [line for line in requires("interp") or () if line.startswith("transformers")]
    return declared[0] if declared else "transformers"


def _not_of_images(where: str, config: PreTrainedConfig) -> str:
    kind = config.model_type
    reason = refusal(config)
    if reason is not None:
        return f"{where}: {reason}"
    what = (
        f"{where} is of the model type {kind!r}, a language model without images"
        if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
        else f"{where} is of the model type {kind!r}, for which transformers has no image-text-to-text model"
    )
    return (
        f"{what}. interp.load takes models that answer questions about images, such as those of the families that "
        f"`interp models` lists. If it is one all the same, {_WRAP}."
    )


def _code(raw: Mapping[str, Any]) -> str:
    """Returns the modules that `auto_map` names, as text."""
    named = raw["auto_map"].values() if isinstance(raw["auto_map"], Mapping) else [raw["auto_map"]]
    return ", ".join(sorted({f"{str(name).split('--')[-1].split('.')[0]}.py" for name in named}))


def layer_configs(config: Any) -> list[Any]:
    """Returns a config for each layer where layers differ in size (Gemma 4); else the text config alone.

    Where they differ, transformers refuses to read such a size (the number of key-value heads) from the text config.
    """
    return list(config.per_layer_config) if getattr(config, "is_heterogeneous", False) else [config]


def refuse_kernels(where: str, config: Any) -> None:
    """Raise ModelError where a config, or a part of it, names code that transformers would fetch from the hub.

    Args:
        where: The folder or hub id, for messages.
        config: The config as transformers made it, with the attention implementation that the caller asked for.
    """
    for part, own in _parts(config):
        attention = getattr(own, "_attn_implementation", None)
        for name in attention.values() if isinstance(attention, dict) else (attention,):
            _check_attention(f"{where}{part}", name)
        experts = getattr(own, "_experts_implementation", None)
        if experts not in _EXPERTS:
            raise ModelError(
                f"{where}{part} asks for experts_implementation={experts!r}, code that is fetched from the hub. "
                f"Nothing was fetched. Change the entry to one of {', '.join(map(str, _EXPERTS[1:]))}; {_TRUST}"
            )
        quantiser = getattr(own, "quantization_config", None)
        method = quantiser.get("quant_method") if isinstance(quantiser, dict) else quantiser
        method = str(getattr(method, "quant_method", method)).rpartition(".")[2].lower()
        if method in _QUANTISERS:
            raise ModelError(
                f"{where}{part} is quantised by {method!r}, whose kernels are fetched from the hub. Nothing was "
                f"fetched. Take a copy that is not quantised so; {_TRUST}"
            )
        if "bitsandbytes" in method:
            import_bitsandbytes()


def import_bitsandbytes() -> None:
    """Imports bitsandbytes, where it is installed, without the kernel that it fetches from the hub for some CPUs."""
    name = "kernels"
    before, log = sys.modules.get(name), logging.getLogger("bitsandbytes.backends.cpu.ops")
    level = log.level
    sys.modules[name] = None  # pyright: ignore[reportArgumentType]
    log.setLevel(logging.CRITICAL)
    try:
        with suppress(ImportError):
            import_module("bitsandbytes")
    finally:
        log.setLevel(level)
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before


def _parts(config: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yields a config and the configs inside it, each with its place as text."""
    yield name, config
    for key in getattr(config, "sub_configs", {}):
        inner = getattr(config, key, None)
        if inner is not None:
            yield from _parts(inner, f"{name} ({key})" if not name else f"{name[:-1]}.{key})")


def _check_attention(where: str, name: Any) -> None:
    if name is None:
        return
    bare = str(name).removeprefix("paged|")
    known = flash.FLASH_ATTENTION_COMPATIBILITY_MATRIX
    versions = {f"flash_attention_{version}": about for version, about in known.items()}
    if bare in versions:
        if not versions[bare]["general_availability_check"]():
            raise ModelError(
                f"{where} asks for attn_implementation={name!r}, whose package is not installed here, so that "
                f"transformers would fetch a kernel from the hub. Nothing was fetched. {_WAY}"
            )
    elif bare not in ("sdpa", "eager", "flex_attention"):
        raise ModelError(
            f"{where} asks for attn_implementation={str(name)[:100]!r}, which is not part of transformers: it would be "
            f"fetched from the hub and run. Nothing was fetched. {_WAY}"
        )
