"""A study's JSON, which names its run's folder, stays what it was."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest

from tests.golden import examples, golden, pages

NAMES = sorted(examples.described())


@cache
def described(name: str) -> dict[str, Any]:
    """The JSON of a study."""
    return examples.described()[name].to_dict()


@pytest.mark.parametrize("name", NAMES)
def test_study_is_described_as_before(name: str) -> None:
    assert json.loads(json.dumps(described(name))) == golden.read_study(name)["study"]


@pytest.mark.parametrize("name", NAMES)
def test_study_hashes_as_before(name: str) -> None:
    assert pages.digest(described(name)) == golden.read_study(name)["digest"]
