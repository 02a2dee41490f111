"""The method that `method=`, `heads=` and `layers=` name, with the choice on validation samples replaced."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from interp.errors import StudyError
from interp.lmms_eval import method_arguments
from interp.lmms_eval.method_arguments import METHODS, method_of
from interp.methods import HGAI, PAI, AdaptVis, Plain, VGRefine, ViCrop
from interp.study import ModelSpec

CHOSEN = ((2, 3), (4, 1))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was asked of the choice, which gives two heads and layer 5."""
    found: list[Any] = []
    monkeypatch.setattr(method_arguments, "named", lambda name, **options: (name, options))

    def grounding(spec: ModelSpec, samples: Any, *, out: str) -> Any:
        found.append((spec.id, samples, out))
        return SimpleNamespace(heads=CHOSEN, layer=5, said="chosen")

    monkeypatch.setattr(method_arguments, "grounding", grounding)
    monkeypatch.setattr(method_arguments, "resolved", lambda method, out, mllm: method)
    return found


def method(name: str, heads: str = "", layers: str = "", adapter: str | None = None) -> Any:
    spec = ModelSpec("organism", adapter=adapter)
    return method_of(name, spec, None, heads=heads, layers=layers, choose_on="medical", n=7, out="there")


@pytest.mark.parametrize(("name", "variant"), [("vgrefine", "code"), ("vgrefine_paper", "paper")])
@pytest.mark.parametrize(("layers", "masked"), [("", (5,)), ("1+2", (1, 2)), ("0", (0,))])
def test_chosen_heads_keep_the_layers_that_were_given(
    asked: list[Any], name: str, variant: Any, layers: str, masked: tuple[int, ...]
) -> None:
    assert method(name, layers=layers) == VGRefine(heads=CHOSEN, layers=masked, variant=variant)
    assert asked == [("organism", ("medical", {"split": "validation", "n": 7}), "there")]


@pytest.mark.parametrize(("name", "variant"), [("vgrefine", "code"), ("vgrefine_paper", "paper")])
def test_given_heads_are_not_chosen(asked: list[Any], name: str, variant: Any) -> None:
    assert method(name, "0-1", "2") == VGRefine(heads=((0, 1),), layers=(2,), variant=variant)
    spaced = VGRefine(heads=((0, 1), (3, 12)), layers=(2, 5), variant=variant)
    assert method(name, "0 - 1 + 3-12", " 2 + 5 ") == spaced
    assert asked == []


def test_each_name_is_its_method_with_published_defaults() -> None:
    found = {"plain": Plain(), "pai": PAI(), "adaptvis": AdaptVis(), "hgai": HGAI(), "vicrop": ViCrop()}
    assert {name: method(name) for name in found} == found
    assert set(METHODS) == {*found, "vgrefine", "vgrefine_paper"}


@pytest.mark.parametrize("given", [{"heads": "1-2"}, {"layers": "3"}, {"heads": "1-2", "layers": "3"}])
@pytest.mark.parametrize("name", ["plain", "pai"])
def test_heads_and_layers_belong_to_vgrefine(name: str, given: dict[str, str]) -> None:
    with pytest.raises(StudyError, match=f"heads= and layers= are for method=vgrefine; got method={name}"):
        method(name, **given)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "plain"])
def test_a_model_that_only_answers_is_plain(name: str) -> None:
    assert method("plain", adapter="answers_only") == Plain()
    with pytest.raises(StudyError, match=f"only answers takes no method; got method={name}"):
        method(name, adapter="answers_only")


@pytest.mark.parametrize(
    ("heads", "layers", "said"),
    [("-1-2", "3", "heads are whole"), ("1-2", "-3", "layers are whole"), ("1-2+", "3", "heads are")],
)
def test_numbers_are_whole_and_not_negative(heads: str, layers: str, said: str) -> None:
    with pytest.raises(StudyError, match=said):
        method("vgrefine", heads, layers)
