"""Files of sparse coders that are not read, and how the names of sites give a layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import interp
from interp.errors import ModelError

WEIGHTS = {
    "W_enc": torch.ones(3, 2),
    "W_dec": torch.ones(2, 3),
    "b_enc": torch.ones(2),
    "b_dec": torch.ones(3),
    "threshold": torch.ones(2),
    "scaling_factor": torch.ones(2),
}


def saved(folder: Path, settings: Any, **weights: torch.Tensor) -> Path:
    save_file({**WEIGHTS, **weights}, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(settings if isinstance(settings, str) else json.dumps(settings))
    return folder


@pytest.mark.parametrize(
    ("hook", "layer"),
    [
        ("blocks.0.hook_resid_post", 0),
        ("blocks.12.hook_resid_post", 12),
        ("blocks.1.hook_resid_pre", 0),
        ("model.layers.7", 7),
        ("layers.0", 0),
    ],
)
def test_a_layer_is_the_one_that_returns_the_stream(tmp_path: Path, hook: str, layer: int) -> None:
    assert interp.load_features(saved(tmp_path, {"hook_name": hook})).layer == layer
    assert interp.load_features(saved(tmp_path, {"hook_point": hook})).layer == layer
    assert interp.load_features(saved(tmp_path, {"hook_name": hook}), layer=3).layer == 3


HOOK = {"hook_name": "blocks.1.hook_resid_post"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"hook_name": "blocks.0.hook_resid_pre"},
            "is the residual stream before the first layer",
        ),
        ({"hook_name": "blocks.0.attn.hook_z"}, "are of 'blocks.0.attn.hook_z', not of the residual stream"),
        ({**HOOK, "reshape_activations": "hook_z"}, r"these are of heads' outputs \(hook_z\)"),
        ({**HOOK, "architecture": "matryoshka"}, "architecture 'matryoshka' is not read; known are standard"),
        ({**HOOK, "activation_fn": "tanh"}, "activation function 'tanh' is not read"),
        ({**HOOK, "activation_fn": "tanh", "architecture": "jumprelu"}, "activation function 'tanh'"),
        ({**HOOK, "normalize_activations": "expected_average_only_in"}, "Fold it in first"),
        ({**HOOK, "architecture": "gated"}, "an autoencoder of this architecture has b_mag; got W_dec"),
        ("[1]", "must hold a JSON object of settings, but does not. Copy it again"),
        ("{", "cannot be read as JSON"),
    ],
)
def test_other_sites_and_kinds_are_refused(tmp_path: Path, settings: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        interp.load_features(saved(tmp_path, settings))


def test_a_factor_of_fine_tuning_must_be_one(tmp_path: Path) -> None:
    settings = {**HOOK, "finetuning_scaling_factor": True}
    assert interp.load_features(saved(tmp_path, settings)).layer == 1
    with pytest.raises(ModelError, match=r"a fine-tuned scaling_factor are not read\. Fold it"):
        interp.load_features(saved(tmp_path, settings, scaling_factor=torch.tensor([1.0, 2.0])))


def test_weights_that_are_missing_are_named(tmp_path: Path) -> None:
    save_file({"W_enc": torch.ones(3, 2)}, tmp_path / "layer1.safetensors")
    with pytest.raises(ModelError, match="lacks W_dec, b_dec, which a sparse autoencoder has; it has W_enc"):
        interp.load_features(tmp_path / "layer1.safetensors")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ("relu", None, True, "none")),
        ({"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 2}}, ("topk", 2, True, "none")),
        ({"architecture": "topk", "k": 1}, ("topk", 1, True, "none")),
        ({"architecture": "jumprelu"}, ("jumprelu", None, True, "none")),
        ({"apply_b_dec_to_input": False}, ("relu", None, False, "none")),
        ({"normalize_activations": "constant_norm_rescale"}, ("relu", None, True, "constant_norm")),
    ],
)
def test_settings_of_saelens_are_read(tmp_path: Path, settings: dict[str, Any], expected: tuple) -> None:
    found = interp.load_features(saved(tmp_path, {**HOOK, **settings}))
    assert (found.activation, found.k, found.centred, found.scaling) == expected


def test_a_coder_is_named_after_its_folder_or_file(tmp_path: Path) -> None:
    folder = tmp_path / "width.16k"
    folder.mkdir()
    assert interp.load_features(saved(folder, HOOK)).name == "width.16k"
    assert interp.load_features(folder / "sae_weights.safetensors").name == "sae_weights"
