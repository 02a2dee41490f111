from __future__ import annotations

from types import SimpleNamespace

import pytest

import interp.models.adapter as room
from interp.errors import ModelError
from interp.models import Adapter, adapters, find
from interp.models.llava import Llava


class Other(Llava):
    name = "other"

    def matches(self, config) -> bool:
        return config.model_type == "other"


def entry(name: str, load) -> SimpleNamespace:
    return SimpleNamespace(name=name, value=f"package:{name}", load=load)


@pytest.fixture
def installed(monkeypatch):
    """Pretend that packages declare these entry points."""

    def install(*entries):
        found = {"interp.adapters": entries}
        monkeypatch.setattr(room, "entry_points", lambda group: found[group])

    return install


def test_the_first_match_wins(installed):
    installed(entry("other", lambda: Other), entry("late", lambda: Llava()))
    assert [a.name for a in adapters()] == ["llava", "other", "llava"]
    assert all(isinstance(a, Adapter) for a in adapters())
    assert find(SimpleNamespace(model_type="llava")).name == "llava"
    assert find(SimpleNamespace(model_type="other")).name == "other"


def test_an_adapter_can_be_given_or_named(installed):
    installed(entry("other", lambda: Other))
    given = Other()
    assert find(SimpleNamespace(model_type="llava"), given) is given
    assert find(SimpleNamespace(model_type="llava"), "other").name == "other"
    with pytest.raises(ModelError, match="no adapter is named 'third'; there are: llava, other"):
        find(SimpleNamespace(model_type="llava"), "third")


def test_an_unknown_family_is_told_the_three_ways_on(installed):
    installed()
    with pytest.raises(ModelError) as caught:
        find(SimpleNamespace(model_type="mystery"))
    message = str(caught.value)
    assert "model type 'mystery'" in message
    assert "families: llava" in message
    for way in ("adapter=", "interp.wrap(hf_model, processor, adapter=…)", "original checkpoint"):
        assert way in message


def test_incomplete_adapters_are_refused(installed, unchecked):
    def broken():
        raise ImportError("no such module")

    with pytest.raises(
        ModelError, match=r"adapter= needs an adapter with name, matches.* lacks .*footprints"
    ):
        find(SimpleNamespace(model_type="llava"), SimpleNamespace(name="half", matches=None))
    with pytest.raises(ModelError, match="it is a class: pass an instance"):
        find(SimpleNamespace(model_type="llava"), Other)
    installed(entry("bad", broken))
    with pytest.raises(ModelError, match=r"adapter 'bad' \(package:bad\) cannot be imported \(ImportError"):
        adapters()
    installed(entry("empty", lambda: object()))
    with pytest.raises(ModelError, match="the entry point 'empty' needs an adapter with"):
        adapters()
