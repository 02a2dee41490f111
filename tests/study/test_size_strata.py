from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from interp.errors import StudyError
from interp.study.size_matching import Stratified, stratified
from tests.study.box_sizes import domains

NAMES = ("natural", "medical")


def test_strata_take_away_most_of_what_box_size_fakes() -> None:
    frame = domains(noise=0.1)
    coarse, fine = (stratified(frame, names=NAMES, n_strata=n) for n in (5, 30))
    assert coarse.raw.mean < -0.8
    assert abs(coarse.difference.mean) < 0.3 * abs(coarse.raw.mean)
    assert abs(fine.difference.mean) < 0.1
    assert fine.difference.low <= 0 <= fine.difference.high


def test_a_planted_difference_survives_in_every_stratum() -> None:
    found = stratified(domains(noise=0.2, truth=0.8), names=NAMES, n_strata=20)
    assert found.difference.low < -0.8 < found.difference.high < -0.4
    used = found.strata[found.strata.weight > 5]
    assert (used.difference < 0).all()


def test_what_is_left_within_strata_is_said() -> None:
    strata = stratified(domains(), names=NAMES).strata
    used = strata[strata.weight > 0]
    assert used.difference.to_numpy() == pytest.approx(-used.imbalance.to_numpy())  # even maps


def test_by_hand() -> None:
    frame = pd.DataFrame(
        {
            "data": ["x"] * 4 + ["y"] * 4,
            "group": [None, "b", "c", "c", *"efgh"],
            "area": [1, 1, 2, 2, 1, 2, 2, 3],
            "value": [1.0, 3.0, 10.0, 20.0, 5.0, 11.0, 13.0, 99.0],
        }
    )
    found = stratified(frame, n_strata=8)
    strata = found.strata
    assert strata.n_a.tolist() == [2, 2, 0]
    assert strata.n_b.tolist() == [1, 2, 1]
    assert (strata.n_groups_a.tolist(), strata.n_groups_b.tolist()) == ([2, 1, 0], [1, 2, 1])
    np.testing.assert_equal(strata.mean_a.to_numpy(), [2, 15, np.nan])
    assert strata.mean_b.tolist() == [5, 12, 99]
    np.testing.assert_allclose(strata.imbalance, [0, 0, np.nan])
    assert strata.high.tolist()[:2] == pytest.approx([1, 2])
    assert strata.difference.tolist()[:2] == [2 - 5, 15 - 12]
    assert strata.weight.tolist() == pytest.approx([4 / 3, 2, 0])
    assert found.difference.mean == pytest.approx((4 / 3 * -3 + 2 * 3) / (4 / 3 + 2))
    assert found.dropped == (0, 1)
    assert "hold samples of both: 2 of 3." in found.sentence


def test_the_interval_covers_by_group() -> None:
    hits, n = 0, 30
    for seed in range(n):
        gap = stratified(domains(seed, noise=0.5), names=NAMES, n_strata=12, n=200, seed=seed).difference
        hits += gap.low <= 0 <= gap.high
    assert hits >= 24


def test_groups_are_resampled_whole() -> None:
    frame = domains(noise=0.5)
    volumes = stratified(frame, names=NAMES, n=500).difference
    slices = stratified(frame.assign(group=np.arange(len(frame))), names=NAMES, n=500).difference
    assert volumes.n_groups == 30
    assert volumes.high - volumes.low > 1.2 * (slices.high - slices.low)


def test_strata_that_cannot_be_made_are_refused() -> None:
    with pytest.raises(StudyError, match="n_strata is a whole number ≥ 1; got 0"):
        stratified(domains(), n_strata=0)
    frame = domains()
    frame.loc[frame.data == "medical", "area"] = 0.001
    with pytest.raises(StudyError, match="no stratum of box size holds both"):
        stratified(frame)


def test_strata_are_cut_where_both_domains_together_say() -> None:
    """Each domain weighs one half: nine boxes of size 1 to 9 and one of 100 are cut in two at 9."""
    frame = pd.DataFrame(
        {
            "data": ["x"] * 9 + ["y"],
            "group": [f"g{i}" for i in range(10)],
            "area": [*range(1, 10), 100],
            "value": [float(i) for i in range(10)],
        }
    )
    with pytest.raises(StudyError, match="no stratum of box size holds both"):
        stratified(frame, n_strata=2)
    found = stratified(frame, n_strata=1)
    assert len(found.strata) == 1
    assert found.difference.mean == found.raw.mean == pytest.approx(4 - 9)
    assert found.strata[["low", "high"]].to_numpy().tolist() == [[0, np.inf]]
    assert found.dropped == (0, 0)
    assert (found.difference.n, found.difference.n_groups) == (10, 1)
    assert np.isnan([found.difference.low, found.difference.high]).all()  # a single group has no interval
    assert found.names == ("x", "y")


def test_an_interval_has_its_level_and_repeats() -> None:
    frame = domains(noise=0.3)
    wide, half, again, other = (
        stratified(frame, names=NAMES, n=300, **options).difference
        for options in ({}, {"level": 0.5}, {}, {"seed": 1})
    )
    assert half.high - half.low < wide.high - wide.low
    assert wide == again != other
    assert wide.mean == other.mean
    turned = stratified(frame, names=NAMES[::-1], n=300).difference
    assert turned.mean == pytest.approx(-wide.mean)


def test_raw_and_strata_have_the_level_the_draws_and_the_seed() -> None:
    frame = domains(noise=0.3)
    wide, half, one, other = (
        stratified(frame, names=NAMES, **{"n": 300, **options})
        for options in ({}, {"level": 0.5}, {"n": 1}, {"seed": 1})
    )
    used = (wide.strata.n_groups_a > 1) & (wide.strata.n_groups_b > 1)
    assert used.sum() > 2

    def widths(found: Stratified) -> np.ndarray:
        inside = (found.strata.high_ci - found.strata.low_ci)[used]
        return np.array(
            [found.raw.high - found.raw.low, found.difference.high - found.difference.low, *inside]
        )

    assert (widths(half) < widths(wide)).all()
    assert (widths(one) == 0).all()
    assert wide.raw != other.raw
    assert (wide.strata.low_ci != other.strata.low_ci)[used].all()


def test_two_of_several_domains_are_compared_by_other_columns() -> None:
    frame = domains(noise=0.3)
    third = frame[frame.data == "medical"].assign(data="third", value=0.0)
    renamed = pd.concat([frame, third]).rename(columns={"data": "kind", "area": "share"}).assign(area=0.5)
    found = stratified(renamed, over="kind", names=NAMES, by="share", n=20)
    plain = stratified(frame, names=NAMES, n=20)
    assert (found.names, found.raw, found.difference) == (plain.names, plain.raw, plain.difference)
    assert found.strata.equals(plain.strata)
