"""Norm outliers among patches and image tokens: planted ones, and against the model's own hidden states."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from numpy.testing import assert_allclose

import interp
from interp import Rows, Site
from interp.conformance.tiny import tiny
from interp.errors import ModelError, SiteError
from interp.models.families.gemma import Gemma3
from interp.tracing import Mllm, norm_outliers, wrap
from interp.tracing.derived.outlying_norms import _in_order, _sinks, feature_layer, spaced
from tests.tiny import uneven_samples as samples


@pytest.fixture(scope="module", params=["llava", "qwen2_5_vl"])
def mllm(request) -> Mllm:
    return wrap(*tiny(request.param))


def test_the_threshold_by_hand():
    """Median 3, distances 2 1 0 1 97, MAD 1: 3 + 2·1.4826."""
    flags, threshold = norm_outliers(np.array([1.0, 2, 3, 4, 100]), k=2)
    assert threshold == pytest.approx(3 + 2 * 1.4826)
    assert flags.tolist() == [False, False, False, False, True]
    assert norm_outliers(np.array([1.0, 2, 100]))[0].tolist() == [False, False, True]
    low = norm_outliers(np.array([1.0, 100, 101, 102, 103]))[0]
    assert not low.any(), "a small norm is no outlier"


@pytest.mark.parametrize("values", [[], [1.0, 9.0], [2.0, 2.0, 2.0, 50.0]], ids=str)
def test_without_spread_nothing_is_an_outlier(values):
    flags, threshold = norm_outliers(np.array(values))
    assert not flags.any()
    assert threshold == np.inf


def planted(layer: Any, places: list[int], size: float = 50.0) -> Any:
    """A hook that makes the hidden states at these places of the tower's order large."""

    def hook(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
        flat = output.reshape(-1, output.shape[-1]).clone()
        flat[places] += size
        return flat.reshape(output.shape)

    return layer.mlp.register_forward_hook(hook)


def test_planted_outliers_of_the_tower_are_found(mllm):
    batch = mllm.encode(samples())
    second = batch.patches[1]
    place = batch.patches[0].length + int(second.slots[second.image[5]])
    hook = planted(mllm.adapter.vision_layers(mllm.hf)[0], [place])
    try:
        found = interp.sinks(mllm, samples(), "vision", layer=0, k=8)
        rows = mllm.trace(samples(), reads=[Rows(Site(tower="vision", queries="patches", keys="patches"))])
    finally:
        hook.remove()
    assert [one.n for one in found][1] == 1
    assert np.flatnonzero(found[1].outlier).tolist() == [5]
    assert found[1].norm[5] > found[1].threshold
    assert found[1].outlier.dims == ("patch",)
    if second.n <= 64:  # every row counts
        mean = rows[1].rows.mean("head").values
        share = mean[..., 5].sum(-1) / mean.sum((-2, -1))
        assert_allclose(found[1].share[:1], share[:1], atol=1e-5)


def test_norms_are_those_of_the_models_own_states():
    """The decoder's against transformers' hidden states, alone; the tower's against its own."""
    mllm = wrap(*tiny("llava"))
    model, _ = tiny("llava")
    own = mllm.encode(samples()[1])
    with torch.no_grad():
        states = model(**own.inputs, output_hidden_states=True).hidden_states
        tower = model.model.vision_tower(own.inputs["pixel_values"], output_hidden_states=True).hidden_states
    decoder = interp.sinks(mllm, samples(), "decoder", layer=0)[1]
    assert_allclose(decoder.norm, states[1][0, own.tokens[0].image].norm(dim=-1), rtol=1e-4)
    assert decoder.outlier.dims == ("token",)
    vision = interp.sinks(mllm, samples(), "vision")[1]
    assert vision.layer == 0, "llava takes the last layer but one"
    assert_allclose(vision.norm, tower[1][0, 1:].norm(dim=-1), rtol=1e-4)
    assert interp.sinks(mllm, samples()[0], "decoder")[0].layer == 1


@pytest.mark.parametrize("where", ["vision", "decoder"])
def test_k_says_how_far_an_outlier_lies(where):
    mllm = wrap(*tiny("llava"))
    near, far = (interp.sinks(mllm, samples()[0], where, k=k)[0] for k in (1e-6, 1e6))
    assert near.n == int((near.norm > np.median(near.norm)).sum()) > 0
    assert far.n == 0
    assert (far.share == 0).all()
    assert near.where == far.where == where


def test_the_share_is_that_of_the_last_row():
    mllm = wrap(*tiny("llava"))
    hook = mllm.hf.model.multi_modal_projector.register_forward_hook(
        lambda _, __, output: output + 40.0 * (torch.arange(output.shape[1]) == 3)[None, :, None]
    )
    try:
        found = interp.sinks(mllm, samples()[0], "decoder", layer=0)[0]
        rows = mllm.trace(samples()[0], reads=[Rows()])[0].rows.mean("head")[:, 0]
    finally:
        hook.remove()
    assert np.flatnonzero(found.outlier).tolist() == [3]
    assert_allclose(found.share, rows[:, 3] / rows.sum("token"), atol=1e-6)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("named", "layer"),
    [(None, 4), (-1, 4), (-2, 3), (5, 4), (4, 3), (1, 0), (0, 0), (-5, 0), ([-4, -2], 3), ([1, -2, 2], 3)],
    ids=str,
)
def test_the_layer_named_is_counted_from_either_end(named, layer):
    """Of 5 layers: hidden state i is the output of layer i − 1, and state 0, which no layer gives, is layer 0's."""
    config = SimpleNamespace(vision_feature_layer=named)
    assert feature_layer(SimpleNamespace(hf=SimpleNamespace(config=config), n_vision_layers=5)) == layer


