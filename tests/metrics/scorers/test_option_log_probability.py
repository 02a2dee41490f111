from __future__ import annotations

import numpy as np
import pytest

from interp import Prompt, Target
from interp.errors import StudyError
from interp.metrics.scorers import OptionLogProbability
from tests.metrics.scorers.answers import asked

RULE = OptionLogProbability()
SAMPLE = asked("liver", "spleen", "liver", "lung")


def test_the_likeliest_option_and_ties_by_share() -> None:
    values = [
        [-3.0, -0.1, -4.0],
        np.array([-0.1, -3.0, -4.0]),
        [-1.0, -1.0, -2.0],
        [-1.0] * 3,
        [-np.inf, -9.0, -np.inf],
    ]
    assert RULE.scores(values, [SAMPLE] * 5, Prompt()) == [1, 0, 0.5, pytest.approx(1 / 3), 1]


def test_what_is_scored_and_how() -> None:
    assert RULE.answers(SAMPLE, Prompt()) == ("A", "B", "C")
    assert RULE.answers(SAMPLE, Prompt(options="none")) == ("spleen", "liver", "lung")
    assert OptionLogProbability(of="text").answers(SAMPLE, Prompt()) == ("spleen", "liver", "lung")
    assert (RULE.answers(asked("Yes."), Prompt()), RULE.answers(asked("left"), Prompt())) == (
        ("yes", "no"),
        (),
    )
    assert OptionLogProbability(normalise="mean").target("B") == Target("B", reduce="mean")
    assert RULE.scores([[-2.0, -1.0], None, []], [asked("No"), asked("left"), asked(None)], Prompt()) == [
        1,
        None,
        None,
    ]


@pytest.mark.parametrize("values", [[-1.0, -2.0], [-1.0, float("nan"), -1.0], [0.4, -1.0, -1.0], None])
def test_what_is_no_log_probability(values: object) -> None:
    with pytest.raises(
        StudyError, match=r"sample \w+: expected the log-probabilities of 3 options, each at most 0"
    ):
        RULE.scores([values], [SAMPLE], Prompt())  # pyright: ignore[reportArgumentType]
    with pytest.raises(StudyError, match="each sample has a list of log-probabilities"):
        RULE.scores([], [SAMPLE], Prompt())
    with pytest.raises(StudyError, match="normalise is 'sum' or 'mean'; got 'length'"):
        OptionLogProbability(normalise="length")
