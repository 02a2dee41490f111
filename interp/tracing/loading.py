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
from interp.inputs.text import meant
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
"""Characters of a path, at most, on the systems in use."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
_WRAPPERS = {"OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module"}
"""Classes that torch puts around models, and where in them the model is."""
SMALL = 256 << 20
"""Bytes of weights that are read without a progress bar."""
_RECOMPUTED = ("rotary_emb.inv_freq", "position_ids")
"""Buffers that old checkpoints carry and transformers computes anew."""


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
    """The model of that name, ready to be traced.

    Code that comes with a checkpoint or that its config names (kernels on the hub) is never run, and weights are
    read as safetensors or, for older files, with torch's `weights_only`. Nothing is downloaded unless `model`,
    `processor`, `vision_tower` or `lora` is a hub id. Without a connection a hub id is looked for in the hub's cache,
    and refused at once where it is not there.

    Args:
        model: "organism" (bundled), a local folder, or a hub id "organisation/name". A folder with that
            name is "./organism".
        device: device that the model runs on.
        dtype: dtype of the weights; "auto" keeps the checkpoint's.
        revision: branch, tag or commit of the hub id.
        adapter: adapter for a family `interp` does not know, or the name of one it does. "answers_only" opens any
            model, also one without a map, for `Mllm.answers` and `Mllm.score`; every read and edit is then refused.
        processor: a processor in place of the checkpoint's own, or the folder or hub id of one; or settings that
            replace some of the checkpoint's own, such as {"max_pixels": 50176, "min_pixels": 784}.
        remote: run on an NDIF server, by nnsight's own settings (`NDIF_API_KEY`, `NDIF_HOST`). No weights are read
            here; the device and the dtype are the server's. See docs/remote.md for what such a model can do.
        vision_tower: vision tower of a checkpoint in an original layout that keeps it elsewhere: a folder that
            replaces the tower named in the config, or a hub id, which is then downloaded. "embedded" is
            the tower inside LLaVA-Med's files, which its own code passes over.
        attn_implementation: attention implementation of the whole model, in place of its config's: "sdpa", "eager",
            "flex_attention", or, where its package is installed, "flash_attention_2" and so on. Kernels on the hub are
            refused.
        device_map: device of each part of the model, in place of `device`: "auto", "balanced", "balanced_low_0",
            "sequential", or a dict such as {"model.vision_tower": 0, "model.language_model": 1, …}. Parts on "cpu"
            beside parts on GPUs, and those on "disk", are offloaded: they are brought to a GPU when they run.
        offload_folder: folder for the weights that the map leaves on the disk.
        quantization: "int8" or "fp8" (weights, by torchao), "int4" (NF4, by bitsandbytes), or what transformers takes
            as `quantization_config`: a config object or its settings as a dict. Methods that fetch kernels are refused.
        lora: the folder or hub id of a LoRA adapter that PEFT saved. It is merged into the weights, unless these are
            quantised: then it stays beside them.

    Raises:
        ModelError: No such folder, a family that is not known, missing or left-over weights, a part that is
            not on hand, or options that do not go together.
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
    """A transformers model, ready to be traced. `Mllm.unwrap()` gives it back as it was.

    It keeps its own attention function, its dtype, device and `requires_grad`; it is put in evaluation mode, and every
    pass runs in that mode, whatever is set later. What was compiled runs as it is written while it is traced. Of
    DataParallel and DistributedDataParallel the model inside is used. Weights that accelerate offloads stay where they
    are. Under `torch.autocast` the model's own computations are cast, the rows read from it stay float32.
    The processor is copied, since its tokenizer will pad on the left.

    Args:
        hf_model: an image-text-to-text model of a known family; also as `torch.compile` returns it.
        processor: processor of the model.
        adapter: adapter for a family `interp` does not know, the name of one it does, or "answers_only", as in `load`.

    Raises:
        ModelError: A family that is not known, attention that cannot be tapped, weights that are not on hand or are cut
            up among processes.
    """
    hf = _inner(hf_model)
    for name, value, needs in (("hf_model", hf, "config"), ("processor", processor, "tokenizer")):
        if isinstance(value, type) or not hasattr(value, needs):
            raise ModelError(
                f"wrap takes a transformers model and its processor; {name}={_short(value)} is neither."
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
            f"adapter {chosen.name!r} names {len(layers)} decoder layers, of which {bare} have no "
            "`.self_attn`."
        )
    if "attention" not in kinds:
        raise ModelError(
            f"all {len(layers)} decoder layers of {type(hf).__name__} are linear (gated DeltaNet) or convolutions; "
            "interp reads models with a layer of softmax attention at least."
        )
    _refuse_blind_attention(hf, chosen, layers[kinds.index("attention")])
    own = copy.deepcopy(processor)
    return Mllm(hf, own, chosen, Installation(hf, own, layers, hf_model))


def _short(value: Any) -> str:
    return repr(value) if len(repr(value)) < 80 else f"a {type(value).__name__}"


def _inner(model: Any) -> Any:
    """The transformers model inside torch's wrappers: `torch.compile`, DataParallel, DistributedDataParallel.

    Raises:
        ModelError: The model is cut up among processes, so that none has whole weights or every head.
    """
    kinds = {kind.__name__ for kind in type(model).__mro__}
    weights = list(model.parameters()) if isinstance(model, nn.Module) else []
    cut = any(type(weight).__name__ == "DTensor" or hasattr(weight, "ds_id") for weight in weights)
    if cut or kinds & {"FullyShardedDataParallel", "FSDPModule"}:
        raise ModelError(
            f"the weights of this {type(model).__name__} are cut up among processes (FSDP, tensor parallelism or "
            "ZeRO-3), and interp runs whole models. Gather them into a plain transformers model first, such as by "
            "saving it, and wrap that."
        )
    for kind, name in _WRAPPERS.items():
        if kind in kinds:
            return _inner(getattr(model, name))
    return model


