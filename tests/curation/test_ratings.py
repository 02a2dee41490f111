"""Files of ratings are checked; the page holds its samples' texts as data."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interp.curation import rating_page, read_ratings
from interp.curation.ratings import PAPER_SHARES, SCALES, SCORES, Ratings, _item, kind_of
from interp.data import Samples
from interp.errors import DataError, SampleError
from interp.inputs.sample import Sample
from tests.curation.rated import rating_file, to_rate
from tests.report.hostile_samples import ATTACK, Elements


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"relevance": 0}, "'relevance' is 0; expected one of"),
        ({"relevance": 6}, "'relevance' is 6"),
        ({"relevance": True}, "'relevance' is True"),
        ({"relevance": 4.0}, r"'relevance' is 4\.0"),
        ({"relevance": "4"}, "'relevance' is '4'"),
        ({"beauty": 4}, "'beauty' is 4"),
    ],
)
def test_scores_are_whole_numbers_on_a_scale(tmp_path: Path, values: Any, message: str) -> None:
    samples = to_rate()
    file = rating_file(tmp_path / "a.json", samples, "Ana", {}, answers=[{"item": "0", "values": values}])
    with pytest.raises(DataError, match=message):
        read_ratings([file], samples)


def test_ratings_of_other_samples_are_refused(tmp_path: Path) -> None:
    samples = to_rate()
    file = rating_file(tmp_path / "a.json", samples, "Ana", {0: (5, 5, 5)})
    for other in (samples[:3], samples.like(reversed(list(samples))), to_rate(question="Changed?")):
        with pytest.raises(DataError, match="but these samples need"):
            read_ratings([file], other)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not UTF-8 text"),
        (b"[]", "expected a JSON object, got list"),
        (b'{"by": "a", "by": "b"}', "is given twice in one object"),
        (b'{"by": NaN}', "is not a finite number"),
        (b"[" * 100_000, "nested too deep"),
    ],
)
def test_damaged_files_are_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "bad.json").write_bytes(content)
    with pytest.raises(DataError, match=rf"bad\.json: .*{message}"):
        read_ratings([tmp_path / "bad.json"], to_rate())


def test_missing_files_and_empty_edits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_ratings([tmp_path / "nowhere.json"], to_rate())
    file = rating_file(tmp_path / "a.json", to_rate(), "Ana", {}, {0: "  "})
    with pytest.raises(DataError, match="answer 0: the text is empty"):
        read_ratings([file], to_rate())


def test_the_page_is_the_same_each_time_and_complete(tmp_path: Path) -> None:
    one, two = (rating_page(to_rate(), tmp_path / name).read_bytes() for name in ("a.html", "b.html"))
    assert one == two
    assert b"http" not in re.sub(rb"data:image/jpeg;base64,[A-Za-z0-9+/=]+", b"", one).replace(
        b"http-equiv", b""
    )


def test_scores_and_edits_are_those_of_their_sample(tmp_path: Path, unchecked: None) -> None:
    samples = to_rate()
    file = rating_file(
        tmp_path / "a.json", samples, "Ana", {1: (5, None, 3)}, {0: "New?", 1: f" {samples[1].question} "}
    )
    found = read_ratings([file], list(samples))  # pyright: ignore[reportArgumentType]
    assert [found.scores(i) for i in range(2)] == [{}, {"Ana": {"relevance": 5, "semantics": 3}}]
    assert [found.edited(i) for i in range(2)] == [{"Ana": "New?"}, {}]
    assert found.frame.to_numpy().tolist() == [
        [1, "s1", "localization", "Ana", "relevance", 5],
        [1, "s1", "localization", "Ana", "semantics", 3],
    ]
    assert np.nan_to_num(found.table("semantics")).tolist() == [[0, 3, 0, 0]]
    for scale in ("beauty", 3):
        with pytest.raises(DataError, match="scale is 'relevance' or 'grounding' or 'semantics'; got"):
            found.table(scale)  # type: ignore[arg-type]
    for answers in ((), (*found.answers, 3), list(found.answers)):
        with pytest.raises(DataError, match="ratings are of Samples, by at least one rater"):
            Ratings(samples, answers)  # type: ignore[arg-type]


def test_the_scales_and_shares_of_the_paper() -> None:
    assert {(kind, scale.name) for kind in ("attribute", "localization") for scale in SCALES} == set(
        PAPER_SHARES
    )
    labels = {scale.name: [option.label for option in scale.options] for scale in SCALES}
    assert labels["semantics"] == [
        "staging, prognosis or treatment", "a named disease", "a broad class of disease", "descriptors",
        "basic recognition",
    ]  # fmt: skip
    assert labels["relevance"] == [
        "nonsensical",
        "2",
        "3",
        "4",
        "well phrased, and directly supports reasoning",
    ]
    assert all([option.value for option in scale.options] == list(SCORES) for scale in SCALES)
    assert [kind_of(Sample("a.png", meta=meta)) for meta in ({}, {"kind": "attribute"})] == [
        "all",
        "attribute",
    ]


def test_pictures_say_how_many_boxes_or_outlines_they_show(tmp_path: Path, unchecked: None) -> None:
    image, mask = np.zeros((30, 40, 3), np.uint8), np.ones((30, 40), np.uint8)
    pair = Sample(images=[image, image], question="?", boxes=[(1, 1, 9, 9, 1), (2, 2, 9, 9, 1)], id="a")
    masked = Sample(
        image, "?", masks=[mask], boxes=[(1, 1, 9, 9), (2, 2, 9, 9)], meta={"label": "liver"}, id="b"
    )
    page = rating_page(Samples([pair, masked]), tmp_path / "a.html").read_text()
    for said in ("Image 1 of 2 with no boxes", "Image 2 of 2 with 2 boxes", "Image with 1 outline"):
        assert f'"{said}"' in page, said
    for wrong in ({"title": "\x00"}, {"side": 63}, {"side": 4097}):
        with pytest.raises(DataError, match=r"title holds the control|side is a whole number of at least 64"):
            rating_page(to_rate(1), tmp_path / "b.html", **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({"answer": None, "meta": {}}, ()),
        ({"options": ("yes", "no")}, (("Answer", "yes"), ("Options", "yes, no"))),
        (
            {"meta": {"label": "liver", "kind": "x", "modality": "CT"}},
            (("Answer", "yes"), ("Modality", "CT"), ("Label", "liver")),
        ),
        ({"meta": {"label": 3}}, (("Answer", "yes"),)),
    ],
)
def test_the_page_shows_what_is_known_of_a_sample(changes: Any, facts: Any) -> None:
    assert _item("0", to_rate(1, **changes)[0], 64).facts == facts


def test_the_longer_side_of_a_picture_is_as_given(tmp_path: Path) -> None:
    samples = [Sample(np.zeros((h, w), np.uint8), "?", id=f"{w}") for w, h in ((300, 100), (100, 200))]
    for side, sizes in ((100, [(100, 33), (50, 100)]), (64, [(64, 21), (32, 64)])):
        page = rating_page(Samples(samples), tmp_path / "p.html", side=side).read_text()
        (form,) = re.findall(r'<script type="application/json" id="form">(.*?)</script>', page, re.DOTALL)
        shown = [item["pictures"][0] for item in json.loads(form)["items"]]
        assert [(one["width"], one["height"]) for one in shown] == sizes


def test_texts_that_try_to_be_markup_stay_texts(tmp_path: Path) -> None:
    samples = to_rate(
        1, question=f"</script>{ATTACK}", answer=ATTACK, options=[ATTACK, "no"], meta={"label": ATTACK}
    )
    page = rating_page(samples, tmp_path / "a.html", title=ATTACK).read_text()
    assert page.count("</script>") == 2
    seen = Elements(page)
    assert not [tag for tag, _ in seen.tags if tag == "img"]
    assert ATTACK in html.unescape(seen.text)


def test_only_samples_that_can_be_seen_are_put_on_a_page(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="rating needs at least one sample"):
        rating_page(Samples([]), tmp_path / "a.html")
    broken = Samples([Sample.unusable("row 3 has no image", id="x")])
    with pytest.raises(SampleError, match="row 3 has no image"):
        rating_page(broken, tmp_path / "a.html")
    assert not (tmp_path / "a.html").exists()
