"""Files of sparse autoencoders and transcoders: SAELens, Qwen-Scope, Gemma Scope 2, circuit-tracer, as safetensors."""

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
from interp.inputs.argument_checks import check_one_of, check_whole
from interp.inputs.files import unreadable
from interp.inputs.text import brief

__all__ = ["coder_fields"]

WEIGHTS = ("sae_weights.safetensors", "model.safetensors", "params.safetensors")
HOOKS = (
    (r"blocks\.(\d+)\.hook_resid_post", 0),
    (r"blocks\.(\d+)\.hook_resid_pre", -1),
    (r"(?:.*\.)?layers\.(\d+)", 0),
)
"""Pattern of a residual site's name → what to add to its number to get the layer that returns the stream."""
MLP_INPUTS = (
    r"blocks\.(\d+)\.mlp\.hook_in",
    r"(?:.*\.)?layers\.(\d+)\.(?:pre_feedforward_layernorm\.output|mlp\.input)",
)
MLP_OUTPUTS = (
    r"blocks\.(\d+)\.hook_mlp_out",
    r"(?:.*\.)?layers\.(\d+)\.(?:post_feedforward_layernorm|mlp)\.output",
)
"""Patterns of the names of an MLP's input after its norm, and of what the MLP adds to the stream."""
SCALINGS = {
    "none": "none", False: "none", None: "none", "constant_norm_rescale": "constant_norm", "layer_norm": "layer_norm",
}  # fmt: skip
ARCHITECTURES = ("standard", "jumprelu", "topk", "gated")
TRANSCODERS = {
    "transcoder": "standard", "skip_transcoder": "standard",
    "jumprelu_transcoder": "jumprelu", "jumprelu_skip_transcoder": "jumprelu",
}  # fmt: skip
"""SAELens' transcoder architecture → the autoencoder architecture with the same activation."""
RENAMED = {"w_enc": "W_enc", "w_dec": "W_dec", "activation_function.threshold": "threshold"}
REQUIRED = ("W_enc", "W_dec", "b_dec")


def coder_fields(
    path: str | os.PathLike[str], layer: int | None, k: int | None, site: str | None = None
) -> dict[str, Any]:
    """The fields of a `SparseCoder` from its file or folder; see `interp.load_features`.

    Raises:
        ModelError: Files that do not exist, are damaged or are of another kind, or an autoencoder of another site.
    """
    try:
        given = Path(path)
        folder = given if given.is_dir() else given.parent
    except (TypeError, ValueError, OSError) as error:  # OSError: a name that is too long
        raise ModelError(f"load_features takes a path; got {path!r:.100}.") from error
    if site is not None:
        check_one_of("site", site, ("mlp",), ModelError)
    settings, published = _settings(folder / "cfg.json"), _settings(folder / "config.json")
    tensors = _tensors(_weights_file(given))
    if settings is not None:
        found = _of_saelens(settings, tensors, site)
    elif published is not None and "hf_hook_point_in" in published:
        found = _of_gemma_scope(published, tensors, site)
    elif _is_circuit_tracer(tensors, (folder / "config.yaml").is_file() or site == "mlp"):
        found = _of_circuit_tracer(given, folder / "config.yaml", tensors, site)
    else:
        found = _of_qwen_scope(given, tensors)
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
        raise ModelError(f"{path} must hold a JSON object of settings, but does not. Copy it again.")
    more = found.get("metadata")
    return {**(more if isinstance(more, dict) else {}), **found}


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            named = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 – it is no dict
            found = {str(RENAMED.get(name, name)): tensor for name, tensor in named.items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"{path} is not a complete safetensors file ({brief(str(error))}). Copy it again."
        ) from error
    missing = [name for name in REQUIRED if name not in found]
    if missing:
        raise ModelError(
            f"{path} lacks {', '.join(missing)}, which a sparse autoencoder has; it has "
            f"{', '.join(sorted(found)[:8]) or 'no tensor'}. Is it the model's file?"
        )
    return found


def _of_saelens(
    settings: Mapping[str, Any], tensors: Mapping[str, Tensor], site: str | None
) -> dict[str, Any]:
    """SAELens: W_enc (hidden, feature), W_dec (feature, hidden); cfg.json names architecture, site and scaling."""
    named_kind = settings.get("architecture", "standard")
    transcoder = isinstance(named_kind, str) and named_kind in TRANSCODERS
    kind = TRANSCODERS[named_kind] if transcoder else named_kind
    named = settings.get("activation_fn_str", settings.get("activation_fn", "relu"))
    kind = "topk" if kind == "standard" and named == "topk" else kind
    if kind not in ARCHITECTURES:
        raise ModelError(
            f"architecture {kind!r} is not read; known are {', '.join((*ARCHITECTURES, *TRANSCODERS))}. Convert it, or "
            "make interp.Features from its arrays."
        )
    if kind in ("standard", "jumprelu") and named not in ("relu", "topk"):
        raise ModelError(f"the activation function {named!r} is not read; known are relu and topk.")
    if settings.get("reshape_activations", "none") != "none":
        raise ModelError(
            "only features of the residual stream or of an MLP are read; these are of heads' outputs (hook_z)."
        )
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
        "centred": not transcoder and bool(settings.get("apply_b_dec_to_input", True)),
        "scaling": _scaling(settings),
        **(_transcoder(settings, tensors, site) if transcoder else {"layer": _layer(settings)}),
    }


