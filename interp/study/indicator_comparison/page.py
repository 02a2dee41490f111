"""The page of a comparison of indicators: what was measured on what, tables, maps, failures."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from interp.errors import StudyError
from interp.metrics import METRICS
from interp.report import gallery
from interp.report.figures import Figures
from interp.report.html import (
    Cell,
    Row,
    bold,
    card,
    details,
    figure_card,
    figure_cards,
    grid,
    heading,
    join,
    key,
    paragraph,
    save_page,
    section,
    table,
    tip,
)  # fmt: skip
from interp.report.provenance import INTERVALS, as_json, failure_list, meanings, origin
from interp.report.tables import count, estimate, number, p_value, rows, size_of, varying
from interp.stats import MIN_GROUPS, population_note
from interp.stats import per_group as groups_of
from interp.study.dataframes import records, rows_of, where
from interp.study.indicator_comparison.figures import colours, figures, measured_cells, name_of
from interp.study.indicator_comparison.indicator_maps import FLOPS
from interp.study.indicator_comparison.paired_tests import no_baseline, values_of
from interp.study.indicator_comparison.removal_curves import MEASURES
from interp.study.page_parts import lead, origins
from interp.study.truth import BOXES, truth_boxes

if TYPE_CHECKING:
    from interp.study.indicator_comparison.result import IndicatorCell, IndicatorResult

__all__ = [
    "calibration",
    "cost_table",
    "faithful_table",
    "figures",
    "metrics_table",
    "pairs_table",
    "per_group",
    "write_page",
]


N_SHOWN = 3
SHOWN_FAILURES = 24
ACROSS = 6
SIDE = 170

LEAD = Markup("""For {samples}, each of {n} indicators (attribution methods) gave one map over the image tokens, for the
log-probability of {target}. The maps are compared with {truth}, with one another, with the effect of removing their
tokens{removals}, with maps of a model with shuffled weights, and with maps for other questions.""")
LOCALISATION = """Points are means over samples, bars 95 % bootstrap intervals over groups (no bars with fewer than 20
groups). Dotted line: the score of a uniform map. Filled symbols: the certified truth; open symbols: the other regions
that were scored. Grey points: baselines that do not use the model."""
FINDS = Markup("""<b class="right">✓</b> finds the truth: the indicator is better than every baseline that does not use
the model, on the same samples. The interval of each difference lies on the right side of zero, and the largest p (sign
flips of whole groups) is at most 0.05 after Holm's correction over the indicators. A ✓ says that a map is better than a
baseline, not that it is good.""")
PAIRS = """The first indicator minus the second, on the same samples. p: sign flips of whole groups' differences. Holm's
p is adjusted over all pairs of a model and data set."""
AGREEMENT = """Rank correlation of two indicators' maps of the same sample, averaged over samples (ties share their mean
rank). Two indicators that agree can both be wrong, and two that are right can disagree outside the truth."""
FAITHFUL = """The most important tokens of each map are removed first (deletion), or only they are kept (insertion), at
the same fractions and in the same way for all maps. Heights run from 0 (everything removed) to 1 (untouched). Areas are
means of the height over the fraction: lower is better for deletion, higher for insertion. Compare each area with that
of the random map. Each way of removing tokens favours the indicators that are built on it; those cells have a frame and
are weaker evidence. Samples in which removing everything lowers the target by less than {least} have no area."""
CURVES = """Means over samples. Deletion: the share of the target that is left when the most important tokens are
removed. Insertion: the share that returns when only they are kept."""
SANITY = """Rank correlation of a map with the same indicator's map after a change that should matter: the model's
weights are shuffled within each tensor, in the top layers or everywhere (the explained answer stays that of the trained
model), or another sample's question is asked about the same image. Near 1: the map does not depend on what the model
learned, or on the question; this holds for baselines that do not use the model. A map read below the shuffled layers
cannot change with them. Where the cause is the same for every question, such as a planted marker, the map should not
change with the question."""
COSTS = """Per sample, as if each indicator ran alone; the first line is a plain forward pass of the same batches.
Seconds depend on other work on the machine; passes and tokens do not. On a CPU, peak memory is that of the whole
process so far and means little."""
PARETO = """The dotted line joins the indicators for which no other is better in both time and score. Time is wall time
divided by that of a plain forward pass of the same samples, on this machine. Bars are 95 % intervals over groups."""
GALLERY = Markup("""The samples were drawn with seed {seed}, not by their result. Maps run {ramp}; each shows its
positive part divided by its own 99.5th percentile. Boxes show the first truth. Under each map is its {metric} against
that truth.""")
TERMS = {
    "Indicator": "Also called an attribution method: it gives each image token a number, larger = more important.",
    "Comprehensiveness": """How far the target falls when the most important tokens are removed, averaged over {erased}
    % of the tokens; higher is better (ERASER, arXiv 1911.03429).""",
    "Sufficiency": """How far the target falls when only the most important tokens are kept, averaged over the same
    fractions; lower is better.""",
    "Target's scale": """Probability of the answer, or nats for a difference of answers. “Greedy” is the unedited
    model's own answer.""",
    "Ties": "Tokens with the same value are ordered at random, in the same way for all maps.",
    "Layers": """An indicator with one map per layer is shown at one layer, which was chosen on other samples by their
    boxes. Indicators without layers have no such choice.""",
    "Floating-point operations": FLOPS,
    "Intervals": INTERVALS,
    "Undefined": """A uniform map has no order, and a truth that covers no token cannot be scored. Such values are left
    out and counted.""",
}


