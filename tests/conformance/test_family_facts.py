"""What a table of families shows of an adapter, and which model types transformers knows."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from interp.conformance import family_facts
from interp.conformance.family_facts import FamilyFacts, every_family, facts_of, known_types, read_facts
from interp.models import adapter as adapters


def test_facts_are_what_an_adapter_says() -> None:
    own: dict[str, Any] = {
        "name": "vipllava", "layout": "a line", "examples": ["org/a"], "maps": "cross", "attends": "prefix",
        "video": True, "several_images": False, "model_types": ("interp_own", "theirs"), "patches": None,
    }  # fmt: skip
    assert facts_of(SimpleNamespace(**own)) == FamilyFacts(
        "vipllava", "a line", ("org/a",), "cross", "prefix", True, True, False, ("theirs",), "5.23"
    )
    assert not facts_of(SimpleNamespace(**own, unread_tower="it is odd")).tower
    bare = facts_of(SimpleNamespace(name="bare"))
    assert bare == FamilyFacts("bare", "", (), "self", "causal", False, False, True, (), "")


@pytest.mark.parametrize(
    ("types", "needs", "available"),
    [((), "", True), (("a", "b"), "", True), (("b",), "", False), (("a",), "9.1", True), (("a",), "9.2", False),
     ((), "9.2", False)],
)  # fmt: skip
def test_a_family_is_available_in_a_version_with_its_types(
    monkeypatch: pytest.MonkeyPatch, types: tuple[str, ...], needs: str, available: bool
) -> None:
    monkeypatch.setattr(family_facts, "version", lambda _: "9.1")
    one = replace(read_facts()[0], model_types=types, needs=needs)
    assert one.is_available(frozenset({"a"})) is available


def test_installed_families_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(family_facts, "entry_points", lambda group: ["one"])
    monkeypatch.setattr(adapters, "installed", lambda: {"mine": SimpleNamespace(name="mine")})
    assert [one.name for one in every_family()][:2] == ["mine", read_facts()[0].name]
    monkeypatch.setattr(family_facts, "entry_points", lambda group: [])
    assert every_family() == list(read_facts())


def test_types_are_read_from_transformers_files(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import CONFIG_MAPPING

    found = known_types()
    assert {"llava", "qwen2_5_vl", "kosmos-2.5"} <= found
    assert found >= {one for family in read_facts() for one in family.model_types} & set(CONFIG_MAPPING)
    monkeypatch.setattr(family_facts, "find_spec", lambda _: None)
    assert known_types() == frozenset(CONFIG_MAPPING)