def _transcoder(
    settings: Mapping[str, Any], tensors: Mapping[str, Tensor], site: str | None
) -> dict[str, Any]:
    """The fields of a SAELens transcoder that an autoencoder does not have."""
    skips = "skip" in settings["architecture"]
    hooks = settings.get("hook_name"), settings.get("hook_name_out")
    skip = _needed(tensors, "W_skip").T if skips else None
    return {"site": "mlp", "skip": skip, "layer": _mlp_layer(*hooks, site)}


def _mlp_layer(reads: Any, writes: Any, site: str | None) -> int | None:
    """The layer of a transcoder's MLP, from the names of what it reads and writes; None where they do not say it."""
    if site == "mlp":
        found = re.search(r"(?:blocks|layers)\.(\d+)\.", str(reads))
        return int(found.group(1)) if found else None
    into, out = (_matched(name, known) for name, known in ((reads, MLP_INPUTS), (writes, MLP_OUTPUTS)))
    if into is None or out != into:
        raise ModelError(
            f"this transcoder reads {reads!r} and writes {writes!r}; only those of one layer's MLP are read, from its "
            "input after the norm (blocks.N.mlp.hook_in) to what it adds to the stream (blocks.N.hook_mlp_out). If "
            'that is what its names mean, write load_features(path, site="mlp").'
        )
    return into


def _matched(name: Any, known: tuple[str, ...]) -> int | None:
    matches = (re.fullmatch(pattern, str(name)) for pattern in known)
    return next((int(match.group(1)) for match in matches if match), None)


def _of_gemma_scope(
    settings: Mapping[str, Any], tensors: Mapping[str, Tensor], site: str | None
) -> dict[str, Any]:
    """Gemma Scope 2: W_enc (hidden, feature), W_dec (feature, hidden), JumpReLU, not centred; config.json has sites."""
    kind = settings.get("type", "sae")
    if settings.get("architecture", "jump_relu") != "jump_relu" or kind not in ("sae", "transcoder"):
        raise ModelError(
            f"type {kind!r} of architecture {settings.get('architecture')!r} is not read; of Gemma Scope 2 those of "
            "types sae and transcoder and architecture jump_relu are. Convert it, or make interp.Features from its "
            "arrays."
        )
    reads, writes = settings["hf_hook_point_in"], settings.get("hf_hook_point_out")
    skip = tensors.get("affine_skip_connection")
    placed: dict[str, Any] = {"site": "mlp", "skip": skip}
    if kind == "transcoder":
        placed["layer"] = _mlp_layer(reads, writes, site)
    else:
        layer = re.fullmatch(r"(?:.*\.)?layers\.(\d+)\.output", str(reads))
        placed = {"layer": int(layer.group(1)) if layer else _layer({"hook_name": reads})}
    return {
        "encoder": tensors["W_enc"],
        "decoder": tensors["W_dec"],
        "encoder_bias": _needed(tensors, "b_enc"),
        "decoder_bias": tensors["b_dec"],
        "threshold": _needed(tensors, "threshold"),
        "activation": "jumprelu",
        **placed,
    }


def _is_circuit_tracer(tensors: Mapping[str, Tensor], declared: bool) -> bool:
    """Whether encoder and decoder are both (feature, hidden), or W_skip is among the tensors.

    Square matrices look the same in every layout; for them a config.yaml or `site` must declare a transcoder.
    """
    shape = tuple(tensors["W_enc"].shape)
    alike = shape == tuple(tensors["W_dec"].shape)
    return "W_skip" in tensors or (alike and (declared or len(set(shape)) > 1))


def _of_circuit_tracer(
    path: Path, config: Path, tensors: Mapping[str, Tensor], site: str | None
) -> dict[str, Any]:
    """circuit-tracer: W_enc and W_dec (feature, hidden); the file's name has the layer, config.yaml the sites."""
    text = config.read_text("utf-8", errors="replace") if config.is_file() else ""

    def said(name: str) -> str | None:
        found = re.search(rf"(?m)^{name}:\s*[\"']?([\w.]+)", text)
        return found.group(1) if found else None

    number = re.search(r"layer_(\d+)$", path.stem)
    reads, writes = (said(f"feature_{side}_hook") for side in ("input", "output"))
    if site is None:  # config.yaml names the sites of every layer at once
        _mlp_layer(reads and f"blocks.0.{reads}", writes and f"blocks.0.{writes}", None)
    skip, count = tensors.get("W_skip"), tensors.get("k") if "k" in tensors else said("k")
    thresholds = tensors.get("threshold")
    activation = "jumprelu" if thresholds is not None else "topk" if said("activation") == "topk" else "relu"
    return {
        "encoder": tensors["W_enc"].T,
        "decoder": tensors["W_dec"],
        "encoder_bias": _needed(tensors, "b_enc"),
        "decoder_bias": tensors["b_dec"],
        "threshold": thresholds,
        "activation": activation,
        "k": int(count) if activation == "topk" and count is not None else None,
        "layer": int(number.group(1)) if number else None,
        "site": "mlp",
        "skip": None if skip is None else skip.T,
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
        raise ModelError(
            f"features are read after a layer; {hook!r} is the residual stream before the first layer."
        )
    return layer


def _of_qwen_scope(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Qwen-Scope: W_enc (feature, hidden), W_dec (hidden, feature), top-k, not centred; the path has layer and k."""
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
