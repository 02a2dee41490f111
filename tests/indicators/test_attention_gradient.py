"""Attention × gradient and attribution patching against eager's autograd, finite differences and worked examples."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from interp.conformance.tiny import tiny
from interp.errors import MapError, SiteError
from interp.indicators import AttentionGradient, AttributionPatching
from interp.indicators.patching import knockout_effect
from interp.inputs.prompt import Target, diff
from interp.tracing import Knockout, Mllm, Site, positions, wrap
from tests.tiny import uneven_samples as samples
from tests.tracing.reference_attention import Changes, greedy
from tests.tracing.reference_gradients import in_float64, rows

DIFFERENCE = Target(diff("red", "no is"))
TERMS = ((1, "red"), (-1, "no is"))


@pytest.fixture(scope="module")
def mllm() -> Mllm:
    return wrap(*tiny("llava"))


@pytest.fixture(scope="module")
def eager() -> Any:
    return tiny("llava", "eager")[0]


@pytest.fixture(scope="module")
def passes(mllm, eager) -> list[list[Any]]:
    return [rows(mllm, eager, sample, TERMS) for sample in samples()]


@pytest.mark.parametrize("signed", [False, True])
def test_it_is_the_head_mean_of_the_row_times_its_gradient(mllm, passes, signed):
    """The two answers' gradients are added before their sign is looked at."""
    per_head = AttentionGradient(signed=signed, per_head=True)(mllm, samples(), target=DIFFERENCE)
    means = AttentionGradient(signed=signed, layers=[2, 0])(mllm, samples(), target=DIFFERENCE)
    for i, tokens in enumerate(per_head.tokens):
        (attention, first), (_, second) = passes[i]
        gradient = first[..., : tokens.length] + second[..., : tokens.length]
        weighed = attention * (gradient if signed else np.maximum(gradient, 0))
        expected = weighed[:, :, 0, tokens.image]
        np.testing.assert_allclose(per_head[i], expected, atol=1e-5 * np.abs(expected).max())
        assert per_head[i].dims == ("layer", "head", "token")
        np.testing.assert_allclose(means[i], expected.mean(1)[[2, 0]], atol=1e-5 * np.abs(expected).max())
        assert means[i].layer.values.tolist() == [2, 0]
        np.testing.assert_array_equal(means[i].position, tokens.image)
    assert (per_head.cost.forwards, per_head.cost.backwards) == (3, 2)
    np.testing.assert_allclose(means.logits, mllm.trace(samples()).logits, atol=3e-5)


def by_hand(attention: np.ndarray, gradient: np.ndarray, j: int) -> float:
    """−g·ΔA of hiding key j, row by row, from what becomes of the whole row."""
    total = 0.0
    for a, g in zip(
        attention.reshape(-1, attention.shape[-1]), gradient.reshape(-1, gradient.shape[-1]), strict=True
    ):
        after = a.astype(float).copy()
        after[j] = 0
        total -= g @ (after / after.sum() - a)
    return total


def test_patching_adds_up_what_becomes_of_every_row(mllm, eager):
    found = AttributionPatching()(mllm, samples(), target=DIFFERENCE)
    zero = AttributionPatching(mode="zero", per_head=True)(mllm, samples(), target=DIFFERENCE)
    for i, tokens in enumerate(found.tokens):
        expected, plain = 0.0, 0.0
        for attention, gradient in rows(mllm, eager, samples()[i], TERMS, "after_image"):
            expected = expected + np.array(
                [[by_hand(a, g, j) for j in tokens.image] for a, g in zip(attention, gradient, strict=True)]
            )
            plain = plain + (attention * gradient).sum(axis=2)[..., tokens.image]
        np.testing.assert_allclose(found[i], expected, atol=1e-5 * np.abs(expected).max())
        np.testing.assert_allclose(zero[i], plain, atol=1e-5 * np.abs(plain).max())
        assert zero[i].dims == ("layer", "head", "token")


def test_a_row_worked_out_by_hand():
    """A = (1/2, 3/10, 1/5), g = (1, 0, 2): Σ A g = 9/10."""
    attention, gradient = torch.tensor([[[0.5, 0.3, 0.2]]]), torch.tensor([[[1.0, 0.0, 2.0]]])
    found = knockout_effect(attention, gradient, "renormalise")
    np.testing.assert_allclose(found[0, 0], [0.5 * 0.1 / 0.5, -0.3 * 0.9 / 0.7, 0.2 * 1.1 / 0.8], rtol=1e-6)
    np.testing.assert_allclose(knockout_effect(attention, gradient, "zero")[0, 0], [0.5, 0.0, 0.4], rtol=1e-6)
    alone = knockout_effect(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[3.0, 1.0]]]), "renormalise")
    assert alone.tolist() == [[[0.0, 0.0]]]


