"""From the passes of a knockout sweep to tidy scores and tests, all paired by sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from interp.stats import holm, paired, paired_test, population_note
from interp.study.flows import Flow, control_of
from interp.study.frames import where

__all__ = ["MEASURES", "UNEDITED", "knockout_tests", "passes_frame", "scores_frame"]

MEASURES = {
    "relative": "change of the answer's probability, %",
    "delta": "change of the answer's log-probability, nats",
    "accuracy": "change of accuracy, percentage points",
    "flipped": "first token changed, % of samples",
}
UNEDITED = "unedited"
PLACE = ("flow", "layer", "first", "last", "head")


def passes_frame(
    passes: pd.DataFrame, samples: pd.DataFrame, axes: Sequence[str], *, only_right: bool
) -> pd.DataFrame:
    """One row per blocked pass beside the sample's unedited one; see `KnockoutResult.passes`.

    Args:
        passes: The stored passes.
        samples: The stored samples.
        axes: Columns of both that name the cell.
        only_right: Whether only samples that the unedited model answers rightly count for probabilities.
    """
    keys = [*axes, "index"]
    before = samples[[*keys, "sample", "group", "logprob", "correct"]]
    both = passes.merge(before, on=keys, suffixes=("", "_before"))
    both["p_before"], both["p_after"] = np.exp(both.logprob_before), np.exp(both.logprob)
    both["delta"] = both.logprob - both.logprob_before
    both["relative"] = np.where(both.p_before > 0, np.expm1(both.delta) * 100, np.nan)
    answered: list[Any] = both["correct_before"].tolist()
    both["counted"] = [not only_right or right is True for right in answered]
    both["head"] = both["head"].astype("Int64")
    order = [*keys, "sample", "group", *PLACE, "p_before", "p_after", "delta", "relative"]
    return both.reindex(columns=[*order, "correct_before", "correct", "flipped", "counted"])


def scores_frame(passes: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """The passes, one row per measure: probabilities of the samples that count, accuracy of those with an answer."""
    own = [name for name in PLACE if name != "head" or passes["head"].notna().to_numpy().any()]
    names = [*axes, "sample", "group", *own]
    counted, judged = where(passes, passes.counted), where(passes, passes.correct.notna())
    gap = judged.correct.astype(float) - judged.correct_before.astype(float)
    values = {
        "relative": (counted, counted.relative),
        "delta": (counted, counted.delta),
        "accuracy": (judged, 100 * gap),
        "flipped": (passes, 100 * passes.flipped.astype(float)),
    }
    parts = [
        rows[names].assign(measure=measure, value=value.astype(float))
        for measure, (rows, value) in values.items()
        if len(rows)
    ]
    return pd.concat(parts, ignore_index=True)


def knockout_tests(
    passes: pd.DataFrame, flows: Mapping[str, Flow], *, level: float, seed: int
) -> pd.DataFrame:
    """One cell's tests, one row per window, flow and what it is set against; Holm's p over all of them."""
    rows = list(_tests(where(passes, passes.counted), flows, level, seed))
    found = pd.DataFrame(rows)
    if len(found):
        found["p_holm"] = holm(found.p.to_numpy())
    return found


def _tests(
    passes: pd.DataFrame, flows: Mapping[str, Flow], level: float, seed: int
) -> Iterator[dict[str, Any]]:
    for name in flows:
        own = where(passes, passes.flow == name)
        yield from _against(own, own.assign(delta=0.0), name, UNEDITED, level, seed)
        control = control_of(name, flows)
        if control is not None:
            yield from _against(own, where(passes, passes.flow == control), name, control, level, seed)


def _against(
    own: pd.DataFrame, other: pd.DataFrame, flow: str, against: str, level: float, seed: int
) -> Iterator[dict[str, Any]]:
    """A paired test of the log-probability per window, over samples that have both."""
    keys = ["index", "layer"]  # ids may repeat
    pairs = own.merge(other[[*keys, "delta"]], on=keys, suffixes=("", "_other"), validate="one_to_one")
    for _, rows in pairs.groupby("layer"):
        gap = paired(rows.delta, rows.delta_other, rows.group, level=level, seed=seed)
        test = paired_test(rows.delta, rows.delta_other, rows.group, seed=seed)
        yield {
            "flow": flow,
            "against": against,
            **{name: int(rows[name].iloc[0]) for name in ("layer", "first", "last")},
            "difference": gap.mean,
            "low": gap.low,
            "high": gap.high,
            "n": gap.n,
            "n_groups": gap.n_groups,
            "p": test.p,
            "note": population_note(gap.n_groups),
        }
