"""Samples that the tests of scorers share."""

from __future__ import annotations

from interp import Sample


def asked(answer: str | None, *options: str) -> Sample:
    """A sample with an answer, and options where there are any."""
    return Sample("scan.png", "Which?", answer=answer, options=options or None)
