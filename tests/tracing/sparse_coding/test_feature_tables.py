"""Tables of features' activations, and sums that give explained variance, by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.sparse import csr_array

import tests.tiny as tiny
from interp.errors import MapError
from interp.tracing import Cost, FeatureActivations, FeatureFidelity, Features
from interp.tracing.sparse_coding.features import Sums

DENSE = (
    np.array([[0, 0, 0], [3, 0, 0]], np.float32),
    np.array([[2, 0, 0], [2, 5, 0], [2, 0, 0]], np.float32),
    np.array([[0, 1, 0]], np.float32),
)


def activations() -> FeatureActivations:
    """Three samples of two, three and one token, and three features, the last of which is never active."""
    samples = tuple(one.replace(id=name) for one, name in zip(tiny.samples(), "abc", strict=True))
    places = (np.array([4, 5]), np.array([7, 8, 9]), np.array([2]))
    return FeatureActivations(tuple(map(csr_array, DENSE)), places, (), samples, Cost(), "planted")


def test_samples_are_ranked_by_their_largest_or_mean_activation() -> None:
    found = activations().top_samples(0)
    assert found["sample"].tolist() == ["a", "b"]  # c is never active
    assert found["place"].tolist() == [0, 1]
    assert found["value"].tolist() == [3.0, 2.0]
    assert found["position"].tolist() == [5, 7]
    assert found["share"].tolist() == [0.5, 1.0]
    by_mean = activations().top_samples(0, by="mean")
    assert by_mean["sample"].tolist() == ["b", "a"]
    assert by_mean["value"].tolist() == [2.0, 1.5]
    assert activations().top_samples(1, n=1)["sample"].tolist() == ["b"]
    assert activations().top_samples(2).empty


def test_features_are_ranked_by_their_mean_over_all_tokens() -> None:
    found = activations().top_features(2)
    assert found["feature"].tolist() == [0, 1]
    assert found["mean"].tolist() == [1.5, 1.0]  # 9 and 6 over six tokens
    assert found["max"].tolist() == [3.0, 5.0]
    assert found["share"].tolist() == [4 / 6, 2 / 6]
    assert found["samples"].tolist() == [2, 2]
    assert activations().top_features()["feature"].tolist() == [0, 1, 2]


def test_of_equal_activations_the_first_comes_first() -> None:
    samples = tuple(one.replace(id=name) for one, name in zip(tiny.samples(), "ab", strict=False))
    same = csr_array(np.array([[1.0, 0.0, 1.0]], np.float32))
    found = FeatureActivations((same, same), (np.array([4]),) * 2, (), samples, Cost(), "planted")
    assert found.top_samples(0)["place"].tolist() == [0, 1]
    assert found.top_features()["feature"].tolist() == [0, 2, 1]


def test_a_frame_has_a_row_for_each_activation() -> None:
    found = activations().to_dataframe()
    assert found.values.tolist() == [
        [0, 1, 5, 0, 3],
        [1, 0, 7, 0, 2],
        [1, 1, 8, 0, 2],
        [1, 1, 8, 1, 5],
        [1, 2, 9, 0, 2],
        [2, 0, 2, 1, 1],
    ]


@pytest.mark.usefixtures("unchecked")
def test_features_and_orders_that_are_none_are_refused() -> None:
    for call, said in (
        (lambda: activations().of(3), "feature is a whole number of at least 0 and at most 2; got 3"),
        (lambda: activations().of(-1), "at most 2; got -1"),
        (lambda: activations().top_samples(0, by="median"), "by is 'max' or 'mean'; got 'median'"),
        (lambda: activations().top_samples(0, n=0), "n is a whole number of at least 1; got 0"),
        (lambda: activations().top_features(0), "n is a whole number of at least 1; got 0"),
    ):
        with pytest.raises(MapError, match=said):
            call()


def test_fidelity_is_of_all_positions_and_samples() -> None:
    samples = [one.replace(id=name) for one, name in zip(tiny.samples(), "ab", strict=False)]
    sums = [
        Sums.of(np.array([[1.0], [3.0]]), np.array([[1.0], [2.0]]), 3),
        Sums.of(np.array([[8.0]]), np.array([[8.0]]), 0),
    ]
    found = FeatureFidelity.of(samples, sums, np.array([-1.0, -2.0]), np.array([-4.0, -1.0]), 5, 9)
    assert found.samples["sample"].tolist() == ["a", "b"]
    assert found.samples["n_positions"].tolist() == [2, 1]
    assert found.samples["l0"].tolist() == [1.5, 0.0]
    assert found.samples["explained_variance"][0] == 0.5
    assert np.isnan(found.samples["explained_variance"][1])
    assert found.samples["plain"].tolist() == [-1.0, -2.0]
    assert found.samples["reconstructed"].tolist() == [-4.0, -1.0]
    assert found.samples["change"].tolist() == [-3.0, 1.0]
    assert (found.change, found.l0, found.n_inactive, found.n_features) == (-1.0, 1.0, 5, 9)
    assert found.explained_variance == pytest.approx(1 - 1 / 26)
    assert "log p -1.000 nats with the reconstruction, 5 of 9 features never active" in repr(found)


def test_explained_variance_of_a_union_is_about_its_own_mean() -> None:
    """1 and 3, rebuilt as 1 and 2: error 1, spread 2. With 8, rebuilt as 8: spread 74 − 144/3 = 26."""
    first = Sums.of(np.array([[1.0], [3.0]]), np.array([[1.0], [2.0]]), 3)
    assert (first.explained_variance, first.l0) == (0.5, 1.5)
    both = first + Sums.of(np.array([[8.0]]), np.array([[8.0]]), 0)
    assert both.explained_variance == pytest.approx(1 - 1 / 26)
    assert both.l0 == 1.0
    assert np.isnan(Sums.none().explained_variance)
    assert np.isnan(Sums.none().l0)
    assert np.isnan(Sums.of(np.ones((2, 1)), np.ones((2, 1)), 1).explained_variance)


def test_activations_are_summed_up_and_dense_where_asked_for() -> None:
    found = activations()
    said = "FeatureActivations(3 samples, 6 tokens, 3 features, 1.0 active at a token; planted)"
    assert repr(found) == said
    assert found[1].values.tolist() == DENSE[1].tolist()
    assert (found[1].dims, found[1]["position"].values.tolist()) == (("token", "feature"), [7, 8, 9])
    assert [one.tolist() for one in found.of(1)] == [[0, 0], [0, 5, 0], [1]]


@pytest.mark.usefixtures("unchecked")
def test_many_tokens_are_encoded_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows of two features at a time; each piece keeps its place."""
    monkeypatch.setattr("interp.tracing.sparse_coding.features.AT_ONCE", 4)
    weights = (torch.eye(2), torch.zeros(2), torch.eye(2), torch.zeros(2))
    stream = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [-1.0, 0.0], [5.0, 4.0]], np.float32)
    here: Any = SimpleNamespace(device=torch.device("cpu"))
    found = Features(*weights, 0)._sparse(here, xr.DataArray(stream[None]))
    assert found.toarray().tolist() == stream.clip(0).tolist()
