from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from interp.errors import StudyError
from interp.study.head_ranking.rank_agreement import (
    Agreement,
    Estimate,
    Reliability,
    expected_overlap,
    head_agreement,
    rank_correlation,
)
from tests.study.planted_heads import PlantedHeads, made, ranking


def noisy(truth: np.ndarray, n: int, noise: float, rng: np.random.Generator) -> np.ndarray:
    """n samples whose mean has `noise` as its standard deviation around the truth."""
    return truth + noise * np.sqrt(n) * rng.standard_normal((n, len(truth)))


def pair_of_truths(
    n_heads: int, correlation: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    truth = rng.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], n_heads)
    return truth[:, 0], truth[:, 1]


def test_the_rank_correlation_is_scipys_ties_and_all() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, (5, 40)).astype(float), rng.integers(0, 6, (5, 40)).astype(float)
    expected = [stats.spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)]
    assert rank_correlation(a, b) == pytest.approx(expected)
    assert np.isnan(rank_correlation(np.ones((1, 4)), a[:1, :4])).all()


def test_the_overlap_is_its_expectation_over_broken_ties() -> None:
    rng = np.random.default_rng(1)
    for k, (a, b) in enumerate((rng.integers(0, 3, (2, 5)).astype(float) for _ in range(4)), start=1):
        found = []
        for first, second in itertools.product(itertools.permutations(range(5)), repeat=2):
            tops = [sorted(order, key=lambda i: -x[i])[:k] for order, x in ((first, a), (second, b))]
            found.append(
                len({*tops[0]} & {*tops[1]}) / k
            )  # sorted is stable: the permutation breaks the ties
        assert expected_overlap(a[None], b[None], k) == pytest.approx(np.mean(found))
    everywhere = np.zeros((1, 10))
    assert expected_overlap(everywhere, everywhere, 3) == pytest.approx(0.3)  # no feigned agreement: chance


