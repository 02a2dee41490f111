"""Loads an `Mllm` from a name or a folder, and wraps a transformers model as one."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForImageTextToText, PreTrainedConfig
from transformers.utils import logging as transformers_logging

from interp.errors import ModelError
from interp.inputs.text import count, meant
from interp.models.adapter import Adapter, attends_in, find
from interp.models.checkpoints import Checkpoint, fill, lora_files, open_original, reachable
from interp.models.configs import package_missing, read_config, refuse_kernels
from interp.models.peft_adapter import add_lora, lora_settings
from interp.models.processors import load_processor, with_settings
from interp.models.refusals import AnswersOnly
from interp.organism.places import ORGANISMS, folder
from interp.tracing.answers_only_mllm import AnsweringMllm, Untapped
from interp.tracing.executors.hooks import Installation
from interp.tracing.layers.decoder_layers import layer_kinds, mixer, mixer_name
from interp.tracing.model import Mllm
from interp.tracing.parameters.weights import DeviceMap, Placement, check_weights

__all__ = ["load", "wrap"]

_LONGEST = 4096
"""The largest number of characters in a path on common systems."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
_WRAPPERS = {"OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module"}
"""Classes that torch wraps around models → the attribute that holds the model."""
SMALL = 256 << 20
"""Weights of fewer bytes than this are read without a progress bar."""
_RECOMPUTED = ("rotary_emb.inv_freq", "position_ids")
"""Buffers that old checkpoints contain and that transformers now computes."""


def load(
    model: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "float32",
    revision: str | None = None,
    adapter: Adapter | str | None = None,
    processor: Any = None,
    remote: bool = False,
    vision_tower: str | Path | None = None,
    attn_implementation: str | None = None,
    device_map: DeviceMap | None = None,
    offload_folder: str | Path | None = None,
    quantization: Any = None,
    lora: str | Path | None = None,
) -> Mllm:
    """Loads a model, ready to be traced.

    Code that comes with a checkpoint or that its config names (kernels on the hub) never runs. Weights are read as
    safetensors or, for older files, with torch's `weights_only`. Nothing is downloaded unless `model`, `processor`,
    `vision_tower` or `lora` is a hub id. Without a connection, a hub id is looked up in the hub's local cache; if it is
    not there, it is refused at once.

    Args:
        model: "organism" (bundled), a local folder, or a hub id "organisation/name". Write "./organism" for a folder of
            that name.
        device: device that the model runs on.
        dtype: dtype of the weights; "auto" keeps the checkpoint's dtype.
        revision: branch, tag or commit of the hub id.
        adapter: adapter for a family that `interp` does not know, or the name of a family that it knows.
            "answers_only" opens any model, even one without an adapter, for `Mllm.answers` and `Mllm.score`; every read
            and edit is then refused.
        processor: a processor that replaces the checkpoint's, or the folder or hub id of one; or settings that replace
            some of the settings of the checkpoint's processor, such as {"max_pixels": 50176, "min_pixels": 784}.
        remote: whether to run on an NDIF server, with nnsight's own settings (`NDIF_API_KEY`, `NDIF_HOST`). No weights
            are read on this machine; the server chooses the device and the dtype. docs/remote.md says what such a model
            can do.
        vision_tower: vision tower for a checkpoint in an original layout that does not contain its tower: a folder that
            replaces the tower named in the config, or a hub id, which is then downloaded. "embedded" is the tower
            inside LLaVA-Med's files, which LLaVA-Med's own code ignores.
        attn_implementation: attention implementation of the whole model, in place of the one in its config: "sdpa",
            "eager", "flex_attention", or, if its package is installed, "flash_attention_2" and so on. Kernels on the
            hub are refused.
        device_map: device of each part of the model, in place of `device`: "auto", "balanced", "balanced_low_0",
            "sequential", or a dict such as {"model.vision_tower": 0, "model.language_model": 1, …}. Parts on "disk" are
            offloaded, and so are parts on "cpu" if other parts are on GPUs: they are moved to a GPU when they run.
        offload_folder: folder for the weights that the device map puts on "disk".
        quantization: "int8" or "fp8" (weights, by torchao), "int4" (NF4, by bitsandbytes), or a value that transformers
            takes as `quantization_config`: a config object or its settings as a dict. Methods that download kernels are
            refused.
        lora: folder or hub id of a LoRA adapter that PEFT saved. The adapter is merged into the weights, unless these
            are quantised; then it stays separate.

    Raises:
        ModelError: No such folder, an unknown family, missing or unexpected weights, a part that is not on this
            machine, or options that exclude each other.
        ServerError: With remote=True: a server that cannot be reached, does not serve the model, or runs versions that
            cannot read what is sent.
    """
    if not isinstance(remote, bool):
        raise ModelError(f"remote is True or False; got {remote!r}.")
    placement = Placement.of(device, dtype, device_map, offload_folder, quantization)
    where, options = _source(model, revision)
    if remote:
        placed = {"device_map": device_map, "offload_folder": offload_folder, "quantization": quantization}
        given = {"device": device, "dtype": dtype, "vision_tower": vision_tower, "lora": lora, **placed}
        return _on_server(where, options, given, adapter, processor, attn_implementation)
    low_rank = None if lora is None else _lora(lora)
    original = open_original(where, options, vision_tower)
    config = read_config(where, options) if original is None else original.config
    _attend(where, config, attn_implementation)
    chosen = find(config, adapter)
    if original is None:
        _refuse_tower(where, vision_tower)
        made = _processor(processor, config, lambda: load_processor(where, options, config), where)
        hf = placement.moved(_model(where, config, placement, options))
    else:
        made = _processor(processor, config, original.make_processor, where)
        hf = _filled(original, placement)
    return wrap(hf if low_rank is None else add_lora(hf, low_rank), made, chosen)


