"""What a knockout sweep found: the answer's probability and accuracy under each blocked flow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table
from rich.text import Text

from interp.errors import StudyError
from interp.inputs.text import count
from interp.run import cost_of, manifest_of
from interp.stats import holm, paired, paired_test, population_note
from interp.study.dataframes import below, records, rows_of, where
from interp.study.knockout_sweep.flows import Flow, control_of
from interp.study.result import GridResult, printed
from interp.study.runs import GridCell
from interp.study.study import is_level

__all__ = [
    "LEAST",
    "MEASURES",
    "UNEDITED",
    "KnockoutResult",
    "knockout_tests",
    "passes_frame",
    "scores_frame",
]

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
    """One row per blocked pass with the sample's unedited one; `KnockoutResult.passes` has the columns.

    Args:
        passes: The stored passes.
        samples: The stored samples.
        axes: Columns of both that name the cell.
        only_right: Whether only samples that the unedited model answers correctly count for probabilities.
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
    """One row per pass and measure: probabilities where samples count, accuracy where they have an answer."""
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
    """The tests of one cell: one row per window, flow and reference, with Holm's p over all rows."""
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
    """One paired test of the log-probability per window, over the samples that have both passes."""
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


WIDTH = 110
LEAST = 0.1
"""In percent; a smaller mean change gets no sentence."""
FEW = " (too few groups)"


@dataclass(frozen=True, repr=False)
class KnockoutResult(GridResult):
    """The result of a `KnockoutSweep`, or of a grid over one.

    `samples` has each sample's unedited answer: `predicted` (the likeliest first token over the whole vocabulary),
    `correct` (whether that token begins the answer), and `logprob` (the followed token's, in nats).
    """

    @cached_property
    def passes(self) -> pd.DataFrame:
        """One row per (axes…, sample, group, flow, layer, first, last, head): a blocked pass and the unedited one.

        `layer` is the window's centre, `first` and `last` are its ends; `head` is missing where all heads are blocked.
        `p_before`, `p_after`: probability of the followed token. `delta`: log p_after − log p_before, nats. `relative`:
        (p_after − p_before) / p_before × 100, NaN where p_before is 0. `correct_before`, `correct`: whether the
        likeliest first token begins the answer (missing where there is no answer). `flipped`: whether the likeliest
        first token changed. `counted`: whether the sample counts in means of probabilities; with target="answer" only
        correctly answered samples do.
        """
        frames = []
        for cell in self.cells:
            right = cell.study.target == "answer"
            stored, axes = (cell.frame("passes"), cell.named_frame("samples")), list(cell.labels)
            frames.append(passes_frame(*stored, axes, only_right=right))
        return below(frames)

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One row per (axes…, sample, group, flow, layer, first, last, [head,] measure): its value.

        Measures: "relative" and "delta" as in `passes`, over the samples that count; "accuracy": 100, 0 or −100 where a
        sample with an answer became right, stayed as it was or became wrong; "flipped": 100 where the first token
        changed, else 0. Their means are a change in percent, nats, percentage points, and a share in percent.
        """
        return scores_frame(self.passes, self.axes)

    @cached_property
    def failures(self) -> pd.DataFrame:
        """One row per sample or flow that could not be measured, with the reason."""
        return super().failures.rename(columns={"metric": "flow"}).drop(columns="control")

    @property
    def by_head(self) -> bool:
        """Whether heads were blocked one by one."""
        return bool(self.passes["head"].notna().any())

    def tests(self, level: float = 0.95) -> pd.DataFrame:
        """Tests of every window and flow against the unedited model, and of flows from boxes against their controls.

        Columns: axes…, `flow`, `against`, `layer`, `first`, `last`, `difference` (of the log-probability, in nats; mean
        over the samples that count and have both passes; below 0: the flow matters), `low`, `high`, `n`, `n_groups`,
        `p` (signs of whole groups flipped), `p_holm` (Holm over all rows of a cell), `note`.

        Raises:
            StudyError: Heads were blocked one by one; so many tests would find only the largest effects.
        """
        is_level("level", level)
        if self.by_head:
            raise StudyError(
                'tests are made of windows or layers; this study has by="head". Choose heads on validation samples '
                "(summary()), and test those alone on others: interp.stats.paired_test of the `delta` of their passes."
            )
        frames = []
        for cell in self.cells:
            own = rows_of(self.passes, cell.labels)
            found = knockout_tests(own, cell.study.blocked, level=level, seed=self.seed)
            for place, (axis, label) in enumerate(cell.labels.items()):
                found.insert(place, axis, label)
            frames.append(found)
        return below(frames)

    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables that `export` writes: "summary", and "tests" where windows or layers were blocked."""
        return super().tables() | ({} if self.by_head else {"tests": self.tests()})

    def flows(self, cell: GridCell) -> dict[str, Flow]:
        """The flows of a cell for which something was measured."""
        seen = set(rows_of(self.passes, cell.labels).flow)
        return {name: flow for name, flow in cell.study.blocked.items() if name in seen}

    def n_counted(self, cell: GridCell) -> tuple[int, int]:
        """The number of samples that count for probabilities, and the number measured."""
        own = rows_of(self.passes, cell.labels)
        return len(set(where(own, own.counted)["index"])), len(set(own["index"]))

    def work(self, cell: GridCell) -> tuple[int, int]:
        """Token positions × layers that ran, and the number that whole passes over each prompt would take."""
        samples, passes = cell.frame("samples"), cell.frame("passes")
        n_layers = int(manifest_of(cell.folder).get("model", {}).get("n_layers", 0))
        each = passes.groupby("index").size().reindex(samples["index"]).fillna(0).to_numpy() + 1
        ran = cost_of(cell.folder).get("layer_tokens", 0)
        return int(ran), int((each * samples.n_prompt.to_numpy()).sum() * n_layers)

    def strongest(self, cell: GridCell, measure: str = "relative") -> list[dict[str, Any]]:
        """For each flow the row of `summary` with the lowest mean; this only describes these samples."""
        summary = rows_of(self.summary(), cell.labels)
        own = where(summary, (summary.measure == measure) & summary["mean"].notna())
        return [records(own.loc[[rows["mean"].idxmin()]])[0] for _, rows in own.groupby("flow", sort=False)]

    def sentences(self) -> list[str]:
        """The findings, one line per flow and cell, for the strongest window."""
        return [line for cell in self.cells for line in _sentences(self, cell)]

    def table(self, measure: str = "relative") -> str:
        """The measure as text: one table per cell, one line per window, one column per flow, mean [low, high].

        Raises:
            StudyError: The measure is unknown, or heads were blocked one by one (then read `summary`).
        """
        if not isinstance(measure, str) or measure not in MEASURES or self.by_head:
            raise StudyError(
                f"table shows one of {', '.join(MEASURES)} of windows or layers; got {measure!r}"
                + (" of single heads: read summary()." if self.by_head else ".")
            )
        return "\n\n".join(_table(self, cell, measure) for cell in self.cells)


