from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from interp.data import Samples
from interp.errors import StudyError
from interp.stats import holm, paired, paired_test, unpaired, unpaired_test
from interp.study import Grid, Result
from interp.study.layer_choice import LayerChoice
from interp.study.size_matching import area_frame
from tests.study.planted import Model, Planted, sample, samples, sweep


def boxed(n: int, name: str, start: int, width: Callable[[int], int], groups: int = 24) -> Samples:
    """Samples with a box of `width(i)` tokens in the corner."""
    return Samples(
        [
            sample(start + i, boxes=[(0, 0, 20 * width(i), 20)], group=f"{name}-{i % groups}")
            for i in range(n)
        ],
        name,
    )


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Two data sets of 24 and 4 groups, seen by an indicator that looks (3×) and one that hardly does."""
    data = {
        "many": boxed(48, "many", 0, lambda i: 1 + i % 5),
        "few": boxed(24, "few", 100, lambda i: 1 + i % 2, groups=4),
    }
    looks = {"good": Planted((0.0, 3.0)), "weak": Planted((0.0, 0.5))}
    grid = Grid(sweep(metrics=("ar", "kl"), batch=8), data=data, indicator=looks)
    return grid.run(tmp_path_factory.mktemp("runs"), progress=False)


def values(result: Result, metric: str, layer: int, **labels: str) -> tuple[np.ndarray, np.ndarray]:
    scores = result.scores
    keep = (scores.metric == metric) & (scores.layer == layer) & (scores.control == "boxes")
    for axis, label in labels.items():
        keep &= scores[axis] == label
    return scores[keep].value.to_numpy(), scores[keep].group.to_numpy(object)


def test_cells_of_the_same_samples_are_paired_by_sample(result: Result) -> None:
    table = result.compare("ar", layer=1, over="indicator").set_index("where")
    assert list(table.index) == ["many", "few"]
    row = table.loc["many"]
    a, groups = values(result, "ar", 1, data="many", indicator="good")
    b, _ = values(result, "ar", 1, data="many", indicator="weak")
    expected = paired(a, b, groups)
    assert (row.over, row.a, row.b, row.paired, row.left_out) == ("indicator", "good", "weak", "sample", 0)
    assert (row.difference, row.low, row.high) == pytest.approx((expected.mean, expected.low, expected.high))
    assert (row.n, row.n_groups) == (48, 24)
    assert row.mean_a - row.mean_b == pytest.approx(row.difference)
    assert row.p == paired_test(a, b, groups).p
    assert row.p < 0.001
    assert np.isnan(row.matched)  # the same boxes


def test_cells_of_other_samples_are_compared_as_sets_of_groups(result: Result) -> None:
    table = result.compare("kl", layer=0, over="data")
    row = table.iloc[0]
    a, groups_a = values(result, "kl", 0, data="many", indicator="good")
    b, groups_b = values(result, "kl", 0, data="few", indicator="good")
    expected = unpaired(a, b, groups_a, groups_b)
    assert (row.a, row.b, row["where"], row.paired) == ("many", "few", "good", "none")
    assert (row.difference, row.low, row.high) == pytest.approx((expected.mean, expected.low, expected.high))
    assert (row.n, row.n_groups) == (72, 4)
    assert (row.mean_a, row.mean_b) == pytest.approx((a.mean(), b.mean()))
    assert row.p == unpaired_test(a, b, groups_a, groups_b).p


def test_like_box_sizes_undo_what_sizes_faked(result: Result) -> None:
    row = result.compare("kl", layer=0, over="data").iloc[0]  # layer 0 attends evenly
    assert row.difference < -0.4
    assert row.matched == pytest.approx(0, abs=1e-12)
    assert row.n_matched == 20  # "many" has 10 boxes of 1 token and 10 of 2
    assert (row.area_a, row.area_b) == pytest.approx((0.15, 0.075))
    assert "KL divergence (nats) depends on the boxes' size (here they cover 15.0 % and 7.5 %" in row.note
    assert "depends on" not in result.compare("kl", layer=0, over="indicator").note[0]


def test_few_groups_carry_the_notes(result: Result) -> None:
    notes = result.compare("ar", layer=1, over="indicator").set_index("where").note
    assert notes["many"] == ""
    assert notes["few"].startswith("Only 4 groups: fewer than 20")
    assert "smallest p this test can give is 0.12" in notes["few"]


def test_p_is_adjusted_over_the_table(result: Result) -> None:
    for over, n in (("data", 2), ("indicator", 2), (None, 6)):
        table = result.compare("ar", layer=1, over=over)
        assert len(table) == n
        assert table.p_holm.to_numpy() == pytest.approx(holm(table.p))
        assert (table.p_holm >= table.p).all()
        assert table.p_holm.max() > table.p.min()


def test_all_pairs_name_what_differs(result: Result) -> None:
    table = result.compare("ar", layer=1)
    named = {(row.over, row["where"], row.a, row.b) for _, row in table.iterrows()}
    assert ("data · indicator", "", "many · good", "few · weak") in named
    assert ("data", "weak", "many", "few") in named


def test_groups_are_shown_one_by_one(result: Result) -> None:
    table = result.compare_groups("ar", layer=1, over="indicator")
    assert set(table.over) == {"indicator"}
    few = table[table["where"] == "few"].set_index("group")
    assert len(few) == 4
    a, groups = values(result, "ar", 1, data="few", indicator="good")
    b, _ = values(result, "ar", 1, data="few", indicator="weak")
    assert few.loc["few-2", "difference"] == pytest.approx((a - b)[groups == "few-2"].mean())
    apart = result.compare_groups("ar", layer=1, over="data")
    one = apart[(apart["where"] == "good") & (apart.group == "few-0")].iloc[0]
    assert (one.n_a, one.n_b) == (0, 6)
    assert np.isnan(one.difference)


def test_models_are_compared_each_at_its_own_layer(tmp_path: Path) -> None:
    models = {"one": Model(), "two": Model(fingerprint="e" * 64)}
    result = Grid(sweep(data=samples(12), batch=4), model=models).run(tmp_path, progress=False)
    choice = LayerChoice("ar", {"one": 1, "two": 2}, frozenset())
    row = result.compare("ar", layer=choice, over="model").iloc[0]
    assert (row.layer_a, row.layer_b, row.paired) == (1, 2, "sample")
    assert row.difference == pytest.approx(4 * 20 / 26 - 2 * 20 / 22)  # gains 3 and 1 over 2 of 20 tokens


def over_data(tmp_path: Path, a: Samples, b: Samples) -> Result:
    return Grid(sweep(metrics=("ar",), batch=4), data={"a": a, "b": b}).run(tmp_path, progress=False)


def test_a_sample_is_the_same_by_content_not_by_name(tmp_path: Path) -> None:
    a = Samples([sample(i, id=f"row {i}") for i in range(8)])
    b = Samples([sample(40 + i, id=f"row {i}", group=f"other {i}") for i in range(8)])
    assert over_data(tmp_path, a, b).compare("ar", layer=1).paired.tolist() == ["none"]
    same = over_data(tmp_path, a, a[2:]).compare("ar", layer=1).iloc[0]
    assert (same.paired, same.n, same.left_out) == ("sample", 6, 2)
    assert (same.mean_a, same.difference) == (same.mean_b, 0)  # of the six that both have


def test_half_of_the_smaller_cell_is_enough_to_pair(tmp_path: Path) -> None:
    row = over_data(tmp_path, samples(8), samples(8, start=4)).compare("ar", layer=1).iloc[0]
    assert (row.paired, row.n, row.left_out) == ("sample", 4, 8)


@pytest.mark.parametrize(("metric", "over"), [("ar", "indicator"), ("kl", "data")])
def test_a_lower_level_gives_narrower_intervals(result: Result, metric: str, over: str) -> None:
    wide, half = (result.compare(metric, layer=1, over=over, level=one).iloc[0] for one in (0.95, 0.5))
    assert half.high - half.low < wide.high - wide.low
    assert half.difference == wide.difference


def test_repeated_samples_are_paired_once_each(tmp_path: Path) -> None:
    twice = samples(4) + samples(4)
    row = over_data(tmp_path, twice, twice[:7]).compare("ar", layer=1).iloc[0]
    assert (row.paired, row.n, row.left_out) == ("sample", 7, 1)


def test_other_questions_on_the_same_groups_are_paired_by_group(tmp_path: Path) -> None:
    a, b = boxed(12, "x", 0, lambda i: 1 + i % 4, groups=6), boxed(18, "x", 50, lambda i: 1 + i % 2, groups=6)
    result = over_data(tmp_path, a, b)
    row = result.compare("ar", layer=1).iloc[0]
    means = [
        np.array([v[g == f"x-{k}"].mean() for k in range(6)])
        for v, g in (values(result, "ar", 1, data=name) for name in "ab")
    ]
    assert (row.paired, row.n, row.n_groups, row.left_out) == ("group", 30, 6, 0)
    assert row.difference == pytest.approx((means[0] - means[1]).mean())
    assert row.p == paired_test(*means, None).p


def test_shared_groups_are_left_out_of_unpaired_comparisons(tmp_path: Path) -> None:
    a = boxed(24, "a", 0, lambda i: 1 + i % 3)
    shared = Samples([sample(90 + i, group="a-0") for i in range(2)])
    b = boxed(22, "b", 50, lambda i: 1 + i % 3) + shared
    row = over_data(tmp_path, a, b).compare("ar", layer=1).iloc[0]
    assert (row.paired, row.left_out, row.n) == ("none", 1 + 2, 23 + 22)


def test_values_that_are_undefined_take_no_part(tmp_path: Path) -> None:
    grid = Grid(
        sweep(data=samples(12), metrics=("ar",), batch=4),
        indicator={"whole": Planted(), "holed": Planted(silent="s3")},  # s3's map is zero at layer 2
    )
    row = grid.run(tmp_path, progress=False).compare("ar", layer=2).iloc[0]
    assert (row.paired, row.n, row.left_out) == ("sample", 11, 1)


def test_what_cannot_be_compared_is_refused(result: Result, tmp_path: Path) -> None:
    with pytest.raises(
        StudyError, match="over is one of the axes model, data, indicator, or None; got 'seed'"
    ):
        result.compare("ar", layer=1, over="seed")
    with pytest.raises(StudyError, match=r"no two cells with ar differ in it alone\. Vary an axis"):
        result.compare("ar", layer=1, over="model")
    with pytest.raises(StudyError, match="metrics measured, ar, kl; got 'js'"):
        result.compare("js", layer=1)
    with pytest.raises(StudyError, match="nothing to compare: no two cells with ar differ at all"):
        sweep(data=samples(4)).run(tmp_path, progress=False).compare("ar", layer=1)


def test_one_more_than_half_is_not_needed_but_half_is(tmp_path: Path) -> None:
    """Of 8 and 9 samples 4 are shared, which is half of the smaller; of 9 and 9 it is less."""
    a = Samples([sample(i, group=f"a{i}") for i in range(9)])
    b = Samples([sample(5 + i, group=f"b{i}" if i > 3 else f"a{5 + i}") for i in range(9)])
    row = over_data(tmp_path, a[1:], b).compare("ar", layer=1).iloc[0]
    assert (row.paired, row.n, row.left_out) == ("sample", 4, 8 + 9 - 2 * 4)
    less = over_data(tmp_path, a, b).compare("ar", layer=1).iloc[0]
    assert (less.paired, less.n, less.left_out) == ("none", 5 + 5, 8)


def test_group_pairs_leave_out_groups_of_one_side(tmp_path: Path) -> None:
    """Two groups of three samples and two are shared; each side has one more, of one sample and of four."""
    a = Samples([sample(i, group=group) for i, group in enumerate("xxxyyyz")])
    b = Samples([sample(40 + i, group=group) for i, group in enumerate("xxyywwww")])
    result = over_data(tmp_path, a, b)
    row = result.compare("ar", layer=1).iloc[0]
    assert (row.paired, row.n, row.n_groups, row.left_out) == ("group", 6 + 4, 2, 1 + 4)
    assert np.isfinite(row.matched)  # the sizes are compared of all samples, whatever is paired
    table = result.compare_groups("ar", layer=1).set_index("group")
    assert table[["n_a", "n_b"]].to_dict("index") == {
        "x": {"n_a": 3, "n_b": 2}, "y": {"n_a": 3, "n_b": 2}, "z": {"n_a": 1, "n_b": 0}, "w": {"n_a": 0, "n_b": 4},
    }  # fmt: skip
    assert table.n_a.dtype == table.n_b.dtype == int
    assert np.isnan(table.loc[["z", "w"], "difference"]).all()
    assert list(table.reset_index())[:4] == ["group", "over", "where", "a"]


def test_differences_are_the_first_minus_the_second(result: Result) -> None:
    for over in ("indicator", "data"):
        table = result.compare("ar", layer=1, over=over)
        assert table.difference.to_numpy() == pytest.approx((table.mean_a - table.mean_b).to_numpy())
        assert (table.metric == "ar").all()
        assert list(table)[list(table).index("p") + 1] == "p_holm"
    groups = result.compare_groups("ar", layer=1, over="indicator")
    assert groups.difference.to_numpy() == pytest.approx((groups.mean_a - groups.mean_b).to_numpy())
    assert (groups.difference > 0).all()  # "good" looks more than "weak"


def test_sizes_that_do_not_overlap_leave_no_matched_difference(tmp_path: Path) -> None:
    a, b = boxed(6, "a", 0, lambda _: 1), boxed(6, "b", 40, lambda _: 5)
    row = over_data(tmp_path, a, b).compare("ar", layer=1).iloc[0]
    assert np.isnan([row.matched, row.matched_low, row.matched_high]).all()
    assert row.n_matched == 0
    assert (row.area_a, row.area_b) == pytest.approx((0.05, 0.25))
    assert "depends on the boxes' size" not in row.note  # a uniform map's attention ratio is 1 for any box


def test_the_studys_seed_decides_intervals_and_permutations(
    result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores drawn at random; the two indicators are paired, the two data sets are not."""
    frame = area_frame(result, "ar", 1)
    drawn = frame.assign(value=np.random.default_rng(0).normal(size=len(frame)))
    monkeypatch.setattr(sys.modules["interp.study.compare"], "area_frame", lambda *_: drawn)
    for over in ("indicator", "data"):
        found = []
        for seed in (0, 1):
            cells = tuple(replace(cell, study=cell.study.replace(seed=seed)) for cell in result.cells)
            found.append(Result(result.study, cells, result.folder).compare("ar", layer=1, over=over))
        one, two = found
        assert one.difference.equals(two.difference)
        many = one.n_groups >= 20 if over == "indicator" else one.n_groups > 0
        for column in ("low", "p") if over == "indicator" else ("low", "p", "matched"):
            assert (one[column] != two[column])[many].all(), (over, column)
