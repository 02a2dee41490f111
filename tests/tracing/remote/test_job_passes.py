"""The parts of a job by hand, on stand-ins for nnsight's views: what is read, replaced, repeated and guided."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from interp.tracing import Contrast
from interp.tracing.remote.job_passes import (
    Views,
    differentiate_input,
    guided,
    repeated,
    soft_capped,
    without_graph,
)
from interp.tracing.target import Aim

pytestmark = pytest.mark.usefixtures("unchecked")


def views(
    *layers: Any, head: Any = None, norm: Any = None, cap: float | None = None, decoder: Any = None
) -> Views:
    return Views(layers, norm, head, cap, decoder)


def layer(*positional: Tensor, output: Any = None, **named: Tensor) -> Any:
    return SimpleNamespace(inputs=(positional, named), output=output)


STREAM, OTHER = torch.zeros(1, 2, 3), torch.ones(1, 2, 3)


def test_logits_are_capped_after_the_output_layer() -> None:
    given = torch.tensor([0.0, 2.0, -100.0], dtype=torch.bfloat16)
    assert soft_capped(given, None).dtype == torch.float32
    assert soft_capped(given, None).tolist() == [0, 2, -100]
    assert soft_capped(given, 4.0).tolist() == pytest.approx([0, 4 * math.tanh(0.5), -4])
    own = views(head=SimpleNamespace(output=torch.arange(8.0).reshape(1, 4, 2)), cap=3.0)
    assert own.logits(2)[0, 0].tolist() == pytest.approx([3 * math.tanh(4 / 3), 3 * math.tanh(5 / 3)])
    assert own.logits().shape == (1, 1, 2)


def test_a_stream_is_read_through_norm_and_output_layer() -> None:
    own = views(norm=lambda stream: stream + 1, head=lambda normed: 2 * normed, cap=10.0)
    assert own.read(torch.tensor([1.0])).tolist() == pytest.approx([10 * math.tanh(0.4)])


@pytest.mark.parametrize("named", [True, False])
def test_a_layers_input_is_found_and_replaced(named: bool) -> None:
    beside = torch.full((1,), 5.0)
    one = layer(hidden_states=STREAM, mask=beside) if named else layer(STREAM, beside, mask=beside)
    own = views(layer(OTHER), one)
    assert own.entering(1) is STREAM
    own.enter(1, OTHER)
    assert own.entering(1) is OTHER
    positional, kept = one.inputs
    assert kept["mask"] is beside
    assert len(positional) == (0 if named else 2)


def test_what_a_layer_returns_is_its_stream_first() -> None:
    own = views(layer(output=STREAM), layer(output=(OTHER, None)))
    assert (own.leaving(0) is STREAM, own.leaving(1) is OTHER) == (True, True)


def test_arguments_of_one_sample_are_repeated_for_variants() -> None:
    line, flat = torch.arange(6.0).reshape(1, 2, 3), torch.arange(3.0)
    assert repeated(line, 4).shape == (4, 2, 3)
    assert torch.equal(repeated(line, 4)[3], line[0])
    assert repeated(flat, 4) is flat
    assert repeated(None, 4) is None
    several = torch.zeros(2, 3)
    assert repeated(several, 4) is several
    axes = torch.arange(6).reshape(3, 1, 2)
    assert repeated(axes, 4, "position_ids").shape == (3, 4, 2)
    assert repeated(axes, 4) is axes
    assert repeated(torch.zeros(1, 2), 4, "position_ids").shape == (4, 2)
    tokens = torch.arange(4.0).reshape(2, 2)
    both = repeated([tokens], 2, "deepstack_visual_embeds")
    assert both[0].tolist() == [[0, 1], [2, 3], [0, 1], [2, 3]]
    assert repeated({"full": (line,)}, 4)["full"][0].shape == (4, 2, 3)
    decoder = layer(line, position_ids=axes, cache=flat)
    views(decoder=decoder).repeat(4)
    positional, named = decoder.inputs
    assert (positional[0].shape, named["position_ids"].shape) == ((4, 2, 3), (3, 4, 2))
    assert named["cache"] is flat


def test_lines_without_images_guide_the_samples_before_them() -> None:
    lines = torch.tensor([[1.0, 2.0], [3.0, 4.0], [0.0, 1.0], [2.0, 2.0]])
    assert guided({"n": 4, "contrast": None}, lines) is lines
    found = guided({"n": 2, "contrast": Contrast(2.0, None)}, lines)
    assert found.tolist() == [[2, 3], [4, 6]]  # 2 · (s − u) + u


@pytest.mark.parametrize("wanted", [True, False])
def test_a_targets_gradient_at_its_inputs(wanted: bool) -> None:
    """Log p of token 2 after the last of two positions, whose logits are the inputs."""
    leaf = torch.log(torch.tensor([[[9.0, 9.0, 9.0], [1.0, 2.0, 5.0]]])).requires_grad_()
    job = {"leaf": leaf, "places": None, "aims": [Aim(((2,),), (2.0,))], "gradient": wanted}
    found = differentiate_input([], SimpleNamespace(output=leaf * 1), job, None, 1)
    assert found["values"].tolist() == pytest.approx([2 * math.log(5 / 8)])
    assert ("gradient" in found) is wanted
    if wanted:
        assert found["gradient"][0, 0].tolist() == [0, 0, 0]
        assert found["gradient"][0, 1].tolist() == pytest.approx([-2 / 8, -4 / 8, 6 / 8])


def test_embeddings_are_put_where_their_tokens_are() -> None:
    """Two samples of three columns; the inputs are those of the second's first and the first's last column."""
    entering = layer(torch.zeros(2, 3, 1))
    leaf = torch.tensor([[5.0], [7.0]], requires_grad=True)
    places = torch.tensor([1, 0]), torch.tensor([0, 2])
    job = {"leaf": leaf, "places": places, "aims": None, "gradient": False}
    differentiate_input([entering], SimpleNamespace(output=torch.zeros(2, 3, 4)), job, None, 1)
    assert entering.inputs[0][0][..., 0].tolist() == [[0, 0, 7], [5, 0, 0]]


def test_a_function_there_leaves_no_graph() -> None:
    weight = torch.ones(2, requires_grad=True)
    found = without_graph(lambda _, job: {"twice": [2 * job["x"]]}, views(), {"x": weight})
    assert found["twice"][0].tolist() == [2, 2]
    assert not found["twice"][0].requires_grad
