"""The page of a knockout sweep: what was blocked, what became of the answer, and how far that can be trusted."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.report.html import (
    card,
    cards,
    figure_card,
    interval,
    number,
    rows_table,
    safe,
    size_of,
    stacked,
    table,
    tag,
    write_sheet,
)
from interp.study.dataframes import records, rows_of, where
from interp.study.knockout_sweep.figures import knockout_figures
from interp.study.knockout_sweep.result import LEAST
from interp.study.layer_sweep import page as prose
from interp.study.model_spec import is_organism

if TYPE_CHECKING:
    from interp.study.knockout_sweep.result import KnockoutResult
    from interp.study.runs import GridCell

__all__ = ["write_knockout_report"]

LEAD = """On {samples}, attention from some tokens (keys) to others (queries) was blocked {where}, one flow at a time,
and the probability of {target} compared with the unedited model's on the same sample."""

TARGETS = {
    "answer": """the first token of the sample's own answer""",
    "greedy": """the first token the unedited model says""",
}
PLACES = {
    "layer window": "in a few neighbouring layers",
    "layer": "in one layer",
    "head": "in one head",
}
FIGURE = """Lines are means over samples, bands their 95 % bootstrap intervals over groups (thin lines: single groups,
where there are too few for an interval). Dashed: as many image tokens elsewhere, blocked instead of those in the box.
At both ends windows are cut off, and so narrower."""

HEADS = """Each cell is a head of a layer, blocked alone: the mean relative change of the probability. Red: the answer
becomes less likely. Heads are many and were not tested; what stands out here is to be tested on other samples."""

STRONGEST = """Each flow where blocking it lowers the probability most; “nowhere” where no mean falls by 0.1 %. The
layers were chosen on these very samples, so this describes them; a maximum over windows flatters."""

TESTS = """Difference of the log-probability (nats) between the pass with the flow blocked and the unedited pass or, for
flows from boxes, the pass with as many tokens elsewhere blocked, on the same samples. p: signs of whole groups flipped;
Holm's p is adjusted over all rows of a model and data set. A small p says that a change is not zero, not that it is
large."""

TERMS = {
    "Relative change": """(p_after − p_before) / p_before × 100, per sample, then the mean: −100 % is a probability of
    0, and gains have no bound, so that a few samples with a small p_before can lift a mean (Geva et al., arXiv
    2304.14767).""",
    "Accuracy": """Whether the likeliest first token, over the whole vocabulary, begins the sample's answer: after
    blocking minus before, in percentage points, over all samples with an answer.""",
    "Samples that count": """With the sample's own answer as target, means of probabilities are over the samples that
    the unedited model answers rightly: elsewhere there is no flow of the answer to block.""",
    "Windows": """Centred on a layer; an even width has one layer more below than above. What lies outside the model is
    cut off.""",
    "Blocked": """Hidden keys get no attention from the flow's queries in the window; under “renormalise” the other keys
    share it, under “zero” it is lost. Everything else runs on as it was, so a flow can be made up for by another route:
    no change does not show that nothing flows.""",
    "Question": """The user's own words. Template and instruction are not among them; “after_image” is everything after
    the last image token.""",
    "Elsewhere": """As many image tokens outside the boxes, drawn at random once per sample.""",
    "Intervals": prose.INTERVALS,
}


def write_knockout_report(result: KnockoutResult, path: Path) -> Path:
    """Writes the page and returns its path."""
    figures = knockout_figures(result)
    body = [
        tag("h2", "Head by head" if result.by_head else "Layer by layer"),
        tag("p", HEADS if result.by_head else FIGURE, kind="soft wide"),
        stacked(figure_card(name) for name in figures),
        _strongest(result),
        "" if result.by_head else _tests(result),
        _blocked(result),
        _failures(result),
        _words(),
        _provenance(result),
    ]
    study = result.study
    return write_sheet(
        path, title=study.title, question=study.question, lead=_lead(result), body=body, figures=figures
    )


