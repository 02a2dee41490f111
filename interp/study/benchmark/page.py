"""The page of a benchmark: its table beside published ones, changes with tests, flips with images, figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup

from interp.report import gallery
from interp.report.figures import GREY, Figures, laid_out, panels
from interp.report.html import (
    bold,
    capital,
    card,
    code,
    details,
    figure_card,
    grid,
    heading,
    join,
    paragraph,
    save_page,
    section,
    table,
)  # fmt: skip
from interp.report.provenance import as_json, meanings, origin
from interp.report.tables import count, listed, number, rows, varying
from interp.study.benchmark.paper_tables import PaperTable
from interp.study.benchmark.tables import SIZES, asks_yes_or_no, cell_text, left_out
from interp.study.benchmark.task import about, label
from interp.study.dataframes import records, rows_of, where
from interp.study.page_parts import lead, origins
from interp.study.refinement.tables import (
    FLIP_COLUMNS,
    MARK_COLUMNS,
    cell_title,
    difference_points,
    failures_section,
    flips_card,
    methods_card,
    pairs_card,
    per_group,
    percentage_points,
)

if TYPE_CHECKING:
    from interp.study.benchmark.result import BenchmarkResult
    from interp.study.runs import GridCell

__all__ = ["figures", "write_page"]


SHOWN = 6
"""The number of flipped samples shown of each cell, half in each direction."""
MANY_FLIPS = 500
"""The maximum number of flips in the list; a benchmark of 90,000 questions has thousands."""
MANY_CELLS = 12
"""With more cells than this, flips are counted but no pictures are shown."""


def write_page(result: BenchmarkResult, path: str | Path, *, beside: Sequence[PaperTable] = ()) -> Path:
    """Write the page and return its path; `beside` are published tables to print below ours."""
    shown = figures(result) if _scored(result) else {}
    changed = any(cell.study.changes for cell in result.cells)
    body = [
        _rows(result, beside),
        _yes_no(result),
        _changes(result, shown) if changed else "",
        *(_by(result, key, shown) for key in result.strata() if _scored(result)),
        _flipped(result),
        per_group(result) if changed and _scored(result) and len(result.cells) <= MANY_CELLS else "",
        _lengths(result),
        section("How it was measured", card(paragraph(methods_text(result), kind="wide"))),
        failures_section(result, "None: every question was answered."),
        meanings(TERMS, _scorers(result)),
        origins(result, _origin, folded=True),
    ]
    title, question = result.study.title, _question(result, changed)
    return save_page(path, title=title, question=question, lead=_lead(result), body=body, figures=shown)


def _scored(result: BenchmarkResult) -> bool:
    """Whether the main scorer marked any sample."""
    return result.main in result.measures


def _question(result: BenchmarkResult, changed: bool) -> str:
    name = result.measure_names[result.main]
    if not changed:
        return f"What is the {name} on these questions?"
    return f"What is the {name} on these questions, and does it change with {_changed(result)}?"


def _changed(result: BenchmarkResult) -> str:
    return " or with ".join(
        dict.fromkeys(cell.labels["method"] for cell in result.cells if cell.study.changes)
    )


def _lead(result: BenchmarkResult) -> Markup:
    sizes = {cell.labels["data"]: len(cell.frame("samples")) for cell in result.cells}
    told = ", ".join(f"{count(n, 'question')} of {name}" for name, n in sizes.items())
    return lead(result, LEAD, samples=told, scorer=result.measure_names[result.main])


def _rows(result: BenchmarkResult, beside: Sequence[PaperTable]) -> Markup:
    """The table as papers print it, the averages with intervals, and what was published."""
    if not _scored(result):
        return section("Marks", card(paragraph("No sample has an answer to compare with.")))
    own = card(_wide(result.rows()), title=f"{capital(result.measure_names[result.main])}, %")
    published = [
        card(
            _wide(one.frame),
            paragraph(_caveat(one), kind="note"),
            title=f"Published, table {one.name}: {one.title}",
        )
        for one in beside
    ]
    more = join(paragraph(PUBLISHED, kind="soft wide"), *published) if published else ""
    return section("Marks", own, _averages(result), more, intro=ROWS)


def _yes_no(result: BenchmarkResult) -> Markup | str:
    """POPE's marks, one line per cell and kind of absent label."""
    if not asks_yes_or_no(result):
        return ""
    key = "negatives" if "negatives" in result.strata() else None
    found = result.yes_no(key)
    axes = varying(result.cells) or ["method"]
    names = [*result.axes, *([] if key is None else [key])]
    lines = []
    for _, own in found.groupby(names, sort=False):
        marks = {row["measure"]: row for row in records(own)}
        first = marks["accuracy"]
        lines.append(
            [
                " · ".join(str(first[axis]) for axis in axes),
                *([] if key is None else [first[key]]),
                first["n"],
                *(
                    percent_range(marks[name])
                    for name in ("accuracy", "precision", "recall", "f1", "yes_ratio")
                ),
                number(100 * marks["neither"]["value"], 1),
                bold(percentage_points({**marks["f1"], **_ends(marks["f1"])})),
            ]
        )
    kinds = [] if key is None else ["absent labels"]
    marks_in = (
        "accuracy, %",
        "precision, %",
        "recall, %",
        "F1, %",
        "said yes, %",
        "neither, %",
        "F1, points",
    )
    return section("Yes or no", card(table(["", *kinds, "N", *marks_in], lines, "dense")), intro=YES_NO)


