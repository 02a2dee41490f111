"""Thousands of made-up inputs of each kind: no bare error, no hang, no wrong number.

By default a share of each kind is tried, always the same one; `-m slow` tries at least 10,000 in all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from interp.errors import InterpError
from tests.fuzz import input_kinds as inputs
from tests.fuzz import run_kinds as runs
from tests.fuzz.trials import limited

pytestmark = pytest.mark.usefixtures("unchecked")


class Kind(NamedTuple):
    """A kind of input: how it is drawn, what must hold, and how many are tried in a slow and in a default run."""

    drawn: st.SearchStrategy[Any]
    holds: Callable[[Any], None]
    n: int
    few: int


KINDS = {
    "boxes": Kind(inputs.boxes(), inputs.check_boxes, 2000, 60),
    "images": Kind(inputs.images(), inputs.check_image, 1500, 60),
    "jsonl": Kind(inputs.rows(), inputs.check_rows, 1500, 50),
    "metrics": Kind(inputs.maps(), inputs.check_metrics, 1500, 60),
    "sites": Kind(inputs.SITES, inputs.check_site, 1200, 60),
    "stored sites": Kind(inputs.STORED_SITES, inputs.check_stored_site, 600, 40),
    "prompts": Kind(inputs.PROMPTS, inputs.check_prompt, 1200, 60),
    "answers": Kind(inputs.ANSWERS, inputs.check_answer, 1000, 50),
    "questions": Kind(runs.QUESTIONS, runs.check_question, 400, 15),
    "studies": Kind(runs.STUDIES, runs.check_study, 800, 40),
    "model specs": Kind(runs.MIXED, runs.check_spec, 300, 20),
    "configs": Kind(runs.CONFIGS, runs.check_config, 120, 3),
    "stored files": Kind(runs.stored(), runs.check_stored, 200, 4),
    "command lines": Kind(runs.COMMANDS, runs.check_command, 120, 5),
}


def fuzz(kind: str, n: int) -> int:
    """Tries n inputs of a kind and returns how many were made."""
    made = 0

    @settings(max_examples=n, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @seed(0)
    @given(KINDS[kind].drawn)
    def case(value: Any) -> None:
        nonlocal made
        made += 1
        try:
            with limited():
                KINDS[kind].holds(value)
        except InterpError as error:
            if not str(error).strip():
                raise AssertionError("an error without a message") from error

    case()
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_a_share_of_inputs_is_right_or_refused(
    kind: str, record_property: Callable[[str, object], None]
) -> None:
    record_property("fuzzed", (kind, fuzz(kind, KINDS[kind].few)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_inputs_are_right_or_refused(kind: str, record_property: Callable[[str, object], None]) -> None:
    record_property("fuzzed", (kind, fuzz(kind, KINDS[kind].n)))


def test_a_slow_run_tries_ten_thousand_inputs() -> None:
    assert sum(kind.n for kind in KINDS.values()) >= 10_000


def test_a_fault_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(value: Any) -> None:
        raise KeyError(value)

    monkeypatch.setitem(KINDS, "boxes", KINDS["boxes"]._replace(holds=broken))
    with pytest.raises(KeyError):
        fuzz("boxes", 1)