def _refuse_blind_attention(hf: Any, adapter: Adapter, layer: Any) -> None:
    """Flash attention is causal or not; what image tokens see beyond that, transformers leaves out silently."""
    attention = mixer(layer)
    implementation = str(getattr(attention.config, "_attn_implementation", None))
    if attends_in(adapter, hf.config) != "causal" and "flash" in implementation:
        raise ModelError(
            f"image tokens of {adapter.name} see tokens that come after them, which {implementation} cannot do: "
            f"{type(hf).__name__} would run without that, and without a word. Load it with "
            "attn_implementation='sdpa'."
        )


def _source(model: str | Path, revision: str | None) -> tuple[str, dict[str, Any]]:
    """Where to load from, and `from_pretrained`'s options: whether it may be downloaded, and in which version."""
    where, local = _place(model)
    if revision is not None and not isinstance(revision, str):
        raise ModelError(f"revision is a branch, tag or commit, as text; got {revision!r}.")
    if local and revision is not None:
        raise ModelError(f"revision={revision!r} is for hub ids; {where} is a local folder. Leave it out.")
    options: dict[str, Any] = {"local_files_only": local or not reachable()}
    return where, options if revision is None else {**options, "revision": revision}


def _lora(lora: Any) -> Path:
    """The folder of an adapter, downloaded if it is a hub id, and checked."""
    where, local = _place(lora, ("adapter_config.json",))
    folder = Path(where) if local else lora_files(where)
    lora_settings(folder)
    return folder


def _filled(checkpoint: Checkpoint, placement: Placement) -> Any:
    """A checkpoint in an original layout, as the transformers model it is."""
    if placement.quantization is not None:
        raise ModelError(
            f"quantization= is for checkpoints in transformers' layout; {checkpoint.where} is in an original one. "
            "Convert it first: interp convert FOLDER NEW_FOLDER, and load the new folder."
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
    """The model on the NDIF server of nnsight's settings: its config and processor are read here, its weights there."""
    from interp.tracing.remote.server import open_remote

    usual = {"device": "cpu", "dtype": "float32"}
    if odd := [name for name, value in given.items() if str(value) != str(usual.get(name))]:
        raise ModelError(
            f"{', '.join(f'{name}={given[name]!r}' for name in odd)}: a model on an NDIF server is loaded already, "
            "where and as its operators chose. Leave this out with remote=True."
        )
    config = read_config(where, options)
    _attend(where, config, attention)
    made = _processor(processor, config, lambda: load_processor(where, options, config), where)
    own = {"attn_implementation": attention} if attention is not None else {}
    revision = {name: options[name] for name in ("revision",) if name in options}
    return open_remote(where, find(config, adapter), copy.deepcopy(made), {**own, **revision})


def _attend(where: str, config: PreTrainedConfig, implementation: str | None) -> None:
    """Puts the attention implementation asked for into the config, and refuses code from the hub."""
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
            "transformers' own, which holds its tower. Leave it out."
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
    except (OSError, RuntimeError, ValueError) as error:  # a name that no file can have, or no such user
        raise ModelError(
            f"{str(model)!r} is not a path that can be looked up ({error}). Check it."
        ) from error
    if is_file:
        raise ModelError(f"{str(model)!r} is a file; name the folder that it lies in.")
    if found and str(model):
        if not any((path / name).is_file() for name in holding):
            raise ModelError(
                f"the folder {path} holds no {' or '.join(holding)}; name the folder that save_pretrained "
                "wrote."
            )
        return str(path), True
    named = (
        isinstance(model, str) and len(model) <= 96 and _HUB_ID.fullmatch(model)
    )  # the hub takes no longer ones
    if named and ".." not in str(model) and not beside:
        return str(model), False
    raise ModelError(
        f"{str(model)!r} is not an existing folder, nor a hub id (organisation/name), nor one of "
        f"{sorted(ORGANISMS)}. Check the path; nothing was downloaded.{meant(str(model), ORGANISMS)}"
    )


def _check_name(model: str | Path) -> None:
    """Raise ModelError for what cannot be the name of a model."""
    if not isinstance(model, str | Path):
        raise ModelError(
            f"load takes a name, a folder or a hub id; got {type(model).__name__}. For a model in memory use "
            "interp.wrap(hf_model, processor)."
        )
    if len(str(model)) > _LONGEST or not str(model).isprintable():
        raise ModelError(
            f"{str(model)[:60]!r}… is no name of a model: {len(str(model))} characters, "
            f"{'some that do not print' if not str(model).isprintable() else f'and {_LONGEST} at most'}. Nothing was "
            "downloaded."
        )


def _processor(given: Any, config: PreTrainedConfig, own: Callable[[], Any], where: str) -> Any:
    """A processor given as such, as the folder or hub id of one, or as settings of the checkpoint's own."""
    if given is None:
        return own()
    if isinstance(given, Mapping) and not hasattr(given, "tokenizer"):
        return with_settings(own(), given, where)
    if not isinstance(given, str | Path):
        return given
    place, local = _place(given, _PROCESSOR_FILES)
    return load_processor(place, {"local_files_only": local or not reachable()}, config)


def _model(where: str, config: PreTrainedConfig, placement: Placement, options: Mapping[str, Any]) -> Any:
    """The model with every weight accounted for."""
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
    except Exception as error:  # whatever reading foreign files raises
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
    """Leaves out transformers' progress bar where the weights are a small local file, which takes a moment to read."""
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
        "with random weights in their place. Is this an original checkpoint in another layout, or the wrong "
        "config.json?"
    )