def wrap(hf_model: Any, processor: Any, adapter: Adapter | str | None = None) -> Mllm:
    """Wraps a transformers model, ready to be traced. `Mllm.unwrap()` returns the model as it was.

    The model keeps its attention function, dtype, device and `requires_grad`. It is put in evaluation mode, and every
    pass runs in that mode, whatever is set later. Compiled modules run uncompiled while they are traced. If the model
    is inside DataParallel or DistributedDataParallel, the inner model is used. Weights that accelerate offloads stay
    where they are. Under `torch.autocast` the model's own computations are cast; the rows read from it stay float32.
    The processor is copied, because its tokenizer has to pad on the left.

    Args:
        hf_model: an image-text-to-text model of a known family, or what `torch.compile` returned for one.
        processor: processor of the model.
        adapter: adapter for a family that `interp` does not know, the name of a family that it knows, or
            "answers_only", as in `load`.

    Raises:
        ModelError: An unknown family, attention that cannot be traced, weights that are not on this machine or are
            split among processes.
    """
    hf = _inner(hf_model)
    for name, value, needs in (("hf_model", hf, "config"), ("processor", processor, "tokenizer")):
        if isinstance(value, type) or not hasattr(value, needs):
            raise ModelError(
                f"wrap takes a transformers model and its processor, as objects; got {name}={_short(value)}. Write "
                "interp.wrap(hf_model, processor)."
            )
    check_weights(hf)
    chosen = find(hf.config, adapter)
    if isinstance(chosen, AnswersOnly):
        own = copy.deepcopy(processor)
        return AnsweringMllm(hf, own, chosen, Untapped(hf, chosen, hf_model))
    if hasattr(chosen, "bound"):
        chosen = chosen.bound(hf.eval(), processor)  # pyright: ignore[reportAttributeAccessIssue]
    layers = chosen.layers(hf)
    kinds = layer_kinds(layers)
    bare = [i for i, one in enumerate(layers) if mixer_name(one) is None]
    if bare or not layers:
        raise ModelError(
            f"an adapter's layers() returns one decoder layer or more, each with an attention module `.self_attn`; "
            f"{chosen.name!r} returns {count(len(layers), 'layer')}, without one in layers {bare}."
        )
    if "attention" not in kinds:
        raise ModelError(
            f"interp reads models with at least one layer of softmax attention; all {len(layers)} decoder layers of "
            f"{type(hf).__name__} are linear (gated DeltaNet) or convolutions."
        )
    _refuse_blind_attention(hf, chosen, layers[kinds.index("attention")])
    own = copy.deepcopy(processor)
    return Mllm(hf, own, chosen, Installation(hf, own, layers, hf_model))


def _short(value: Any) -> str:
    return repr(value) if len(repr(value)) < 80 else f"a {type(value).__name__}"


def _inner(model: Any) -> Any:
    """The transformers model inside torch's wrappers: `torch.compile`, DataParallel, DistributedDataParallel.

    Raises:
        ModelError: The model is split among processes, so that no process has all weights or all heads.
    """
    kinds = {kind.__name__ for kind in type(model).__mro__}
    weights = list(model.parameters()) if isinstance(model, nn.Module) else []
    cut = any(type(weight).__name__ == "DTensor" or hasattr(weight, "ds_id") for weight in weights)
    if cut or kinds & {"FullyShardedDataParallel", "FSDPModule"}:
        raise ModelError(
            f"the weights of this {type(model).__name__} are split among processes (FSDP, tensor parallelism or "
            "ZeRO-3), but interp runs only whole models. Gather the weights into a plain transformers model first, for "
            "instance by saving it and loading the saved files, and wrap that."
        )
    for kind, name in _WRAPPERS.items():
        if kind in kinds:
            return _inner(getattr(model, name))
    return model