@pytest.mark.parametrize("mode", ["renormalise", "zero"])
def test_it_is_the_slope_of_the_target_along_the_knockout(mllm, mode):
    """Float64 eager attention, moved by ε of the way to a hidden token, in every layer at once, and in one."""
    exact, sample = in_float64(tiny("llava", "eager")[0]), samples()[1]
    inputs = {k: v.double() if v.is_floating_point() else v for k, v in mllm.encode(sample).inputs.items()}
    found = AttributionPatching(mode=mode)(mllm, sample)
    tokens, top = found.tokens[0], int(found.logits.values[0].argmax())

    def loss(j: int, layers: tuple[int, ...], step: float) -> float:
        def towards(layer: int, weights: torch.Tensor) -> torch.Tensor:
            if layer not in layers:
                return weights
            hidden = weights.clone()
            hidden[..., j] = 0
            if mode == "renormalise":
                hidden = hidden / hidden.sum(-1, keepdim=True)
            moved = weights + step * (hidden - weights)
            return torch.cat(
                [weights[:, : int(tokens.image[-1]) + 1], moved[:, int(tokens.image[-1]) + 1 :]], 1
            )

        logits = greedy(exact, inputs, 1, changes=Changes(probabilities=towards)).logits[0]
        return float(torch.from_numpy(logits).log_softmax(-1)[top])

    for token in (0, 7, 11):
        for layers, mine in (((0, 1, 2), found[0].sum("layer")), ((1,), found[0].sel(layer=1))):
            j, step = int(tokens.image[token]), 1e-5
            slope = (loss(j, layers, -step) - loss(j, layers, step)) / (2 * step)
            assert float(mine[token]) == pytest.approx(slope, rel=1e-3, abs=1e-5 * float(abs(found[0]).max()))


def test_it_ranks_tokens_as_knockouts_do(mllm):
    """One layer's estimate against the loop of exact knockouts there; the sign too."""
    sample = samples()[1]
    estimate = AttributionPatching(layers=[2])(mllm, sample, target=Target("red"))
    plain = mllm.score(sample, Target("red")).values[0]
    exact = [
        plain
        - mllm.score(
            sample,
            Target("red"),
            edits=[Knockout(Site(layers=[2], queries="after_image", keys=positions([int(j)])))],
        ).values[0]
        for j in estimate.tokens[0].image
    ]
    assert np.corrcoef(estimate[0][0], exact)[0, 1] > 0.95


def test_last_rows_alone(mllm, eager):
    found = AttributionPatching(queries="last", mode="zero")(mllm, samples()[1])
    turned = AttributionPatching([2, 0], queries="last", mode="zero")(mllm, samples()[1])[0]
    assert turned.layer.values.tolist() == [2, 0]
    np.testing.assert_allclose(turned, found[0].sel(layer=[2, 0]), atol=1e-5 * np.abs(found[0]).max())
    ((attention, gradient),) = rows(mllm, eager, samples()[1])
    expected = (attention * gradient)[:, :, 0, found.tokens[0].image].sum(axis=1)
    np.testing.assert_allclose(found[0], expected, atol=1e-5 * np.abs(expected).max())


def test_they_are_values():
    for made in (AttentionGradient(True, True, [1, 0]), AttributionPatching([1], "last", True, "zero")):
        assert made == type(made)(**vars(made))
        assert len({made, type(made)()}) == 2
        assert json.loads(json.dumps(made.to_dict())) != json.loads(json.dumps(type(made)().to_dict()))
    assert AttentionGradient().to_dict() == {
        "indicator": "attention gradient",
        "signed": False,
        "per_head": False,
        "layers": "all",
        "queries": "last",
    }


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: AttentionGradient(signed=1), MapError, "signed is True or False; got 1"),
        (
            lambda: AttentionGradient(queries="question"),
            MapError,
            "queries of AttentionGradient is 'last'; got",
        ),
        (lambda: AttributionPatching(queries="image"), MapError, "is 'after_image' or 'last'; got 'image'"),
        (lambda: AttributionPatching(mode="mean"), MapError, "is 'renormalise' or 'zero'; got 'mean'"),
        (lambda: AttributionPatching(layers=[9])(wrap(*tiny("llava")), samples()), SiteError, "got layer 9"),
    ],
)
def test_arguments_are_checked(unchecked, make, error, message):
    with pytest.raises(error, match=message):
        make()