@pytest.mark.parametrize("metric", ["ar", "kl"])
def test_correlation_and_overlap_are_those_of_the_means(metric: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    truths = pair_of_truths(40, 0.7, rng)
    values = [noisy(truth, 25, 0.3, rng) for truth in truths]
    a, b = (made(tmp_path, own, name=name, metric=metric) for own, name in zip(values, "ab", strict=True))
    found = head_agreement(a, b, 10, n=300, splits=20)
    means = [own.mean(axis=0) for own in values]
    assert found.spearman.value == pytest.approx(stats.spearmanr(*means).statistic)
    sign = 1 if metric == "ar" else -1
    tops = [{*np.argsort(-sign * own)[:10]} for own in means]
    assert found.overlap.value == pytest.approx(len(tops[0] & tops[1]) / 10)
    assert found.chance == 0.25
    assert found.spearman.low < found.spearman.value < found.spearman.high
    assert (found.n_heads, found.n_dropped, found.note) == (40, 0, "")
    assert found.per_group.empty
    assert found.labels == ("a", "b")
    said = " ".join(found.sentences())
    assert f"rank correlation {found.spearman.value:.2f} [{found.spearman.low:.2f}, " in said
    assert f"Top 10: overlap {found.overlap.value:.2f}" in said
    assert "by chance 0.25" in said
    assert head_agreement(a, b, 10, n=300, splits=20).spearman == found.spearman
    assert head_agreement(a, b, 10, n=300, splits=20, seed=1).spearman != found.spearman


def test_the_same_data_agree_fully_and_opposite_data_not_at_all(tmp_path: Path) -> None:
    values = noisy(np.arange(12.0), 24, 1.0, np.random.default_rng(3))
    a, same = (made(tmp_path / at, values, name="a") for at in "12")
    opposite = made(tmp_path, -values, name="o")
    found = head_agreement(a, same, 3, n=200)
    # both hold the same groups, which are drawn together: no resampling parts them
    assert (found.spearman.low, found.spearman.high) == pytest.approx((1.0, 1.0), abs=0.004)
    assert (found.overlap.value, found.overlap.low) == (1.0, 1.0)
    apart = head_agreement(a, made(tmp_path, values, name="b"), 3, n=200)  # the same values, other groups
    assert (apart.spearman.value, apart.overlap.value) == (pytest.approx(1), 1)
    assert apart.spearman.low < 0.995
    assert apart.overlap.low < 0.9
    found = head_agreement(a, opposite, 3, n=200)
    assert found.spearman.value == pytest.approx(-1)
    assert found.overlap.value == 0


@pytest.mark.slow
def test_the_interval_holds_the_expected_agreement(tmp_path: Path) -> None:
    # the plain percentile interval holds it in none of these cases: resampled rankings agree less
    rng = np.random.default_rng(5)
    truths = pair_of_truths(300, 0.9, rng)
    n, noise = 25, 0.5
    drawn = [[noise * rng.standard_normal((400, 300)) + truth for truth in truths]]
    expected = rank_correlation(*drawn[0]).mean()
    without_noise = stats.spearmanr(*truths).statistic
    assert expected < without_noise - 0.1
    held = {"expected": 0, "true": 0}
    for repeat in range(30):
        a, b = (
            made(tmp_path / str(repeat), noisy(truth, n, noise, rng), name=name, heads=30)
            for truth, name in zip(truths, "ab", strict=True)
        )
        found = head_agreement(a, b, 20, n=150, splits=20)
        held["expected"] += found.spearman.low <= expected <= found.spearman.high
        held["true"] += found.corrected.low <= without_noise <= found.corrected.high
    assert held["expected"] >= 25
    assert held["true"] >= 25


def test_reliability_is_the_correlation_with_a_repeated_study(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    truth = rng.standard_normal(200)
    a, b = (made(tmp_path, noisy(truth, 40, 0.7, rng), name=name, heads=20) for name in "ab")
    found = head_agreement(a, b, 20, n=50)
    replicates = [truth + 0.7 * rng.standard_normal((300, 200)) for _ in range(2)]
    expected = rank_correlation(*replicates).mean()
    for own in found.reliability:
        assert own.full == pytest.approx(expected, abs=0.05)
        assert own.full == pytest.approx(2 * own.half / (1 + own.half))
        assert own.n_groups == 40
    assert found.ceiling == pytest.approx(expected, abs=0.05)
    assert found.corrected.value == pytest.approx(min(found.spearman.value / found.ceiling, 1))


def test_few_groups_are_listed_and_carry_no_claim(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    big, small = noisy(np.arange(8.0), 30, 0.5, rng), noisy(np.arange(8.0), 6, 3.0, rng)
    names = ["ct", "ct", "ct", "mr", "mr", "us"]
    a, b = made(tmp_path, big, name="big"), made(tmp_path, small, name="small", groups=names)
    found = head_agreement(a, b, 2, n=50)
    assert found.note.startswith("Only 3 groups")
    assert found.sentences()[-1] == found.note
    assert "[" not in "".join(found.sentences()[:-1])
    table = found.per_group.set_index("group")
    assert table.n.to_dict() == {"ct": 3, "mr": 2, "us": 1}
    assert set(table.data) == {"small"}
    expected = stats.spearmanr(small[:3].mean(axis=0), big.mean(axis=0)).statistic
    assert table.spearman["ct"] == pytest.approx(expected)
    assert table.overlap["us"] == pytest.approx(len({*np.argsort(-small[5])[:2]} & {6, 7}) / 2)
    one = made(tmp_path, small, name="one", groups=["g"] * 6)
    alone = head_agreement(a, one, 2, n=50)
    assert np.isnan([alone.spearman.low, alone.reliability[1].full, alone.corrected.value]).all()
    assert alone.spearman.value == pytest.approx(
        stats.spearmanr(small.mean(axis=0), big.mean(axis=0)).statistic
    )


def test_heads_that_one_ranking_lacks_are_dropped_and_counted(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    first, second = (noisy(np.arange(8.0), 22, 1.0, rng) for _ in range(2))
    first[:, 7] = np.nan
    second[:, 2] = np.nan
    found = head_agreement(made(tmp_path, first, name="a"), made(tmp_path, second, name="b"), 2, n=50)
    assert (found.n_heads, found.n_dropped) == (6, 2)
    kept = [0, 1, 3, 4, 5, 6]
    expected = stats.spearmanr(first.mean(axis=0)[kept], second.mean(axis=0)[kept]).statistic
    assert found.spearman.value == pytest.approx(expected)
    assert found.chance == pytest.approx(2 / 6)


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    def run(**changes: Any) -> Any:
        return ranking(**changes).run(tmp_path, progress=False)

    own = run()
    with pytest.raises(StudyError, match="by one metric; got 'ar' and 'kl'"):
        head_agreement(own, run(metric="kl"), 2)
    wide = PlantedHeads(gain=((0.0, 1.0, 2.0),) * 3)
    with pytest.raises(StudyError, match=r"over the same heads; got 6 of planted · planted and 9 of planted"):
        head_agreement(own, run(indicator=wide), 2)
    for k in (0, 6, 20):
        with pytest.raises(
            StudyError, match=rf"k is below the 6 heads that both results rank, and ≥ 1; got {k}"
        ):
            head_agreement(own, own, k)
    with pytest.raises(StudyError, match=r"a level between 0 and 1; got n=2000, splits=100, level=95"):
        head_agreement(own, own, 2, level=95)


def agreement(note: str = "") -> Agreement:
    return Agreement(
        labels=("ct", "mr"),
        metric="kl",
        k=5,
        n_heads=40,
        n_dropped=2,
        spearman=Estimate(0.51, 0.22, 0.73),
        overlap=Estimate(0.44, 0.21, 0.62),
        chance=0.125,
        reliability=(Reliability(0.6, 0.75, 0.31, 20), Reliability(0.7, 0.82, 0.35, 30)),
        ceiling=0.78,
        corrected=Estimate(0.65, 0.28, 0.94),
        per_group=pd.DataFrame(),
        note=note,
    )


def test_sentences_give_each_data_set_its_own_numbers() -> None:
    assert agreement().sentences() == (
        "ct and mr, 40 heads by kl: rank correlation 0.51 [0.22, 0.73].",
        "Top 5: overlap 0.44 [0.21, 0.62]; by chance 0.12. Halves of one data set overlap by 0.31 (ct) and 0.35 (mr).",
        "Split-half reliability 0.75 (ct) and 0.82 (mr), so noise alone allows 0.78; corrected for it: "
        "0.65 [0.28, 0.94].",
    )
    few = agreement("Only 3 groups.").sentences()
    assert few[0] == "ct and mr, 40 heads by kl: rank correlation 0.51."
    assert few[-1] == "Only 3 groups."
    assert len(few) == 4


def test_intervals_widen_with_the_level_on_fishers_scale(tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    truths = pair_of_truths(30, 0.6, rng)
    a, b = (made(tmp_path, noisy(t, 25, 0.6, rng), name=n) for t, n in zip(truths, "ab", strict=True))
    wide, narrow = (head_agreement(a, b, 8, n=80, splits=4, level=level) for level in (0.95, 0.5))
    z = stats.norm.ppf(0.975) / stats.norm.ppf(0.75)
    for end in ("low", "high"):
        widths = [np.arctanh(getattr(f.spearman, end)) - np.arctanh(f.spearman.value) for f in (wide, narrow)]
        assert widths[0] == pytest.approx(z * widths[1])
        gaps = [getattr(f.overlap, end) - f.overlap.value for f in (wide, narrow)]
        assert gaps[0] == pytest.approx(z * gaps[1])
    assert 0 < wide.overlap.low < wide.overlap.high < 1
    for end in ("value", "low", "high"):
        corrected = np.clip(getattr(wide.spearman, end) / wide.ceiling, -1, 1)
        assert getattr(wide.corrected, end) == pytest.approx(corrected)


def test_results_of_one_name_are_told_apart_by_model_and_data(tmp_path: Path) -> None:
    values = noisy(np.arange(8.0), 22, 1.0, np.random.default_rng(10))
    a, b = (made(tmp_path / at, values, name="same") for at in "12")
    assert head_agreement(a, b, 2, n=5, splits=2).labels == ("planted · same",) * 2


def test_reliability_is_the_mean_over_as_many_halves_as_asked(tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    a, b = (made(tmp_path, noisy(np.arange(8.0), 22, 4.0, rng), name=name) for name in "ab")
    few, many = (head_agreement(a, b, 2, n=5, splits=splits).reliability for splits in (1, 60))
    assert few[0].overlap in (0, 0.5, 1)  # one half's overlap of the top 2
    assert many[0].overlap != few[0].overlap
    assert many[0].overlap * 60 * 2 == pytest.approx(round(many[0].overlap * 60 * 2))
