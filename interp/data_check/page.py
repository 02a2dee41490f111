"""The page of a check: counts of the samples, their problems, and twelve pictures with boxes."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from interp.data.samples import Samples
from interp.data_check.problems import KINDS, Findings, Problem
from interp.errors import InterpError
from interp.inputs.sample import Sample
from interp.report.gallery import drawn, frame_name, origin_line, picture, sample_card, shown_frames
from interp.report.html import (
    bold,
    capital,
    card,
    code,
    details,
    grid,
    heading,
    join,
    paragraph,
    save_page,
    section,
    table,
)
from interp.report.tables import count

__all__ = ["SHOWN", "write"]

SHOWN = 12
"""The most pictures on a page."""
LISTED = 50
"""The most problems of one kind on a page."""
MOST_IMAGES = 4
"""The most images of one sample on a page."""


def write(
    path: str | Path, samples: Samples, findings: Findings, *, source: str, reader: str, seed: int = 0
) -> Path:
    """Writes the page and returns its path.

    Args:
        path: The HTML file.
        samples: The samples that were checked.
        findings: The findings of `inspect` in these samples.
        source: The path or name that the samples were read from.
        reader: The name of the reader.
        seed: The seed that draws the pictures.
    """
    return save_page(
        path,
        title=f"Data check: {samples.name}",
        question="Are these samples what you think they are?",
        lead=_lead(samples, findings, source, reader),
        body=[
            section("What they hold", card(table((), findings.counts.items(), kind="text"))),
            _problems(findings),
            _pictures(samples, seed),
        ],
    )


def _lead(samples: Samples, findings: Findings, source: str, reader: str) -> Markup:
    errors, all_ones = findings.n_errors, len(findings.problems)
    verdict = (
        bold("No problem was found.", kind="right")
        if not all_ones
        else join(
            bold(count(errors, "problem"), " to mend", kind="wrong" if errors else "right"),
            f" and {all_ones - errors} to know of.",
        )
    )
    return join(
        paragraph(
            verdict,
            " ",
            count(len(samples), "sample"),
            " of ",
            code(source),
            ", read by ",
            code(reader),
            ".",
            kind="lead",
        ),
        paragraph(
            "Counts and problems can be right while boxes are at wrong places: look at the pictures. Each box must "
            "hold what its question asks about.",
            kind="soft",
        ),
    )


def _problems(findings: Findings) -> Markup:
    parts = [
        join(
            heading(capital(kind), f" ({len(found)})", level=3),
            paragraph(KINDS[kind][1], kind="soft"),
            details(
                f"The first {LISTED} of {len(found)}" if len(found) > LISTED else "Which",
                _table(found),
                opened=len(found) <= 5,
            ),
        )
        for kind, found in findings.by_kind().items()
    ]
    return section("Problems", grid([card(part) for part in parts], "stacked"))


def _table(problems: list[Problem]) -> Markup:
    return table((), [(one.where, one.text) for one in problems[:LISTED]], kind="text")


def _pictures(samples: Samples, seed: int) -> Markup:
    """Cards of drawn samples; those with boxes are preferred."""
    boxed = [i for i, sample in enumerate(samples) if sample.boxes]
    others = [i for i, sample in enumerate(samples) if sample.is_usable and not sample.boxes]
    chosen = drawn(boxed, SHOWN, seed)
    chosen += drawn(others, SHOWN - len(chosen), seed)
    cards = [_card(samples, i) for i in chosen]
    intro = f"{count(len(cards), 'sample')}, drawn with seed {seed}" + (
        ", all with boxes." if len(boxed) >= SHOWN else "."
    )
    return section("Pictures", grid(cards, "tight"), intro=intro)


def _card(samples: Samples, i: int) -> Markup:
    sample = samples[i]
    try:
        pictures = [
            (_caption(sample, one), picture(sample, one)) for one in shown_frames(sample, MOST_IMAGES)
        ]
    except InterpError as error:
        return card(paragraph(sample.question), paragraph(str(error), kind="soft"))
    told = {
        name: str(sample.meta[name])[:80] for name in ("label", "modality", "split") if sample.meta.get(name)
    }
    lines = [
        join("answer ", bold(sample.answer)) if sample.answer is not None else join("no answer"),
        " · ".join(f"{name} {text}" for name, text in told.items()),
        origin_line(sample.id, sample.group or sample.id),
    ]
    return sample_card(pictures, sample.question, lines)


def _caption(sample: Sample, image: int) -> str:
    n = sum(box.image == image for box in sample.boxes)
    width, height = sample.sizes[image]
    named = frame_name(sample, image)
    return f"{f'{named}, ' if named else ''}{width} × {height}, {count(n, 'box') if n == 1 else f'{n} boxes'}"