def _sentences(result: KnockoutResult, cell: GridCell) -> Iterator[str]:
    summary, flows = rows_of(result.summary(), cell.labels), result.flows(cell)
    controls = {control_of(name, flows) for name in flows}
    for row in result.strongest(cell):
        flow, place = row["flow"], _place(row)
        if flow in controls:
            continue
        if row["mean"] > -LEAST:
            counted = count(row["n"], "sample")
            yield f"{' · '.join(cell.key)} · {flow}: nowhere does the mean of p fall by {LEAST} % ({counted})."
            continue
        here = where(summary, (summary.layer == row["layer"]))
        if "head" in here and not pd.isna(row["head"]):
            here = where(here, here["head"] == row["head"])
        line = f"{' · '.join(cell.key)} · {flow}: lowest at {place}, p {_number(row, '%')}"
        accuracy = where(here, (here.flow == flow) & (here.measure == "accuracy"))
        line += f", accuracy {_number(records(accuracy)[0], ' points')}" if len(accuracy) else ""
        control = control_of(flow, flows)
        if control is not None:
            other = where(here, (here.flow == control) & (here.measure == "relative"))
            line += f"; as many tokens elsewhere {_number(records(other)[0], '%')}" if len(other) else ""
        yield f"{line} ({count(row['n'], 'sample')}, {count(row['n_groups'], 'group')})."


def _place(row: dict[str, Any]) -> str:
    layers = (
        f"layers {row['first']}–{row['last']}" if row["first"] != row["last"] else f"layer {row['first']}"
    )
    return layers if pd.isna(row.get("head", float("nan"))) else f"{layers}, head {row['head']}"


def _number(row: dict[Any, Any], unit: str) -> str:
    mean, low, high = (_digits(row[name]) for name in ("mean", "low", "high"))
    text = ("+" if row["mean"] > 0 and mean != "0.0" else "") + mean + unit
    return text + (FEW if row["note"] else f" [{low}, {high}]")


def _digits(value: float) -> str:
    return f"{round(value, 1) + 0.0:.1f}".replace("-", "−")  # no negative zero


def _table(result: KnockoutResult, cell: GridCell, measure: str) -> str:
    summary = rows_of(result.summary(), cell.labels)
    summary = where(summary, summary.measure == measure)
    counted, measured = result.n_counted(cell)
    n = measured if measure in ("accuracy", "flipped") else counted
    title = f"{' · '.join(cell.key)}: {MEASURES[measure]}, {n} of {count(measured, 'sample')}"
    few = [row["n_groups"] for row in records(summary) if row["note"]]
    title += (
        f"; {count(max(few), 'group')} {'is' if max(few) == 1 else 'are'} too few for intervals"
        if few
        else ""
    )
    table = Table(title=Text(title), title_justify="left")
    table.add_column("layers", justify="right")
    names = list(result.flows(cell))
    for name in names:
        table.add_column(Text(name), justify="right")
    for _, rows in summary.groupby("layer"):
        found = {row["flow"]: row for row in records(rows)}
        texts = [_number(found[name], "").removesuffix(FEW) if name in found else "–" for name in names]
        table.add_row(_place(records(rows)[0]).split()[-1], *map(Text, texts))
    return printed(table, max(WIDTH, 12 + 24 * len(names)))