def _ends(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"low": row["difference_low"], "high": row["difference_high"]}


def percent_range(row: Mapping[str, Any]) -> str:
    """“61.2 [55.0, 67.1]”; the value alone where groups are too few for an interval."""
    value = number(100 * row["value"], 1)
    if row["note"] or pd.isna(row["low"]):
        return value
    return f"{value} [{number(100 * row['low'], 1)}, {number(100 * row['high'], 1)}]"


def _caveat(one: PaperTable) -> str:
    note = f" What does not add up, or is weighted: {one.note}." if one.note else ""
    return f"Quoted from {one.source}; nothing of it was measured here.{note}"


def _wide(frame: pd.DataFrame) -> Markup:
    lines = [[cell_text(cell, str(row[0]) == SIZES) for cell in row] for row in frame.itertuples(index=False)]
    return table([str(name) for name in frame.columns], lines, "dense")


def _averages(result: BenchmarkResult) -> Markup | str:
    """Micro and macro averages over data sets with intervals, where something changes and there are several."""
    changed = any(cell.study.changes for cell in result.cells)
    if not changed or len({cell.labels["data"] for cell in result.cells}) < 2:
        return ""
    found = result.averages()
    axes = [axis for axis in varying(result.cells) if axis != "data"] or ["method"]
    columns: dict[str, Any] = {
        "run": lambda row: " · ".join(str(row[axis]) for axis in axes),
        "average": "average",
        **MARK_COLUMNS,
        "N": "strata",
    }
    shown = card(paragraph(AVERAGES, kind="soft"), table(list(columns), rows(found, columns), "dense"))
    return details("Averages over the data sets, with intervals", shown)


def _changes(result: BenchmarkResult, shown: Mapping[str, Any]) -> Markup:
    figure = figure_card("difference") if "difference" in shown else ""
    return section("Beside the plain model", figure, methods_card(result), pairs_card(result), intro=METHODS)


def _by(result: BenchmarkResult, key: str, shown: Mapping[str, Any]) -> Markup:
    """The table of one field of the samples, and its figure."""
    axes = varying(result.cells) or ["data"]
    columns: dict[str, Any] = {
        "run": lambda row: " · ".join(str(row[axis]) for axis in axes),
        key: key,
        "N": "n",
        "groups": "n_groups",
        **MARK_COLUMNS,
        **FLIP_COLUMNS,
    }
    figure = figure_card(f"by-{key}") if f"by-{key}" in shown else ""
    body = card(_wide(result.rows(key)), table(list(columns), rows(result.by(key), columns), "dense"))
    return section(f"By {key.replace('_', ' ')}", figure, body, intro=BY)


def _flipped(result: BenchmarkResult) -> Markup | str:
    """Counts of flips of each cell, and some of the flipped samples with their images."""
    cells = [cell for cell in result.cells if cell.measured and cell.study.changes]
    if not cells or result.main not in result.marks or not _scored(result):
        return ""
    tables = grid((flips_card(result, cell) for cell in cells), "tight")
    flips = result.flips()
    drawn = [] if len(cells) > MANY_CELLS else [_gallery(result, cell, flips) for cell in cells]
    columns: dict[str, Any] = {
        **{axis: axis for axis in varying(result.cells)},
        "sample": "sample", "question": "question", "answer": "answer", "before": "text_before",
        "after": "text_after", "flip": "flip",
    }  # fmt: skip
    more = len(flips) - MANY_FLIPS
    left = (
        paragraph(
            f"Not listed here: {count(more, 'flip')}. All are in result.flips() and in flips.csv of result.export().",
            kind="soft",
        )
        if more > 0
        else ""
    )
    listing = table(list(columns), rows(flips.head(MANY_FLIPS), columns), "text")
    every = details(f"All flips: {len(flips)}", card(listing, left))
    return section(
        "What flipped", tables, *drawn, every if len(flips) else "", intro=FLIPPED.format(seed=result.seed)
    )


