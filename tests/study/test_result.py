"""What every result counts and says, on cells whose tables are written by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from interp.data import Samples
from interp.errors import RunError, StudyError
from interp.run import UNDEFINED
from interp.study import Grid
from interp.study.result import GridResult, _frames, counted, differences, mean_text, stored_tokens, summarise
from tests.study.fake_study import Lengths
from tests.study.planted import sample, samples

ONE, TWO = samples(4, "one"), samples(3, "two", start=10)

pytestmark = pytest.mark.usefixtures("unchecked")


def cell(model: str, data: Samples, indices: list[int], seed: int = 3) -> Any:
    frame = pd.DataFrame({"index": indices, "group": [data.groups[i] for i in indices]})
    return SimpleNamespace(
        labels={"model": model, "data": data.name},
        key=(model, data.name),
        study=SimpleNamespace(data=data, seed=seed),
        frame=lambda _: frame,
    )


def result(*cells: Any) -> GridResult:
    study: Any = SimpleNamespace(title="A study")
    return GridResult(study, cells, Path("runs"))


def test_a_sample_of_two_models_counts_once() -> None:
    """Of the first data one model measured 0 and 1, the other 1 and 3; of the second one measured 0."""
    found = result(cell("a", ONE, [0, 1]), cell("b", ONE, [1, 3]), cell("a", TWO, [0]))
    assert found.n_samples == 3 + 1
    assert found.groups == {"patient-0", "patient-1", "patient-5"}
    assert found.axes == found.varied == ("model", "data")
    assert result(cell("a", ONE, [0]), cell("a", TWO, [0])).varied == ("data",)
    assert found.seed == 3


def test_cells_of_like_counts_share_a_line() -> None:
    """Samples 0 and 1 are of one patient, 2 of another."""
    first, second, third = cell("a", ONE, [0, 1]), cell("b", ONE, [2]), cell("a", TWO, [0, 1])
    assert counted(result(first)) == ["one: 2 samples in 1 group."]
    assert counted(result(first, third)) == ["Each: 2 samples in 1 group."]
    assert counted(result(first, second, third)) == [
        "a · one, a · two: 2 samples in 1 group.",
        "b · one: 1 sample in 1 group.",
    ]


@pytest.mark.parametrize(
    ("errors", "said"),
    [
        ([], "0 failures"),
        (["A"], "1 failure (A ×1)"),
        ([UNDEFINED] * 2, "0 failures, 2 undefined values"),
        (["A", UNDEFINED, "B", "A"], "3 failures (A ×2, B ×1), 1 undefined value"),
    ],
)
def test_undefined_values_are_counted_apart_from_failures(errors: list[str], said: str) -> None:
    made: Any = SimpleNamespace(failures=pd.DataFrame({"error": pd.Series(errors, dtype=object)}))
    assert GridResult.failure_counts(made) == said


def test_a_mean_has_its_interval_where_groups_are_enough() -> None:
    row = {"mean": 0.5, "low": 0.25, "high": 0.75}
    assert mean_text({**row, "note": ""}) == "0.500 [0.250, 0.750]"
    assert mean_text({**row, "note": "Only 3 groups"}) == "0.500"


def test_a_token_of_several_frames_ends_where_the_next_begins() -> None:
    found = _frames(np.array([0, 0, 2, 2, 4, 0]), 5)
    assert found.tolist() == [[0, 2], [0, 2], [2, 4], [2, 4], [4, 5], [0, 2]]


def test_differences_are_of_the_same_sample_and_baseline() -> None:
    """Own boxes 5 and 7, others' 1 and (undefined), the centre 2 and 6: two samples of one id."""
    rows = [
        (index, "same", f"g{index}", control, value)
        for control, values in {
            "boxes": (5, 7),
            "shuffled_boxes": (1, np.nan),
            "centre_prior": (2, 6),
        }.items()
        for index, value in enumerate(values)
    ]
    columns = ["index", "sample", "group", "control", "value"]
    scores = pd.DataFrame(rows, columns=columns).assign(data="d", layer=0, metric="ar")
    found = differences(scores, ["data"]).set_index("control")
    assert found["mean"].to_dict() == {"boxes − shuffled_boxes": 4, "boxes − centre_prior": 2}
    assert found.n.to_dict() == {"boxes − shuffled_boxes": 1, "boxes − centre_prior": 2}


def test_rows_without_a_label_have_a_mean_of_their_own() -> None:
    scores = pd.DataFrame(
        {
            "sample": list("abcd"),
            "group": list("abcd"),
            "part": ["x", None, None, "x"],
            "value": [1, 2, 4, np.nan],
        }
    )
    found = summarise(scores)
    assert found["mean"].tolist() == [1, 3]
    assert (found.n.tolist(), found.n_undefined.tolist(), found.n_groups.tolist()) == ([1, 2], [1, 0], [1, 2])


