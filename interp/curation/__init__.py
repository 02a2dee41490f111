"""Clinicians' ratings of samples: the page to rate on, how raters agree, which samples are kept, and their report."""

from __future__ import annotations

from interp.curation.rating_page import rating_page
from interp.curation.ratings import Ratings, read_ratings
from interp.curation.rule import Curation, curate
from interp.curation.scales import SCALES

__all__ = ["SCALES", "Curation", "Ratings", "curate", "rating_page", "read_ratings"]
