"""What a knockout sweep's task makes of a flow and of a blocked pass, without a model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from interp.errors import MapError, StudyError
from interp.study.first_token import FirstToken
from interp.study.knockout_sweep.flows import Window
from interp.study.knockout_sweep.task import KnockoutTask
from interp.tracing.variants.knockouts import KnockoutVariant
from tests.study.planted import Tokenizer

pytestmark = pytest.mark.usefixtures("unchecked")
VARIANT = KnockoutVariant((1,), (4,), (0, 1))


@pytest.mark.parametrize(("by", "layer", "n"), [("head", 1, 3), ("head", 0, 2), ("layer", 1, 1)])
def test_each_head_of_a_layer_is_blocked_alone(by: str, layer: int, n: int) -> None:
    own: Any = SimpleNamespace(study=SimpleNamespace(by=by), _linear={1: 3}, _n_heads=2)
    found = list(KnockoutTask._each(own, KnockoutVariant((layer,), (4,), (0, 1))))
    if by == "head":
        assert [(head, one.heads) for head, one in found] == [(head, (head,)) for head in range(n)]
    else:
        assert [(head, one.heads) for head, one in found] == [(None, VARIANT.heads)]
    assert {(one.layers, one.queries, one.keys) for _, one in found} == {((layer,), (4,), (0, 1))}


def added(logits: list[float], before: int = 2) -> dict[str, list[Any]]:
    """The rows of a pass with these logits, whose answer begins with token 2, “left”."""
    lost = lambda *at: dict(zip(("index", "flow", "error", "reason", "layer"), at, strict=True))  # noqa: E731
    own: Any = SimpleNamespace(_lost=lost, tokenizer=Tokenizer())
    found: dict[str, list[Any]] = {"passes": [], "failures": []}
    place = ("image→last", Window(3, 2, 4), 1)
    followed = FirstToken(2, "left", frozenset({"left"}))
    KnockoutTask._add(own, found, 7, place, np.array(logits), followed, before)
    return found


def test_a_pass_has_its_place_and_what_the_model_then_says() -> None:
    (row,) = added(np.log([0.1, 0.1, 0.5, 0.1, 0.1, 0.1]).tolist())["passes"]
    assert row.pop("logprob") == pytest.approx(np.log(0.5))
    assert row == {
        "index": 7,
        "flow": "image→last",
        "layer": 3,
        "head": 1,
        "first": 2,
        "last": 4,
        "correct": True,
        "flipped": False,
    }
    (other,) = added(np.log([0.1, 0.1, 0.2, 0.4, 0.1, 0.1]).tolist())["passes"]
    assert (other["correct"], other["flipped"]) == (False, True)
    (same,) = added(np.log([0.1, 0.1, 0.2, 0.4, 0.1, 0.1]).tolist(), before=3)["passes"]
    assert (same["correct"], same["flipped"]) == (False, False)


@pytest.mark.parametrize("logits", [[0.0, np.nan, 1.0, 0, 0, 0], [0.0, 0, -np.inf, 0, 0, 0]])
def test_logits_that_overflow_are_a_failure_at_their_layer(logits: list[float]) -> None:
    found = added(logits)
    assert found["passes"] == []
    (lost,) = found["failures"]
    assert (lost["index"], lost["flow"], lost["error"], lost["layer"]) == (7, "image→last", "undefined", 3)
    assert "NaN or infinite under this knockout" in lost["reason"]


def test_a_token_ruled_out_elsewhere_is_no_failure() -> None:
    assert len(added([-np.inf, 0.0, 1.0, 0, 0, 0])["passes"]) == 1


def test_a_flow_backwards_in_time_cannot_be_blocked() -> None:
    """Queries are hidden from keys in every sample of the study, so places depend on its rule and seed."""
    asked: dict[str, Any] = {}

    def places(tokens: Any, sample: Any, **options: Any) -> tuple[np.ndarray, np.ndarray]:
        asked.update(options, sample=sample)
        return np.array([1]), np.array([4])

    own: Any = SimpleNamespace(study=SimpleNamespace(data=["a", "b"], rule="center", seed=5))
    knockouts: Any = SimpleNamespace(tokens=None, hides=lambda variant: variant.queries[0] >= variant.keys[0])
    flow: Any = SimpleNamespace(places=places)
    with pytest.raises(MapError, match="its queries all come before its keys"):
        KnockoutTask._places(own, knockouts, flow, 1)
    assert asked == {"index": 1, "n_samples": 2, "rule": "center", "seed": 5, "sample": "b"}


@pytest.mark.parametrize("mode", ["zero", "renormalise"])
def test_weights_of_linear_layers_cannot_be_set_to_zero(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interp.study.task.StudyTask.__init__", lambda self, study, mllm: None)
    study = SimpleNamespace(mode=mode, windows=lambda n_layers: (Window(0, 0, n_layers - 1),))
    mllm = SimpleNamespace(n_layers=3, n_heads=2, linear_heads={0: 4, 2: 4})
    if mode == "zero":
        with pytest.raises(StudyError, match=r"layers \[0, 2\] of this model are linear.*mode='renormalise'"):
            KnockoutTask(study, mllm)
    else:
        assert KnockoutTask(study, mllm)._windows == (Window(0, 0, 2),)
