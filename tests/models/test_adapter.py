"""How a family's adapter is found: given, installed, built in; and what is said when none is."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import interp.models.adapter as room
from interp.conformance.tiny import families, tiny
from interp.errors import ModelError
from interp.models import Adapter, adapters, find
from interp.models.adapter import NEEDS, is_available
from interp.models.families.llava import Llava


class Other(Llava):
    name = "other"

    def matches(self, config) -> bool:
        return config.model_type == "other"


class Mine(Llava):
    """A package's own LLaVA."""

    name = "llava"


class Wide(Other):
    name = "wide"

    def matches(self, config) -> bool:
        return config.model_type in ("other", "llava")


def entry(name: str, load, package: str = "package") -> SimpleNamespace:
    return SimpleNamespace(
        name=name, value=f"{package}:{name}", load=load, dist=SimpleNamespace(name=package)
    )


def config(model_type: str, **fields) -> SimpleNamespace:
    return SimpleNamespace(model_type=model_type, **fields)


@pytest.fixture
def installed(monkeypatch):
    """Pretend that packages declare these entry points, and no others."""

    def install(*entries):
        found = {"interp.adapters": entries}
        monkeypatch.setattr(room, "entry_points", lambda group: found[group])

    return install


def test_the_built_in_families(installed):
    installed()
    found = [one for one in adapters() if is_available(one)]
    assert all(isinstance(a, Adapter) for a in found)
    assert sorted(a.name for a in found) == families()
    assert len({a.name for a in found}) == len(found)
    for one in found:
        kind = (
            "interp_vila" if one.name == "vila" else one.name
        )  # a family is called as transformers' model type
        assert find(config(kind)).name == one.name
        assert find(config("llava"), one.name).name == one.name
        assert [a.name for a in found if a.matches(config(kind))] == [one.name]
        assert one.layout
        assert one.examples


def test_an_installed_adapter_comes_before_a_built_in_one(installed):
    installed(entry("mine", lambda: Mine), entry("other", lambda: Other()))
    assert [a.name for a in adapters()][:3] == ["llava", "other", "llava"]
    assert isinstance(find(config("llava")), Mine)
    assert isinstance(find(config("qwen2_vl"), "llava"), Mine)
    assert find(config("other")).name == "other"
    assert not isinstance(find(config("qwen2_vl")), Llava)
    given = Llava()
    assert find(config("llava"), given) is given


def test_two_installed_adapters_for_one_model_are_an_error(installed):
    installed(entry("other", lambda: Other, "first"), entry("wide", lambda: Wide, "second"))
    with pytest.raises(ModelError) as caught:
        find(config("other"))
    message = str(caught.value)
    assert "2 installed adapters match the model type 'other'" in message
    assert "'other' (other = first:other of first) and 'wide' (wide = second:wide of second)" in message
    assert "adapter=" in message
    assert find(config("llava")).name == "wide"  # only one of them claims it
    given = Other()
    assert find(config("other"), given) is given
    installed(entry("other", lambda: Other, "first"), entry("again", lambda: Other, "second"))
    with pytest.raises(ModelError, match=r"2 installed adapters match the name 'other': .*first.*second"):
        find(config("llava"), "other")


def test_an_adapter_that_is_not_there_by_name(installed):
    installed(entry("other", lambda: Other))
    with pytest.raises(ModelError, match="no adapter is named 'third'; there are: other, llava, llava_next"):
        find(config("llava"), "third")


def test_an_unknown_family_is_told_the_ways_on(installed):
    installed(entry("other", lambda: Other))
    with pytest.raises(ModelError) as caught:
        find(config("mystery"))
    message = str(caught.value)
    assert "model type 'mystery'" in message
    assert "families: other, llava" in message
    for way in (
        "interp.load(…, adapter=…)",
        "interp.wrap(hf_model, processor, adapter=…)",
        "docs/new_model.md",
    ):
        assert way in message


def test_a_model_without_an_adapter_is_refused(installed):
    installed()
    with pytest.raises(ModelError, match=r"'blip' models have no spatial map here: .*cross-attention"):
        find(config("blip"))

    with pytest.raises(ModelError, match=r"is for models that answer. 'pi0' models have no spatial map here"):
        find(config("pi0"), "answers_only")
    with pytest.raises(ModelError, match=r"PaliGemma that it is built on[^_]*$"):
        find(config("pi0"))
    assert find(config("blip"), "answers_only").name == "answers_only"

    class Composed(Llava):
        name = "composed"

        def matches(self, config) -> bool:
            return config.model_type == "blip-2"

    installed(entry("composed", lambda: Composed))
    assert find(config("blip-2")).name == "composed"


def test_an_installed_adapter_that_cannot_judge_is_named(installed):
    class Greedy(Llava):
        name = "greedy"

        def matches(self, config) -> bool:
            return config.text_config.model_type == "llama"

    installed(entry("greedy", lambda: Greedy))
    with pytest.raises(ModelError, match=r"adapter 'greedy' cannot judge a SimpleNamespace \(AttributeError"):
        find(config("llava"))


def test_incomplete_adapters_are_refused(installed, unchecked):
    def broken():
        raise ImportError("no such module")

    with pytest.raises(
        ModelError, match=r"adapter= needs an adapter with name, matches.* lacks .*footprints"
    ):
        find(config("llava"), SimpleNamespace(name="half", matches=None))
    with pytest.raises(ModelError, match="it is a class: pass an instance"):
        find(config("llava"), Other)
    installed(entry("bad", broken))
    with pytest.raises(
        ModelError, match=r"bad = package:bad of package cannot be imported \(ImportError: no such module\)"
    ):
        adapters()
    installed(entry("empty", lambda: object()))
    with pytest.raises(
        ModelError, match="the entry point empty = package:empty of package needs an adapter with"
    ):
        adapters()


def test_a_family_is_available_if_transformers_maps_its_type(monkeypatch):
    monkeypatch.setattr(room, "CONFIG_MAPPING", {"internvl": None})
    found = {adapter.name for adapter in room.built_in() if room.is_available(adapter)}
    assert found == {"internvl", "vila"}  # VILA's class is interp's own
    assert families() == sorted(found)
    with pytest.raises(ModelError, match=r"has no llava; a newer one does\. It has: internvl, vila"):
        tiny("llava")


def test_adapters_without_model_types_count_as_available():
    class Bare(Llava):
        model_types = ()

    assert room.is_available(Bare())


def test_a_family_that_needs_a_newer_transformers_is_refused(monkeypatch):
    config = tiny("llava")[0].config
    monkeypatch.setitem(NEEDS, "llava", "99.0")
    with pytest.raises(ModelError, match=r"llava needs transformers 99.0 or newer; got .*Upgrade"):
        find(config)
    assert "llava" not in [one.name for one in adapters() if is_available(one)]
