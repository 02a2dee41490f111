"""A method's `repeat` puts the edits of its answers into another trace; heads may be a reference until then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import tests.tiny as tiny
from interp.errors import MethodError
from interp.methods import HGAI, PAI, AdaptVis, Plain, ScalingVis, VGRefine

HEADS = [(0, 1), (1, 0)]


@pytest.mark.parametrize(
    "method",
    [
        Plain(),
        PAI(gamma=1.0, alpha=0.9, layers=[0, 1]),
        HGAI(alpha=0.8, layers=[0, 1]),
        ScalingVis(0.3),
        AdaptVis(unsure_weight=0.2, sure_weight=3.0, threshold=0.0105),
        VGRefine(heads=HEADS, layers=[0], percentile=60),
        VGRefine(heads=HEADS, layers=[0, 1], variant="paper"),
    ],
    ids=lambda method: f"{method.name}-{getattr(method, 'variant', '')}",
)
def test_a_trace_with_the_repeated_edits_has_the_same_logits(mllm: Any, method: Any) -> None:
    samples = tiny.samples()
    answers = method.answer(mllm, samples, max_new_tokens=1)
    trace = mllm.trace(samples, edits=method.repeat(mllm, answers))
    plain = mllm.trace(samples)
    for place, one in enumerate(answers):
        np.testing.assert_allclose(trace.logits.values[place], one.logits, atol=1e-5)
    if not isinstance(method, Plain):
        assert np.abs(trace.logits.values - plain.logits.values).max() > 1e-4


def test_adaptvis_repeats_each_samples_own_weight(mllm: Any) -> None:
    """A threshold between the confidences of two samples, so that both weights are at work in one batch."""
    from interp.methods.scalingvis import confidence

    samples = tiny.samples()
    seen = np.sort(confidence(mllm.trace(samples).logits.values))
    method = AdaptVis(unsure_weight=0.1, sure_weight=4.0, threshold=float(seen[:2].mean()))
    answers = method.answer(mllm, samples, max_new_tokens=1)
    assert {one.details["weight"] for one in answers} == {0.1, 4.0}
    trace = mllm.trace(samples, edits=method.repeat(mllm, answers))
    np.testing.assert_allclose(trace.logits.values, np.stack([one.logits for one in answers]), atol=1e-5)


@dataclass(frozen=True)
class Reference:
    """Heads that something else must find."""

    pairs: tuple[tuple[int, int], ...] = ((0, 1), (1, 0))

    def resolve(self, out: Any) -> Any:
        return self.pairs

    def to_dict(self) -> dict[str, Any]:
        return {"heads": "by reference"}


def test_a_reference_to_heads_is_a_value_but_answers_nothing(mllm: Any) -> None:
    method = VGRefine(heads=Reference())
    assert method == VGRefine(heads=Reference())
    assert method.to_dict()["heads"] == {"heads": "by reference"}
    for ask in (method.answer, method.head_maps, method.triage):
        with pytest.raises(MethodError, match=r"a reference that has not been resolved.*interp.Refinement"):
            ask(mllm, tiny.samples())
