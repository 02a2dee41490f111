"""The page of methods: what they change, with intervals, flips, cost, and drawn samples before and after."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageDraw

from interp.inputs.answers import RULE
from interp.report.gallery import RAMP, data_uri, overlay, picture
from interp.report.html import (
    capital,
    card,
    cards,
    figure_card,
    number,
    rows_table,
    safe,
    size_of,
    table,
    tag,
    write_sheet,
)
from interp.stats import MIN_GROUPS
from interp.study.dataframes import records, rows_of, where
from interp.study.layer_sweep import page as prose
from interp.study.model_spec import is_organism
from interp.study.refinement import page as refinement_words
from interp.study.refinement.figures import panel_name, panels, refinement_figures
from interp.study.refinement.method_comparison import MEASURES
from interp.study.refinement.tables import flips_table, methods_card, p_words, pairs_card, range_of

if TYPE_CHECKING:
    from interp.inputs.sample import Sample
    from interp.inputs.tokens import TokenMap
    from interp.study.refinement.result import RefinementCell, RefinementResult

__all__ = [
    "FIGURES",
    "FLIPS",
    "GALLERY",
    "LEAD",
    "LOOKS",
    "METHODS",
    "PAIRS",
    "PER_GROUP",
    "TERMS",
    "drawn",
    "failures",
    "provenance",
    "sample_card",
    "shaded",
    "write_refinement",
]

LEAD = """<b>{model}</b> answers {samples} twice, greedily: as it is, and under the method. Every difference is
after − before on the same samples; positive means more often right."""

FIGURES = {
    "difference": (
        "Accuracy, after − before",
        """Points are means over samples, bars 95 % bootstrap intervals over groups. Where groups are too few for an
        interval, open circles are the single groups.""",
    ),
    "heat": (
        "Accuracy change over both parameters",
        """Each cell is the change of accuracy against the plain model, in points, on the same samples; blue is better,
        red worse. Hover for the interval and the number of samples. The best cell of a table flatters: choose
        parameters on validation samples.""",
    ),
}

METHODS = """Each line: one method against the plain model on the same samples. + and − count answers that became right
and wrong. Holm’s p is that of the group-wise sign test, adjusted over the lines. “Points”
are percentage points of accuracy, with the 95 % interval. Cost is the method’s over the plain model’s."""

PAIRS = """Accuracy under the first method less accuracy under the second. p: the signs of whole groups’ differences
flipped; Holm’s p is adjusted over this table."""

FLIPS = """McNemar’s exact test asks whether a fair coin would split the flips so unevenly. It takes samples as
independent: where several share a patient, a volume or an image, read the interval over groups instead."""

PER_GROUP = """Too few groups for an interval that speaks of others: these are the values, group by group, and no claim
about a population is made."""

GALLERY = """Drawn with seed {seed}, not picked by what came of them. Maps run low {ramp} high, each scaled to its own
99.5th percentile. Dark tokens are those the method hides. Beside each answer: the probability of beginning the
sample’s own answer. {layer}"""

LOOKS = """“Looks” is the last prompt row’s attention at layer {layers}, head mean, over that of a generic prompt on
the plain model; “after” was read anew under the method’s edits. Where a method edits that very layer, the change is
its own doing and no evidence of grounding."""

TERMS = {
    "Probability of the answer": """Of beginning it: the summed probability of the first tokens of the answer’s
    spellings, after the last prompt token. Under PAI’s guidance logits are contrasted and cut off, so probabilities
    are sharper by construction, and 0 where it rules the answer out; their logarithms are left out and counted.""",
    "Attention ratio": """The relative map’s mean inside the sample’s boxes over its mean everywhere; an even map
    scores 1.""",
    "Intervals": """Percentile bootstrap over groups (2,000 resamplings). Fewer than 20 groups carry no claim about a
    population, and no interval is shown.""",
    "Cost": """Seconds, passes and token positions of the method’s whole call, its own measuring passes included, over
    those of plain generation on the same batches, each as if it ran alone: an image prefix that methods share is
    counted for each. A prefix, what follows it and each generated token are a pass; tokens are positions that went
    through the language model. Other work on the machine makes seconds uncertain; passes and tokens are exact.""",
}

SHOWN = 20
SHOWN_RUNS = 12


def failures(result: RefinementResult) -> str:
    """The samples that could not be answered, and why."""
    found = result.failures
    if found.empty:
        return tag("h2", "Failures") + tag("p", "None: every sample was answered both times.", kind="soft")
    varied = [axis for axis in result.axes if len({cell.labels[axis] for cell in result.cells}) > 1]
    rows = found.drop_duplicates([*varied, "error", "reason"]).head(SHOWN)
    listed = rows_table(
        (
            " · ".join([*(str(row[axis]) for axis in varied), str(row["sample"])]),
            f"{row['error']}: {row['reason']}",
        )
        for row in records(rows)
    )
    words = f"Left out, over all runs: {len(found)}. Means are over the rest. The first of each kind:"
    return tag("h2", "Failures") + tag("p", safe(words), kind="wide") + card(listed)


def provenance(result: RefinementResult) -> str:
    """Where each run's numbers come from and what it cost."""
    shown = [
        card(tag("h3", safe(" · ".join(cell.key))), rows_table(_origin(cell)))
        for cell in result.cells[:SHOWN_RUNS]
    ]
    left = len(result.cells) - len(shown)
    more = tag("p", f"And {left} more runs like these.", kind="soft") if left > 0 else ""
    return tag("h2", "Provenance and cost") + tag(
        "details", tag("summary", f"{len(result.cells)} run(s)"), cards(shown, "top"), more
    )


