"""A trace as lines of text, as HTML and as plain values for a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xarray as xr
from markupsafe import Markup

from interp.inputs.archive import token_map, token_record
from interp.inputs.notebook import block, facts
from interp.inputs.text import brief
from interp.tracing.cost import Cost

__all__ = ["array_line", "cost_line", "sample_parts", "sample_record", "trace_html", "trace_lines"]

SHOWN, VALUES = 4, 4
"""Samples and values that a line names."""
_PLAIN = ("answer", "ids", "reasoning", "n_reasoning")


def array_line(array: xr.DataArray) -> str:
    """An array's name, dimensions and first values: "attention (layer 4, head 2, query 1, token 9): 0.1, 0.02, …"."""
    sizes = ", ".join(f"{dim} {size}" for dim, size in array.sizes.items())
    values = array.values.reshape(-1)
    first = ", ".join(f"{value:.3g}" for value in values[:VALUES])
    return f"{array.name} ({sizes}): {first}{', …' if values.size > VALUES else ''}"


def cost_line(cost: Cost) -> str:
    """What the work cost."""
    backwards = f", {cost.backwards} backwards" if cost.backwards else ""
    return f"{cost.seconds:.3g} s, {cost.forwards} forwards{backwards}, {cost.tokens} token positions"


def trace_lines(trace: Any) -> list[tuple[str, str]]:
    """Name and content of each line about an `interp.Trace`: reads of the first sample, answers, logits, cost."""
    first = trace.samples[0].reads if trace.samples else ()
    reads = [(f"[0].reads[{j}]", array_line(read)) for j, read in enumerate(first)]
    answers = []
    if trace.answers:
        more = f", and {len(trace.answers) - SHOWN} more" if len(trace.answers) > SHOWN else ""
        answers = [("answers", ", ".join(map(brief, trace.answers[:SHOWN])) + more)]
    return [*reads, *answers, ("logits", array_line(trace.logits)), ("cost", cost_line(trace.cost))]


def trace_html(trace: Any) -> str:
    """What a notebook shows of an `interp.Trace`: what it holds, and a row for each of the first samples."""
    rows = Markup("").join(_row(i, one) for i, one in enumerate(trace.samples[: 5 * SHOWN]))
    left = len(trace.samples) - 5 * SHOWN
    more = Markup("<div>and {} more samples</div>").format(left) if left > 0 else Markup("")
    heads = Markup("").join(
        Markup("<th scope='col' style='text-align:left'>{}</th>").format(name)
        for name in ("sample", "tokens", "image tokens", "answer")
    )
    table = Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(heads, rows)
    return block(f"Trace of {len(trace.samples)} samples", facts(dict(trace_lines(trace))), table, more)


def _row(i: int, one: Any) -> Markup:
    cells = (i, one.tokens.length, one.tokens.n, "–" if one.answer is None else one.answer)
    return Markup("<tr>{}</tr>").format(
        Markup("").join(Markup("<td style='text-align:left'>{}</td>").format(cell) for cell in cells)
    )


def sample_record(one: Any) -> dict[str, Any]:
    """One sample's share of a trace as plain values."""
    return {
        **{name: getattr(one, name) for name in _PLAIN},
        "reads": one.reads,
        "tokens": token_record(one.tokens),
        "patches": None if one.patches is None else token_record(one.patches),
    }


def sample_parts(record: Mapping[str, Any]) -> dict[str, Any]:
    """What `sample_record` described, as arguments of `SampleTrace`."""
    patches = record["patches"]
    return {
        **{name: record[name] for name in _PLAIN},
        "ids": tuple(record["ids"]),
        "reads": tuple(record["reads"]),
        "tokens": token_map(record["tokens"]),
        "patches": None if patches is None else token_map(patches),
    }
