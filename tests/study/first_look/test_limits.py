"""Where a check of a map begins to raise a caution, and what deletion says, on models made by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr

import interp
from interp.errors import MapError, RunError
from interp.indicators import Maps, VisionAttention
from interp.inputs.footprints import squash
from interp.inputs.prompt import GENERIC_PROMPT, PAPER_PROMPT, Target
from interp.inputs.tokens import TokenMap
from interp.study.first_look import trust
from interp.study.first_look.look import SAME, _Making, _sample
from interp.study.first_look.shown_map import ShownMap
from interp.study.first_look.trust import Trust, TrustCheck, _excess, full_checks
from interp.tracing import Cost

pytestmark = pytest.mark.usefixtures("unchecked")


def tokens(n: int = 4) -> TokenMap:
    found = squash((10 * n, 10), (1, n))
    return TokenMap(np.arange(n), found.boxes, None, found.views, found.image, ((10 * n, 10),), n)


def shown(*values: float, layer: int | None = 3) -> ShownMap:
    return ShownMap("map", np.array(values), tokens(len(values)), layer, "The rule.")


def picture() -> interp.Sample:
    return interp.Sample(np.zeros((10, 40, 3), np.uint8), "Where?")


@pytest.mark.parametrize(
    ("values", "said", "flag"),
    [
        ((3, 3, 3, 3), "50 %", "no caution"),
        ((5, 0, 3, 0), "62 %", "no caution"),
        ((7, 0, 3, 0), "70 %", "caution"),
        ((0, 0, 3, 0), "0 %", "no caution"),
    ],
)
def test_weight_beyond_a_quarter_of_the_rest_is_a_caution(
    values: tuple[float, ...], said: str, flag: str
) -> None:
    """Two of four tokens: a uniform map puts half there, so a caution needs more than 0.5 + 0.25 × 0.5 = 62.5 %."""
    check = _excess("x", shown(*values), np.array([True, True, False, False]), "there", "")
    assert (check.flag, check.reference) == (flag, 0.5)
    assert check.finding == f"{said} of the weight lies there; a uniform map puts 50 % there."


def test_all_tokens_together_are_never_too_much() -> None:
    assert _excess("x", shown(1, 2, 3, 4), np.ones(4, bool), "there", "").flag == "no caution"


class Hiding:
    """The target falls with the weight of the hidden tokens: p = 0.9 − fall · their share."""

    name = "hiding"

    def __init__(self, weights: Any, fall: float = 0.8) -> None:
        self.weights, self.fall = np.asarray(weights, float) / np.sum(weights), fall

    def scores(self, mllm: Any, sample: Any, masks: np.ndarray, **options: Any) -> Any:
        values = np.log(0.9 - self.fall * (masks @ self.weights))
        return SimpleNamespace(values=values, plain=float(np.log(0.9)), cost=Cost())


def full(one: ShownMap, other: Any, monkeypatch: pytest.MonkeyPatch, **hiding: Any) -> list[TrustCheck]:
    """The slow checks of a map whose weights are the cause, or are not; `other` is the map of shuffled weights."""
    n = len(one.values)
    weights = hiding.pop("weights", np.arange(n))
    monkeypatch.setattr(trust, "HideTokens", lambda: Hiding(weights, **hiding))
    monkeypatch.setattr(trust, "shuffled", lambda mllm, share, seed: ("copy", share, seed))
    asked: list[Any] = []

    def again(model: Any, fixed: Target) -> np.ndarray:
        asked.append((model, fixed))
        return np.asarray(other, float)

    found = full_checks(None, picture(), one, again, prompt=PAPER_PROMPT, target=Target("left"), seed=5)
    assert asked == [(("copy", "all", 5), Target("left"))]
    return found


ORDER = np.arange(20.0)


def test_a_map_of_the_cause_beats_random_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    deletion, change = full(shown(*ORDER), -ORDER, monkeypatch)
    assert (deletion.flag, change.flag) == ("no caution", "no caution")
    assert deletion.finding.endswith("; 0 of 19 random orders do as well.")
    assert deletion.value < deletion.reference
    assert (change.value, change.reference) == (pytest.approx(-1), 0)
    assert change.finding == "The rank correlation with the map of shuffled weights is −1.00."


def test_a_map_of_the_opposite_is_beaten_by_all(monkeypatch: pytest.MonkeyPatch) -> None:
    deletion, change = full(shown(*-ORDER), -ORDER, monkeypatch)
    assert (deletion.flag, change.flag) == ("caution", "caution")
    assert deletion.finding.endswith("; 19 of 19 random orders do as well.")


def test_where_the_image_hardly_counts_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    deletion, change = full(shown(*ORDER), np.ones(20), monkeypatch, fall=0.05)
    assert (deletion.flag, change.flag) == ("not measured", "not measured")
    assert (
        "moves the target from 0.90 to 0.85, by less than 0.1: the answer hardly needs the image"
        in deletion.finding
    )
    assert "the same value everywhere" in change.finding


@pytest.mark.parametrize(("rho", "flag"), [(0.5, "no caution"), (0.6, "caution")])
def test_a_map_that_stays_under_shuffled_weights_is_a_caution(
    monkeypatch: pytest.MonkeyPatch, rho: float, flag: str
) -> None:
    monkeypatch.setattr(trust, "spearman", lambda *_: rho)
    assert full(shown(*ORDER), ORDER, monkeypatch)[1].flag == flag


def indicator(array: Any, error: Exception | None = None, kind: type = object, **fields: Any) -> Any:
    """An indicator that gives this map, or fails."""

    class Given(kind):
        def __init__(self) -> None:
            vars(self).update(fields)

        def __call__(self, mllm: Any, samples: Any, **options: Any) -> Maps:
            if error is not None:
                raise error
            return Maps((array,), (tokens(),), Cost(), None)

    return Given()


def lines(*values: list[float], first: int = 0) -> xr.DataArray:
    at = range(first, first + len(values))
    return xr.DataArray(np.array(values), {"layer": list(at)}, dims=("layer", "token"))


EVEN, SHARP = [1.0, 1, 1, 1], [0.0, 0, 0, 4]


def making(layer: Any = "auto") -> _Making:
    return _Making(SimpleNamespace(), picture(), PAPER_PROMPT, Target(), layer)  # pyright: ignore[reportArgumentType]


def test_the_first_indicators_layer_is_that_of_the_others() -> None:
    """The second has its sharpest map elsewhere; the third lacks the layer, and a vision tower counts its own."""
    given = {
        "first": indicator(lines(EVEN, SHARP)), "second": indicator(lines(SHARP, EVEN)),
        "third": indicator(lines(EVEN, SHARP, first=5)), "added": indicator(lines(EVEN, SHARP), layers_add_up=True),
        "flat": indicator(xr.DataArray(EVEN, dims="token")),
    }  # fmt: skip
    maps, found = making()._maps(given)
    assert list(maps) == list(found) == list(given)
    assert {label: one.layer for label, one in found.items()} == {
        "first": 1, "second": 1, "third": 6, "added": None, "flat": None
    }  # fmt: skip
    assert [label for label, one in found.items() if one.rule == SAME] == ["second"]
    assert found["second"].values.tolist() == EVEN
    _, asked = making(0)._maps({"first": given["first"], "second": given["second"]})
    assert [one.layer for one in asked.values()] == [0, 0]
    assert not [one for one in asked.values() if one.rule == SAME]
    apart = making()._layer(object.__new__(VisionAttention), lines(EVEN, SHARP), found["first"])
    assert apart == "auto"


def test_the_first_map_must_come_and_others_may_be_missing() -> None:
    good, bad = indicator(lines(EVEN, SHARP)), indicator(None, MapError("it needs a partner."))
    made = making()
    maps, found = made._maps({"good": good, "bad": bad})
    assert list(maps) == list(found) == ["good"]
    assert made.missing == {"bad": "it needs a partner."}
    with pytest.raises(MapError, match="it needs a partner"):
        making()._maps({"bad": bad, "good": good})
    with pytest.raises(RunError, match="the server is gone"):
        making()._maps({"good": good, "lost": indicator(None, RunError("the server is gone."))})


@pytest.mark.parametrize(("ids", "probability"), [([7], 0.5), ([7, 3, 1], 0.125)])
def test_an_answers_probability_is_of_all_its_tokens(ids: list[int], probability: float) -> None:
    logits = np.log([[0.05, 0.1, 0.05, 0.25, 0.02, 0.02, 0.01, 0.5]]) + 3
    asked: list[Any] = []

    class Trace(list):
        pass

    trace: Any = Trace([SimpleNamespace(ids=ids, answer="left", reasoning=None)])
    trace.logits = xr.DataArray(logits, dims=("sample", "token_id"))

    def score(samples: Any, target: Target, prompt: Any) -> Any:
        asked.append(target)
        return SimpleNamespace(values=np.log([0.125]))

    tokenizer = SimpleNamespace(decode=lambda found: f" t{found[0]} ")
    model = SimpleNamespace(
        trace=lambda *_, **__: trace, score=score, processor=SimpleNamespace(tokenizer=tokenizer)
    )
    made = _Making(model, picture(), PAPER_PROMPT, Target(), "auto")  # pyright: ignore[reportArgumentType]
    answer, found, n, likely = made._answer(16)
    assert (answer, found, n) == ("left", pytest.approx(probability), len(ids))
    assert [token for token, _ in likely] == ["t7", "t3", "t1", "t0", "t2"]  # of equal ones the first
    assert [share for _, share in likely][:3] == pytest.approx([0.5, 0.25, 0.1])
    assert asked == ([] if len(ids) == 1 else [Target("greedy", tokens=3)])


def test_an_image_comes_with_its_question_and_boxes() -> None:
    pixels = np.zeros((10, 40, 3), np.uint8)
    one = _sample(pixels, "Where?", [(1, 2, 8, 9)], None)
    assert (one.question, [box.as_tuple() for box in one.boxes]) == ("Where?", [(1, 2, 8, 9)])
    assert len(_sample([pixels, pixels], "Where?", None, None).images) == 2
    shares = _sample(pixels, "?", [(0.1, 0.2, 0.5, 0.9)], "fraction").boxes[0].as_tuple()
    assert shares == pytest.approx((4, 2, 20, 9))
    whole = picture()
    assert _sample(whole, "", None, None) is whole
    for given in ({"question": "?"}, {"boxes": []}, {"box_format": "fraction"}):
        with pytest.raises(interp.InterpError, match="a whole Sample, or an image with question= and boxes="):
            _sample(whole, **{"question": "", "boxes": None, "box_format": None} | given)


def test_orders_that_do_as_well_count_against_the_map(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of 16 tokens weighs the same, so every order does exactly as well."""
    deletion, _ = full(shown(*ORDER[:16]), ORDER[:16], monkeypatch, weights=np.ones(16))
    assert deletion.flag == "caution"
    assert deletion.finding.endswith("; 19 of 19 random orders do as well.")
    assert deletion.value == pytest.approx(deletion.reference)


