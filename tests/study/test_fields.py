"""Fields of studies: converted and checked when a study is made, typed afterwards."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from interp.data import Samples
from interp.errors import StudyError
from interp.inputs.prompt import PAPER_PROMPT
from interp.study import ModelSpec
from interp.study.fields import Checked, as_samples, field, one_of, some_of, whole_number, words
from tests.study.fake_study import Lengths, Times
from tests.study.planted import Model, sample, samples


class Settings(Checked):
    names: tuple[str, ...] = field(default=("a",), converter=words, validator=some_of("abc"))
    size: int = field(default=1, validator=whole_number(1))
    least: int | None = field(default=None, validator=whole_number(0, or_none=True))
    note: str = field(default="", compare=False)

    def check(self) -> None:
        if self.size > 1 and len(self.names) > 1:
            raise StudyError("a size goes with one name.")


def test_values_are_converted_before_they_are_checked() -> None:
    assert Settings(names="b").names == ("b",)
    assert Settings(names=["a", "c"]).names == ("a", "c")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": "d"}, r"names takes at least one of a, b, c, each once; got \('d',\)"),
        ({"names": []}, r"names takes at least one of a, b, c, each once; got \(\)"),
        ({"names": ["a", "a"]}, r"each once; got \('a', 'a'\)"),
        ({"size": 0}, "size is a whole number ≥ 1; got 0"),
        ({"size": True}, "size is a whole number ≥ 1; got True"),
        ({"size": 1.0}, r"size is a whole number ≥ 1; got 1\.0"),
        ({"least": -1}, "least is a whole number ≥ 0, or None; got -1"),
        ({"size": 2, "names": ["a", "b"]}, "a size goes with one name"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        Settings(**changes)


def test_fields_are_frozen_and_keyword_only() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().size = 2  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(TypeError):
        Settings(("a",))  # pyright: ignore[reportCallIssue]


def test_equality_and_hash_leave_out_what_does_not_count() -> None:
    assert Settings(note="one") == Settings(note="another")
    assert hash(Settings(note="one")) == hash(Settings(note="another"))
    assert Settings(size=2) != Settings()


def test_a_word_that_is_no_text_is_refused() -> None:
    with pytest.raises(StudyError, match=r"rule is one of touch, center; got \['touch'\]"):
        one_of("touch", "center")("rule", ["touch"])


@pytest.mark.parametrize("data", ["medical", 3, [1, 2], None])
def test_what_are_no_samples_is_refused(data: Any) -> None:
    with pytest.raises(StudyError, match="data is Samples or a list of Sample"):
        as_samples(data)


def test_a_study_has_typed_fields_whatever_it_was_given() -> None:
    study = Lengths(data=[sample(0), sample(1)], model="organism")
    assert study.data == Samples([sample(0), sample(1)])
    assert study.model == ModelSpec("organism")
    assert (study.prompt, study.seed, study.batch) == (PAPER_PROMPT, 0, 2)


def test_a_changed_copy_is_checked_as_a_new_study_is() -> None:
    study = Lengths(method=Times(2))
    changed = study.replace(batch=4)
    assert (changed.batch, changed.method, changed.data) == (4, Times(2), study.data)
    assert study.batch == 2
    assert changed == Lengths(method=Times(2), batch=4, model=study.model)
    with pytest.raises(StudyError, match="batch is a whole number ≥ 1; got 0"):
        study.replace(batch=0)
    with pytest.raises(StudyError, match="hold no sample"):
        study.replace(data=Samples([], "none"))


def test_the_json_of_a_study_is_its_tasks() -> None:
    study = Lengths(method=Times(3))
    assert study.to_dict(Model()) == study.task(Model()).to_dict()
    assert study.to_json(Model()) == study.to_json()
    assert study.to_json() != study.replace(method=Times(4)).to_json()
    assert study.labels == {"model": "planted", "data": "planted"}
    assert Lengths(data=samples(2, "few")).label == "planted · few"