def test_a_joined_result_has_the_axes_of_its_parts(tmp_path: Path) -> None:
    one, two = (Lengths(data=samples(2, name)).run(tmp_path, progress=False) for name in ("one", "two"))
    other = Grid(Lengths(), data={"x": samples(2)}, unit=["letters"]).run(tmp_path, progress=False)
    assert (one.varied, GridResult.join([one, two]).varied) == ((), ("data",))
    with pytest.raises(StudyError, match=r"same axes; got \['model, data', 'model, data, unit'\]"):
        GridResult.join([one, other])
    wrong: Any
    for wrong in (["a"], "ab", ["a", 3], ["a", "b", "c"]):
        with pytest.raises(StudyError, match=r"one name per result, each once; got .* for 2 results"):
            GridResult.join([one, two], runs=wrong)
    for wrong in ([one, 3], 3):
        with pytest.raises(StudyError, match="expected the result of a study"):
            GridResult.join(wrong)
    named = GridResult.join([one, two], runs=("first", "second"))
    assert [cell.key for cell in named.cells] == [("first", "planted", "one"), ("second", "planted", "two")]
    assert named.folder == one.folder


def test_scores_name_the_sample_and_the_group_of_each_value(tmp_path: Path) -> None:
    """Questions of 5, 4 and 3 words; two samples have one id."""
    words = ("a b c d e", "a b c d", "a b c")
    data = Samples([sample(i, question=q, id=f"s{i // 2}", group=f"g{i}") for i, q in enumerate(words)])
    result = Lengths(data=data).run(tmp_path, progress=False)
    assert list(result.scores) == ["model", "data", "sample", "group", "what", "value"]
    rows = {tuple(row) for row in result.scores[["sample", "group", "value"]].to_numpy().tolist()}
    assert rows == {("s0", "g0", 5.0), ("s0", "g1", 4.0), ("s1", "g2", 3.0)}
    values = result.values.set_index("index")
    assert values.value.to_dict() == {0: 5.0, 1: 4.0, 2: 3.0}
    assert values.group.to_dict() == {0: "g0", 1: "g1", 2: "g2"}
    assert result.cost.forwards.tolist() == [2]  # batches of two
    assert list(result.cost)[:2] == ["model", "data"]


def test_a_result_tells_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Samples([sample(0), sample(1), sample(2, question="")], "three")
    grid = Grid(Lengths(data=data), unit=["words", "letters"]).run(tmp_path, progress=False)
    said = repr(grid).splitlines()
    assert said[0] == "Lengths of questions over unit: result of 2 runs"
    assert [" ".join(line.split()) for line in said[1:5]] == [
        "model planted", "data three", "unit words, letters",
        "measured 2 samples in 1 group, 2 failures (SampleError ×2)",
    ]  # fmt: skip
    assert str(grid.folder) in said[5]
    assert repr(Lengths(data=data).run(tmp_path, progress=False)).startswith(
        "Lengths of questions: result of 1 run\n"
    )
    shown = grid._repr_html_()
    assert "more rows" not in shown
    assert "letters" in shown
    monkeypatch.setattr("interp.study.result.SHOWN", 1)
    short = grid._repr_html_()
    assert "and 1 more rows: summary()" in short
    assert "  unit     words\n" in repr(grid)
    assert "<td>letters</td>" not in short


def test_a_result_that_cannot_be_read_still_has_a_name(unchecked: None) -> None:
    def lost(_: str) -> Any:
        raise RunError("the table is gone.")

    one = cell("a", ONE, [0])
    one.frame = lost
    assert "measured cannot be read: the table is gone." in " ".join(repr(result(one)).split())


def test_a_result_is_not_saved_but_exported(tmp_path: Path) -> None:
    found = Lengths(data=samples(2)).run(tmp_path, progress=False)
    with pytest.raises(StudyError, match=r"stored already, in .*Write result\.export"):
        found.save()
    written = found.export(tmp_path / "paper", formats=())
    assert sorted(path.name for path in written) == ["summary.csv", "summary.tex"]
    assert "note" not in pd.read_csv(tmp_path / "paper" / "summary.csv")
    with pytest.raises(StudyError, match="names none in `page`"):
        found.report()
    with pytest.raises(StudyError, match="level is between 0 and 1"):
        found.summary(95)


def test_a_stored_tokens_place_is_that_of_the_prompt(unchecked: None) -> None:
    """Two images; the second has one token."""
    frame = pd.DataFrame(
        {
            "index": [4, 7],
            "footprints": [[0.0] * 4, [0, 0, 5, 5, 5, 0, 9, 5, 0, 0, 3, 3]],
            "image_index": [[0], [0, 0, 1]],
        }
    )
    data = {4: None, 7: SimpleNamespace(video=None, sizes=[(9, 5), (3, 3)])}
    one: Any = SimpleNamespace(frame=lambda _: frame, study=SimpleNamespace(data=data))
    found = stored_tokens(one, 7)
    assert found.footprints.tolist() == [[0, 0, 5, 5], [5, 0, 9, 5], [0, 0, 3, 3]]
    assert (found.n, found.image_index.tolist(), found.sizes) == (3, [0, 0, 1], ((9, 5), (3, 3)))


def test_summaries_keep_the_order_of_measuring() -> None:
    rows = [(layer, metric, "g", "s", 1.0) for layer in (2, 0) for metric in ("kl", "ar")]
    found = summarise(pd.DataFrame(rows, columns=["layer", "metric", "group", "sample", "value"]))
    assert list(zip(found.layer, found.metric, strict=True)) == [(2, "kl"), (2, "ar"), (0, "kl"), (0, "ar")]
    assert found.note.str.startswith("Only 1 group").all()
