"""Files of sparse autoencoders: the layouts of SAELens and of Qwen-Scope, as safetensors."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from interp.errors import ModelError
from interp.inputs.argument_checks import check_whole
from interp.inputs.files import unreadable
from interp.inputs.text import brief

__all__ = ["coder_fields"]

WEIGHTS = ("sae_weights.safetensors", "model.safetensors")
HOOKS = (
    (r"blocks\.(\d+)\.hook_resid_post", 0),
    (r"blocks\.(\d+)\.hook_resid_pre", -1),
    (r"(?:.*\.)?layers\.(\d+)", 0),
)
"""The name of a residual site, with the layer → what to add to have the layer that returns the stream."""
SCALINGS = {
    "none": "none", False: "none", None: "none", "constant_norm_rescale": "constant_norm", "layer_norm": "layer_norm",
}  # fmt: skip
ARCHITECTURES = ("standard", "jumprelu", "topk", "gated")
REQUIRED = ("W_enc", "W_dec", "b_dec")


def coder_fields(path: str | os.PathLike[str], layer: int | None, k: int | None) -> dict[str, Any]:
    """The fields of a `SparseCoder` from its file or folder; see `interp.load_features`.

    Raises:
        ModelError: No such files, files that are damaged or of another kind, or an autoencoder of another site.
    """
    try:
        given = Path(path)
        folder = given if given.is_dir() else given.parent
    except (TypeError, ValueError, OSError) as error:  # OSError: a name that is too long
        raise ModelError(f"load_features takes a path; got {path!r:.100}.") from error
    settings = _settings(folder / "cfg.json")
    tensors = _tensors(_weights_file(given))
    found = _of_saelens(settings, tensors) if settings is not None else _of_qwen_scope(given, tensors)
    if layer is not None:
        found["layer"] = check_whole("layer", layer, 0, ModelError)
    if k is not None:
        found["k"] = k
    if found.get("layer") is None:
        raise ModelError(
            f"{given} does not say after which layer its stream is read. Write load_features(path, layer=…)."
        )
    if found["activation"] == "topk" and found.get("k") is None:
        raise ModelError(
            f"{given} does not say how many features are active at once. Write load_features(path, k=…): 50 or 100 of "
            "Qwen-Scope, the number behind L0_ in the repository's name."
        )
    return {**found, "name": given.stem if given.is_file() else given.name}


def _weights_file(given: Path) -> Path:
    if not given.is_dir():
        if given.suffix in (".pt", ".pth", ".bin", ".npz", ".pkl"):
            raise ModelError(
                f"{given.name} is a pickle or an archive, which load_features does not open. Write its tensors as "
                "safetensors: safetensors.torch.save_file({name: t.contiguous() for name, t in torch.load(path, "
                'weights_only=True).items()}, "layer10.sae.safetensors").'
            )
        if problem := unreadable(given):
            raise ModelError(
                f"{brief(str(given))} {problem} Nothing is downloaded: fetch the files first, as with hf download."
            )
        return given
    for name in WEIGHTS:
        if (given / name).is_file():
            return given / name
    raise ModelError(
        f"{given} holds no {' or '.join(WEIGHTS)}. Give the folder of one autoencoder, or one .safetensors file."
    )


def _settings(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON ({brief(str(error))}). Copy it again.") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} is no JSON object of settings. Copy it again.")
    more = found.get("metadata")
    return {**(more if isinstance(more, dict) else {}), **found}


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 – it is no dict
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"{path} is no whole safetensors file ({brief(str(error))}). Copy it again."
        ) from error
    missing = [name for name in REQUIRED if name not in found]
    if missing:
        raise ModelError(
            f"{path} lacks {', '.join(missing)}, which a sparse autoencoder has; it has "
            f"{', '.join(sorted(found)[:8]) or 'no tensor'}. Is it the model's file?"
        )
    return found


def _of_saelens(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """W_enc (hidden, feature), W_dec (feature, hidden); the kind, the site and the scaling are in cfg.json."""
    kind = settings.get("architecture", "standard")
    named = settings.get("activation_fn_str", settings.get("activation_fn", "relu"))
    kind = "topk" if kind == "standard" and named == "topk" else kind
    if kind not in ARCHITECTURES:
        raise ModelError(
            f"architecture {kind!r} is not read; known are {', '.join(ARCHITECTURES)}. Transcoders have another site "
            "than the residual stream."
        )
    if kind in ("standard", "jumprelu") and named not in ("relu", "topk"):
        raise ModelError(f"the activation function {named!r} is not read; known are relu and topk.")
    if settings.get("reshape_activations", "none") != "none":
        raise ModelError("these features are of heads' outputs (hook_z), not of the residual stream.")
    factor = tensors.get("scaling_factor")
    if settings.get("finetuning_scaling_factor") and factor is not None and not bool((factor == 1).all()):
        raise ModelError("features with a fine-tuned scaling_factor are not read. Fold it into W_dec first.")
    k = settings.get("k") or (settings.get("activation_fn_kwargs") or {}).get("k")
    gated = kind == "gated"
    return {
        "encoder": tensors["W_enc"],
        "decoder": tensors["W_dec"],
        "decoder_bias": tensors["b_dec"],
        "encoder_bias": _needed(tensors, "b_mag" if gated else "b_enc"),
        "gate_bias": _needed(tensors, "b_gate") if gated else None,
        "log_scale": _needed(tensors, "r_mag") if gated else None,
        "threshold": _needed(tensors, "threshold") if kind == "jumprelu" else None,
        "k": int(k) if kind == "topk" and k else None,
        "activation": "relu" if kind == "standard" else kind,
        "centred": bool(settings.get("apply_b_dec_to_input", True)),
        "scaling": _scaling(settings),
        "layer": _layer(settings),
    }


def _needed(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise ModelError(f"an autoencoder of this architecture has {name}; got {', '.join(sorted(tensors))}.")
    return tensors[name]


def _scaling(settings: Mapping[str, Any]) -> str:
    named = settings.get("normalize_activations", "none")
    if named not in SCALINGS:
        raise ModelError(
            f"normalize_activations={named!r} needs a factor that is not in the files. Fold it in first: "
            "sae.fold_activation_norm_scaling_factor(factor) of SAELens, then save the autoencoder again."
        )
    return SCALINGS[named]


def _layer(settings: Mapping[str, Any]) -> int | None:
    hook = settings.get("hook_name") or settings.get("hook_point")
    if hook is None:
        return None
    for pattern, more in HOOKS:
        if match := re.fullmatch(pattern, str(hook)):
            return _at_least_0(int(match.group(1)) + more, hook)
    raise ModelError(
        f"these features are of {hook!r}, not of the residual stream after a layer (blocks.N.hook_resid_post). Only "
        "such features are read."
    )


def _at_least_0(layer: int, hook: Any) -> int:
    if layer < 0:
        raise ModelError(f"{hook!r} is the stream before the first layer, which no layer returns.")
    return layer


def _of_qwen_scope(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """W_enc (feature, hidden), W_dec (hidden, feature), top-k without centring; layer and k are in the names."""
    bias = _needed(tensors, "b_enc")
    if tuple(tensors["W_enc"].shape) != (len(bias), len(tensors["b_dec"])):
        raise ModelError(
            f"{path} has no cfg.json beside it, and its W_enc, {tuple(tensors['W_enc'].shape)}, is not (feature, "
            f"hidden) as of Qwen-Scope, ({len(bias)}, {len(tensors['b_dec'])}). Put SAELens' cfg.json beside it."
        )
    layer = re.match(r"layer(\d+)\b", path.name)
    k = re.search(r"L0_(\d+)", str(path.absolute()))
    return {
        "encoder": tensors["W_enc"].T,
        "decoder": tensors["W_dec"].T,
        "encoder_bias": bias,
        "decoder_bias": tensors["b_dec"],
        "activation": "topk",
        "rectified": False,
        "k": int(k.group(1)) if k else None,
        "layer": int(layer.group(1)) if layer else None,
    }
