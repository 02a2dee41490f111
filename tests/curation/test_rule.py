"""Which samples are kept: the rule, edits, the table beside the paper's, and the file of kept samples."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from interp.curation import Curation, curate, read_ratings
from interp.curation.ratings import PAPER_SHARES
from interp.curation.rule import SHOWN, _folded
from interp.data import Samples, jsonl
from interp.errors import DataError, RunError
from interp.inputs.sample import Sample
from interp.stats import krippendorff_alpha, weighted_kappa
from tests.curation.rated import rating_file, to_rate
from tests.report.hostile_samples import ATTACK, Elements

GOOD = (5, 5, 5)


def curated(folder: Path, *raters: Any, samples: Samples | None = None, **rule: Any) -> Curation:
    """The curation by raters, each (scores, edits)."""
    rated = to_rate() if samples is None else samples
    files = [rating_file(folder / f"{i}.json", rated, f"rater {i}", *one) for i, one in enumerate(raters)]
    return curate(read_ratings(files, rated), **rule)


def decisions(found: Curation) -> list[str]:
    return found.decisions.decision.tolist()


def test_any_score_below_3_drops_a_sample(tmp_path: Path) -> None:
    found = curated(tmp_path, ({0: GOOD, 1: (5, 2, 5), 2: (3, 3, 3), 3: (5, 5, 1)},))
    assert decisions(found) == ["kept", "dropped", "kept", "dropped"]
    assert found.decisions.reason.tolist() == ["", "grounding 2 by rater 0", "", "semantics 1 by rater 0"]
    assert found.samples.sample_ids == ("s0", "s2")


def test_of_several_raters_one_low_score_drops_or_their_median(tmp_path: Path) -> None:
    raters = ({0: GOOD, 1: (2, 5, 5)}, {0: GOOD, 1: (4, 5, 5)}, {0: (5, 5, 4), 1: (4, 5, 5)})
    given = [(scores,) for scores in raters]
    assert decisions(curated(tmp_path, *given))[:2] == ["kept", "dropped"]
    assert decisions(curated(tmp_path, *given, several="median"))[:2] == ["kept", "kept"]
    strict = curated(tmp_path, *given, several="median", lowest=5)
    assert strict.decisions.reason[1] == "relevance 4, the median of 3"
    pairs = ({0: (2, 5, 5), 1: (2, 5, 5)},), ({0: (4, 5, 5), 1: (3, 5, 5), 2: (1, 5, 5)},)
    found = curated(tmp_path, *pairs, several="median", n_raters=2)
    assert decisions(found) == ["kept", "dropped", "unrated", "unrated"]  # medians 3 and 2.5; one rater alone
    assert found.decisions.reason[1] == "relevance 2.5, the median of 2"
    assert found.samples[0].meta["curation"]["rule"] == {"lowest": 3, "several": "median", "n_raters": 2}


def test_samples_without_enough_whole_ratings_are_unrated(tmp_path: Path) -> None:
    found = curated(tmp_path, ({0: GOOD, 1: (5, 5, None), 2: (1, None, None)},), ({0: GOOD},), n_raters=2)
    assert decisions(found) == ["kept", "unrated", "dropped", "unrated"]
    assert found.decisions.reason[1] == "0 of 2 raters gave all three scores"


def test_edits_are_taken_where_raters_agree(tmp_path: Path) -> None:
    every = dict.fromkeys(range(4), GOOD)
    first = {0: "Is  the liver visible?", 1: "Is the spleen seen?", 2: "Is organ 2  visible?"}
    raters = ((every, first), (every, {0: "Is the liver visible? ", 1: "Can you see the spleen?"}))
    found = curated(tmp_path, *raters)
    assert decisions(found) == ["kept", "undecided", "kept", "kept"]
    assert [one.question for one in found.samples] == [
        "Is the liver visible?",
        "Is organ 2 visible?",
        "Is organ 3 visible?",
    ]
    history = found.samples[0].meta["curation"]
    assert history["question"] == "Is organ 0 visible?"
    assert history["edited_by"] == ["rater 0", "rater 1"]
    assert history["scores"]["rater 1"] == {"relevance": 5, "grounding": 5, "semantics": 5}
    assert history["fingerprint"] == to_rate()[0].fingerprint
    assert found.samples[1].meta["curation"]["edited_by"] == []  # spaces alone are no edit
    chosen = curated(tmp_path, *raters, questions={"s1": "Where is the spleen?"})
    assert chosen.samples[1].question == "Where is the spleen?"


def test_the_table_has_shares_of_kept_scores_beside_the_papers(tmp_path: Path) -> None:
    found = curated(tmp_path, ({0: (3, 4, 5), 1: (5, 4, 5), 2: (5, 5, 4), 3: (1, 5, 5)},)).table()
    rows = found.set_index(["kind", "scale"])
    shares = [f"rating_{score}" for score in range(1, 6)]
    assert rows.loc[("localization", "relevance"), shares].tolist() == [0, 0, 50, 0, 50]
    assert rows.loc[("localization", "grounding"), shares].tolist() == [0, 0, 0, 100, 0]
    assert rows.loc[("attribute", "semantics"), shares].tolist() == [
        0,
        0,
        0,
        100,
        0,
    ]  # the dropped one does not count
    assert rows.n.tolist() == [1, 1, 1, 2, 2, 2]
    assert rows.loc[("attribute", "grounding"), ["paper_3", "paper_4", "paper_5"]].tolist() == [
        4.04,
        12.18,
        83.77,
    ]
    assert all(sum(one) == pytest.approx(100, abs=0.02) for one in PAPER_SHARES.values())


def test_a_table_of_nothing_kept_has_its_columns(tmp_path: Path) -> None:
    found = curated(tmp_path, ({0: (1, 1, 1)},)).table()
    assert len(found) == 0
    assert list(found)[:3] + list(found)[-2:] == ["kind", "scale", "n", "paper_4", "paper_5"]


def test_each_rater_is_counted_by_samples(tmp_path: Path) -> None:
    one = ({0: (1, 2, 5), 1: (5, 4, 4), 2: (4, None, None)}, {1: "New?", 3: "Newer?"})
    found = curated(tmp_path, one, ({3: (3, 3, 3)},), lowest=4)
    assert found.per_rater().to_dict("records") == [
        {
            "rater": "rater 0",
            "n": 3,
            "relevance": 10 / 3,
            "grounding": 3.0,
            "semantics": 4.5,
            "n_low": 1,
            "n_edited": 2,
        },
        {
            "rater": "rater 1",
            "n": 1,
            "relevance": 3.0,
            "grounding": 3.0,
            "semantics": 3.0,
            "n_low": 1,
            "n_edited": 0,
        },
    ]
    assert found.ratings.edits[["index", "sample", "rater", "edited"]].to_numpy().tolist() == [
        [1, "s1", "rater 0", "New?"],
        [3, "s3", "rater 0", "Newer?"],
    ]
    text = Elements(found.report(tmp_path / "r.html").read_text()).text
    assert "Per cent of the scores of kept samples" in text
    assert "samples with too low a score" in text
    not_kept = text[text.index("Not kept") : text.rindex("Edited questions")]
    assert [name in not_kept for name in ("s0", "s1", "s2", "s3")] == [True, False, True, True]


def test_kinds_that_the_paper_lacks_have_no_published_shares(tmp_path: Path) -> None:
    samples = to_rate(meta={})
    found = curated(tmp_path, ({0: GOOD},), samples=samples).table()
    assert set(found.kind) == {"all"}
    assert found.paper_5.isna().all()


def test_kept_samples_are_read_back_as_they_are(tmp_path: Path) -> None:
    held = to_rate(3)
    held[0].load().save(tmp_path / "file.png")
    samples = Samples([held[0].replace(image=str(tmp_path / "file.png")), *held[1:]], "mixed")
    edit = {1: "Is the liver “visible”?"}
    found = curated(tmp_path, ({0: GOOD, 1: GOOD, 2: (1, 1, 1)}, edit), samples=samples)
    path = found.save(tmp_path / "out" / "kept.jsonl")
    read = jsonl(path)
    assert [one.id for one in read] == ["s0", "s1"]
    assert [one.question for one in read] == ["Is organ 0 visible?", "Is the liver “visible”?"]
    assert read[0].fingerprint == samples[0].fingerprint
    assert np.array_equal(np.asarray(read[1].load()), np.asarray(samples[1].load()))
    assert read[1].boxes == samples[1].boxes
    assert read[1].meta["curation"]["question"] == "Is organ 1 visible?"
    text = path.read_text()
    assert str(tmp_path) not in text  # the folder can be moved
    found.save(path)
    assert path.read_text() == text


def test_masks_are_kept_and_written_as_boxes(tmp_path: Path) -> None:
    mask = np.zeros((30, 40), np.uint8)
    mask[5:9, 2:6] = 1
    samples = to_rate(1, masks=[mask])
    samples = samples.like([samples[0].replace(boxes=())])
    found = curated(tmp_path, ({0: GOOD},), samples=samples)
    assert len(found.samples[0].masks) == 1
    (box,) = jsonl(found.save(tmp_path / "kept.jsonl"))[0].boxes
    assert box.as_tuple() == (2, 5, 6, 9)


@pytest.mark.parametrize("listed", [False, True])
def test_a_video_is_kept_by_its_place(tmp_path: Path, listed: bool) -> None:
    (tmp_path / "frames").mkdir()
    files = [tmp_path / "frames" / f"{i}.png" for i in range(2)]
    for file in files:
        to_rate(1)[0].load().save(file)
    video = [str(file) for file in files] if listed else str(tmp_path / "frames")
    samples = Samples([Sample(video=video, fps=2, question="?", boxes=[(1, 1, 4, 4, 1)], id="v")], "a video")
    path = curated(tmp_path, ({0: GOOD},), samples=samples).save(tmp_path / "out" / "kept.jsonl")
    beside = ["../frames/0.png", "../frames/1.png"] if listed else "../frames"
    assert json.loads(path.read_text())["video"] == beside
    (read,) = jsonl(path)
    assert (read.fingerprint, read.boxes[0].frame) == (samples[0].fingerprint, 1)


def test_a_table_names_every_kind_in_order(tmp_path: Path) -> None:
    named = ["d", "b", "e", "c", "a"]
    samples = to_rate(5)
    samples = samples.like(
        [one.replace(meta={"kind": name}) for one, name in zip(samples, named, strict=True)]
    )
    found = curated(tmp_path, (dict.fromkeys(range(5), GOOD),), samples=samples).table()
    assert found.kind.tolist() == [kind for kind in "abcde" for _ in range(3)]


def test_a_page_without_edits_or_losses_has_no_lists(tmp_path: Path) -> None:
    page = curated(tmp_path, (dict.fromkeys(range(4), GOOD),)).report(tmp_path / "r.html").read_text()
    assert "One rater: there is nothing to compare." in page
    assert "<details" not in page
    text = Elements(page).text
    assert "4 samples (to rate), rated by rater 0." in text
    assert "A sample needs all three scores of at least 1 rater." in text


@pytest.mark.parametrize(("n", "said"), [(SHOWN, ""), (SHOWN + 2, "And 2 more.")])
def test_a_long_list_counts_what_it_leaves_out(n: int, said: str) -> None:
    found = str(_folded("all", pd.DataFrame({"a": [f"<{i}>" for i in range(n)]}), {"A": "a"}))
    assert (f"&lt;{SHOWN - 1}&gt;" in found, f"&lt;{SHOWN}&gt;" in found) == (True, False)
    assert found.count(" more.") == bool(said)
    assert said in found


def test_only_ratings_are_curated(unchecked: None) -> None:
    with pytest.raises(DataError, match=r"ratings are what read_ratings\(paths, samples\) returns; got list"):
        curate([])  # type: ignore[arg-type]


def test_nothing_kept_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no sample is kept: .*'dropped': 1"):
        curated(tmp_path, ({0: (1, 1, 1)},)).save(tmp_path / "kept.jsonl")
    with pytest.raises(RunError, match=r"expected path to end in \.jsonl"):
        curated(tmp_path, ({0: (5, 5, 5)},)).save(tmp_path / "scan.png")


def test_agreement_is_of_samples_that_two_rated(tmp_path: Path) -> None:
    one = {0: (5, 4, 5), 1: (4, 4, 5), 2: (3, 2, 5), 3: (5, 5, 5)}
    two = {0: (5, 5, 5), 1: (5, 4, 5), 2: (3, 3, 5)}
    three = {0: (4, 4, 5), 3: (5, 3, None)}
    found = curated(tmp_path, (one,), (two,), (three,)).ratings.agreement().set_index("scale")
    table = np.array([[5, 4, 3, 5], [5, 5, 3, np.nan], [4, np.nan, np.nan, 5]])
    kappas = [weighted_kappa(table[a], table[b], range(1, 6)) for a, b in ((0, 1), (0, 2), (1, 2))]
    row = found.loc["relevance"]
    assert row["alpha"] == pytest.approx(krippendorff_alpha(table))
    assert row["kappa"] == pytest.approx(np.nanmean(kappas))
    assert (row["n"], row["same"], row["n_pairs"]) == (
        4,
        pytest.approx(3 / 6),
        int(np.sum(~np.isnan(kappas))),
    )
    assert np.isnan(found.alpha["semantics"])  # everyone gave 5
    assert found.same["semantics"] == 1.0


def test_the_report_counts_escapes_and_shows_the_paper_apart(tmp_path: Path) -> None:
    samples = to_rate(meta={"kind": "localization"})
    samples = samples.like([samples[0].replace(id=ATTACK), *samples[1:]])
    edit = {0: f"{ATTACK}?"}
    files = [
        rating_file(tmp_path / "a.json", samples, ATTACK[:90], {0: (1, 5, 5), 1: GOOD, 2: GOOD}, edit),
        rating_file(tmp_path / "b.json", samples, "Ben", {1: (4, 5, 5)}),
    ]
    page = curate(read_ratings(files, samples)).report(tmp_path / "r.html").read_text()
    seen = Elements(re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL))
    assert ATTACK in seen.text
    assert not [tag for tag, _ in seen.tags if tag == "img"]
    assert "paper 5, %" in seen.text
    assert "99.46" in seen.text
    for number, word in (("2", "kept"), ("1", "dropped"), ("1", "unrated")):
        assert re.search(rf"<b>{number}</b> <span[^>]*>{word}:", page)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"lowest": 4}, "dropped if any score of any rater is below 4. A sample needs all three scores of at least "
         "1 rater."),
        ({"several": "median", "n_raters": 2}, "dropped if the median of its raters' scores on some scale is below 3. "
         "A sample needs all three scores of at least 2 raters."),
    ],
)  # fmt: skip
def test_the_report_says_the_rule(tmp_path: Path, rule: dict[str, Any], said: str) -> None:
    page = curated(tmp_path, ({0: GOOD},), ({0: GOOD},), **rule).report(tmp_path / "r.html").read_text()
    assert said in " ".join(Elements(page).text.split())


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"lowest": 6}, "lowest is a whole number of at least 1 and at most 5"),
        ({"several": "mean"}, "several is 'any' or 'median'"),
        ({"n_raters": 2}, "n_raters is a whole number of at least 1 and at most 1"),
        ({"questions": {"s9": "?"}}, r"questions name the samples \['s9'\], which were not rated"),
        ({"questions": {"s1": " "}}, "questions are a mapping of a sample's id to its question"),
        ({"questions": {"s1": "New?", "s2": ""}}, "questions are a mapping of a sample's id to its question"),
        ({"questions": ["s1"]}, "questions are a mapping of a sample's id to its question"),
        ({"questions": {"s1": "\0?"}}, "the question of s1 holds the control character"),
        ({"lowest": 0}, "lowest is a whole number of at least 1 and at most 5"),
        ({"n_raters": 0}, "n_raters is a whole number of at least 1 and at most 1"),
    ],
)
def test_rules_that_make_no_sense_are_refused(
    tmp_path: Path, unchecked: None, rule: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        curated(tmp_path, ({0: GOOD},), **rule)