def _lead(result: KnockoutResult) -> str:
    counts, studies = [], [cell.study for cell in result.cells]
    for cell in result.cells:
        counted, measured = result.n_counted(cell)
        counts.append(f"{measured} samples of {_name(cell)}" + _left_out(cell, counted, measured))
    words = LEAD.format(
        samples=" and ".join(counts),
        where=" or ".join(dict.fromkeys(PLACES[study.by] for study in studies)),
        target=" or ".join(dict.fromkeys(TARGETS[study.target] for study in studies)),
    )
    organism = any(is_organism(study.model) for study in studies)
    return tag("p", words, kind="lead") + (tag("p", prose.ORGANISM, kind="note wide") if organism else "")


def _left_out(cell: GridCell, counted: int, measured: int) -> str:
    if cell.study.target != "answer" or counted == measured:
        return ""
    return f" ({counted} of them answered rightly: probabilities are means over those)"


def _name(cell: GridCell) -> str:
    return f"<b>{safe(' · '.join(cell.key))}</b>"


def _strongest(result: KnockoutResult) -> str:
    shown = []
    for cell in result.cells:
        rows = [_strongest_row(result, cell, row) for row in result.strongest(cell)]
        if rows:
            heads = (
                "flow",
                "layers",
                *(("head",) if result.by_head else ()),
                "probability, %",
                "accuracy, points",
            )
            shown.append(card(tag("h3", _name(cell)), table((*heads, "samples"), rows), _few(result, cell)))
    if not shown:
        right = "No sample is answered rightly by the unedited model, so there is no probability to follow."
        return tag("h2", "Where it matters most") + tag(
            "p", right + ' Use target="greedy".', kind="note wide"
        )
    return tag("h2", "Where it matters most") + tag("p", STRONGEST, kind="soft wide") + stacked(shown)


def _strongest_row(result: KnockoutResult, cell: GridCell, row: dict[str, Any]) -> list[str]:
    summary = rows_of(result.summary(), cell.labels)
    here = where(summary, (summary.flow == row["flow"]) & (summary.layer == row["layer"]))
    here = where(here, here.measure == "accuracy")
    if result.by_head:
        here = where(here, here["head"] == row["head"])
    accuracy = [_with_interval(found) for found in records(here)] or ["–"]
    head = [str(row["head"])] if result.by_head else []
    layers = _layers(row) if row["mean"] <= -LEAST else "nowhere"
    return [row["flow"], layers, *head, _with_interval(row), *accuracy, str(row["n"])]


def _layers(row: dict[Any, Any]) -> str:
    return f"{row['first']}–{row['last']}" if row["first"] != row["last"] else str(row["first"])


def _with_interval(row: dict[Any, Any]) -> str:
    return f"{_signed(row['mean'], 1)} {interval(row, 1)}".rstrip()


def _signed(value: float, digits: int) -> str:
    text = number(value, digits)
    return f"+{text}" if value > 0 and float(text) != 0 else text


def _few(result: KnockoutResult, cell: GridCell) -> str:
    notes = set(rows_of(result.summary(), cell.labels).note) - {""}
    return tag("p", safe(sorted(notes)[0]), kind="note") if notes else ""


def _tests(result: KnockoutResult) -> str:
    found, parts = result.tests(), []
    for cell in result.cells:
        own = rows_of(found, cell.labels) if len(found) else found
        if not len(own):
            continue
        rows = [
            (
                row["flow"],
                row["against"],
                _layers(row),
                _signed(row["difference"], 3),
                "–" if row["note"] else f"[{number(row['low'], 3)}, {number(row['high'], 3)}]",
                _p(row["p"]),
                _p(row["p_holm"]),
            )
            for row in records(own)
        ]
        heads = ("flow", "against", "layers", "difference, nats", "95 %", "p", "Holm's p")
        named = tag("summary", f"{safe(' · '.join(cell.key))}: {len(rows)} tests")
        parts.append(tag("details", named, card(table(heads, rows), kind="scroll")))
    return tag("h2", "Tests") + tag("p", TESTS, kind="soft wide") + "".join(parts) if parts else ""