def _origin(cell: RefinementCell) -> list[tuple[str, Any]]:
    manifest, study = cell.folder.read_json("manifest.json", {}), cell.study
    session = (manifest.get("sessions") or [{}])[-1]
    model, data = manifest.get("model", {}), manifest.get("data", {})
    total = cell.folder.read_json("cost.json", {}).get("total", {})
    versions = ", ".join(f"{name} {version}" for name, version in session.get("versions", {}).items())
    spent = f"{total.get('wall_seconds', 0):.1f} s, {total.get('forwards', 0):.0f} forward passes"
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
        ("method", json.dumps(cell.method, ensure_ascii=False)),
        ("prompt", json.dumps(study.prompt.to_dict(), ensure_ascii=False)),
        ("tokens, seed, batch", f"{study.max_new_tokens}, {study.seed}, {study.batch}"),
        ("device", f"{manifest.get('device')}; {session.get('machine')}"),
        ("computed", f"{session.get('started')}, {len(manifest.get('sessions', []))} session(s)"),
        ("versions", versions),
        ("commit", session.get("commit")),
        ("time", spent),
        ("peak memory", size_of(total["peak_bytes"]) if total.get("peak_bytes") else None),
    ]


SHADE = 0.22
CROP_COLOUR = (250, 204, 21)
Picture = tuple[str, Image.Image]


def drawn(cells: Sequence[RefinementCell], n: int, seed: int) -> list[int]:
    """Up to `n` samples that every one of the cells measured, drawn with a seed and not by what came of them."""
    measured = [set(cell.frame("samples")["index"].tolist()) for cell in cells]
    shared = np.array(sorted(set.intersection(*measured)), int)
    if len(shared) <= n:
        return shared.tolist()
    return np.sort(np.random.default_rng(seed).choice(shared, n, replace=False)).tolist()


def sample_card(cell: RefinementCell, index: int) -> str:
    """One sample: its pictures, its question, the answers and their probabilities before and after."""
    frame = cell.frame("samples")
    row = records(where(frame, frame["index"] == index))[0]
    scores = cell.frame("scores")
    own = where(scores, scores["index"] == index)
    values = {(r["measure"], r["when"]): r["value"] for r in records(own)}
    shown = _pictures(cell, index, row)
    group = "" if row["group"] == row["sample"] else f" · group {safe(row['group'])}"
    return card(
        _side_by_side(shown),
        tag("p", safe(row["question"])),
        tag("p", _answers(row, values)),
        tag("p", _ratios(values), kind="soft"),
        tag("p", f"<code>{safe(row['sample'])}</code>{group}", kind="soft"),
        kind="sample",
    )


def shaded(sample: Sample, tokens: TokenMap, kept: Bool[np.ndarray, " token"], image: int = 0) -> Image.Image:
    """The image with every hidden token's footprint darkened; what no token sees is left as it is."""
    shown = picture(sample.replace(boxes=()), image)
    seen = tokens.to_pixels(np.asarray(kept, float), image=image).astype(np.float32)
    light = np.asarray(Image.fromarray(seen).resize(shown.size, Image.Resampling.NEAREST))
    weight = np.where(np.isnan(light), 1.0, SHADE + (1 - SHADE) * np.nan_to_num(light))[..., None]
    return Image.fromarray((np.asarray(shown.convert("RGB"), float) * weight).round().astype(np.uint8))


