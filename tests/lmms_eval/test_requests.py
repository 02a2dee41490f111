"""How requests of lmms-eval are grouped, cut and repeated, over a model that says what it was asked."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from interp.errors import StudyError
from interp.methods import Plain
from interp.tracing import Decoding

PICTURE = Image.new("RGB", (8, 6))


class Base:
    """What lmms-eval's own class gives a model."""


@pytest.fixture(scope="module")
def room() -> Iterator[Any]:
    """The module, on a stand-in for lmms-eval."""
    names = ("lmms_eval", "lmms_eval.api", "lmms_eval.api.model", "interp.lmms_eval.lmms_model")
    before = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    sys.modules |= {name: ModuleType(name) for name in names[:3]}
    sys.modules["lmms_eval.api.model"].__dict__["lmms"] = Base
    yield importlib.import_module("interp.lmms_eval.lmms_model")
    for name in names:
        sys.modules.pop(name, None)
    sys.modules.update(before)


@pytest.fixture
def model(room: Any) -> Any:
    """The model without weights: it answers "ID: tokens" and keeps what it was asked."""
    found = room.InterpModel.__new__(room.InterpModel)
    found.method, found.limit, found.draw_seed, found.failures = Plain(), 4, 3, "raise"
    found.task_dict = {"task": {"test": [[PICTURE]] * 5, "train": [[PICTURE, PICTURE]]}}
    found.asked, found.cached = [], []

    def answers(samples: list[Any], *, generate: int, **options: Any) -> list[str]:
        found.asked.append(([one.id for one in samples], generate, options))
        return [f"{one.id}: {generate}" for one in samples]

    found.mllm = SimpleNamespace(answers=answers)
    found.cache_hook = SimpleNamespace(add_partial=lambda *given: found.cached.append(given))
    return found


def requests(*settings: dict[str, Any]) -> list[Any]:
    return [
        SimpleNamespace(args=(f"question {i}", own, list, i, "task", "test"))
        for i, own in enumerate(settings)
    ]


def test_requests_of_other_settings_are_answered_apart(model: Any) -> None:
    """The same names with other values are other settings; the same ones in another order are not."""
    given = requests(
        {"max_new_tokens": 3, "until": ["a"]},
        {"max_new_tokens": 9, "until": ["a"]},
        {"until": ["a"], "max_new_tokens": 3},
    )
    assert model.generate_until(given) == ["t", "t", "t"]  # "task …" up to the first "a"
    assert [(ids, n) for ids, n, _ in model.asked] == [
        (["task test 0", "task test 2"], 3),
        (["task test 1"], 9),
    ]
    assert model.cached == [("generate_until", given[i].args[:2], "t") for i in (0, 2, 1)]


def test_more_requests_than_are_held_at_once(model: Any, room: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(room, "AT_ONCE", 2)
    found = model.generate_until(requests(*[{"max_new_tokens": 1}] * 5))
    assert found == [f"task test {i}: 1" for i in range(5)]
    assert [len(ids) for ids, *_ in model.asked] == [2, 2, 1]


@pytest.mark.parametrize(
    ("settings", "n", "drawn"),
    [
        ({}, 1024, {}),
        ({"max_new_tokens": 5, "temperature": 0, "top_p": 0.5, "num_beams": 1}, 5, {}),
        ({"temperature": 0.7}, 1024, {"seed": 3, "decoding": Decoding(temperature=0.7, top_p=None)}),
        ({"temperature": 0.7, "top_p": 1.0}, 1024, {"seed": 3, "decoding": Decoding(temperature=0.7)}),
        (
            {"temperature": 1, "top_p": 0.9},
            1024,
            {"seed": 3, "decoding": Decoding(temperature=1.0, top_p=0.9)},
        ),
    ],
)
def test_settings_of_a_task_reach_the_model(model: Any, settings: Any, n: int, drawn: Any) -> None:
    model.generate_until(requests(settings))
    ((_, tokens, options),) = model.asked
    assert tokens == n
    assert {name: options[name] for name in ("seed", "decoding") if name in options} == drawn
    assert options["batch_size"] == 4
    assert options["prompt"].template == "{question}"


@pytest.mark.parametrize(
    ("stops", "text"),
    [
        (["\n", "."], "one"),
        ([".", "\n"], "one"),
        (".", "one"),
        (["", ";"], "one. two\nthree"),
        (None, "one. two\nthree"),
    ],
)
def test_a_text_ends_before_the_first_stop(room: Any, stops: Any, text: str) -> None:
    assert room._until("one. two\nthree", stops) == text


def failing(model: Any, error: type[Exception]) -> None:
    own = model.mllm.answers

    def answers(samples: list[Any], **options: Any) -> list[str]:
        if any(one.id == "task test 1" for one in samples):
            raise error("no answer")
        return own(samples, **options)

    model.mllm = SimpleNamespace(answers=answers)


def test_a_question_that_fails_is_empty_alone(model: Any, capsys: Any) -> None:
    failing(model, ValueError)
    given = requests(*[{"max_new_tokens": 1}] * 3)
    with pytest.raises(ValueError, match="no answer"):
        model.generate_until(given)
    model.failures = "empty"
    assert model.generate_until(given) == ["task test 0: 1", "", "task test 2: 1"]
    assert capsys.readouterr().out == "task test 1 gets an empty answer: ValueError: no answer\n"
    failing(model, StudyError)  # what was asked makes no sense: that is no failure of a question
    with pytest.raises(StudyError):
        model.generate_until(given)


def test_a_sample_has_every_image_and_nothing_else(model: Any) -> None:
    sample = model._sample("Which?", {}, list, 0, "task", "train")
    assert (len(sample.images), sample.question, sample.id) == (2, "Which?", "task train 0")
    model.task_dict["task"]["train"] = [[PICTURE, "a sound"]]
    with pytest.raises(StudyError, match=r"document 0 of task has \['Image', 'str'\]"):
        model._sample("Which?", {}, list, 0, "task", "train")
    with pytest.raises(StudyError, match="document 0 of task has none"):
        model._sample("Which?", {}, None, 0, "task", "test")


@pytest.mark.parametrize("name", ["max_batch_size", "device_map", "system_prompt"])
def test_what_every_model_is_passed_is_taken(room: Any, name: str) -> None:
    room._check("raise", {name: 1, "unknown": None})
    with pytest.raises(StudyError, match="no argument other, unknown;"):
        room._check("empty", {name: 1, "unknown": 0, "other": ""})


def test_several_processes_are_refused(room: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(StudyError, match="runs in one process"):
        room._check("raise", {})