def _gallery(result: BenchmarkResult, cell: GridCell, flips: pd.DataFrame) -> Markup | str:
    own = rows_of(flips, cell.labels)
    chosen: list[dict[str, Any]] = []
    for flip in ("gained", "lost"):
        part = where(own, own.flip == flip)
        kept = gallery.drawn(part["index"].tolist(), SHOWN // 2, result.seed)
        chosen += records(where(part, part["index"].isin(kept)))
    if not chosen:
        return ""
    return join(heading(cell_title(result, cell), level=3), grid(_flip_card(cell, row) for row in chosen))


def _flip_card(cell: GridCell, row: Mapping[str, Any]) -> Markup:
    """The card of one flipped sample: its pictures, question, answer and both texts."""
    sample = cell.study.data[row["index"]]
    gained = row["flip"] == "gained"
    before = bold(_text(row["text_before"]), kind=gallery.verdict(not gained))
    after = bold(_text(row["text_after"]), kind=gallery.verdict(gained))
    lines = [
        join("answer ", bold(_text(row["answer"])), " · ", before, " → ", after),
        f"options: {', '.join(sample.options)}" if sample.options else "",
        gallery.origin_line(row["sample"], row["group"]),
    ]
    pictures = gallery.views(sample, "image", partial(gallery.picture, sample))
    return gallery.sample_card(pictures, row["question"], lines, columns=max(len(pictures), 2))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "no answer"


def _lengths(result: BenchmarkResult) -> Markup:
    found = result.lengths()
    axes = varying(result.cells) or ["data"]
    columns: dict[str, Any] = {
        "run": lambda row: " · ".join(str(row[axis]) for axis in axes),
        "when": "when",
        "answers": "n",
        "none came": "n_missing",
        "empty": "n_empty",
        "words, mean": lambda row: number(row["mean_words"], 1),
        "words, most": "max_words",
        "tokens at most": "limit",
    }
    return section(
        "Length of answers", card(table(list(columns), rows(found, columns), "dense")), intro=LENGTHS
    )


def _scorers(result: BenchmarkResult) -> dict[Any, Any]:
    """What each scorer does, and its settings."""
    found = {scorer.name: scorer for cell in result.cells for scorer in cell.study.scorer}
    return {
        capital(label(scorer)): join(about(scorer), Markup("<br>"), code(as_json(scorer)))
        for scorer in found.values()
    }


def _origin(cell: GridCell) -> Markup:
    study = cell.study
    more = [
        ("method", as_json(cell.folder.study()["method"])),
        ("edits", ", ".join(as_json(edit) for edit in study.edits) or "none"),
        ("scorers", ", ".join(as_json(scorer) for scorer in study.scorer)),
        ("prompt", as_json(study.prompt)),
        ("decoding", as_json(study.decoding)),
        ("tokens, seed, batch", f"{study.max_new_tokens}, {study.seed}, {study.batch}"),
        (
            "rows a reader left out",
            "; ".join(f"{why}: {n}" for why, n in study.data.skipped.items()) or "none",
        ),
    ]
    return origin(cell.folder, more)


LINE = 26
"""Height of a line of a figure, in pixels."""


def figures(result: BenchmarkResult) -> Figures:
    """ "difference": the change of each cell, where something changes; "by-…": the same by each field of the
    samples."""
    if not any(cell.study.changes for cell in result.cells) or result.main not in result.measures:
        return {}
    summary = result.summary()
    found = {"difference": _differences(result, where(summary, summary.measure == result.main), None)}
    return found | {f"by-{key}": stratum_figure(result, key) for key in result.strata()}


def stratum_figure(result: BenchmarkResult, key: str) -> go.Figure:
    """The change of each value of a field, one panel per model and method."""
    return _differences(result, result.by(key), key)


def _differences(result: BenchmarkResult, found: pd.DataFrame, key: str | None) -> go.Figure:
    """Changes in percentage points with intervals: one panel per method, one line per data set or stratum."""
    axes = [axis for axis in varying(result.cells) if axis != "data" or key is not None] or ["method"]
    changed = [cell for cell in result.cells if cell.measured and cell.study.changes]
    titles = list(dict.fromkeys(" · ".join(cell.labels[axis] for axis in axes) for cell in changed))
    figure = panels(titles, shared_yaxes=True)
    named = pd.Series([" · ".join(row[axis] for axis in axes) for row in records(found)], index=found.index)
    most = 1
    for column, title in enumerate(titles, start=1):
        rows = where(found, named == title)
        most = max(most, len(rows))
        figure.add_trace(difference_points(rows, rows[key or "data"].astype(str).tolist()), row=1, col=column)
    figure.add_vline(x=0, line={"color": GREY, "width": 1})
    figure.update_yaxes(autorange="reversed", showgrid=False)
    name = result.measure_names[result.main]
    figure.update_xaxes(title_text=f"{name},<br>after − before, points<br>(higher is better →)", matches="x")
    layout: Any = figure.layout
    layout.xaxis.matches = None  # the other axes match the first; an axis that matches itself is an error
    return laid_out(figure, 172 + LINE * most, columns=len(titles), showlegend=False)


LEAD = Markup("""<b>{models}</b> answered {samples}. Values are {scorer}, in percent.""")
ROWS = """Each row is a model as it is, or under a method or edits; each column is a data set. N is the number of marked
questions. “micro” is the mean over all questions, “macro” the mean of the columns."""
PUBLISHED = """Published numbers are quoted for comparison. They were measured with other software, on splits and with
prompts and scorers that the source does not always state, so a difference of one or two points means little."""
AVERAGES = """“micro” gives each question the same weight, “macro” each data set. Intervals resample whole groups of all
data sets together; no group belongs to two data sets."""
METHODS = """Each line compares one method, or one set of edits, with the plain model on the same questions. Points are
the difference after − before in percentage points, with the 95 % interval over groups. “+” counts answers that became
right, “−” answers that became wrong. Holm's p is the p of the group-wise sign test, adjusted over all lines. s ×,
passes × and tokens × are the costs divided by the plain model's."""
BY = """The same comparison for the questions of each value. Holm's p is adjusted over this table. A value with few
questions or groups has a wide interval or none. The best of many values looks better than it is."""
YES_NO = """POPE's marks (arXiv 2305.10355), with yes as the positive class: precision is the share of the answers yes
that are right, recall the share of the questions with the answer yes that are found. Where both answers are equally
frequent, a share of yes far from one half shows a bias. An answer that is neither counts as wrong and as not yes.
Absent labels are drawn at random, are the most frequent ones (popular), or are those that often occur with what is in
the picture (adversarial). A model that says yes only to adversarial labels answers from what usually occurs together.
“F1, points” is after − before, paired over groups. “No” is true only where the annotation names everything that is in
the picture."""
FLIPPED = """McNemar's exact test asks whether a fair coin would split the flips so unevenly. It treats questions as
independent; where several questions share an image, use the interval over groups. The pictures are drawn at random from
both directions (seed {seed}); the list has every flip."""
LENGTHS = """Scorers of whole texts mark a longer answer wrong even if it contains the right word, so a change of length
can look like a change of knowledge. “none came” counts samples whose reasoning used all tokens."""
TERMS = {
    "Before, after": """“Before” is the model as it is. “After” is the model under the method or the edits. Questions,
    prompt and number of tokens are the same.""",
    "Intervals": """95 %, percentile bootstrap over groups (2,000 resamplings): a group is a patient or an image, as the
    data say. With fewer than 20 groups no interval is shown, and no claim about a population is made.""",
    "p": """The p of a sign-flip test over whole groups. McNemar's p treats single questions as independent. Holm's p is
    adjusted over all lines of its table.""",
    "Cost": """Seconds, passes and token positions of the whole call under the change, including passes that only
    measure, divided by those of plain generation on the same batches. Each is counted as if it ran alone. Passes of
    models that only answer are not counted.""",
}


def methods_text(result: BenchmarkResult) -> str:
    """How the numbers were measured, as a paragraph for a paper's methods section."""
    studies = [cell.study for cell in result.cells]
    templates = listed(f"“{study.prompt.template}”" for study in studies)
    lettered = any(study.prompt.options == "letters" for study in studies)
    drawn = {study.decoding.temperature for study in studies}
    decoding = "greedily" if drawn == {0.0} else f"at temperature {listed(drawn)}, with seed {result.seed}"
    tokens = listed(study.max_new_tokens for study in studies)
    scorers = listed(label(scorer) for study in studies for scorer in study.scorer)
    n = len(result.samples.drop_duplicates(["data", "index"]))
    changed = listed(cell.labels["method"] for cell in result.cells if cell.study.changes)
    parts = [
        f"{listed(cell.labels['model'] for cell in result.cells)} answered {count(n, 'question')} of "
        f"{listed(cell.labels['data'] for cell in result.cells)}, {decoding}, with at most {tokens} new tokens, under "
        f"the prompt {templates}" + (", options lettered." if lettered else "."),
        f"Answers were scored by {scorers}.",
    ]
    if changed:
        parts.append(
            f"The same questions were answered under {changed}. Differences are paired; 95 % intervals come from a "
            "percentile bootstrap over groups (2,000 resamplings), p values from sign flips of whole groups and from "
            "McNemar's exact test, with Holm's adjustment over the cells of a table."
        )
    parts.append(left_out(result.failures) or "No question was left out.")
    return " ".join(parts)
