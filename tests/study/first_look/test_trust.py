"""The checks of a map, against shares worked by hand and maps that are right or wrong by design."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import interp
from interp.errors import ModelError
from interp.inputs.footprints import squash
from interp.inputs.prompt import PAPER_PROMPT, Target
from interp.inputs.tokens import TokenMap
from interp.study.first_look import trust
from interp.study.first_look.shown_map import ShownMap
from interp.study.first_look.trust import (
    Trust,
    TrustCheck,
    answer_check,
    at_border,
    full_checks,
    quick_checks,
    words_check,
)


def grid(size: tuple[int, int] = (40, 40), cells: tuple[int, int] = (4, 4), unseen: int = 0) -> TokenMap:
    found = squash(size, cells)
    n = len(found) + unseen
    boxes = np.concatenate([found.boxes, np.full((unseen, 4), np.nan)])
    views = np.concatenate([found.views, np.full(unseen, "newline")])
    return TokenMap(np.arange(n), boxes, None, views, np.zeros(n, int), (size,), n)


def shown(values: np.ndarray, tokens: TokenMap | None = None, rule: str = "") -> ShownMap:
    return ShownMap("map", np.asarray(values, float), tokens or grid(), 3, rule)


def checks(one: ShownMap, *others: ShownMap, inside: np.ndarray | None = None) -> dict[str, TrustCheck]:
    """The quick checks, of a model whose sinks cannot be had."""
    sample = interp.Sample(np.zeros((40, 40, 3), np.uint8), "?")
    found = quick_checks(None, sample, one, others, prompt=PAPER_PROMPT, inside=inside)
    return {check.name: check for check in found}


@pytest.fixture(autouse=True)
def _without_sinks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise ModelError("this model has no residual stream to read.")

    if "organism" not in request.fixturenames:
        monkeypatch.setattr(trust, "sinks", refused)


def test_the_border_is_the_outer_ring_of_what_tokens_see() -> None:
    inner = np.zeros((4, 4), bool)
    inner[1:3, 1:3] = True
    assert (at_border(grid()) == ~inner.ravel()).all()
    assert at_border(grid((90, 30), (3, 9))).reshape(3, 9)[1, 1:-1].sum() == 0
    assert at_border(grid((10, 10), (1, 1))).all()


def test_each_image_has_a_border_of_its_own() -> None:
    """Two images of other sizes: 4 of the 16 tokens of each lie inside, and the separator is at no border."""
    one, other = squash((40, 40), (4, 4)), squash((400, 80), (4, 4))
    footprints = np.concatenate([one.boxes, other.boxes, np.full((1, 4), np.nan)])
    image = np.repeat([0, 1, 1], [16, 16, 1])
    views = np.full(33, "whole")
    both = TokenMap(np.arange(33), footprints, None, views, image, ((40, 40), (400, 80)), 33)
    ring = np.ones((4, 4), bool)
    ring[1:3, 1:3] = False
    assert at_border(both).tolist() == [*ring.ravel(), *ring.ravel(), False]


def test_an_answer_that_the_model_hardly_prefers_is_a_caution() -> None:
    long = answer_check(0.5**8, 8)
    assert (long.value, long.flag) == (pytest.approx(0.5), "no caution")
    assert long.finding == "The answer has 8 tokens with probability 0.500, the geometric mean of its tokens."
    assert answer_check(0.09, 1).flag == "caution"
    assert answer_check(0.11, 1).finding == "The answer has 1 token with probability 0.110."
    assert answer_check(0.11, 1).flag == "no caution"
    assert answer_check(float("nan"), 3).flag == "not measured"


def test_weight_at_the_border_is_compared_with_a_uniform_map() -> None:
    ring = at_border(grid()).astype(float)
    even, all_there, none = (checks(shown(values))["border"] for values in (np.ones(16), ring, 1 - ring))
    assert (even.value, even.reference, even.flag) == (0.75, 0.75, "no caution")
    assert (all_there.value, all_there.flag) == (1.0, "caution")
    assert none.finding == "0 % of the weight lies at the edge of the picture; a uniform map puts 75 % there."


def test_weight_that_cannot_be_drawn_is_told() -> None:
    values = np.array([*np.ones(16), 8.0, 8.0])
    found = checks(shown(values, grid(unseen=2)))["weight that is not drawn"]
    assert found.value == pytest.approx(0.5)
    assert found.reference == pytest.approx(2 / 18)
    assert found.flag == "caution"
    assert "weight that is not drawn" not in checks(shown(np.ones(16)))


def test_agreement_is_the_rank_correlation() -> None:
    values = np.arange(16.0)
    found = checks(shown(values), shown(values**3), shown(-values))["agreement with map, layer 3"]
    assert (found.value, found.flag) == (-1.0, "caution")
    same = checks(shown(values), shown(values**3))["agreement with map, layer 3"]
    assert (same.value, same.flag) == (1.0, "no caution")
    flat = checks(shown(values), shown(np.ones(16)))["agreement with map, layer 3"]
    assert flat.flag == "not measured"
    assert "the same value everywhere" in flat.finding
    other = checks(shown(values), shown(np.ones(18), grid(unseen=2)))["agreement with map, layer 3"]
    assert "different tokens" in other.finding


def test_boxes_are_told_and_who_chose_the_layer() -> None:
    inside = np.zeros(16)
    inside[5] = 1
    found = checks(shown(1 + 16 * inside, rule="The boxes chose it"), inside=inside)["inside the boxes"]
    assert found.value == pytest.approx(17 / 32)
    assert found.flag == "note"
    assert found.finding == "53 % of the weight lies inside the boxes; a uniform map puts 6 % there." + (
        " The layer was chosen by the boxes."
    )


def test_what_cannot_be_measured_says_why() -> None:
    found = checks(shown(np.ones(16)))["attention sinks"]
    assert found.flag == "not measured"
    assert np.isnan(found.value)
    assert found.finding == "Not measured: this model has no residual stream to read."


def test_the_summary_never_says_that_a_map_is_right() -> None:
    good, bad = (
        TrustCheck(n, 0.0, 0.0, f, "It is so.", "") for n, f in (("a", "no caution"), ("b", "caution"))
    )
    assert "does not show that the map is right" in Trust((good,), "map").summary
    assert Trust((good, bad), "map").summary.startswith("1 of 2 checks raises a caution: b.")
    assert "nothing is known" in Trust((), "map").summary
    noted, unknown = (TrustCheck(f, 0.0, 0.0, f, "", "") for f in ("note", "not measured"))
    assert Trust((noted, good, unknown, bad), "map").summary.startswith("1 of 2 checks raises")
    assert "nothing is known" in Trust((noted, unknown), "map").summary
    assert list(Trust((good, bad), "map").to_dataframe().flag) == ["no caution", "caution"]


def test_the_table_of_a_notebook_escapes_what_it_shows() -> None:
    found = Trust((TrustCheck("<b>x</b>", 0.0, 0.0, "caution", "<script>", "&"),), "map")._repr_html_()
    assert "<script>" not in found
    assert "&lt;b&gt;x&lt;/b&gt;" in found


@pytest.fixture(scope="module")
def organism() -> interp.Mllm:
    return interp.load("organism")


def test_deletion_tells_the_cause_from_its_opposite(organism: interp.Mllm) -> None:
    sample = interp.data.bundled("natural")[6]  # its answer rests on the box, certified at the input
    (tokens,) = organism.encode([sample]).tokens
    inside = tokens.mask(sample.boxes).astype(float)

    def deletion(values: np.ndarray) -> TrustCheck:
        def again(*_: object) -> np.ndarray:
            return values

        options = {"prompt": PAPER_PROMPT, "target": Target(), "seed": 0}
        found = full_checks(organism, sample, shown(values, tokens), again, **options)  # pyright: ignore
        assert found[1].value == pytest.approx(1.0)  # a map that does not change with the weights
        assert found[1].flag == "caution"
        return found[0]

    cause, opposite = deletion(inside), deletion(-inside)
    assert cause.flag == "no caution"
    assert opposite.flag == "caution"
    assert cause.value < cause.reference < opposite.value


def test_words_that_the_vocabulary_lacks_are_a_caution():
    tokenizer = interp.load("organism").processor.tokenizer
    assert words_check(tokenizer, "What color is the diamond?") == []
    (found,) = words_check(tokenizer, "What colour is the zebra?")
    assert (found.flag, found.value) == ("caution", 2 / 5)
    assert "lacks “colour”, “zebra”: it read an unknown token" in found.finding


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("weight", "n", "flag", "said"),
    [
        (
            17.0,
            16,
            "caution",
            "53 % of the weight lies on 1 token of outlying size (of 16); a uniform map puts 6 %",
        ),
        (1.0, 16, "no caution", "6 % of the weight lies on 1 token of outlying size (of 16)"),
        (17.0, 18, "not measured", "Not measured: the map is over patches"),
    ],
)
def test_weight_on_outlying_tokens_is_compared_with_their_share(
    monkeypatch: pytest.MonkeyPatch, weight: float, n: int, flag: str, said: str
) -> None:
    outlier = np.arange(n) == 5
    found = SimpleNamespace(outlier=SimpleNamespace(values=outlier), n=1)
    monkeypatch.setattr(trust, "sinks", lambda *_, **__: (found,))
    check = checks(shown(np.where(np.arange(16) == 5, weight, 1.0)))["attention sinks"]
    assert check.flag == flag
    assert check.finding.startswith(said)
    found.n, outlier[5] = 0, False
    if n == 16:
        none = checks(shown(np.ones(16)))["attention sinks"]
        assert (none.flag, none.finding) == ("no caution", "No image token has an outlying size.")


@pytest.mark.parametrize(
    ("special", "n"),
    [
        ({}, 1),
        ({"unk_token_id": None}, 0),
        ({"pad_token_id": 7}, 0),
        ({"eos_token_id": 7}, 0),
        ({"bos_token_id": 7}, 0),
    ],
)
def test_an_unknown_token_with_another_role_is_no_sign(special: dict[str, int | None], n: int) -> None:
    roles = {"unk_token_id": 7, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2} | special
    tokenizer = SimpleNamespace(**roles, encode=lambda word, **_: [7 if word == "zebra" else 3])
    assert len(words_check(tokenizer, "Is the (zebra) here?")) == n
    assert words_check(tokenizer, "Is it here?") == []