def test_checks_are_read_by_their_place_and_counted() -> None:
    flags = ("caution", "note", "caution", "not measured")
    checks = tuple(TrustCheck(f"c{i}", 0.5, 0.25, flag, "Found.", "Meant.") for i, flag in enumerate(flags))  # pyright: ignore
    own = Trust(checks, "map")
    assert (len(own), own[0], own[-1], own[1:3]) == (4, checks[0], checks[3], checks[1:3])
    assert list(own) == list(checks)
    assert own.cautions == ("c0", "c2")
    assert own.summary.startswith("2 of 2 checks raise a caution: c0, c2. Do not base")
    assert repr(own).splitlines()[1:3] == ["  c0: caution. Found.", "  c1: note. Found."]
    assert list(own.to_dataframe()) == ["name", "value", "reference", "flag", "finding", "meaning"]
    one = Trust((*checks[3:], TrustCheck("fine", 0, 0, "no caution", "", "")), "map").summary
    assert one.startswith("None of 1 check raises a caution. That does not show")


@dataclass(frozen=True)
class Asked:
    """Keeps what it is asked for; gives maps per head where these are asked for."""

    per_head: bool = False
    layers: Any = "all"
    calls: list[Any] = field(default_factory=list)

    def __call__(self, mllm: Any, samples: Any, **options: Any) -> Maps:
        self.calls.append((self.per_head, self.layers, options))
        array = lines(EVEN, SHARP)
        if self.per_head:
            array = array.sel(layer=self.layers).expand_dims(head=[0, 1]).transpose("layer", "head", "token")
        return Maps((array,), (tokens(),), Cost(), None)


def test_maps_and_heads_are_of_the_prompt_and_target() -> None:
    own, options = Asked(), {"prompt": GENERIC_PROMPT, "target": Target("left")}
    made = _Making(SimpleNamespace(), picture(), GENERIC_PROMPT, Target("left"), "auto")  # pyright: ignore
    _, found = made._maps({"it": own})
    heads = made._heads(own, found["it"])
    assert own.calls == [(False, "all", options), (True, [1], options)]
    assert heads is not None
    assert heads.dims == ("head", "token")
    assert heads.values.tolist() == [SHARP, SHARP]
    assert made._heads(own, shown(*EVEN, layer=None)) is None
    assert made._heads(object(), found["it"]) is None
