"""A study's JSON, which names its run's folder, stays what it was."""

from __future__ import annotations

import json

import pytest

from tests.golden import examples, golden, pages


@pytest.mark.parametrize("name", list(examples.described()))
def test_study_is_described_as_before(name: str) -> None:
    found = json.loads(json.dumps(pages.to_dict(examples.described()[name])))
    assert found == golden.read_study(name)["study"]


@pytest.mark.parametrize("name", list(examples.described()))
def test_study_hashes_as_before(name: str) -> None:
    study = examples.described()[name]
    assert pages.digest(pages.to_dict(study)) == golden.read_study(name)["digest"]
