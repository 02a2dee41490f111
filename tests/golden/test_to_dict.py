"""A study's JSON, which names its run's folder, stays what it was."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest

import interp
from interp.study.study import Study
from tests.golden import examples, golden, pages

NAMES = sorted(path.stem for path in golden.FOLDER.glob("*.json"))


@cache
def described() -> dict[str, dict[str, Any]]:
    """The JSON of each study."""
    return {name: study.to_dict() for name, study in examples.described().items()}


def test_every_kind_of_study_has_a_golden_file() -> None:
    assert sorted(described()) == NAMES
    named = (getattr(interp.study, name) for name in interp.study.__all__)
    kinds = {one for one in named if isinstance(one, type) and issubclass(one, Study) and one is not Study}
    assert kinds == {type(one) for one in examples.described().values()} - {interp.Grid}


@pytest.mark.parametrize("name", NAMES)
def test_study_is_described_as_before(name: str) -> None:
    assert json.loads(json.dumps(described()[name])) == golden.read_study(name)["study"]


@pytest.mark.parametrize("name", NAMES)
def test_study_hashes_as_before(name: str) -> None:
    assert pages.digest(described()[name]) == golden.read_study(name)["digest"]
