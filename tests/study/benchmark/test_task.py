"""How a benchmark asks a model: which options reach it, and what the log-probabilities of options are of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from interp.errors import StudyError
from interp.inputs.prompt import PAPER_PROMPT
from interp.metrics.scorers import OptionLogProbability, Strict
from interp.study.benchmark.task import BenchmarkTask, option_log_probabilities, scored
from interp.tracing import Cost, Decoding, Knockout, Site
from tests.study.benchmark.planted_benchmark import benchmark
from tests.study.planted import sample

pytestmark = pytest.mark.usefixtures("unchecked")
HIDDEN = Knockout(Site(queries="after_image", keys="image"))


class Recording:
    """Keeps what it is asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def trace(self, samples: Any, **options: Any) -> Any:
        self.asked.append(options)
        return SimpleNamespace(answers=["left"] * len(samples), cost=Cost(forwards=3))

    def score(self, samples: Any, target: Any, **options: Any) -> Any:
        self.asked.append({"target": target, **options})
        n = len(self.asked)
        return SimpleNamespace(values=np.array([10.0 * n + place for place in range(len(samples))]))


@pytest.mark.parametrize(
    ("decoding", "drawn"),
    [(Decoding(), {}), (Decoding(temperature=0.5), {"seed": 7, "decoding": Decoding(temperature=0.5)})],
)
def test_a_seed_is_given_where_tokens_are_drawn(decoding: Decoding, drawn: dict[str, Any]) -> None:
    task: Any = object.__new__(BenchmarkTask)
    task.study = benchmark(method="Plain", decoding=decoding, seed=7, max_new_tokens=5)
    model = Recording()
    found = task._generated(model, [sample(0), sample(1)], [HIDDEN])
    assert found == (("left", "left"), Cost(forwards=3))
    assert model.asked == [{"prompt": PAPER_PROMPT, "edits": [HIDDEN], "generate": 5, **drawn}]


def test_each_option_is_scored_once_and_read_at_its_sample() -> None:
    """The first question has b and a, the second none, the third a: a is scored second, b first."""
    rows = [sample(0, options=["b", "a"]), sample(1), sample(2, options=["a"])]
    scorer = SimpleNamespace(answers=lambda one, _: one.options or (), target=lambda text: f"target {text}")
    model = Recording()
    found = option_log_probabilities(model, rows, PAPER_PROMPT, scorer, (HIDDEN,))
    assert [asked["target"] for asked in model.asked] == ["target b", "target a"]
    assert all(asked["edits"] == [HIDDEN] for asked in model.asked)
    assert [None if one is None else one.tolist() for one in found] == [[10, 20], None, [22]]
    with pytest.raises(StudyError, match="but PAI has no edits that can be repeated"):
        option_log_probabilities(model, rows, PAPER_PROMPT, scorer, None, "PAI")


def test_a_scorer_is_given_texts_or_log_probabilities() -> None:
    rows = [sample(0), sample(1), sample(2, answer=None)]
    assert scored(Strict(), ["left", "left", "left"], rows, PAPER_PROMPT, {}) == [1.0, 0.0, None]
    rule = OptionLogProbability()
    two = [sample(0, options=["left", "right"]), sample(1, options=["left", "right"])]
    options = {rule.name: [np.array([-1.0, -2.0]), np.array([-1.0, -2.0])]}
    assert scored(rule, [None, None], two, PAPER_PROMPT, options) == [1.0, 0.0]