def write_page(result: IndicatorResult, path: str | Path) -> Path:
    """Writes the page and returns its path."""
    shown = figures(result)
    metric = METRICS[result.metrics[0]].label
    localised = [figure_cards(["localisation"]), details("Every metric in numbers", metrics_table(result))]
    costs = details("Costs in numbers", paragraph(COSTS, kind="soft wide"), cost_table(result))
    pairs = pairs_table(result)
    body = [
        section("Which finds the truth?", card(calibration(result)), per_group(result), intro=_finds(result)),
        section(f"Agreement with the truth: {metric}", *localised, intro=LOCALISATION),
        section("What does it cost?", figure_cards(["pareto"]), costs, intro=PARETO),
        section(
            "Does removing the tokens confirm the maps?",
            _each(result, shown, "matrix", "top"),
            intro=_faithful(result),
        ),
        section("Curves", _each(result, shown, "curves", "stacked"), intro=CURVES),
        details("Faithfulness in numbers", faithful_table(result)),
        section("Sanity checks", figure_cards(name for name in shown if name == "sanity"), intro=SANITY),
        section("Do they agree?", _each(result, shown, "agreement", "top"), intro=AGREEMENT),
        details("Indicators against one another, tested", paragraph(PAIRS, kind="soft wide"), pairs)
        if pairs
        else "",
        _gallery(result),
        _failures(result),
        _meanings(result),
        origins(result, _origin, folded=True),
    ]
    study = result.cells[0].study
    return save_page(
        path, title=study.title, question=study.question, lead=_lead(result), body=body, figures=shown
    )


def _finds(result: IndicatorResult) -> Markup:
    """What ✓ means, or why there is none."""
    return Markup.escape(no_baseline(result)) or FINDS


def _lead(result: IndicatorResult) -> Markup:
    studies = [cell.study for cell in result.cells]
    removals = list(dict.fromkeys(removal.name for study in studies for removal in study.removals))
    first = lead(
        result,
        LEAD,
        samples=Markup("; ").join(_counted(result, cell) for cell in measured_cells(result)),
        n=len(result.indicators),
        target=" or ".join(dict.fromkeys(_target(study.target) for study in studies)),
        truth=" or ".join(dict.fromkeys(_truth(study.truth[0]) for study in studies)),
        removals=f" ({', '.join(removals)})" if removals else "",
    )
    few: dict[int, list[str]] = {}
    for cell in measured_cells(result):
        few.setdefault(_n_groups(result, cell), []).append(name_of(result, cell))
    notes = (
        paragraph(f"{', '.join(names)}: {population_note(n)}", kind="note wide")
        for n, names in few.items()
        if n < MIN_GROUPS
    )
    lines = [paragraph(line, kind="soft wide") for line in result.sentences()]
    layers = join(*lines) if len(lines) < 2 else details("The layer shown for each indicator", *lines)
    return join(first, *notes, layers)


