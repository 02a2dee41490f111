"""What a model on a server is given and refuses before any job is sent; without a server."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import interp
import tests.tiny as tiny
from interp.errors import ModelError, ServerError
from interp.tracing import (
    MLP,
    AblateFeature,
    ClampFeature,
    Contrast,
    Features,
    Mllm,
    NoisedImage,
    ReconstructResidual,
)
from interp.tracing.activation_edits import FeatureEdit
from interp.tracing.passes.second_stream import second_inputs


@pytest.fixture
def far(mllm: Mllm, unchecked: None) -> Mllm:
    """A model whose server cannot be asked for anything."""
    return replace(mllm, server=SimpleNamespace())


def coder(**settings: Any) -> Features:
    draw = torch.Generator().manual_seed(0)
    sizes = {"encoder": (4, 6), "encoder_bias": (6,), "decoder": (6, 4), "decoder_bias": (4,)}
    return Features(
        **{name: torch.randn(size, generator=draw) for name, size in sizes.items()}, layer=1, **settings
    )


JUMPS = coder(activation="jumprelu", threshold=torch.linspace(0, 1, 6))


@pytest.mark.parametrize(
    ("edit", "n_sent", "feature"),
    [
        (ClampFeature(JUMPS, [5, 2], [3.0, 1.0], "image"), 2, (0, 1)),
        (AblateFeature(JUMPS, 3, ["text", "last"], "all"), 1, (0,)),
        (ClampFeature(coder(activation="topk", k=2), [5, 2], 3.0), 6, (5, 2)),
        (ClampFeature(JUMPS, [5, 2], 3.0, keep_error=False), 6, (5, 2)),
        (ReconstructResidual(JUMPS, "image"), 6, None),
    ],
    ids=["clamp", "ablate", "top k", "without error", "reconstruct"],
)
def test_an_edit_takes_along_the_features_it_needs(edit: FeatureEdit, n_sent: int, feature: Any) -> None:
    sent: Any = edit.sendable()
    assert (sent.features.n_features, getattr(sent, "feature", None)) == (n_sent, feature)
    assert (sent.positions, sent.steps, sent.site) == (edit.positions, edit.steps, edit.site)
    stream = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(sent.on(stream), edit.on(stream))


def test_work_at_mlps_is_not_sent(far: Mllm) -> None:
    with pytest.raises(ServerError, match=r"transcoders run on this machine only.*interp\.AddResidual"):
        AblateFeature(coder(site="mlp"), 3).sendable()
    with pytest.raises(ServerError, match=r"MLPs can be read only on this machine.*interp\.Residual"):
        far.trace(tiny.samples()[:1], reads=[MLP()])


def test_only_the_prompt_without_its_image_guides_there(far: Mllm) -> None:
    batch = far.encode(tiny.samples()[:1])
    findings = interp.ClinicalContrast({batch.samples[0].id: {"Edema": 0.9}})
    for contrast in (Contrast(against=NoisedImage()), findings):
        with pytest.raises(ModelError, match="noised images and findings need the model on this machine"):
            second_inputs(far, batch, contrast)
    assert second_inputs(far, batch, Contrast())["input_ids"].shape[1] == batch.tokens[0].length - 16


def test_a_prefix_there_holds_nothing_and_serves_nothing(far: Mllm) -> None:
    found = far.prefix(tiny.samples())
    assert (found.keys, found.values, found.cost.forwards) == ((), (), 0)
    assert found.lengths == (19, 19, 19)
    assert not found.serves(found.batch, far.visibility)
    assert far.sharing(None) is far


def test_such_a_model_takes_inputs_on_the_cpu(far: Mllm, mllm: Mllm) -> None:
    assert (far.place, mllm.place) == ("remote", "cpu")
    assert far.layer_devices == (torch.device("cpu"),) * 3
    assert repr(far) == "Mllm(LlavaForConditionalGeneration, 3 layers, 4 heads, remote)"
