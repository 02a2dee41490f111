"""Arguments of a run, its targets and its earliest rows, on values by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.errors import EditError, ModelError, PromptError, SiteError
from interp.tracing import Decoding, Knockout, Mllm, Residual, Rows, Site, positions
from interp.tracing.circuits import GAP, _check_sum
from interp.tracing.execution import check_arguments, check_decoding
from interp.tracing.layers.labels import _numbers
from interp.tracing.layers.request import resolve
from interp.tracing.target import Aim, Objective, objectives, target_values
from interp.tracing.vision_tower import _eager


@pytest.mark.parametrize("generate", [-1, True, 1.0, "2", None])
def test_a_number_of_tokens_is_whole(generate: Any, unchecked: None) -> None:
    with pytest.raises(PromptError, match="generate= is a number of tokens, 0 or more; got"):
        check_arguments([], [], generate)


def test_rows_of_generated_tokens_need_two_tokens() -> None:
    """The first token is predicted by the prompt's last row."""
    read, edit = Rows(Site(queries="answer")), Knockout(Site(), steps="decode")
    check_arguments([read], [edit], 2)
    check_arguments([Rows()], [Knockout(Site(), steps="all")], 0)
    with pytest.raises(SiteError, match="generate=1 gives none of them a row"):
        check_arguments([Rows(), read], [], 1)
    with pytest.raises(EditError, match="generate=1 gives none of them a row"):
        check_arguments([], [Knockout(Site()), edit], 1)
    with pytest.raises(EditError, match="generate=1 gives none of them a row"):
        check_arguments([], [interp.AddResidual([0], "last", np.ones(4), steps="decode")], 1)


@pytest.mark.parametrize("seed", [True, 2**63, -(2**63) - 1, 0.5])
def test_seeds_have_64_bits(seed: Any, unchecked: None) -> None:
    for fits in (0, 2**63 - 1, -(2**63), None):
        check_decoding(Decoding(), fits)
    with pytest.raises(PromptError, match="seed= is a whole number"):
        check_decoding(Decoding(), seed)


LOGITS = torch.log(torch.tensor([[1.0, 2.0, 5.0], [3.0, 3.0, 2.0]]) / 8)
"""Two positions: probabilities in eighths."""


def test_a_target_by_hand() -> None:
    """Tokens 2 and 0 in turn, and token 1 at the last position alone."""
    both = Aim(((2, 0), (1,)), (0.5, -1.0))
    wanted = 0.5 * (math.log(5 / 8) + math.log(3 / 8)) - math.log(3 / 8)
    assert float(both.value(LOGITS)) == pytest.approx(wanted)
    assert float(sum(one.value(LOGITS) for one in both.each)) == pytest.approx(wanted)
    assert [one.single for one in (both, *both.each)] == [False, False, True]
    other = Aim(((1,), (2,)), (1.0, -1.0))
    assert other.single
    found = target_values([both, other], torch.stack([LOGITS, LOGITS]))
    assert found.tolist() == pytest.approx([wanted, math.log(3 / 2)])
    assert target_values(None, LOGITS[None].flip(1)).tolist() == pytest.approx([math.log(5 / 8)])


def test_as_many_positions_as_the_longest_answer(mllm: Mllm, batch: Any) -> None:
    aims = (Aim(((1,), (2, 3, 4)), (1.0, -1.0)), Aim(((1, 2),), (1.0,)))
    assert Objective(batch, aims).keep == 3
    assert Objective(batch, None).keep == 1


def test_answers_that_differ_at_their_end_share_a_pass(mllm: Mllm, batch: Any) -> None:
    """In every sample; else each answer has its own."""
    shared, apart = (Aim(ids, (1.0, -1.0)) for ids in (((7, 1), (7, 2)), ((8, 1), (7, 2))))
    assert len(objectives(mllm, batch, [shared] * 3)) == 1
    passes = objectives(mllm, batch, [shared, shared, apart])
    assert [[aim.answers for aim in one.aims or ()] for one in passes] == [
        [((7, 1),), ((7, 1),), ((8, 1),)],
        [((7, 2),)] * 3,
    ]
    assert [[aim.weights for aim in one.aims or ()] for one in passes] == [[(1.0,)] * 3, [(-1.0,)] * 3]


def test_the_earliest_row_of_each_sample(batch: Any) -> None:
    """Reads, edits of rows and of the stream, and ablations; None where a sample has none."""
    given = {"n_layers": 3, "n_heads": 4}
    last = [tokens.length - 1 for tokens in batch.tokens]

    def first(reads: Any, edits: Any = ()) -> list[int | None]:
        request = resolve(reads, edits, batch.tokens, **given)
        return [request.first_row(i) for i in range(3)]

    assert first([]) == [None] * 3
    assert first([Rows()]) == last
    assert first([Rows(), Residual(positions=positions([20, 30]))]) == [20] * 3
    assert first([Rows()], [interp.AddResidual([0], positions([22]), np.ones(4))]) == [22] * 3
    assert first([Rows()], [interp.AblateHeads(Site(queries=positions([21])))]) == [21] * 3
    assert first([Rows()], [Knockout(Site(queries=positions([25]), keys=positions([3])))]) == [25] * 3
    unseen = Knockout(Site(queries=positions([2]), keys=positions([30])))  # no row sees the key
    assert first([], [unseen]) == [None] * 3


def test_keys_are_numbered_among_the_image_tokens(batch: Any) -> None:
    tokens = batch.tokens[0]
    first, last = int(tokens.image[0]), int(tokens.image[-1])
    numbers = [
        None if found is None else found.tolist()
        for found in (
            _numbers(np.array(at), tokens) for at in ([last, first], [first, last + 1], [first - 1])
        )
    ]
    assert numbers == [[15, 0], None, None]


def test_nodes_that_do_not_add_up_are_refused() -> None:
    wanted = torch.tensor([-2.0, 1.0])
    _check_sum(wanted + 2 * GAP * 0.9, wanted)
    for wrong in (wanted + 2 * GAP * 1.1, wanted - 2 * GAP * 1.1, wanted * math.nan):
        with pytest.raises(ModelError, match="the nodes do not add up to the model"):
            _check_sum(wrong, wanted)


class Attention(torch.nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def forward(self, value: Any) -> Any:
        return value, value


def test_a_resampler_attends_as_before_after_an_error() -> None:
    class Config:
        _attn_implementation_internal = "sdpa"
        _attn_implementation = property(lambda self: self._attn_implementation_internal)

    modules: list[Any] = [Attention(Config()), Attention(Config())]

    def block() -> None:
        with _eager(modules) as weights:
            assert [one.config._attn_implementation for one in modules] == ["eager"] * 2
            modules[1](torch.ones(1))
            assert len(weights) == 1
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        block()
    assert [one.config._attn_implementation for one in modules] == ["sdpa"] * 2
    assert not any(one._forward_hooks for one in modules)
