from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from interp.data import Samples
from interp.errors import StudyError
from interp.study import Grid, Result
from interp.study.size_matching import area_frame, matched, stratified
from tests.study.box_sizes import N, domains
from tests.study.planted import Planted, sample, sweep


def test_the_scale_is_the_one_that_fakes_differences() -> None:
    # an even map's KL against boxes of 300 and of 4 of 576 tokens, as the docstring says
    assert np.log(N / 300) == pytest.approx(0.65, abs=0.005)
    assert np.log(N / 4) == pytest.approx(4.97, abs=0.005)


def test_uniform_maps_differ_by_box_size_alone() -> None:
    found = matched(domains(noise=0.3), names=("natural", "medical"))
    assert found.raw.mean < -0.8
    assert found.raw.high < -0.5  # "medical is worse", with an interval far from 0
    assert found.difference.low <= 0 <= found.difference.high
    assert abs(found.difference.mean) < 0.2


def test_uniform_maps_on_equal_boxes_do_not_differ() -> None:
    found = matched(domains(), by="n_box_tokens", caliper=0)
    gap = found.difference
    assert (gap.mean, gap.low, gap.high) == pytest.approx((0, 0, 0), abs=1e-12)
    assert (found.imbalance, found.worst, found.distance) == pytest.approx((0, 0, 0), abs=1e-12)
    assert len(found.pairs) >= 30


def test_what_matching_leaves_is_what_it_says_it_leaves() -> None:
    found = matched(domains(), names=("natural", "medical"))
    assert found.difference.mean == pytest.approx(-found.imbalance)  # KL = ln N − ln size
    assert found.raw.mean == pytest.approx(-found.imbalance_before)
    assert abs(found.imbalance) < 0.05 < 0.8 < found.imbalance_before
    assert found.distance < 0.1 * found.distance_before
    assert found.worst <= 0.1 + 1e-9


def test_a_planted_difference_survives_matching() -> None:
    found = matched(domains(noise=0.3, truth=0.6), names=("natural", "medical"))
    assert found.difference.low < -0.6 < found.difference.high < -0.2


def test_pairs_are_within_the_caliper_and_unique() -> None:
    frame = domains(3)
    found = matched(frame, names=("natural", "medical"), caliper=0.05)
    pairs = found.pairs
    assert pairs.sample_a.is_unique
    assert pairs.sample_b.is_unique
    logs = frame.set_index("sample").area.map(np.log)
    ratios = logs[pairs.sample_a].to_numpy() - logs[pairs.sample_b].to_numpy()
    assert np.abs(ratios).max() <= 0.05 + 1e-9
    kinds = frame.set_index("sample").data
    assert set(kinds[pairs.sample_a]) == {"natural"}
    assert set(kinds[pairs.sample_b]) == {"medical"}
    spare = [
        set(frame["sample"][frame.data == name]) - set(column)
        for name, column in (("natural", pairs.sample_a), ("medical", pairs.sample_b))
    ]
    assert found.dropped == tuple(map(len, spare))
    left = np.abs(logs[list(spare[0])].to_numpy()[:, None] - logs[list(spare[1])].to_numpy())
    assert left.min() > 0.05  # nobody who was dropped could still be paired


def test_the_first_minus_the_second_whichever_has_more_samples() -> None:
    frame = domains(noise=0.2, truth=1.0)
    one = matched(frame, names=("natural", "medical"), seed=3)
    other = matched(frame, names=("medical", "natural"), seed=3)
    assert one.difference.mean < -0.7 < 0.7 < other.difference.mean
    assert one.dropped == other.dropped[::-1]


def test_the_seed_decides_between_equals_and_repeats() -> None:
    frame = domains(noise=0.3)
    first = matched(frame, seed=1)
    assert first.pairs.equals(matched(frame, seed=1).pairs)
    assert not first.pairs.equals(matched(frame, seed=2).pairs)
    assert first.raw == matched(frame, seed=1).raw != matched(frame, seed=2).raw


def test_slices_of_one_volume_do_not_count_as_many() -> None:
    frame = domains(noise=0.5)
    by_volume = matched(frame).difference
    by_slice = matched(frame.assign(group=range(len(frame)))).difference
    assert by_volume.n_groups <= 30
    assert by_volume.high - by_volume.low > 1.2 * (by_slice.high - by_slice.low)