def test_rows_of_the_tower_are_spread_over_all_patches():
    assert spaced(3).all()
    assert spaced(64).all()
    found = np.flatnonzero(spaced(127))  # every second one, the first and the last among them
    assert found.tolist() == list(range(0, 127, 2))


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_flagged_is_refused():
    mllm = wrap(*tiny("llava"))
    with pytest.raises(ModelError, match='where is "vision" or "decoder"'):
        interp.sinks(mllm, samples(), "text")  # type: ignore[arg-type]
    for k in (0, -1, np.inf, np.nan, True, "5"):
        with pytest.raises(ModelError, match="k is a finite number above 0"):
            interp.sinks(mllm, samples(), k=k)
    with pytest.raises(SiteError, match="has 2 layers"):
        interp.sinks(mllm, samples(), layer=7)


def test_an_adapter_that_miscounts_is_refused():
    mllm = wrap(*tiny("gemma3"))

    class Wrong(Gemma3):
        def patches_along(self, config: Any) -> int:
            return 1

    object.__setattr__(mllm, "adapter", Wrong())
    with pytest.raises(ModelError, match="has 64 positions, but the adapter 'gemma3' describes 16"):
        interp.sinks(mllm, samples()[0])


def test_the_share_of_attention_on_outliers_by_hand():
    """The last token is an outlier: 3 of 10, all, and of a layer that gives the image no attention nothing is known."""
    rows = xr.DataArray(
        [[[1.0, 1, 1, 1, 2], [2, 0, 1, 0, 1]], [[0.0, 0, 0, 0, 1], [0, 0, 0, 0, 0]], np.zeros((2, 5))],
        {"layer": [4, 1, 0], "token": [5, 6, 7, 8, 9]},
        dims=["layer", "query", "token"],
    )
    found = _sinks(np.array([1.0, 2, 3, 4, 100]), rows, 3, 5.0, "vision")
    assert_allclose(found.share, [0.3, 1.0, np.nan])
    assert found.share["layer"].values.tolist() == [4, 1, 0]
    assert (found.n, found.layer, found.where) == (1, 3, "vision")
    assert found.outlier["token"].values[found.outlier.values].tolist() == [9]
    none = _sinks(np.array([1.0, 2, 3, 4, 5]), rows, 3, 5.0, "decoder")
    assert_allclose(none.share, [0, 0, np.nan])


@pytest.mark.usefixtures("unchecked")
def test_padding_of_the_towers_lines_is_cut():
    """Two samples, of two sequences and of one; each line is a sequence, or all are one."""
    states = [torch.arange(6.0).reshape(2, 3, 1), torch.arange(6.0, 9).reshape(1, 3, 1)]
    made: list[Any] = [SimpleNamespace(padded=True, sequence=np.array(one)) for one in ([0, 0, 1], [0, 0, 0])]
    assert _in_order(states, made).ravel().tolist() == [0, 1, 3, 6, 7, 8]
    assert _in_order(states, made[1:]).ravel().tolist() == list(range(9))
    whole: list[Any] = [SimpleNamespace(padded=False)]
    assert _in_order(states, whole).ravel().tolist() == list(range(9))
    assert _in_order([], whole).shape == (0, 0)
