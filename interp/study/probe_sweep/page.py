"""The page of a probe sweep: where and from which layer on a property can be read linearly, with its figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from interp.inputs.text import count
from interp.report.figures import GREY, SERIES, Figures, curves, laid_out, panels, reference_line, ticks_at
from interp.report.html import card, definitions, figure_cards, heading, paragraph, save_page, section, table
from interp.report.provenance import INTERVALS, as_json, origin
from interp.report.tables import estimate, in_groups, rows, times
from interp.study.dataframes import rows_of, where
from interp.study.page_parts import failure_line, lead, origins

if TYPE_CHECKING:
    from interp.study.probe_sweep.result import ProbeResult
    from interp.study.runs import GridCell

__all__ = ["TOKENS", "figures", "write_page"]


LEAD = Markup("""Logistic probes predict the {target} from the residual stream of <b>{models}</b> after each layer;
{samples} ({data}). Whole groups are split into {folds} folds, and each sample is scored by a probe that was fitted
without its fold.""")
FIGURE = """Blue: how often the probe predicts the class of a held-out sample. Orange, dashed: the same for the control
task. Dotted: how often the most frequent class of the training samples is right."""
TERMS = {
    "Control task": """Each {control} gets a random class, with the same frequencies. A probe that predicts these
    classes above chance has memorised which {control} has which class, so accuracy means little where the control is as
    high.""",
    "Selectivity": "Accuracy − control, on the same samples.",
    "What it does not show": """A probe shows that a property can be read from the stream, not that the model uses
    it. Patch the stream to see what is used. A property that no linear probe can read may still be encoded in
    another form.""",
    "Intervals": INTERVALS,
}


def write_page(result: ProbeResult, path: str | Path) -> Path:
    """Writes the page and returns its path.

    Args:
        result: Of a `ProbeSweep`, or of a grid over one.
        path: The HTML file.
    """
    shown, study = figures(result), result.cells[0].study
    terms = {name: text.format(control=study.control) for name, text in TERMS.items()}
    body = [
        section(
            "Layer by layer", figure_cards(shown), *_limits(result), card(definitions(terms)), intro=FIGURE
        ),
        section("In numbers", *_tables(result)),
        section("Failures", paragraph(failure_line(result), kind="wide")),
        origins(result, _origin),
    ]
    first = lead(result, LEAD, target=study.target, folds=study.folds)
    return save_page(path, title=study.title, question=study.question, lead=first, body=body, figures=shown)


def _limits(result: ProbeResult) -> Iterator[Markup]:
    """What keeps accuracy below 1 in each run with classes that lie in one fold alone."""
    found = result.unseen
    for cell in (cell for cell in result.cells if cell.measured):
        own = rows_of(found, cell.labels)
        if len(own):
            run = f"{' · '.join(cell.key)}: " if len(result.cells) > 1 else "There are "
            most = own.set_index("target").n.sort_values(ascending=False, kind="stable").head(5)
            more = ", …" if len(own) > 5 else ""
            yield paragraph(
                f"{run}classes that lie in one fold alone: {times(most)}{more}. The probe that scores their "
                f"{count(int(own.n.sum()), 'sample')} has not seen the class, so each counts as wrong at every layer: "
                f"accuracy is at most {1 - own.share.sum():.2f}.",
                kind="wide",
            )


def _tables(result: ProbeResult) -> Iterator[Markup]:
    summary = result.summary()
    for cell in (cell for cell in result.cells if cell.measured):
        own = rows_of(summary, cell.labels)
        if len(result.cells) > 1:
            yield heading(" · ".join(cell.key), level=3)
        wide: dict[tuple[Any, Any], dict[str, Any]] = {}
        for row in own.to_dict("records"):
            place = wide.setdefault((row["position"], row["layer"]), dict(row))
            place[str(row["measure"])] = row
        columns: dict[str, Any] = {
            "position": lambda row: TOKENS[row["position"]],
            "layer": "layer",
            "accuracy [95 %]": _said("accuracy"),
            "control": _said("control"),
            "selectivity": _said("selectivity"),
            "most frequent class": _said("majority"),
            "samples": in_groups,
        }
        yield card(table(list(columns), rows(list(wide.values()), columns)))


def _said(measure: str) -> Any:
    def said(row: Mapping[str, Any]) -> str:
        return estimate(row[measure])

    return said


def _origin(cell: GridCell) -> Markup:
    study = cell.study
    settings = f"{study.folds}, {study.penalty:g}, {study.seed}, {study.batch}"
    return origin(cell.folder, [("prompt", as_json(study.prompt)), ("folds, penalty, seed, batch", settings)])


TOKENS = {"last": "last token", "question": "question", "image": "image tokens", "box": "tokens in the boxes"}
LINES = (
    ("accuracy", "probe", SERIES[0], "solid"),
    ("control", "control task", SERIES[1], "dash"),
    ("majority", "most frequent class", GREY, "dot"),
)
"""Measure, its name, colour and dash."""


def figures(result: ProbeResult) -> Figures:
    """ "accuracy": by layer, one row per run and one panel per position; 95 % bands, or one line per group."""
    cells = [cell for cell in result.cells if cell.measured]
    positions = list(dict.fromkeys(result.scores.position))
    titles = [f"{cell.labels['data']}: {TOKENS[one]}" for cell in cells for one in positions]
    shared = {"shared_xaxes": True, "shared_yaxes": True, "vertical_spacing": 0.3 / (len(cells) + 1)}
    figure = panels(titles, rows=len(cells), columns=len(positions), horizontal_spacing=0.03, **shared)
    known: set[str] = set()
    for row, cell in enumerate(cells, start=1):
        summary, scores = (rows_of(frame, cell.labels) for frame in (result.summary(), result.scores))
        for column, position in enumerate(positions, start=1):
            for measure, name, colour, dash in LINES:
                own, of_samples = (
                    where(frame, (frame.measure == measure) & (frame.position == position))
                    for frame in (summary, scores)
                )
                for trace in curves(own, of_samples, name, colour, dash=dash, legend=name not in known):
                    figure.add_trace(trace, row=row, col=column)
                known.add(name)
            reference_line(figure, y=1, row=row, col=column)
    figure.update_xaxes(**ticks_at(result.scores.layer, 8))
    figure.update_xaxes(title_text="layer", row=len(cells))
    figure.update_yaxes(range=[0, 1.05])
    figure.update_yaxes(title_text="held-out accuracy,<br>higher: can be read ↑", col=1)
    return {"accuracy": laid_out(figure, 150 + 240 * len(cells), columns=len(positions), margin={"b": 100})}