def test_the_sentence_says_what_was_lost() -> None:
    frame = domains()
    many = matched(frame, names=("natural", "medical"))
    assert (
        f"{len(many.pairs)} pairs of like box size; without a partner: {many.dropped[0]} of natural"
        in many.sentence
    )
    assert "no claim" not in many.sentence
    few = matched(frame[frame.group.str.startswith("natural") | frame.group.isin(["medical-1", "medical-2"])])
    assert "no claim about a population is made" in few.sentence


def test_rows_without_value_or_size_are_counted_and_left_out() -> None:
    frame = domains()
    frame.loc[0, "value"] = np.nan
    frame.loc[[1, 2], "area"] = 0.0
    found = matched(frame, names=("natural", "medical"))
    assert found.undefined == (3, 0)
    assert len(found.pairs) + found.dropped[0] == 147


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {"caliper": -1.0}, "log ratio ≥ 0, such as 0.1"),
        (
            {},
            {"names": ("natural", "other")},
            "two of the labels of data are compared; there are natural, medical",
        ),
        ({}, {"by": "size"}, r"columns \['size'\] are needed"),
        ({"area": -1.0}, {}, "not below 0; got -1"),
        ({"value": np.nan}, {}, "need values and sizes to be compared; .*has none. Choose samples"),
        ({"sample": "same"}, {}, "several cells are in it"),
    ],
)
def test_what_cannot_be_compared_is_refused(changes: dict, options: dict, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        matched(domains().assign(**changes), **options)


def test_sizes_that_do_not_overlap_are_refused() -> None:
    frame = domains()
    frame.loc[frame.data == "medical", "area"] = 0.001
    with pytest.raises(StudyError, match=r"sizes do not overlap; widen the caliper"):
        matched(frame)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Even maps (layer 0) and good ones (layer 1) on large and on small boxes, 24 groups each."""
    data = {
        name: Samples(
            [sample(start + i, boxes=[(0, 0, 20 * size(i), 20)], group=f"{name}-{i}") for i in range(24)],
            name,
        )
        for name, start, size in (
            ("natural", 0, lambda i: 1 + i % 5),
            ("medical", 50, lambda i: 1 + i % 2),
        )
    }
    grid = Grid(sweep(metrics=("kl", "ar"), indicator=Planted((0.0, 3.0))), data=data, seed=[0, 1])
    return grid.run(tmp_path_factory.mktemp("runs"), progress=False)


def test_a_results_frame_has_the_boxes_size_beside_the_value(result: Result) -> None:
    frame = area_frame(result, "kl", 0)
    assert len(frame) == 4 * 24
    assert frame.value.to_numpy() == pytest.approx(np.log(1 / frame.area.to_numpy()))
    assert sorted(frame.n_box_tokens.unique()) == [1, 2, 3, 4, 5]
    with pytest.raises(StudyError, match="metrics measured, kl, ar; got 'js'"):
        area_frame(result, "js", 0)
    with pytest.raises(StudyError, match=r"a layer of \[0, 1\]"):
        area_frame(result, "kl", 7)


def test_a_result_is_compared_one_cell_at_a_time(result: Result, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="several cells are in it"):
        matched(result, layer=0)
    with pytest.raises(StudyError, match="pass layer="):
        matched(result)
    frame = area_frame(result, "kl", 0)
    found = matched(frame[frame.seed == "0"], names=("natural", "medical"))
    assert found.raw.mean == pytest.approx(-0.61, abs=0.15)
    assert found.difference.mean == pytest.approx(0, abs=1e-12)
    assert len(found.pairs) == 10  # natural has 5 boxes of 1 token and 5 of 2


def test_a_results_groups_stand_as_they_are_shown(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = area_frame(result, "kl", 0)
    frame = frame[frame.seed == "0"]
    monkeypatch.setattr("interp.study.size_matching.area_frame", lambda *_: frame)
    monkeypatch.setattr("interp.study.size_matching.shown_groups", lambda _: {"natural-0": "scan.png"})
    names = ("natural", "medical")
    shown, stored = (set(matched(one, layer=0, names=names).pairs.group_a) for one in (result, frame))
    assert shown - stored == {"scan.png"}
    assert stored - shown == {"natural-0"}


def test_a_result_is_read_at_the_metric_and_layer_given(
    result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def read(_: Result, metric: str, layer: int) -> pd.DataFrame:
        seen.append((metric, layer))
        return domains()

    monkeypatch.setattr("interp.study.size_matching.area_frame", read)
    matched(result, metric="ar", layer=1)
    stratified(result, metric="js", layer=0, n=2)
    assert seen == [("ar", 1), ("js", 0)]


def two(areas_a: list[float], areas_b: list[float], values_b: list[float] | None = None) -> pd.DataFrame:
    """Domains x and y of these sizes, a group each; x's values are 1, 2, 3 …, y's are given or 0."""
    n, m = len(areas_a), len(areas_b)
    return pd.DataFrame(
        {
            "data": ["x"] * n + ["y"] * m,
            "group": [f"g{i}" for i in range(n + m)],
            "sample": [f"s{i}" for i in range(n + m)],
            "area": [*areas_a, *areas_b],
            "value": [*map(float, range(1, n + 1)), *(values_b or [0.0] * m)],
        }
    )


def test_pairs_and_what_is_told_of_them_by_hand() -> None:
    """0.1 finds 0.11 and 0.4 finds 0.4; 0.9 finds nobody, and neither does 0.2."""
    frame = two([0.1, 0.4, 0.9], [0.2, 0.4, 0.11], [5.0, 7.0, 9.0])
    found = matched(frame, caliper=0.1)
    pairs = found.pairs.sort_values("sample_a").reset_index(drop=True)
    assert list(pairs) == [f"{name}_{side}" for name in ("sample", "group", "size", "value") for side in "ab"]
    assert pairs.sample_a.tolist() == ["s0", "s1"]
    assert pairs.sample_b.tolist() == ["s5", "s4"]
    assert (pairs.value_a.tolist(), pairs.value_b.tolist()) == ([1, 2], [9, 7])
    assert (pairs.group_b.tolist(), pairs.size_b.tolist()) == (["g5", "g4"], [0.11, 0.4])
    assert found.difference.mean == pytest.approx((1 - 9 + 2 - 7) / 2)
    assert found.raw.mean == pytest.approx(2 - 7)
    assert (found.dropped, found.undefined, found.names) == ((1, 1), (0, 0), ("x", "y"))
    ratio = np.log(1.1)
    assert (found.worst, found.imbalance) == pytest.approx((ratio, -ratio / 2))
    assert found.imbalance_before == pytest.approx(
        np.log([0.1, 0.4, 0.9]).mean() - np.log([0.2, 0.4, 0.11]).mean()
    )
    before = np.abs(np.log([0.1, 0.4, 0.9]) - np.log([0.11, 0.2, 0.4])).mean()  # sorted against sorted
    assert found.distance_before == pytest.approx(before)
    assert found.distance == pytest.approx(ratio / 2)
    assert "2 pairs of like box size; without a partner: 1 of x and 1 of y. Boxes of x were 1.60 times" in (
        found.sentence
    )
    assert f"and are {np.exp(-ratio / 2):.2f} times as large in the pairs" in found.sentence
    other = matched(frame, names=("y", "x"), caliper=0.1)
    assert other.difference.mean == pytest.approx(6.5)
    assert (other.worst, other.imbalance) == pytest.approx((ratio, ratio / 2))


def test_a_pair_at_the_caliper_counts() -> None:
    assert len(matched(two([1.0], [np.exp(0.1)]), caliper=0.1).pairs) == 1
    with pytest.raises(
        StudyError, match=r"boxes within 0\.05 \(log ratio\) of one of y: 1 to 1 against 1\.11 to 1\.11"
    ):
        matched(two([1.0], [np.exp(0.1)]), caliper=0.05)
    with pytest.raises(StudyError, match=r"such as 0\.1 for 10 %; got nan"):
        matched(two([1.0], [1.0]), caliper=float("nan"))


def test_a_lower_level_gives_narrower_intervals() -> None:
    frame = domains(noise=0.3)
    wide, half = (matched(frame, level=level) for level in (0.95, 0.5))
    for name in ("raw", "difference"):
        one, other = getattr(wide, name), getattr(half, name)
        assert other.high - other.low < one.high - one.low
        assert one.mean == other.mean


def test_a_side_without_values_is_named() -> None:
    frame = two([0.1, 0.2], [0.1, 0.2], [np.nan, np.nan])
    with pytest.raises(
        StudyError, match=r"x and y need values and sizes to be compared; y has none.*finite area"
    ):
        matched(frame)
    infinite = two([0.1, 0.2], [0.1, 0.2], [np.inf, 1.0])
    assert matched(infinite).undefined == (0, 1)
    with pytest.raises(StudyError, match=r"the columns \['group'\] are needed"):
        matched(infinite.drop(columns="group"))
    with pytest.raises(StudyError, match=r"there are x, y, got \('x', 'x'\)"):
        matched(infinite, names=("x", "x"))
    alone = infinite[infinite.data == "x"]
    with pytest.raises(StudyError, match="two of the labels of data are compared; there are x, got None"):
        matched(alone)