def _refuse_blind_attention(hf: Any, adapter: Adapter, layer: Any) -> None:
    """Refuse flash attention for image tokens that see later tokens.

    A flash attention mask is causal or absent, so transformers silently ignores what image tokens see beyond that.
    """
    attention = mixer(layer)
    implementation = str(getattr(attention.config, "_attn_implementation", None))
    if attends_in(adapter, hf.config) != "causal" and "flash" in implementation:
        raise ModelError(
            f"image tokens of {adapter.name} see tokens that come after them, which {implementation} does not support: "
            f"{type(hf).__name__} would silently hide these tokens from them. Load it with attn_implementation='sdpa'."
        )


def _source(model: str | Path, revision: str | None) -> tuple[str, dict[str, Any]]:
    """Where to load from, and options for `from_pretrained`: whether it may download, and which revision."""
    where, local = _place(model)
    if revision is not None and not isinstance(revision, str):
        raise ModelError(f"revision is a branch, tag or commit, as text; got {revision!r}.")
    if local and revision is not None:
        raise ModelError(f"revision={revision!r} is for hub ids; {where} is a local folder. Leave it out.")
    options: dict[str, Any] = {"local_files_only": local or not reachable()}
    return where, options if revision is None else {**options, "revision": revision}


def _lora(lora: Any) -> Path:
    """The folder of a LoRA adapter, which is checked, and first downloaded if it is a hub id."""
    where, local = _place(lora, ("adapter_config.json",))
    folder = Path(where) if local else lora_files(where)
    lora_settings(folder)
    return folder


def _filled(checkpoint: Checkpoint, placement: Placement) -> Any:
    """The transformers model with the weights of a checkpoint in an original layout."""
    if placement.quantization is not None:
        raise ModelError(
            f"quantization= is for checkpoints in transformers' layout; {checkpoint.where} is in an original layout. "
            "Convert it first, with interp convert FOLDER NEW_FOLDER, and load the new folder."
        )
    if placement.device_map is None:
        return placement.on_device(lambda: fill(checkpoint, placement.dtype, placement.device))
    return placement.dispatched(fill(checkpoint, placement.dtype))


def _on_server(
    where: str,
    options: Mapping[str, Any],
    given: Mapping[str, Any],
    adapter: Adapter | str | None,
    processor: Any,
    attention: str | None,
) -> Mllm:
    """The model on the NDIF server that nnsight's settings name. Its config and processor are read on this machine, its
    weights on the server."""
    from interp.tracing.remote.server import open_remote

    usual = {"device": "cpu", "dtype": "float32"}
    if odd := [name for name, value in given.items() if str(value) != str(usual.get(name))]:
        raise ModelError(
            f"{', '.join(f'{name}={given[name]!r}' for name in odd)}: a model on an NDIF server is loaded already, "
            "with the settings of the server's operators. Leave this out with remote=True."
        )
    config = read_config(where, options)
    _attend(where, config, attention)
    made = _processor(processor, config, lambda: load_processor(where, options, config), where)
    own = {"attn_implementation": attention} if attention is not None else {}
    revision = {name: options[name] for name in ("revision",) if name in options}
    return open_remote(where, find(config, adapter), copy.deepcopy(made), {**own, **revision})


def _attend(where: str, config: PreTrainedConfig, implementation: str | None) -> None:
    """Puts the given attention implementation into the config, and refuses code from the hub."""
    if implementation is not None:
        if not isinstance(implementation, str):
            raise ModelError(f"attn_implementation is a name such as 'sdpa'; got {implementation!r}.")
        refuse_kernels("the call of load", SimpleNamespace(_attn_implementation=implementation))
        config._attn_implementation = implementation
    refuse_kernels(where, config)


def _refuse_tower(where: str, vision_tower: str | Path | None) -> None:
    if vision_tower is not None:
        raise ModelError(
            f"vision_tower={str(vision_tower)!r} is for checkpoints in an original layout; {where} is in "
            "transformers' layout, which contains the vision tower. Leave it out."
        )