def _pictures(cell: RefinementCell, index: int, row: Mapping[str, Any]) -> list[Picture]:
    sample, tokens = cell.study.data[index], cell.tokens(index)
    image = sample.boxes[0].image if sample.boxes else 0
    maps = cell.maps([index])[index]
    shown: list[Picture] = [("image and box" if sample.boxes else "image", picture(sample, image))]
    for name, caption in (
        ("before", "looks, before"),
        ("after", "looks, after"),
        ("method", "the method's map"),
    ):
        if name in maps:
            shown.append((caption, overlay(sample, tokens, maps[name], image)))
    if "kept" in maps:
        shown.append((f"hidden: dark ({_hidden(row)})", shaded(sample, tokens, maps["kept"] > 0.5, image)))
    if row["crop"] is not None:
        edges = tuple(int(edge) for edge in row["crop"])
        shown += [("where it crops", _framed(sample, edges)), ("the crop", _cropped(sample, edges))]
    return shown


def _hidden(row: Mapping[str, Any]) -> str:
    return f"{int(row['n_tokens'] - row['n_kept'])} of {int(row['n_tokens'])}"


def _framed(sample: Sample, edges: tuple[int, ...]) -> Image.Image:
    base = sample.load()
    shown = picture(sample.replace(boxes=()))
    scale = shown.width / base.width
    places = [round(edge * scale) for edge in edges]
    ImageDraw.Draw(shown).rectangle(
        (places[0], places[1], max(places[2] - 1, places[0]), max(places[3] - 1, places[1])),
        outline=CROP_COLOUR,
        width=3,
    )
    return shown


def _cropped(sample: Sample, edges: tuple[int, ...]) -> Image.Image:
    found = sample.load().crop((edges[0], edges[1], edges[2], edges[3]))
    side = 300 / max(found.size)
    size = (max(1, round(found.width * side)), max(1, round(found.height * side)))
    return found.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def _answers(row: Mapping[str, Any], values: Mapping[tuple[str, str], float]) -> str:
    """“answer green · before blue 31 % → after green 88 %”."""
    known = isinstance(row["answer"], str)
    told = f"answer <b>{safe(row['answer'])}</b>" if known else "no answer given"
    said = [_said(row, values, when) for when in ("before", "after")]
    return f"{told} · {said[0]} → {said[1]}"


def _said(row: Mapping[str, Any], values: Mapping[tuple[str, str], float], when: str) -> str:
    right = row[f"correct_{when}"]
    kind = "" if right is None else "right" if right else "wrong"
    mark = "" if right is None else " ✓" if right else " ✗"
    share = values.get(("probability", when), float("nan"))
    chance = "" if np.isnan(share) else f" ({100 * share:.1f} %)"
    return tag("b", safe(row[f"text_{when}"]) + mark, kind=kind) + chance


def _ratios(values: Mapping[tuple[str, str], float]) -> str:
    before, after = (values.get(("ar", when), float("nan")) for when in ("before", "after"))
    if np.isnan(before):
        return ""
    return f"attention ratio {number(before)}" + ("" if np.isnan(after) else f" → {number(after)}")


def _side_by_side(shown: Sequence[Picture]) -> str:
    pictures = (
        f'<figure style="margin:0"><img alt="{safe(words)}" src="{data_uri(drawn)}" width="{drawn.width}" '
        f'height="{drawn.height}"><figcaption style="font-size:.8rem">{safe(words)}</figcaption></figure>'
        for words, drawn in shown
    )
    columns = f"grid-template-columns: repeat({max(len(shown), 4)}, 1fr)"
    return f'<div class="pair" style="{columns}">{"".join(pictures)}</div>'


FEW_CELLS = 4
"""Up to so many cells each have a card of their own; more are lines of a table."""
USUAL = 0.05
MANY_CELLS = 10
"""With more on the same samples, as in a table over parameters, only the figure and the folded numbers are shown."""


def _many(result: RefinementResult) -> bool:
    return len(result.cells) > MANY_CELLS * len(panels(result))


