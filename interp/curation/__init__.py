"""Clinicians' ratings of samples: the rating page, the raters' agreement, the rule that keeps samples, its report."""

from __future__ import annotations

from interp.curation.ratings import SCALES, Ratings, rating_page, read_ratings
from interp.curation.rule import Curation, curate

__all__ = ["SCALES", "Curation", "Ratings", "curate", "rating_page", "read_ratings"]
