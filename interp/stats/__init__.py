"""Statistics over groups: patients, volumes or images are resampled, never single rows. Based on SciPy."""

from __future__ import annotations

from interp.stats.agreement import krippendorff_alpha, weighted_kappa
from interp.stats.intervals import (
    MIN_GROUPS,
    Interval,
    bootstrap,
    bootstrap_statistic,
    paired,
    per_group,
    population_note,
    two_way,
    two_way_share,
    unpaired,
)
from interp.stats.significance import Flips, PermutationTest, flips, holm, paired_test, unpaired_test
from interp.stats.stratified_mean import stratified_mean
from interp.stats.yes_no import yes_no_change, yes_no_marks

__all__ = [
    "MIN_GROUPS",
    "Flips",
    "Interval",
    "PermutationTest",
    "bootstrap",
    "bootstrap_statistic",
    "flips",
    "holm",
    "krippendorff_alpha",
    "paired",
    "paired_test",
    "per_group",
    "population_note",
    "stratified_mean",
    "two_way",
    "two_way_share",
    "unpaired",
    "unpaired_test",
    "weighted_kappa",
    "yes_no_change",
    "yes_no_marks",
]
