"""The page of a logit-lens sweep: what the image's tokens say, layer by layer, inside the boxes and outside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from interp.report.gallery import RAMP, answers, data_uri, overlay, picture
from interp.report.html import card, cards, figure_card, number, safe, stacked, table, tag, write_sheet
from interp.stats import MIN_GROUPS, holm, paired, paired_test, per_group
from interp.study.dataframes import records, rows_of, where
from interp.study.layer_sweep import page as prose
from interp.study.logit_lens.figures import lens_figures
from interp.study.logit_lens.task import OTHERS, OWN
from interp.study.model_spec import is_organism
from interp.study.result import stored_tokens

if TYPE_CHECKING:
    from interp.study.result import GridResult
    from interp.study.runs import GridCell

__all__ = ["FIRST", "GAP", "HOW", "LAYERS", "lead", "lens_gaps", "peaks", "write_lens"]

GAP = """Above: the word's mean log-probability over the tokens of the boxes minus that over the others. Blue: the
sample's own word, with its 95 % interval over groups (thin lines: single groups where there are too few); dashed:
another sample's word of the same kind, at the same tokens. A lens that merely prefers the box for any word has both
lines high."""

FIRST = """Below: at what share of tokens the word is the likeliest of the whole vocabulary, inside the boxes (orange),
outside (dotted), and another's word inside (dashed)."""

LAYERS = """The layer where the own word's gap is furthest above another's, chosen on these very samples: a description,
and p is too small by that choice. p is of sign flips by group, adjusted (Holm) over all layers, words and data."""

HOW = """Probability of the word at each token, low {ramp} high, each map scaled to its own 99.5th percentile: compare
where maps are strong, not how strong."""

LEAD = """The final norm and the unembedding, put behind every layer, turn each image token of <b>{models}</b> into
words. {n} samples ({data}). Image tokens are seldom trained to say anything there: that they can be read this way is
a finding, and that they cannot does not mean that nothing is there."""

KNOWN = """The organisms' training drew image tokens to the input <i>embeddings</i> of the words for what they show.
So the words are there at the input, and what the lens misses of them at layer −1 is the lens's blindness,
not the model's."""


def lead(result: GridResult) -> str:
    """The page's first paragraph, and the note that must stand there when a model is an organism."""
    models = ", ".join(dict.fromkeys(cell.labels["model"] for cell in result.cells))
    data = ", ".join(dict.fromkeys(cell.labels["data"] for cell in result.cells))
    said = LEAD.format(models=safe(models), n=len(result.samples), data=safe(data))
    organism = any(is_organism(cell.study.model) for cell in result.cells)
    note = tag("p", f"{prose.ORGANISM} {KNOWN}", kind="note wide") if organism else ""
    return tag("p", said, kind="lead") + note


N_SHOWN = 2
KEYS = ("model", "data", "word", "layer")


def lens_gaps(result: GridResult) -> pd.DataFrame:
    """The gap of the own word minus that of another's, per (model, data, word, layer), paired by sample.

    Columns: model, data, word, layer, mean, low, high, n, n_groups, p (sign-flipping by group), p_holm (over all rows).
    """
    scores = where(result.scores, result.scores.measure == "gap")
    rows = []
    for key, part in scores.groupby(list(KEYS), sort=False):
        wide = part.pivot_table(index=["sample", "group"], columns="of", values="value", observed=True)
        if OTHERS not in wide or OWN not in wide:
            continue
        wide = wide.dropna().reset_index()
        gap = paired(wide[OWN], wide[OTHERS], wide.group, seed=result.seed)
        test = paired_test(wide[OWN], wide[OTHERS], wide.group, seed=result.seed)
        place: Any = key
        rows.append((*place, gap.mean, gap.low, gap.high, gap.n, gap.n_groups, test.p))
    frame = pd.DataFrame(rows, columns=[*KEYS, "mean", "low", "high", "n", "n_groups", "p"])
    return frame.assign(p_holm=holm(frame.p.to_numpy()) if len(frame) else [])


def peaks(gaps: pd.DataFrame) -> pd.DataFrame:
    """The layer of the largest mean of each (model, data, word)."""
    at = gaps.groupby(["model", "data", "word"], sort=False)["mean"].idxmax()
    return gaps.loc[at]


