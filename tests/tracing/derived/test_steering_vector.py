"""Agreement of pairs by hand, the norms beside a steering vector, and files that hold half of one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

import interp
import tests.tiny as tiny
from interp.errors import MapError, SiteError
from interp.tracing import AddResidual, Residual, SteeringVector, load_steering_vector, wrap
from interp.tracing.derived.steering_vector import _agreement


def test_each_pair_is_compared_with_the_mean_of_the_others() -> None:
    """(1, 0) with (½, 1), (0, 1) with (1, ½): 1/√5 each; (1, 1) with (½, ½): 1. Opposite pairs: −1."""
    three = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    opposite = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
    found = _agreement(np.stack([three, opposite], axis=1))
    assert found[0] == pytest.approx((2 / np.sqrt(5) + 1) / 3)
    assert np.isnan(found[1])  # a difference of 0 has no direction
    assert _agreement(np.array([[[1.0, 0.0]], [[-2.0, 0.0]]])).tolist() == [-1.0]
    assert np.isnan(_agreement(three[:1, None])).all()


def test_norms_are_of_both_sides_and_labels_say_what_was_read() -> None:
    mllm, samples = wrap(tiny.llava(), tiny.processor()), tiny.samples()
    found = interp.steering_vector(
        mllm, samples[:1], samples[1:2], layers=[2, 0], positions="question", progress=False
    )
    streams = [
        mllm.trace(one, reads=[Residual([2, 0], "question")])[0].residual.values for one in samples[:2]
    ]
    norms = [np.sqrt((one.astype(float) ** 2).sum(axis=2)).mean(axis=1) for one in streams]
    assert_allclose(found.stream_norm, np.mean(norms, axis=0), rtol=1e-5)
    assert_allclose(found.at(0), found.vectors[1])
    assert found.positions == ["question"]
    assert found.model.startswith("llava")


BOTH = ["all", "last"]
WHOLE = SteeringVector(np.ones((2, 4), np.float32), (0, 3), np.ones(2), np.ones(2), 2, ["last"], "llava")


def test_a_file_keeps_every_field(tmp_path) -> None:
    again = load_steering_vector(WHOLE.save(tmp_path / "v.safetensors"))
    assert (again.layers, again.n_pairs, again.positions, again.model) == ((0, 3), 2, ["last"], "llava")
    for name in ("vectors", "agreement", "stream_norm"):
        np.testing.assert_array_equal(getattr(again, name), getattr(WHOLE, name))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "changes",
    [{"layers": (0,)}, {"agreement": np.ones(3)}, {"stream_norm": np.ones(1)}, {"vectors": np.ones((3, 4))}],
    ids=lambda changes: next(iter(changes)),
)
def test_parts_of_other_numbers_of_layers_are_refused(tmp_path, changes) -> None:
    path = replace(WHOLE, **changes).save(tmp_path / "v.safetensors")
    with pytest.raises(
        MapError, match=r"must hold one vector per layer; their numbers differ\. Save it again"
    ):
        load_steering_vector(path)


def test_an_edit_adds_the_vector_of_its_own_layer() -> None:
    one = replace(WHOLE, vectors=np.array([[1.0, 2.0], [3.0, 4.0]], np.float32))
    assert one.edit(3, -2.0, BOTH, "all") == AddResidual([3], BOTH, np.array([3.0, 4.0]), -2.0, "all")
    assert one.edit(0) == AddResidual([0], "last", np.array([1.0, 2.0]), 1.0, "prefill")
    with pytest.raises(SiteError, match=r"has layers \[0, 3\]; got 1"):
        one.edit(1)


def test_a_vector_says_how_far_its_pairs_agree() -> None:
    said = repr(replace(WHOLE, agreement=np.array([0.987, -0.5])))
    assert said == "SteeringVector(2 pairs, layers [0, 3], 4 values, agreement [0.99, -0.5])"