def _counted(result: IndicatorResult, cell: IndicatorCell) -> Markup:
    frame = rows_of(result.samples, cell.labels)
    counts = [f"{count(len(frame), 'sample')} in {count(_n_groups(result, cell), 'group')}"]
    if cell.study.removals:
        counts.append(f"tokens removed on {int(frame.faithful.sum())}")
    counts.append(f"sanity checks on {int(frame.checked.sum())}")
    return join(bold(" · ".join(cell.key)), f" ({', '.join(counts)})")


def _n_groups(result: IndicatorResult, cell: IndicatorCell) -> int:
    return int(rows_of(result.samples, cell.labels).group.nunique())


def _target(target: Any) -> str:
    if target.spec == "greedy":
        return "the answer that the model gives"
    return f"“{target.spec}”" if isinstance(target.spec, str) else str(target.spec)


def _truth(truth: str) -> str:
    return "the samples' boxes" if truth == BOXES else f"the {truth}"


def _faithful(result: IndicatorResult) -> str:
    values = ", ".join(f"{one:g}" for one in sorted({cell.study.least for cell in result.cells}))
    return FAITHFUL.format(least=f"{values} of its value")


def _each(result: IndicatorResult, shown: Figures, kind: str, layout: str) -> Markup:
    """One figure per cell."""
    named = {f"{kind}-{place}": cell for place, cell in enumerate(measured_cells(result), start=1)}
    cards = (figure_card(name, title=name_of(result, cell)) for name, cell in named.items() if name in shown)
    return grid(cards, layout)


def _gallery(result: IndicatorResult) -> Markup:
    parts = []
    for cell in measured_cells(result):
        indices = gallery.drawn(cell.frame("samples")["index"].tolist(), N_SHOWN, result.seed)
        parts.append(heading(name_of(result, cell), level=3))
        parts.append(grid((maps_card(cell, index) for index in indices), "stacked"))
    intro = GALLERY.format(seed=result.seed, ramp=gallery.ramp(), metric=METRICS[result.metrics[0]].label)
    return section("The same image under every indicator", *parts, intro=intro)


def maps_card(cell: IndicatorCell, index: int) -> Markup:
    """The card of one sample: image with the truth, every indicator's map with its score, question and answer."""
    study, tokens = cell.study, cell.tokens(index)
    truth = truth_boxes(study.data[index], study.truth[0])
    sample = study.data[index].replace(boxes=truth, masks=())
    shown = gallery.views(sample, study.truth[0], partial(gallery.picture, sample))
    scores = _scores(cell, index)
    for label, values in cell.maps([index])[index].items():
        caption = f"{label} {scores.get(label, '')}".strip()
        shown += gallery.views(sample, caption, partial(gallery.overlay, sample, tokens, values))
    for _, picture in shown:
        picture.thumbnail((SIDE, SIDE))
    frame = cell.frame("samples")
    row = records(where(frame, frame["index"] == index))[0]
    answer = join("answer ", bold(row["answer"]), " · ") if isinstance(row["answer"], str) else ""
    lines = [
        join(answer, "model ", bold(row["predicted"])),
        gallery.origin_line(row["sample"], row["sample"]),
    ]
    return gallery.sample_card(shown, row["question"], lines, columns=ACROSS)


def _scores(cell: IndicatorCell, index: int) -> dict[str, str]:
    metric, truth = cell.study.metrics[0], cell.study.truth[0]
    scores = cell.frame("scores")
    keep = (scores["index"] == index) & (scores.measure == metric) & (scores.against == truth)
    digits = 2 if METRICS[metric].chance_value is not None else 3
    return {row["indicator"]: number(row["value"], digits) for row in records(where(scores, keep))}


