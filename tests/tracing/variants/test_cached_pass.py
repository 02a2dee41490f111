"""A kept pass and its variants: what they share, what runs, and what the model is like afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import tests.tiny as small
from interp.conformance.tiny import tiny
from interp.errors import ModelError
from interp.inputs.prompt import PAPER_PROMPT, Target, diff
from interp.tracing import Mllm, wrap
from interp.tracing.attention.shared_keys import HiddenCells
from interp.tracing.cost import Meter
from interp.tracing.target import log_probabilities
from interp.tracing.variants.cached_pass import KeptPass, Replaced
from interp.tracing.variants.target_pass import KeptTarget


@pytest.fixture(scope="module")
def mllm() -> Mllm:
    return wrap(small.llava(), small.processor())


def kept_pass(mllm: Mllm, **options: Any) -> tuple[KeptPass, Meter]:
    meter = Meter(mllm.device)
    return KeptPass.of(mllm, mllm.encode(small.samples()[1]), meter, **options), meter


def test_a_variant_that_changes_nothing_gives_the_plain_logits(mllm: Mllm) -> None:
    kept, meter = kept_pass(mllm, keep=2, layers=(0, 1, 2))
    plain = mllm.trace(small.samples()[1]).logits.values[0]
    np.testing.assert_allclose(kept.logits[0, -1], plain, atol=1e-5)
    for start in range(3):
        for stop in (0, 5, kept.stop(99)):
            found = kept.run(3, stop, meter, start=start)
            np.testing.assert_allclose(found, kept.logits.expand(3, -1, -1), atol=2e-5)


def test_in_half_precision_rounding_is_no_effect_of_a_variant() -> None:
    """A variant without changes beside them says by how much all are off, so that unchanged ones are not."""
    half = wrap(small.llava().to(torch.bfloat16), small.processor())
    kept, meter = kept_pass(half)
    before, stop = meter.tokens, kept.stop(20)
    found = kept.run(2, stop, meter)
    np.testing.assert_allclose(found, kept.logits.expand(2, -1, -1), atol=1e-5)
    assert meter.tokens - before == 3 * (kept.tokens.length - stop)
    hidden = torch.zeros(2, kept.tokens.length, dtype=torch.bool)
    hidden[1, kept.tokens.image.copy()] = True
    one = kept.run(2, stop, meter, hidden=kept.hiding(hidden, stop, stop, range(3)))
    np.testing.assert_allclose(one[0], kept.logits[0], atol=1e-5)
    assert float((one[1] - one[0]).abs().max()) > 1e-2


def test_shared_keys_and_values_are_read_where_they_lie(mllm: Mllm, monkeypatch: pytest.MonkeyPatch) -> None:
    import interp.tracing.attention.shared_keys as shared_keys

    kept, meter = kept_pass(mllm)
    held, seen = {one.data_ptr() for one in (*kept.keys, *kept.values)}, []
    shared = shared_keys.SharedKeys._shared

    def watch(self: Any, call: Any) -> Any:
        seen.append(
            (call.keys[0].data_ptr(), call.values[0].data_ptr(), call.keys[0].shape[0], call.keys[1].shape[0])
        )
        return shared(self, call)

    monkeypatch.setattr(shared_keys.SharedKeys, "_shared", watch)
    kept.run(6, kept.stop(20), meter)
    assert len(seen) == 3
    assert {pointer for one in seen for pointer in one[:2]} <= held
    assert {one[2:] for one in seen} == {(1, 6)}


def test_rows_that_see_ahead_run_again(mllm: Mllm) -> None:
    kept, _ = kept_pass(mllm, keep=3)
    assert kept.stop(7) == 7
    assert kept.stop(99) == kept.tokens.length - 3
    for name in ("gemma3", "paligemma"):
        other, _ = kept_pass(wrap(*tiny(name)))
        after = int(other.tokens.image[-1]) + 1
        assert other.stop(int(other.tokens.image[1])) == 0
        assert other.stop(after) == (after if name == "gemma3" else 0)
        assert bool(other.keys) == (name == "gemma3")


def test_the_model_is_as_it_was_afterwards(mllm: Mllm) -> None:
    layers = mllm.adapter.layers(mllm.hf)
    before, plain = [layer.__dict__["forward"] for layer in layers], mllm.trace(small.samples()).logits
    kept, meter = kept_pass(mllm, layers=(2,))
    kept.run(2, 20, meter, start=2)
    cells = HiddenCells(torch.ones(2, 3, dtype=torch.bool), torch.ones(2, 5, dtype=torch.bool))
    with pytest.raises(RuntimeError):
        kept.run(2, 20, meter, start=2, hidden={2: cells})
    assert [layer.__dict__["forward"] for layer in layers] == before
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers)
    np.testing.assert_array_equal(mllm.trace(small.samples()).logits, plain)


def test_one_pass_serves_every_answer_of_a_target(mllm: Mllm) -> None:
    sample = small.samples()[1]
    for target, n, passes in (
        (Target(), 1, 1),
        (Target("greedy", tokens=2), 1, 3),  # two to find them, one forced
        (Target(diff("yes", "no")), 1, 1),
        (Target(diff("left lung", "no")), 2, 2),
    ):
        scored = KeptTarget.of(mllm, sample, PAPER_PROMPT, target)
        assert scored.plain == pytest.approx(mllm.score(sample, target).values[0], abs=1e-5)
        assert (len(scored.parts), scored.cost.forwards) == (n, passes)
        assert scored.aim == mllm.score(sample, target).aims[0]


def test_log_probabilities_are_of_the_rows_own_tokens() -> None:
    logits = torch.randn(3, 2, 7, generator=torch.Generator().manual_seed(0)) * 9
    table = logits.double().log_softmax(-1)
    np.testing.assert_allclose(log_probabilities(logits, (4, 1)), table[:, 0, 4] + table[:, 1, 1], atol=1e-6)


def test_what_makes_no_sense_is_refused(mllm: Mllm) -> None:
    kept, meter = kept_pass(mllm)
    with pytest.raises(ModelError, match="a kept pass is of one sample; got a batch of 3"):
        KeptPass.of(mllm, mllm.encode(small.samples()), meter)
    with pytest.raises(ModelError, match="a pass takes at least one variant; got none"):
        kept.run(0, 20, meter)


def test_replaced_tokens_of_each_variant_by_hand() -> None:
    """Rows 1 and 3 of four are image tokens; the first variant replaces both, the second the later one."""
    stream, columns = torch.arange(4.0)[None, :, None], torch.tensor([1, 3])
    chosen = torch.tensor([[True, True], [False, True]])
    one = Replaced(chosen, torch.tensor([[[10.0], [30.0]]]))
    each = Replaced(chosen, torch.tensor([[[10.0]], [[20.0]]]))
    assert one.in_stream(stream, columns)[..., 0].tolist() == [[0, 10, 2, 30], [0, 1, 2, 30]]
    assert each.in_stream(stream, columns)[..., 0].tolist() == [[0, 10, 2, 10], [0, 1, 2, 20]]
    upon = 100 * stream
    assert one.in_stream(stream, columns, upon)[..., 0].tolist() == [[0, 110, 2, 330], [0, 1, 2, 330]]
    more = one.with_none().in_stream(stream, columns)[..., 0].tolist()
    assert more == [[0, 10, 2, 30], [0, 1, 2, 30], [0, 1, 2, 3]]
    assert stream[0, :, 0].tolist() == [0, 1, 2, 3]