def write_lens(result: GridResult, path: Path) -> Path:
    """Writes the page.

    Args:
        result: Of a `LensSweep`, or of a grid over one.
        path: The HTML file.
    """
    gaps = lens_gaps(result)
    body = [
        stacked(figure_card(name) for name in ("gap", "first")),
        tag("p", GAP + " " + FIRST, kind="soft wide"),
        tag("h2", "Own word against another's"),
        tag("p", LAYERS, kind="soft wide"),
        _table(gaps),
        *_few(result),
        tag("h2", "On the image"),
        tag("p", HOW.format(ramp=RAMP), kind="soft wide"),
        *_examples(result, peaks(gaps)),
        tag("h2", "Failures"),
        tag("p", safe(_failures(result)), kind="wide"),
    ]
    return write_sheet(
        path,
        title=result.cells[0].study.title,
        question=result.cells[0].study.question,
        lead=lead(result),
        body=body,
        figures=lens_figures(result),
    )


def _table(gaps: pd.DataFrame) -> str:
    heads = ("data", "word", "layer", "own − another's gap, nats", "p (Holm)", "samples")
    rows = []
    for row in records(peaks(gaps)):
        few = row["n_groups"] < MIN_GROUPS
        ends = "" if few else f" [{number(row['low'])}, {number(row['high'])}]"
        rows.append((
            f"{row['model']} · {row['data']}", row["word"], str(row["layer"]), number(row["mean"]) + ends,
            f"{row['p_holm']:.2g}" + (" (few groups)" if few else ""), f"{row['n']} in {row['n_groups']} groups",
        ))  # fmt: skip
    return table(heads, rows)


def _few(result: GridResult) -> Iterator[str]:
    """The values of each group, for data sets with too few of them."""
    own = where(result.scores, (result.scores.measure == "gap") & (result.scores.of == OWN))
    for key, part in own.groupby(["data", "word"], sort=False):
        data, word = key if isinstance(key, tuple) else (key, "")
        if part.group.nunique() < MIN_GROUPS:
            last = where(part, part.layer == part.layer.max())
            means = per_group(last.value.to_numpy(), last.group)
            said = ", ".join(f"{g} {number(m)}" for g, m in zip(means["group"], means["mean"], strict=True))
            text = f"{data}, {word}: too few groups for a population claim. Gap after the last layer by group: {said}."
            yield tag("p", safe(text), kind="note")


def _examples(result: GridResult, found: pd.DataFrame) -> Iterator[str]:
    """The first samples of each cell; the layer is the peak, or the last where there is none for want of a control."""
    for cell in (cell for cell in result.cells if cell.measured):
        here, scores = rows_of(found, cell.labels), rows_of(result.scores, cell.labels)
        layers = {row["word"]: int(row["layer"]) for row in records(here)}
        words = list(dict.fromkeys(scores.word))
        if words:
            word = "answer" if "answer" in words else words[0]
            layer = layers.get(word, int(scores.layer.max()))
            shown = (_card(cell, row, word, layer) for row in records(cell.frame("samples").head(N_SHOWN)))
            yield tag("h4", safe(f"{cell.labels['data']}: the {word}"))
            yield cards(one for one in shown if one)


def _card(cell: GridCell, row: dict[str, Any], word: str, layer: int) -> str:
    index = int(row["index"])
    sample, tokens = cell.study.data[index], stored_tokens(cell, index)
    maps = {m["layer"]: m for m in cell.folder.find("maps", index=[index]).to_pylist() if m["word"] == word}
    if layer not in maps:
        return ""
    image = sample.boxes[0].image
    drawn = {"image and box": picture(sample, image)}
    for at in dict.fromkeys((-1, layer, max(maps))):
        said = f"p(“{maps[at]['said']}”), " + ("input" if at < 0 else f"layer {at}")
        drawn[said] = overlay(sample, tokens, np.exp(np.array(maps[at]["map"], np.float64)), image)
    pictures = "".join(
        f'<figure style="margin:0"><img alt="{safe(words)}" src="{data_uri(one)}" width="{one.width}" '
        f'height="{one.height}"><figcaption style="font-size:.8rem">{safe(words)}</figcaption></figure>'
        for words, one in drawn.items()
    )
    columns = f"grid-template-columns: repeat({len(drawn)}, 1fr)"
    return card(
        f'<div class="pair" style="{columns}">{pictures}</div>',
        tag("p", safe(sample.question)),
        tag("p", answers(row), kind="soft"),
        tag("p", f"<code>{safe(sample.id)}</code>", kind="soft"),
        kind="sample",
    )


def _failures(result: GridResult) -> str:
    found = result.failures
    if found.empty:
        return "None: every word of every sample was measured."
    counts = ", ".join(f"{reason} ×{n}" for reason, n in found.reason.value_counts().head(5).items())
    return f"{len(found)} words or samples left out: {counts}"


def write_page(result: GridResult, path: str | Path) -> Path:
    """Write the page and return its path."""
    return write_lens(result, Path(path))


def figures(result: GridResult) -> dict[str, Any]:
    """The page's figures by name."""
    return lens_figures(result)