def write_refinement(result: RefinementResult, path: Path) -> Path:
    """Writes the page and returns its path."""
    figures = refinement_figures(result)
    body = [
        _headlines(result),
        _figures(figures),
        _methods(result),
        _flips(result),
        _per_group(result),
        _gallery(result),
        failures(result),
        _words(result),
        provenance(result),
    ]
    study = result.study
    return write_sheet(
        path, title=study.title, question=_question(result), lead=_lead(result), body=body, figures=figures
    )


def _question(result: RefinementResult) -> str:
    methods = dict.fromkeys(cell.study.method.name for cell in result.cells)
    several = [name for name in methods if name != "Plain"]
    if len(several) > 1:
        return "Is the model right more often with one of these methods than without?"
    return f"Is the model right more often with {(several or ['Plain'])[0]} than without?"


def _lead(result: RefinementResult) -> str:
    models = ", ".join(dict.fromkeys(cell.labels["model"] for cell in result.cells))
    counts = ", ".join(
        f"{_measured(result, place)} samples of {safe(panel_name(result, place))}" for place in panels(result)
    )
    words = refinement_words.LEAD.format(model=safe(models), samples=counts)
    organism = any(is_organism(cell.study.model) for cell in result.cells)
    note = tag("p", prose.ORGANISM, kind="note wide") if organism else ""
    heads = "".join(
        tag("p", safe(capital(line)), kind="soft wide") for line in result.sentences()[:FEW_CELLS]
    )
    return tag("p", words, kind="lead") + note + heads


def _measured(result: RefinementResult, place: dict[str, str]) -> int:
    return max(len(cell.frame("samples")) for cell in result.cells if place.items() <= cell.labels.items())


def _headlines(result: RefinementResult) -> str:
    if len(result.cells) > FEW_CELLS:
        return ""
    return tag("h2", "What the method changed") + cards(
        (_headline(result, cell) for cell in result.cells), "top"
    )


def _headline(result: RefinementResult, cell: RefinementCell) -> str:
    """One cell: accuracy before → after, whatever the sign, and every other measure."""
    title = tag("h3", safe(cell_title(result, cell)))
    rows = records(rows_of(result.summary(), cell.labels))
    own = next((row for row in rows if row["measure"] == "correct"), None)
    if own is None:
        return card(title, tag("p", "No sample has an answer to be right about."), _measures(rows))
    before, after = (f"{100 * own[when]:.1f}" for when in ("before", "after"))
    counts = f"accuracy in % · {own['n']} samples, {own['n_groups']} groups"
    number_line = tag("div", tag("b", f"{before} → {after}"), tag("span", counts, kind="soft"), kind="number")
    return card(title, number_line, tag("p", _verdict(own)), _measures(rows), _cost(own), _note(own))


def _verdict(own: dict[str, Any]) -> str:
    """The difference with its interval, and what may be said of it."""
    gap = f"Difference <b>{range_of(own, 100, 1)}</b> points."
    flips = f"{own['wrong_to_right']:.0f} wrong → right, {own['right_to_wrong']:.0f} right → wrong"
    test = f"{flips}; McNemar, exact: p {p_words(own['p_flips'])}."
    if own["n_groups"] < MIN_GROUPS:
        return f"{gap} {test} Too few groups to speak of more than these samples."
    if own["low"] > 0 or own["high"] < 0:
        word = "More" if own["low"] > 0 else "<b>Less</b>"
        side = "above" if own["low"] > 0 else "below"
        said = f"{word} often right: the interval lies {side} zero."
        if own["p"] > USUAL:
            said += f" But the sign test by group gives p {p_words(own['p'])}: few answers changed."
    else:
        said = "Not distinguishable from no change: the interval holds zero."
    return f"{gap} {said} {test}"


def _measures(rows: list[dict[str, Any]]) -> str:
    lines = [
        (
            MEASURES[row["measure"]],
            number(row["before"], 3),
            number(row["after"], 3),
            range_of(row, 1, 3),
        )
        for row in rows
    ]
    return table(("mean of", "before", "after", "difference [95 %]"), lines)


def _cost(own: dict[str, Any]) -> str:
    words = (
        f"Cost, times the plain model's: {own['seconds']:.2f} in seconds, {own['forwards']:.2f} in passes, "
        f"{own['tokens']:.2f} in token positions."
    )
    return tag("p", words, kind="soft")


def _note(own: dict[str, Any]) -> str:
    return tag("p", safe(own["note"]), kind="note") if own["note"] else ""


