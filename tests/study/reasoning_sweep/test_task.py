"""The rows of one sample's reasoning, on a model whose log-probabilities are planted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from interp.errors import SampleError
from interp.study import ReasoningSweep
from interp.study.reasoning_sweep import task as module
from interp.study.reasoning_sweep.task import SHARES, ReasoningTask
from interp.tracing import Cost
from tests.study.planted import Model, sample

pytestmark = pytest.mark.usefixtures("unchecked")

THOUGHT = " It is red. Is it left? Yes. "


class Reasoner(Model):
    """Reasons and answers as it is told; hiding the image from sentence k on costs 4 − k nats, from the answer 0.05."""

    said: Any = "left"
    thought: Any = THOUGHT

    def trace(self, batch: Any, prompt: Any = None, *, generate: int, progress: bool) -> Any:
        class Trace(list):
            cost = Cost(forwards=generate)
            answers = (self.said,)

        return Trace([SimpleNamespace(reasoning=self.thought, answer=self.said)])

    def reasoned(self, samples: Any, thoughts: Any, prompt: Any) -> Any:
        tokens = SimpleNamespace(spans={"reasoning": range(7)}, n=20)
        return SimpleNamespace(tokens=[tokens], thoughts=thoughts)

    def score(self, batch: Any, target: Any, edits: Any = (), *, batch_size: int, progress: bool) -> Any:
        self.asked.append((target.spec, len(edits), batch_size))
        values = [-1.0] if not edits else [-5.0, -4.0, -1.02, -1.05]
        return SimpleNamespace(values=np.array(values), cost=Cost(forwards=1))


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(module, "blind_from", lambda mllm, batch, place: batch)
    made = Reasoner()
    object.__setattr__(made, "asked", [])
    return made


def task(model: Any, one: Any = None, **fields: Any) -> Any:
    made: Any = object.__new__(ReasoningTask)
    made.study = ReasoningSweep(data=[sample(0) if one is None else one], model=model, **fields)
    made._mllm = model
    return made


def test_rows_of_a_sample_by_hand(model: Any) -> None:
    """Three sentences: half of them is the second or the third, whichever is nearer to 1.5, so the second (to even)."""
    costs: list[Cost] = []
    rows = task(model, max_new_tokens=30, answer_tokens=5, batch=2)._rows(0, costs)
    (row,) = rows["samples"]
    assert (row["reasoning"], row["said"], row["correct"], row["logprob"]) == (THOUGHT, "left", True, -1.0)
    assert (row["n_sentences"], row["n_reasoning_tokens"], row["n_tokens"]) == (3, 7, 20)
    assert row["until"] == pytest.approx(2 / 3)  # from the third sentence on it changes less than 0.1
    lines = rows["sentences"]
    assert [line["text"] for line in lines] == ["It is red.", "Is it left?", "Yes.", None]
    assert [line["sentence"] for line in lines] == [0, 1, 2, 3]
    assert [line["logprob"] for line in lines] == [-5, -4, -1.02, -1.05]
    assert [line["change"] for line in lines] == pytest.approx([-4, -3, -0.02, -0.05])
    changes = {one["seen"]: one["value"] for one in rows["scores"] if one["measure"] == "change"}
    assert list(changes) == list(SHARES)
    nearest = [0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 3]
    assert list(changes.values()) == pytest.approx([lines[k]["change"] for k in nearest])
    plain = {one["seen"]: one["value"] for one in rows["scores"] if one["measure"] == "logprob"}
    assert (plain[0.0], plain[1.0]) == (-5, -1.05)
    assert [cost.forwards for cost in costs] == [30, 5, 1, 1]
    assert model.asked == [("left", 0, 2), ("left", 1, 2)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"thought": ""}, "the model answered without a thought"),
        ({"thought": None}, "the model answered without a thought"),
        ({"said": None}, "still reasoning after max_new_tokens=9 tokens. Give it more"),
        ({"said": ""}, "nothing came after the reasoning"),
    ],
)
def test_a_sample_without_a_thought_or_an_answer_fails(
    model: Any, changes: dict[str, Any], said: str
) -> None:
    for name, value in changes.items():
        object.__setattr__(model, name, value)
    with pytest.raises(SampleError, match=said):
        task(model, max_new_tokens=9)._rows(0, [])


@pytest.mark.parametrize("given", [None, " ", 3])
def test_a_given_thought_is_a_text(model: Any, given: Any) -> None:
    own = task(model, sample(0, meta={"reasoning": given}), thoughts="given")
    with pytest.raises(SampleError, match=r"takes each sample's meta\[\"reasoning\"\], a text; got"):
        own._rows(0, [])


def test_a_given_thought_is_not_generated(model: Any) -> None:
    costs: list[Cost] = []
    rows = task(model, sample(0, meta={"reasoning": THOUGHT}), thoughts="given", answer_tokens=5)._rows(
        0, costs
    )
    assert rows["samples"][0]["reasoning"] == THOUGHT
    assert [cost.forwards for cost in costs] == [5, 1, 1]


def test_samples_are_measured_one_at_a_time_in_their_order(model: Any) -> None:
    made: Any = object.__new__(ReasoningTask)
    made.study = ReasoningSweep(data=[sample(i) for i in range(10)], model=model)
    shards = made.plan().shards
    assert [batch for shard in shards for batch in shard] == [(i,) for i in range(10)]
    assert [len(shard) for shard in shards] == [8, 2]
