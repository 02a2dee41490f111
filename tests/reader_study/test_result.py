"""What readers preferred, against values worked by hand; and files that do not belong together."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interp.errors import DataError, StudyError
from interp.reader_study import Key, ReaderResult, read_key, read_study, write_pack
from interp.reader_study.result import _crossed_note, readers_figure
from interp.report import answer_form
from interp.stats import bootstrap, krippendorff_alpha, two_way_share
from tests.reader_study.cases import answer_file, cases, maps, prefers
from tests.report.hostile_samples import ATTACK, Elements

OPTIONS: dict[str, Any] = {"n_duplicates": 2, "seed": 3, "side": 64, "ties": True}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Key]:
    """A folder with a page and a key of 6 cases, 2 of them shown twice, and the key."""
    folder = tmp_path_factory.mktemp("study")
    write_pack(
        cases(6),
        {"old": maps(6, 1), "new": maps(6, 2)},
        page=folder / "page.html",
        key=folder / "key.json",
        **OPTIONS,
    )
    return folder, read_key(folder / "key.json")


def answered(made: tuple[Path, Key], folder: Path) -> ReaderResult:
    """Three readers: one is all for "new", one for "old" but for a case, one says tie, new, old and nothing more."""
    key = made[1]
    first = [one.item for one in key.items if one.duplicate_of is None]
    new, old = prefers(key, "new"), prefers(key, "old")
    files = [
        answer_file(folder / "a.json", key, "Ana", new),
        answer_file(folder / "b.json", key, "Ben", old | {first[0]: new[first[0]]}),
        answer_file(
            folder / "c.json", key, "Cem", {first[0]: "tie", first[1]: new[first[1]], first[2]: old[first[2]]}
        ),
    ]
    return read_study(made[0] / "key.json", files, page=made[0] / "page.html")


def test_shares_counts_and_duplicates_by_hand(made: tuple[Path, Key], tmp_path: Path) -> None:
    result = answered(made, tmp_path)
    assert result.key.conditions == ("new", "old")
    rows = result.per_reader().set_index("reader")
    assert rows.n.to_dict() == {"Ana": 6, "Ben": 6, "Cem": 3}
    assert rows["new"].to_dict() == {"Ana": 6, "Ben": 1, "Cem": 1}
    assert rows["old"].to_dict() == {"Ana": 0, "Ben": 5, "Cem": 1}
    assert rows.ties.to_dict() == {"Ana": 0, "Ben": 0, "Cem": 1}
    assert rows.share.to_dict() == pytest.approx({"Ana": 1.0, "Ben": 1 / 6, "Cem": 0.5})
    assert rows.n_duplicates.to_dict() == {"Ana": 2, "Ben": 2, "Cem": 0}
    first = [one.item for one in result.key.items if one.duplicate_of is None]
    ben = (
        1 - sum(one.duplicate_of == first[0] for one in result.key.items) / 2
    )  # he answered that case otherwise again
    assert rows.same.to_dict() == pytest.approx({"Ana": 1.0, "Ben": ben, "Cem": np.nan}, nan_ok=True)
    found = result.preference()
    assert found.share.tolist() == pytest.approx([8.5 / 15, 8.5 / 15, 6.5 / 15, 6.5 / 15])
    assert found.n.tolist() == [15] * 4
    assert found.note.str.contains("Only 3 readers, fewer than 20").tolist() == [True, False, True, False]
    assert found.note.str.contains("Only 6 groups").all()


def test_intervals_and_alpha_are_of_the_same_table(made: tuple[Path, Key], tmp_path: Path) -> None:
    result = answered(made, tmp_path)
    groups = {one.item: one.group for one in result.key.items}
    first = [one.item for one in result.key.items if one.duplicate_of is None]
    table = np.array([[1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0], [0.5, 1, 0, np.nan, np.nan, np.nan]])
    readers, columns = np.indices(table.shape)
    interval = two_way_share(table.ravel(), readers.ravel(), [groups[first[c]] for c in columns.ravel()])
    row = result.preference().iloc[0]
    assert (row.low, row.high) == pytest.approx((interval.low, interval.high))
    agreement = result.agreement()
    assert agreement["n"] == 6
    assert agreement["same"] == pytest.approx((1 + 0 + 1 + 4 * 0 + 1) / (6 + 3 + 3))
    assert agreement["alpha"] == pytest.approx(krippendorff_alpha(table, level="ordinal"))


def test_intervals_are_over_groups_of_cases(made: tuple[Path, Key], tmp_path: Path) -> None:
    """Two cases of each patient: what varies is the patient, not the case."""
    items = tuple(replace(one, group=f"patient {one.case // 2}") for one in made[1].items)
    new, old = prefers(made[1], "new"), prefers(made[1], "old")
    sides = {one.item: (new if one.case < 2 else old)[one.item] for one in items}  # of one patient alone
    files = [answer_file(tmp_path / name, made[1], name, sides) for name in "abc"]
    result = ReaderResult(replace(made[1], items=items), read_study(made[1], files).answers)
    values, groups = result.first.value.to_numpy(), result.first.group
    assert groups.nunique() == 3
    both, cases_alone = two_way_share(values, result.first.reader, groups), bootstrap(values, groups)
    found = result.preference()
    assert found.n_groups.tolist() == [3] * 4
    assert found.low[:2].tolist() == pytest.approx([both.low, cases_alone.low])
    assert found.high[:2].tolist() == pytest.approx([both.high, cases_alone.high])
    assert found.note.str.contains("Only 3 groups").all()
    for row in result.per_reader().itertuples():
        own = result.first.reader == row.reader
        held = bootstrap(values[own], groups[own])
        assert (row.low, row.high) == pytest.approx((held.low, held.high), nan_ok=True)


def test_a_side_preferred_throughout_shows(made: tuple[Path, Key], tmp_path: Path) -> None:
    key = made[1]
    file = answer_file(tmp_path / "a.json", key, "lazy", {one.item: "A" for one in key.items})
    row = read_study(key, [file]).per_reader().iloc[0]
    assert row.side_a == 1.0
    assert row.same == 0.0  # the sides of duplicates are exchanged
    assert row.share == pytest.approx(0.5)


def test_ties_do_not_count_for_a_side(made: tuple[Path, Key], tmp_path: Path) -> None:
    first = [one.item for one in made[1].items if one.duplicate_of is None]
    sides = dict(zip(first, ("tie", "tie", "A", "A", "A", "B"), strict=True))
    row = read_study(made[1], [answer_file(tmp_path / "a.json", made[1], "Ana", sides)]).per_reader().iloc[0]
    assert (row.ties, row.side_a) == (2, 3 / 4)


def test_a_duplicate_counts_only_with_its_first_showing(made: tuple[Path, Key], tmp_path: Path) -> None:
    twice = [one for one in made[1].items if one.duplicate_of is not None]
    sides = {one.item: "A" for one in made[1].items if one.item != twice[0].duplicate_of}
    found = read_study(made[1], [answer_file(tmp_path / "a.json", made[1], "Ana", sides)])
    (row,) = found.duplicates.to_dict("records")
    assert (row["sample"], row["same"]) == (
        twice[1].sample,
        False,
    )  # A each time, while the sides were exchanged
    assert (row["first"], row["again"]) == (twice[1].b, twice[1].a)
    assert found.per_reader().n_duplicates.tolist() == [1]
    assert len(found.first) == 5


def test_the_figure_has_a_point_and_an_interval_for_each_reader(
    made: tuple[Path, Key], tmp_path: Path
) -> None:
    result = answered(made, tmp_path)
    readers, preference = result.per_reader(), result.preference()
    (points,) = readers_figure(readers, preference, "new").data
    assert list(points.y) == ["Ana", "Ben", "Cem", "all readers"]
    assert list(points.x) == pytest.approx([100, 100 / 6, 50, 850 / 15])
    row = preference.iloc[0]
    assert points.error_x.array[-1] == pytest.approx(100 * (row.high - row.share))
    assert points.error_x.arrayminus[-1] == pytest.approx(100 * (row.share - row.low))
    alone = read_study(made[1], [answer_file(tmp_path / "d.json", made[1], "Dee", prefers(made[1], "new"))])
    (points,) = readers_figure(alone.per_reader(), alone.preference(), "new").data
    assert (points.error_x.array[-1], points.error_x.arrayminus[-1]) == (0, 0)  # no interval over readers
    page = result.report(tmp_path / "page.html").read_text()
    assert "all readers" in page


def test_one_reader_gives_no_interval_over_readers(made: tuple[Path, Key], tmp_path: Path) -> None:
    result = read_study(made[1], [answer_file(tmp_path / "a.json", made[1], "Ana", prefers(made[1], "new"))])
    row = result.preference().iloc[0]
    assert np.isnan(row.low)
    assert row.note == "One reader: nothing can be said about other readers."
    page = result.report(tmp_path / "r.html").read_text()
    assert "One reader: there is nothing to compare." in page


def test_the_report_escapes_names_and_marks_its_note(tmp_path: Path) -> None:
    folder = tmp_path
    write_pack(
        cases(4), {ATTACK: maps(4, 1), "new": maps(4, 2)}, page=folder / "page.html", key=folder / "key.json", seed=1,
        side=64,
    )  # fmt: skip
    key = read_key(folder / "key.json")
    files = [
        answer_file(folder / "a.json", key, ATTACK[:90], prefers(key, "new")),
        answer_file(folder / "b.json", key, "Ben", prefers(key, ATTACK)),
    ]
    page = read_study(key, files).report(folder / "r.html", note=f"Simulated. {ATTACK}").read_text()
    seen = Elements(re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL))
    assert "Simulated." in seen.text
    assert ATTACK in seen.text
    assert not [tag for tag, attributes in seen.tags if tag == "img"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"form": "other"}, "form is 'other', but these samples need"),
        ({"format": "interp ratings"}, "format is 'interp ratings'"),
        ({"version": 2}, "version is 2"),
        ({"version": True}, "version is True"),
        ({"by": " "}, "by is empty"),
        ({"by": 5}, "by is a text of at most 100 characters"),
        ({"extra": 1}, "has the fields"),
        ({"answers": {}}, "answers is a list"),
        ({"answers": [1]}, "answer 0: expected an object"),
        ({"answers": [{"item": "99", "values": {}}]}, "item '99' is not on the page"),
        ({"answers": [{"item": 1, "values": {}}]}, "item 1 is not on the page"),
        ({"answers": [{"item": ["1"], "values": {}}]}, r"item \['1'\] is not on the page"),
        ({"answers": [{"item": "1", "values": {}}] * 2}, "answer 1: item '1' is answered twice"),
        ({"answers": [{"item": "1", "values": {"choice": "C"}}]}, "'choice' is 'C'; expected one of"),
        ({"answers": [{"item": "1", "values": {"choice": ["A"]}}]}, "'choice' is"),
        ({"answers": [{"item": "1", "values": {"taste": "A"}}]}, "'taste' is 'A'"),
        ({"answers": [{"item": "1", "values": []}]}, "values is an object"),
        ({"answers": [{"item": "1", "values": {}, "text": "new"}]}, "answer 0 has the fields"),
        ({"answers": [{"item": "1", "values": {}, "comment": "\ud800"}]}, "lone surrogate"),
        ({"answers": []}, "the readers answered no case"),
    ],
)
def test_files_of_answers_are_checked(
    made: tuple[Path, Key], tmp_path: Path, changes: Any, message: str
) -> None:
    file = answer_file(tmp_path / "a.json", made[1], "Ana", {"1": "A"}, **changes)
    with pytest.raises(DataError, match=message):
        read_study(made[1], [file])


def test_names_and_comments_are_kept_up_to_a_length(made: tuple[Path, Key], tmp_path: Path) -> None:
    def read(**changes: Any) -> Any:
        return read_study(made[1], [answer_file(tmp_path / "a.json", made[1], "Ana", {"1": "A"}, **changes)])

    assert read(by="  Ana \t B ").answers[0].by == "Ana B"
    assert read(by="x" * 100).answers[0].by == "x" * 100
    with pytest.raises(DataError, match="by is a text of at most 100 characters"):
        read(by="x" * 101)
    one = {"item": "1", "values": {"choice": "A"}}
    (found,) = read(answers=[{**one, "comment": "y" * 5000}, {"item": "2", "values": {}}]).answers
    assert (found.comments, found.texts) == ({"1": "y" * 5000}, {})
    assert found.values == {"1": {"choice": "A"}, "2": {}}
    assert found.path == tmp_path / "a.json"
    with pytest.raises(DataError, match="answer 0, comment is a text of at most 5,000 characters"):
        read(answers=[{**one, "comment": "y" * 5001}])
    with pytest.raises(DataError, match="files of answers are a list of paths"):
        read_study(made[1], [])


def test_a_file_of_answers_has_a_largest_size(
    made: tuple[Path, Key], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = answer_file(tmp_path / "a.json", made[1], "Ana", {"1": "A"})
    size = file.stat().st_size
    monkeypatch.setattr(answer_form, "MOST_BYTES", size)
    assert len(read_study(made[1], [file]).frame) == 1
    monkeypatch.setattr(answer_form, "MOST_BYTES", size - 1)
    with pytest.raises(DataError, match=f"has {size} bytes; a file of answers has at most {size - 1}"):
        read_study(made[1], [file])


def test_two_files_by_one_reader_are_refused(made: tuple[Path, Key], tmp_path: Path, unchecked: None) -> None:
    files = [
        answer_file(tmp_path / name, made[1], by, {"1": "A"}) for name, by in (("a", "Ana"), ("b", " ANA "))
    ]
    with pytest.raises(DataError, match="are both by"):
        read_study(made[1], files)
    for alone in (files[0], str(files[0])):
        with pytest.raises(DataError, match=r"Write \[path\]"):
            read_study(made[1], alone)  # pyright: ignore[reportArgumentType]


def test_ties_are_refused_where_they_were_not_offered(tmp_path: Path) -> None:
    write_pack(
        cases(4),
        {"old": maps(4, 1), "new": maps(4, 2)},
        page=tmp_path / "p.html",
        key=tmp_path / "k.json",
        seed=1,
        side=64,
    )
    key = read_key(tmp_path / "k.json")
    with pytest.raises(DataError, match="'choice' is 'tie'"):
        read_study(key, [answer_file(tmp_path / "a.json", key, "Ana", {"1": "tie"})])


def test_a_key_of_another_page_is_refused(made: tuple[Path, Key], tmp_path: Path) -> None:
    write_pack(
        cases(6), {"old": maps(6, 1), "new": maps(6, 2)}, page=tmp_path / "page.html", key=tmp_path / "key.json",
        **OPTIONS | {"seed": 4},
    )  # fmt: skip
    file = answer_file(tmp_path / "a.json", made[1], "Ana", {"1": "A"})
    with pytest.raises(DataError, match="is not the key of"):
        read_study(made[0] / "key.json", [file], page=tmp_path / "page.html")
    with pytest.raises(DataError, match="but these samples need"):
        read_study(tmp_path / "key.json", [file])


def chained(key: dict[str, Any]) -> None:
    """Makes the second duplicate one of the first, which is a duplicate itself."""
    one, other = (item for item in key["items"] if item["duplicate_of"] is not None)
    other.update(case=one["case"], duplicate_of=one["item"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda key: key.pop("seed"), "is not a key: expected the fields"),
        (lambda key: key.update(ties=0), "is not a key: expected the fields"),
        (lambda key: key.update(seed=True), "is not a key: expected the fields"),
        (lambda key: key.update(format="x"), "is 'x', version 1; expected 'interp reader study key'"),
        (lambda key: key.update(conditions=["new"]), "conditions are two names"),
        (lambda key: key.update(conditions=["new", "new"]), "a key has two conditions"),
        (lambda key: key.update(items=[]), "a key has two conditions, and items that differ"),
        (lambda key: key["items"].append(key["items"][0]), "9 items, 8 different"),
        (lambda key: key["items"][0].update(a="best"), "names other conditions"),
        (lambda key: key["items"][0].update(duplicate_of="77"), "or is no duplicate"),
        (lambda key: key["items"][0].update(case="0"), "is not a key"),
        (lambda key: key.update(version=2), "version 2; expected"),
        (lambda key: key.update(version=True), "is not a key: expected the fields"),
        (lambda key: key.update(extra=1), "is not a key: expected the fields"),
        (lambda key: key["items"][0].update(sample="\0"), "is not a key: "),
        (lambda key: key.update(conditions=["new", 3]), "conditions are two names"),
        (chained, "or is no duplicate"),
        (lambda key: key["items"].append(5), "item 8 is an object"),
    ],
)
def test_damaged_keys_are_refused(made: tuple[Path, Key], tmp_path: Path, change: Any, message: str) -> None:
    record = json.loads((made[0] / "key.json").read_text())
    change(record)
    (tmp_path / "key.json").write_text(json.dumps(record))
    with pytest.raises(DataError, match=message):
        read_key(tmp_path / "key.json")


def test_the_report_says_who_compared_what(made: tuple[Path, Key], tmp_path: Path) -> None:
    page = answered(made, tmp_path).report(tmp_path / "r.html").read_text()
    text = Elements(re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)).text
    assert "3 readers compared “new” and “old” on 6 cases, 2 of them shown twice." in text
    assert "Ties were allowed." in text
    assert "Share for “new” of each reader" in text
    (figures,) = re.findall(r'id="figures">(.*?)</script>', page, flags=re.DOTALL)
    assert json.loads(figures)["figure-readers"]["layout"]["xaxis"]["title"]["text"] == "answers for “new”, %"
    heads = re.findall(r"<b>(\d+ %)</b> <span[^>]*>for “(new|old)” \[\d+, \d+\]", page)
    assert heads == [("57 %", "new"), ("43 %", "old")]  # 8.5 and 6.5 of 15
    assert re.search(r"α, on 6 cases<", page)
    assert 'class="note' not in page


@pytest.mark.parametrize("frame", ["preference", "per_reader"])
def test_a_higher_level_gives_wider_intervals(made: tuple[Path, Key], tmp_path: Path, frame: str) -> None:
    first = [one.item for one in made[1].items if one.duplicate_of is None]
    new, old = prefers(made[1], "new"), prefers(made[1], "old")
    files = []
    for name, n in (("a", 2), ("b", 3), ("c", 4)):
        sides = {item: (new if place < n else old)[item] for place, item in enumerate(first)}
        files.append(answer_file(tmp_path / name, made[1], name, sides))
    result = read_study(made[1], files)
    narrow, wide = (getattr(result, frame)(level=level) for level in (0.5, 0.99))
    assert (wide.low < narrow.low).all()
    assert (wide.high > narrow.high).all()


@pytest.mark.parametrize(
    ("n_readers", "n_groups", "few_readers", "few_groups"),
    [(19, 20, True, False), (20, 20, False, False), (20, 19, False, True), (19, 19, True, True)],
)
def test_a_claim_needs_20_readers_and_20_groups(
    n_readers: int, n_groups: int, few_readers: bool, few_groups: bool
) -> None:
    note = _crossed_note(n_readers, n_groups)
    assert ("Only 19 readers" in note, "Only 19 groups" in note) == (few_readers, few_groups)
    assert bool(note) == (few_readers or few_groups)


def test_a_level_outside_0_to_1_is_refused(made: tuple[Path, Key], tmp_path: Path) -> None:
    result = answered(made, tmp_path)
    for call in (result.preference, result.per_reader):
        with pytest.raises(StudyError, match=r"level is between 0 and 1, such as 0\.95"):
            call(level=95)
