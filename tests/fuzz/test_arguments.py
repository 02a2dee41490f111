"""Every public function, each argument replaced by values of wrong types: no bare error, and no hang."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

import interp
from interp import curation, data, data_build, indicators, methods, metrics, reader_study, stats, study
from tests.fuzz.model_calls import model_calls
from tests.fuzz.people import people_calls
from tests.fuzz.result_calls import layer_calls, result, result_calls
from tests.fuzz.trials import Call, bare_error
from tests.fuzz.value_calls import STUDIES, value_calls
from tests.study.planted import sweep

pytestmark = pytest.mark.usefixtures("unchecked", "_elsewhere")

SHARE = {"values": 0.1, "models": 0.02, "results": 0.05, "people": 0.1}
"""Which share of the trials a default run makes, drawn by a fixed seed."""


@pytest.fixture
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own: some trials write files under relative names."""
    monkeypatch.chdir(tmp_path)


def check(
    calls: Iterable[Call], record: Callable[[str, object], None], kind: str, share: float = 1.0
) -> None:
    """Makes that share of the trials of these calls and fails with all that went wrong."""
    drawn = random.Random(0)
    chosen = [(call, *trial) for call in calls for trial in call.trials() if drawn.random() < share]
    wrong = [said for call, argument, value in chosen if (said := call.tried(argument, value))]
    record("fuzzed", (kind, len(chosen)))
    assert not wrong, "\n".join(wrong)


def of_kinds(found: dict[str, list[Call]]) -> list[Call]:
    """The calls of all kinds."""
    return [call for calls in found.values() for call in calls]


def test_a_share_of_wrong_values_is_refused(record_property: Callable[[str, object], None]) -> None:
    check(of_kinds(value_calls()), record_property, "arguments of values", SHARE["values"])


def test_a_share_of_wrong_values_for_models_is_refused(
    record_property: Callable[[str, object], None],
) -> None:
    check(of_kinds(model_calls()), record_property, "arguments of models", SHARE["models"])


def test_a_share_of_wrong_values_for_results_is_refused(
    record_property: Callable[[str, object], None],
) -> None:
    planted = sweep().run("runs", progress=False)
    check(layer_calls(planted), record_property, "arguments of results", SHARE["results"])


def test_a_share_of_wrong_values_for_people_is_refused(
    record_property: Callable[[str, object], None],
) -> None:
    check(people_calls(), record_property, "arguments of pages", SHARE["people"])


@pytest.mark.slow
def test_wrong_values_for_people_are_refused(record_property: Callable[[str, object], None]) -> None:
    check(people_calls(), record_property, "arguments: pages for raters and readers")


@pytest.mark.slow
@pytest.mark.parametrize("kind", value_calls())
def test_wrong_values_are_refused(kind: str, record_property: Callable[[str, object], None]) -> None:
    check(value_calls()[kind], record_property, f"arguments: {kind}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["models", "tokens", "indicators on a model", "masks on a model", "methods on a model"]
)
def test_wrong_values_for_models_are_refused(
    kind: str, record_property: Callable[[str, object], None]
) -> None:
    check(model_calls()[kind], record_property, f"arguments: {kind}")


@pytest.mark.slow
@pytest.mark.parametrize("kind", range(len(STUDIES)), ids=lambda kind: STUDIES[kind].__name__)
def test_wrong_values_for_results_are_refused(
    kind: int, record_property: Callable[[str, object], None]
) -> None:
    check(result_calls(kind), record_property, f"arguments: results of {STUDIES[kind].__name__}")


@pytest.mark.slow
def test_wrong_values_for_comparisons_are_refused(record_property: Callable[[str, object], None]) -> None:
    check(layer_calls(result(0)), record_property, "arguments: comparisons of results")


RESULTS = {
    *(
        "Answer",
        "AnswerMaps",
        "Crop",
        "Flips",
        "GroundedAnswer",
        "GroundedPhrase",
        "HeadMaps",
        "Interval",
        "LayerChoice",
        "Mllm",
        "PermutationTest",
        "Prefix",
        "RemoteJob",
    ),
    *("Removed", "Trace", "Triage", "Cell", "GridCell", "GridResult", "HeadGrid", "HeadResult", "Matched"),
    *("BenchmarkResult", "CircuitResult", "PaperTable"),
    *("IndicatorResult", "KnockoutResult", "Look", "RefinementResult", "Result", "Stratified", "InterpError"),
    *("Built", "Curation", "HeadTable", "Key", "Pack", "ProbeResult", "ReaderResult", "SteeringVector"),
}
"""What functions return and users read, but do not make."""
BASES = {"Metric", "Method", "Removal", "Study", "StudyTask"}
"""What a package that extends interp inherits from or implements."""
LATER = {"check_split", "head_agreement", "matched", "stratified"}
"""Functions of results that the table does not hold."""


def test_every_public_name_is_in_the_table() -> None:
    listed = {
        call.name
        for call in [
            *of_kinds(value_calls()),
            *of_kinds(model_calls()),
            *people_calls(),
            *layer_calls(sweep().run("runs", progress=False)),
        ]
    }
    known = {name.removeprefix("study.").removeprefix("metrics.") for name in listed}
    public = {
        name
        for module in (
            interp,
            curation,
            data,
            data_build,
            indicators,
            methods,
            metrics,
            reader_study,
            stats,
            study,
        )
        for name in module.__all__
        if callable(getattr(module, name)) and not inspect.ismodule(getattr(module, name))
    }
    protocols = {"Samples"} & public
    assert public - known - RESULTS - BASES - LATER - protocols == set()


def test_a_bare_error_is_told_from_ours() -> None:
    def broken(value: Any) -> Any:
        return value + 1

    assert bare_error(lambda: broken("x")).startswith("TypeError: can only concatenate")
    assert bare_error(lambda: broken(1)) == ""
    assert bare_error(lambda: interp.Site(layers="x")) == ""
    assert bare_error(lambda: [None for _ in iter(int, 1)], seconds=0.05) == "TooSlow: more than 0.05 s"