def _p(value: float) -> str:
    return "–" if value != value else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _blocked(result: KnockoutResult) -> str:
    """How many tokens each flow has: a flow of many keys and rows has more to lose."""
    shown = []
    for cell in result.cells:
        sizes, samples = cell.frame("sizes"), cell.frame("samples")
        rows = []
        for name, flow in result.flows(cell).items():
            own = sizes[sizes.flow == name]
            ends = ["keys", "queries"]
            listed = [", ".join(map(str, flow.to_dict()[end])) for end in ends]
            means = [f"{own[f'n_{end}'].mean():.1f}" for end in ends]
            rows.append((name, listed[0], means[0], listed[1], means[1], str(len(own))))
        heads = ("flow", "keys", "tokens, mean", "queries", "tokens, mean", "samples")
        told = f"Prompts have {samples.n_prompt.mean():.0f} tokens on average, {samples.n_tokens.mean():.0f} of them "
        told += "image tokens."
        shown.append(card(tag("h3", _name(cell)), table(heads, rows), tag("p", told, kind="soft")))
    return tag("h2", "What was blocked") + stacked(shown)


def _failures(result: KnockoutResult) -> str:
    found = result.failures
    if found.empty:
        return tag("h2", "Failures") + tag("p", "None: every flow was blocked in every sample.", kind="soft")
    whole = int(found.flow.isna().sum())
    counts = found[found.flow.notna()].groupby("flow")["sample"].nunique()
    said = "; ".join(f"{safe(name)}: {n} samples" for name, n in counts.items()) or "none"
    words = f"Samples left out: {whole}. Flows that could not be blocked, in some windows or all: {said}."
    first = found.drop_duplicates(["sample", "flow", "error", "reason"]).head(20)
    rows = rows_table(
        (
            f"{row['sample']} {row['flow'] if isinstance(row['flow'], str) else ''}",
            f"{row['error']}: {row['reason']}",
        )
        for row in records(first)
    )
    listed = tag("details", tag("summary", f"The first {len(first)}"), card(rows))
    return tag("h2", "Failures") + tag("p", words, kind="wide") + listed


def _words() -> str:
    listed = tag("dl", *(tag("dt", safe(term)) + tag("dd", safe(text)) for term, text in TERMS.items()))
    return tag("h2", "What the words mean") + card(listed)


def _provenance(result: KnockoutResult) -> str:
    shown = (card(tag("h3", _name(cell)), rows_table(_origin(result, cell))) for cell in result.cells)
    return tag("h2", "Provenance and cost") + cards(shown, "top")


def _origin(result: KnockoutResult, cell: GridCell) -> Iterable[tuple[str, Any]]:
    manifest, study = cell.folder.read_json("manifest.json", {}), cell.study
    session = (manifest.get("sessions") or [{}])[-1]
    model, data = manifest.get("model", {}), manifest.get("data", {})
    total = cell.folder.read_json("cost.json", {}).get("total", {})
    ran, naive = result.work(cell)
    share = (
        f"{ran:,} token positions × layers; whole passes: {naive:,}, {naive / max(ran, 1):.1f} times as many"
    )
    return [
        ("run", cell.folder.path.name),
        (
            "model",
            f"{model.get('id') or model.get('family')}, fingerprint {str(model.get('fingerprint'))[:16]}",
        ),
        (
            "data",
            f"{data.get('name')}, {data.get('n')} samples, fingerprint {str(data.get('fingerprint'))[:16]}",
        ),
        ("prompt", json.dumps(study.prompt.to_dict(), ensure_ascii=False)),
        ("by, mode, target", f"{study.by}, {study.mode}, {study.target}"),
        ("rule, seed, batch", f"{study.rule}, {study.seed}, {study.batch}"),
        ("device", f"{manifest.get('device')}; {session.get('machine')}"),
        ("computed", f"{session.get('started')}, {len(manifest.get('sessions', []))} session(s)"),
        ("versions", ", ".join(f"{name} {version}" for name, version in session.get("versions", {}).items())),
        ("commit", session.get("commit")),
        ("time", f"{total.get('wall_seconds', 0):.1f} s, {total.get('forwards', 0):.0f} forward passes"),
        ("work", share),
        ("peak memory", size_of(total["peak_bytes"]) if total.get("peak_bytes") else None),
    ]


def write_page(result: KnockoutResult, path: str | Path) -> Path:
    """Write the page and return its path."""
    return write_knockout_report(result, Path(path))


def figures(result: KnockoutResult) -> dict[str, Any]:
    """The page's figures by name."""
    return knockout_figures(result)