def cell_title(result: RefinementResult, cell: RefinementCell) -> str:
    """A cell's labels on the axes that vary; its data and method when it is alone."""
    shown = [axis for axis in result.axes if len({other.labels[axis] for other in result.cells}) > 1]
    return " · ".join(cell.labels[axis] for axis in shown or ("data", "method"))


def _figures(figures: dict[str, Any]) -> str:
    parts = []
    for name in figures:
        title, words = refinement_words.FIGURES[name]
        parts += [tag("h2", title), tag("p", words, kind="soft wide"), figure_card(name)]
    return "".join(parts)


def _methods(result: RefinementResult) -> str:
    """All cells as lines; and methods against one another, where there are several on the same samples."""
    if len(result.cells) < 2:
        return ""
    body = methods_card(result)
    if _many(result):
        body = tag("details", tag("summary", "All numbers"), body)
    words = tag("p", refinement_words.METHODS, kind="soft wide")
    return tag("h2", "Beside the plain model") + words + body + pairs_card(result)


def _flips(result: RefinementResult) -> str:
    shown = [cell for cell in result.cells if cell.measured and cell.study.method.name != "Plain"]
    tables = [flips_table(result, cell, cell_title(result, cell)) for cell in shown]
    if not any(tables) or _many(result):
        return ""
    words = tag("p", refinement_words.FLIPS, kind="soft wide")
    return tag("h2", "What flipped") + words + cards((one for one in tables if one), "tight")


def _per_group(result: RefinementResult) -> str:
    """Each group on its own, where they are too few for a claim."""
    if "correct" not in result.measures or _many(result):
        return ""
    found = result.per_group()
    if found.empty:
        return ""
    shown: dict[tuple[str, ...], dict[str, str]] = {}
    for row in records(found):
        before, after = (f"{100 * row[name]:.1f}" for name in ("before", "after"))
        key = tuple(str(row[axis]) for axis in result.axes)
        shown.setdefault(key, {})[str(row["group"])] = f"{before} → {after} (n = {row['n']})"
    groups = list(dict.fromkeys(map(str, found.group)))
    titles = {cell.key: cell_title(result, cell) for cell in result.cells}
    if len(groups) > MANY_CELLS:  # more groups than columns: a line for each
        lines = [(titles[key], group, words) for key, own in shown.items() for group, words in own.items()]
        body = table(("", "group", "accuracy, %"), lines)
    else:
        lines = [(titles[key], *(own.get(group, "–") for group in groups)) for key, own in shown.items()]
        body = table(("accuracy, %", *groups), lines)
    return tag("h2", "Group by group") + tag("p", refinement_words.PER_GROUP, kind="note wide") + card(body)


def _gallery(result: RefinementResult) -> str:
    cells = [cell for cell in result.cells if cell.measured]
    if _many(result) or not cells:
        return ""
    n = 6 if len(cells) <= FEW_CELLS else 2
    words = refinement_words.GALLERY.format(seed=result.seed, ramp=RAMP, layer=_layer_words(cells))
    parts = [tag("h2", "Drawn samples, before and after"), tag("p", words, kind="soft wide")]
    for place in panels(result):
        own = [cell for cell in cells if place.items() <= cell.labels.items()]
        own = [cell for cell in own if cell.study.method.name != "Plain"] or own
        indices = drawn(own, n, result.seed) if own else []
        for cell in own:
            parts.append(tag("h4", safe(cell_title(result, cell))))
            parts.append(cards(sample_card(cell, index) for index in indices))
    return "".join(parts)


def _layer_words(cells: list[RefinementCell]) -> str:
    layers = sorted({cell.study.read_layer for cell in cells if cell.study.read_layer is not None})
    if not layers:
        return "No attention was read beside the methods' own."
    return refinement_words.LOOKS.format(layers=", ".join(map(str, layers)))


def _words(result: RefinementResult) -> str:
    methods = {
        cell_title(result, cell): json.dumps(cell.method, ensure_ascii=False)
        for cell in (result.cells[:1] if _many(result) else result.cells)
    }
    terms = {"Right": RULE, **refinement_words.TERMS}
    own = (tag("dt", safe(term)) + tag("dd", safe(words)) for term, words in terms.items())
    named = (tag("dt", safe(term)) + tag("dd", tag("code", safe(words))) for term, words in methods.items())
    return tag("h2", "What the words mean") + cards((card(tag("dl", *own)), card(tag("dl", *named))), "top")
