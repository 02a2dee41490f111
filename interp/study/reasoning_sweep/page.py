"""The page of a reasoning sweep: when the image stops mattering, over all samples and sentence by sentence."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from interp.report.figures import SERIES, Figures, curves, laid_out, panels, plain, reference_line
from interp.report.gallery import answers, origin_line, picture, sample_card, views
from interp.report.html import card, figure_cards, grid, paragraph, save_page, section, table
from interp.report.provenance import INTERVALS, as_json, meanings, origin
from interp.report.tables import estimate, in_groups, percent, rows, signed
from interp.study.dataframes import records, rows_of, where
from interp.study.page_parts import failures_by_sample, lead, origins
from interp.study.reasoning_sweep.task import TOLERANCE

if TYPE_CHECKING:
    from interp.study.result import GridResult
    from interp.study.runs import GridCell

__all__ = ["figures", "write_page"]


N_SHOWN = 3
LEAD = Markup("""<b>{models}</b> reasoned about {samples} ({data}) and answered. Reasoning and answer were then
forced, with the image hidden from one sentence on: from that sentence, all later sentences and the answer.""")
FIGURE = """Mean change of the log-probability of the model's own answer, compared with the image visible throughout.
Far left: nothing after the prompt sees the image. Far right: only the answer does not see it. Bands are 95 % bootstrap
intervals over groups; with too few groups, each thin line is one group."""
SENTENCE = """For each sample, the change of the answer's log-probability, in nats, when the image is hidden from this
sentence on."""
TERMS = {
    "Change": """log p(answer | image hidden from that sentence on) − log p(answer | image visible throughout), summed
    over the answer's tokens, in nats.""",
    "No longer matters": f"""Hiding the image from this sentence or from any later one changes the log-probability by
    less than {TOLERANCE} nats. Where hiding it from the answer alone changes more, the image matters to the end.""",
    "No change": """A sentence can carry what an earlier row read from the image. So no change shows that the answer
    needs no further look at the image, not that it never needed the image.""",
    "Failures": "Reasoning that did not end within the allowed tokens has no answer and counts as a failure.",
    "Intervals": INTERVALS,
}


def write_page(result: GridResult, path: str | Path) -> Path:
    """Writes the page and returns its path.

    Args:
        result: Of a `ReasoningSweep`, or of a grid over one.
        path: The HTML file.
    """
    shown = figures(result)
    body = [
        section("When the image stops mattering", figure_cards(shown), card(_table(result)), intro=FIGURE),
        section("Sentence by sentence", *_examples(result), intro=SENTENCE),
        section("Failures", failures_by_sample(result)),
        meanings(TERMS),
        origins(result, _origin),
    ]
    study = result.cells[0].study
    first = lead(result, LEAD)
    return save_page(path, title=study.title, question=study.question, lead=first, body=body, figures=shown)


def _table(result: GridResult) -> Markup:
    columns: dict[str, Any] = {
        "data": lambda row: f"{row['model']} · {row['data']}",
        "sentences that see the image": lambda row: percent(row["seen"]),
        "change, nats": estimate,
        "samples": in_groups,
    }
    summary = result.summary()
    own = where(summary, (summary.measure == "change") & summary.seen.isin((0.0, 0.5, 1.0)))
    return table(list(columns), rows(own, columns))


def _examples(result: GridResult) -> Iterator[Markup]:
    """The first samples of each run, each with its sentences."""
    for cell in (cell for cell in result.cells if cell.measured):
        lines = cell.frame("sentences")
        cards = []
        for row in records(cell.named_frame("samples").head(N_SHOWN)):
            sample = cell.study.data[int(row["index"])]
            own = where(lines, lines["index"] == row["index"])
            columns: dict[str, Any] = {
                "hidden from": lambda line: (
                    line["text"] if isinstance(line["text"], str) else "(the answer alone)"
                ),
                "change, nats": lambda line: signed(line["change"]),
            }
            said = _until(row["until"])
            told = [
                answers({**row, "predicted": row["said"]}),
                paragraph(said),
                origin_line(sample.id, row["group"]),
            ]
            shown = views(sample, "image", partial(picture, sample)) if sample.images else []
            cards.append(
                sample_card(shown, sample.question, [*told, table(list(columns), rows(own, columns))])
            )
        yield grid(cards, "tight")


def _until(until: float) -> str:
    """A sentence on where hiding the image stops changing the answer's log-probability."""
    if until != until:
        return "Hiding the image matters to the end, even from the answer alone."
    after = f"after {percent(until)} of the sentences" if until else "from the first sentence on"
    return f"Hiding the image no longer matters {after}."


def _origin(cell: GridCell) -> Markup:
    study = cell.study
    settings = f"{study.thoughts}, {study.max_new_tokens}, {study.answer_tokens}, {study.batch}"
    return origin(
        cell.folder, [("prompt", as_json(study.prompt)), ("thoughts, tokens, answer tokens, batch", settings)]
    )


def figures(result: GridResult) -> Figures:
    """ "change": mean change of the answer's log-probability, with a 95 % band or one line per group."""
    cells = [cell for cell in result.cells if cell.measured]
    figure = panels([" · ".join(cell.key) for cell in cells], columns=len(cells), shared_yaxes=True)
    for column, cell in enumerate(cells, start=1):
        summary, scores = (
            where(own, own.measure == "change").rename(columns={"seen": "layer"})
            for own in (rows_of(frame, cell.labels) for frame in (result.summary(), result.scores))
        )
        for trace in curves(summary, scores, "image hidden from there on", SERIES[0], legend=column == 1):
            figure.add_trace(trace, row=1, col=column)
        reference_line(figure, y=0, row=1, col=column)
    figure.update_xaxes(title_text="share of the sentences that see the image", tickformat=".0%")
    title = plain("log p of the answer, change in nats,\nlower: the image mattered more ↓")
    figure.update_yaxes(title_text=title, row=1, col=1)
    return {"change": laid_out(figure, 380, columns=len(cells), margin={"l": 84, "b": 110})}