def _failures(result: IndicatorResult) -> Markup:
    """What could not be measured, by kind, with the reason."""
    found = result.failures
    if found.empty:
        return section(
            "Failures", paragraph("None: every map was made and every value defined.", kind="soft")
        )
    names = [*varying(result.cells), "control", "metric"]
    counted = (
        found.fillna({"control": "", "metric": ""})
        .groupby([*names, "error", "reason"], sort=False)
        .agg(n=("sample", "size"), sample=("sample", "first"))
        .reset_index()
    )
    times = [f"{n}×, first {sample}. " for n, sample in zip(counted.n, counted["sample"], strict=True)]
    listed = failure_list(counted.assign(error=times + counted.error), names, shown=SHOWN_FAILURES)
    words = f"{result.failure_counts()}. Means are over the rest. By kind:"
    return section("Failures", paragraph(words, kind="wide"), card(listed))


def _meanings(result: IndicatorResult) -> Markup:
    erased = ", ".join(f"{100 * share:g}" for share in result.cells[0].study.erased)
    return meanings({term: words.format(erased=erased) for term, words in TERMS.items()})


def _origin(cell: IndicatorCell) -> Markup:
    study = cell.folder.study()
    named = [*study.get("indicators", {}).items(), *study.get("removals", {}).items()]
    more = [
        *((name, as_json(value)) for name, value in named),
        ("target, prompt", f"{as_json(study.get('target'))}, {as_json(study.get('prompt'))}"),
        ("steps", as_json(study.get("steps"))),
        ("seed, batch", f"{study.get('seed')}, {cell.study.batch}"),
    ]
    return origin(cell.folder, more)


MANY_PAIRS = 400
VERDICTS = {True: ("✓", "right"), False: ("✗", "wrong")}

Measured = tuple[str, str]
"""A metric or measure, and the truth, indicator or removal that it was measured against."""


def calibration(result: IndicatorResult) -> Markup:
    """One line per indicator: the first metric against each truth in each cell; ✓ where it finds the first."""
    cells, summary, metric = measured_cells(result), result.summary(), result.metrics[0]
    verdicts = {
        (tuple(row[axis] for axis in result.axes), row["indicator"]): row for row in records(result.found())
    }
    first = [Cell(""), *(Cell(name_of(result, cell), span=len(cell.study.truth)) for cell in cells)]
    second = [METRICS[metric].label, *(truth for cell in cells for truth in cell.study.truth)]
    paint, lines = colours(result), []
    for label in result.indicators:
        entries: list[Any] = [join(key(paint[label]), label)]
        for cell in cells:
            own = rows_of(summary, cell.labels)
            own = where(own, (own.indicator == label) & (own.measure == metric))
            found = {row["against"]: estimate(row) for row in records(own)}
            mark = _verdict(verdicts.get((cell.key, label)))
            for place, truth in enumerate(cell.study.truth):
                text = found.get(truth, "–")
                entries.append(Cell(text, "baseline") if place else Cell(join(text, mark), "own"))
        lines.append(entries)
    return table([Row(first), Row(second)], lines, "dense")


def _verdict(row: dict[str, Any] | None) -> Markup | str:
    """✓ or ✗ after a score, with Holm's p on hovering; empty where there is no verdict."""
    if row is None or row["finds"] not in VERDICTS:
        return ""
    sign, kind = VERDICTS[row["finds"]]
    return join(" ", tip(sign, f"Holm's p {p_value(row['p_holm'])}", kind))