def _place(model: str | Path, holding: tuple[str, ...] = ("config.json",)) -> tuple[str, bool]:
    """Where to load from, and whether that is a local folder, which must hold one of the files `holding`."""
    if isinstance(model, str) and model in ORGANISMS:
        return str(folder(model)), True
    _check_name(model)
    try:
        path = Path(model).expanduser()
        found = path.is_dir()
        beside = path.parent.is_dir()
        is_file = path.is_file()
    except (
        OSError,
        RuntimeError,
        ValueError,
    ) as error:  # a name that no file can have, or ~user without such a user
        raise ModelError(
            f"{str(model)!r} is not a path that can be looked up ({error}). Check its spelling."
        ) from error
    if is_file:
        raise ModelError(f"{str(model)!r} is a file. Name the folder that it is in.")
    if found and str(model):
        if not any((path / name).is_file() for name in holding):
            raise ModelError(
                f"the folder {path} holds no {' or '.join(holding)}. Name the folder that save_pretrained wrote."
            )
        return str(path), True
    named = (
        isinstance(model, str) and len(model) <= 96 and _HUB_ID.fullmatch(model)
    )  # the hub allows no longer names
    if named and ".." not in str(model) and not beside:
        return str(model), False
    raise ModelError(
        f"{str(model)!r} is not an existing folder, nor a hub id (organisation/name), nor one of "
        f"{sorted(ORGANISMS)}. Check the path; nothing was downloaded.{meant(str(model), ORGANISMS)}"
    )


def _check_name(model: str | Path) -> None:
    """Raise `ModelError` for anything that cannot be the name of a model."""
    if not isinstance(model, str | Path):
        raise ModelError(
            f"load takes a name, a folder or a hub id; got {type(model).__name__}. For a model in memory use "
            "interp.wrap(hf_model, processor)."
        )
    if len(str(model)) > _LONGEST or not str(model).isprintable():
        raise ModelError(
            f"the name of a model has at most {_LONGEST} characters, all of them printable; got "
            f"{str(model)[:60]!r}…, of {count(len(str(model)), 'character')}"
            f"{'' if str(model).isprintable() else ', some of them not printable'}. Nothing was downloaded."
        )


def _processor(given: Any, config: PreTrainedConfig, own: Callable[[], Any], where: str) -> Any:
    """The processor, from an object, a folder or hub id, or settings that replace some of the checkpoint's own."""
    if given is None:
        return own()
    if isinstance(given, Mapping) and not hasattr(given, "tokenizer"):
        return with_settings(own(), given, where)
    if not isinstance(given, str | Path):
        return given
    place, local = _place(given, _PROCESSOR_FILES)
    return load_processor(place, {"local_files_only": local or not reachable()}, config)


def _model(where: str, config: PreTrainedConfig, placement: Placement, options: Mapping[str, Any]) -> Any:
    """The model, after a check that no weight is missing, unexpected or of another shape."""
    try:
        with _without_bar(where):
            loaded: Any = AutoModelForImageTextToText.from_pretrained(
                where,
                config=config,
                trust_remote_code=False,
                weights_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **placement.options(config),
                **options,
            )
    except ImportError as error:
        raise package_missing(where, error) from error
    except Exception as error:  # reading foreign files can raise anything
        if placement.device_map is not None:
            raise placement.misplaced(error) from error
        raise ModelError(
            f"transformers cannot load the weights of {where} ({type(error).__name__}: {error}). Check that its "
            "files are complete."
        ) from error
    model, report = loaded
    _check_report(where, report)
    return model


@contextmanager
def _without_bar(where: str) -> Iterator[None]:
    """Hides transformers' progress bar, for the block, if the weights are small local files, which are read quickly."""
    files = list(Path(where).glob("*.safetensors")) if Path(where).is_dir() else []
    small = files and sum(file.stat().st_size for file in files) < SMALL
    if not small or not transformers_logging.is_progress_bar_enabled():
        yield
        return
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.enable_progress_bar()


def _check_report(where: str, report: Mapping[str, Any]) -> None:
    missing = sorted(report["missing_keys"])
    unexpected = sorted(k for k in report["unexpected_keys"] if not k.endswith(_RECOMPUTED))
    mismatched = sorted(str(entry) for entry in report["mismatched_keys"])
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": mismatched}
    if not any(problems.values()):
        return
    listed = "; ".join(
        f"{len(keys)} {what}: {', '.join(keys[:8])}{' …' if len(keys) > 8 else ''}"
        for what, keys in problems.items()
        if keys
    )
    raise ModelError(
        f"the weights in {where} do not fit the model its config describes: {listed}. The model would run "
        "with random weights in their place. Is this an original checkpoint in another layout? Or is config.json the "
        "wrong one?"
    )
