"""Clinicians' ratings of samples: the page to rate on, how raters agree, which samples are kept, and their report."""

from __future__ import annotations

from interp.curation.ratings import SCALES, Ratings, rating_page, read_ratings
from interp.curation.rule import Curation, curate

__all__ = ["SCALES", "Curation", "Ratings", "curate", "rating_page", "read_ratings"]