def per_group(result: IndicatorResult) -> Markup:
    """The first metric for each group, where groups are too few for an interval; folded."""
    shown = []
    for cell in measured_cells(result):
        wide = values_of(result, cell, cell.study.metrics[0], None)
        if wide.group.nunique() >= MIN_GROUPS:
            continue
        labels = [label for label in cell.study.indicators if label in wide]
        means: dict[str, dict[Any, float]] = {}
        for label in labels:
            found = groups_of(wide[label].to_numpy(float), wide.group.to_numpy(object))
            means[label] = dict(zip(found["group"], found["mean"].to_numpy(float), strict=True))
        groups = list(dict.fromkeys(wide.group))
        lines = ([group, *(number(means[label][group]) for label in labels)] for group in groups)
        inner = card(table(["group", *labels], lines, "dense"))
        shown.append(details(f"Group by group: {name_of(result, cell)}", inner))
    return join(*shown)


def metrics_table(result: IndicatorResult) -> Markup:
    """Every metric against every truth, one table per cell."""
    return _wide(result, lambda cell: [(m, t) for m in cell.study.metrics for t in cell.study.truth])


def faithful_table(result: IndicatorResult) -> Markup:
    """Every measure of faithfulness under every removal, one table per cell that has any."""
    return _wide(
        result, lambda cell: [(m, removal.name) for m in MEASURES for removal in cell.study.removals]
    )


def _wide(result: IndicatorResult, measured: Callable[[IndicatorCell], list[Measured]]) -> Markup:
    """One table per cell: a line per indicator, a column per measure and reference."""
    summary, parts = result.summary(), []
    for cell in (cell for cell in measured_cells(result) if measured(cell)):
        own = {
            (row["indicator"], row["measure"], row["against"]): row
            for row in records(rows_of(summary, cell.labels))
        }
        heads = [f"{METRICS[m].label if m in METRICS else m}, {against}" for m, against in measured(cell)]
        lines = (
            [label, *(_mean(own.get((label, *one))) for one in measured(cell))]
            for label in cell.study.indicators
        )
        parts.append(_titled(result, cell, table(["", *heads], lines, "dense")))
    return join(*parts)


def _mean(row: dict[str, Any] | None) -> str | None:
    if row is None:
        return None
    return estimate(row) + (f" ({row['n_undefined']} undefined)" if row["n_undefined"] else "")


def cost_table(result: IndicatorResult) -> Markup:
    """The cost of a map of one sample, one table per cell."""
    columns: dict[str, Any] = {
        "": "indicator",
        "seconds": lambda row: number(row["seconds"], 4),
        "× plain, time": lambda row: number(row["seconds_ratio"]),
        "forwards": lambda row: number(row["forwards"]),
        "backwards": lambda row: number(row["backwards"]),
        "token positions": lambda row: number(row["tokens"], 0),
        "GFLOP": lambda row: number(row["flops"] / 1e9, 3),
        "× plain, operations": lambda row: number(row["flops_ratio"]),
        "peak memory": lambda row: size_of(row["peak_bytes"]),
    }
    frame, parts = result.costs(), []
    for cell in measured_cells(result):
        own = rows_of(frame, cell.labels) if len(frame) else frame
        if len(own):
            parts.append(_titled(result, cell, table(list(columns), rows(own, columns), "dense")))
    return join(*parts)


def pairs_table(result: IndicatorResult) -> Markup | str:
    """Every pair of indicators by the first metric; empty where there are none, or too many to read."""
    try:
        found = result.compare(result.metrics[0])
    except StudyError:
        return ""
    columns: dict[str, Any] = {
        "": lambda row: f"{row['a']} − {row['b']}",
        "means of both": lambda row: f"{number(row['mean_a'])}, {number(row['mean_b'])}",
        "difference [95 %]": lambda row: estimate(row, of=("difference", "low", "high"), sign=True),
        "p": lambda row: p_value(row["p"]),
        "Holm's p": lambda row: p_value(row["p_holm"]),
    }
    parts = []
    for cell in measured_cells(result):
        own = rows_of(found, cell.labels)
        if 0 < len(own) <= MANY_PAIRS:
            parts.append(_titled(result, cell, table(list(columns), rows(own, columns), "dense")))
    return join(*parts)


def _titled(result: IndicatorResult, cell: IndicatorCell, shown: Markup) -> Markup:
    return join(heading(name_of(result, cell), level=3), card(shown))
