"""The page of one feature: the samples in which it is most active, with its map over each image."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

from interp.errors import MapError
from interp.report.gallery import origin_line, overlay, picture, sample_card, views
from interp.report.html import card, grid, join, paragraph, save_page, section
from interp.report.provenance import opening
from interp.report.tables import number, percent

if TYPE_CHECKING:
    from interp.tracing import FeatureActivations

__all__ = ["save_feature_page"]

LEAD = Markup("""The samples in which feature {feature} of <b>{features}</b> is most active at a token of the image, of
{n} that were read. It is active somewhere in {active} of them, and at {share} of all their image tokens.""")
READING = """Each map has a colour scale of its own, from 0 to its largest values; the number beside the question is the
largest activation. The first samples are the extreme of a distribution and look cleaner than the rest of it. That a
feature is active says what the stream holds at a token, not that the model uses it for its answer."""


def save_feature_page(
    found: FeatureActivations,
    feature: int,
    path: str | os.PathLike[str],
    *,
    n: int = 12,
    organism: bool = False,
) -> Path:
    """Writes a page of the samples in which a feature is most active, with its maps, and returns its path.

    Args:
        found: What `Features.read` found at the image tokens (its default positions).
        feature: The feature, 0-based.
        path: The HTML file.
        n: How many samples at most.
        organism: Whether the model is a bundled organism, so that the page says so.

    Raises:
        MapError: A feature that is not there, or activations of other tokens than the image's.
    """
    for own, tokens in zip(found.positions, found.tokens, strict=True):
        if not np.array_equal(own, tokens.image):
            raise MapError(
                "the page shows maps over image tokens; these activations are of other positions. Read "
                'positions="image".'
            )
    values = found.of(feature)
    cards = [_card(found, values, row) for row in found.top_samples(feature, n).to_dict("records")]
    flat = np.concatenate(values)
    words = LEAD.format(
        feature=feature, features=found.features, n=len(found),
        active=sum(bool(one.any()) for one in values), share=percent(float((flat != 0).mean()), 1),
    )  # fmt: skip
    shown = section("Most active samples", grid(cards), intro=READING) if cards else ""
    nothing = card(paragraph("It is active at no image token of these samples.")) if not cards else ""
    return save_page(
        path,
        title=f"Feature {feature}",
        question=f"In which images, and where in them, is feature {feature} active?",
        lead=opening(words, organism=organism),
        body=[join(shown, nothing)],
    )


def _card(
    found: FeatureActivations, values: Sequence[Float[np.ndarray, " token"]], row: Mapping[str, Any]
) -> Markup:
    """A sample's images, with the feature's activation over them."""
    place = int(row["place"])
    sample, tokens, own = found.samples[place], found.tokens[place], values[place]
    pictures = [
        *views(sample, "image and box" if sample.boxes else "image", lambda i: picture(sample, i)),
        *views(sample, "feature", lambda i: overlay(sample, tokens, own, i)),
    ]
    lines = [
        f"active at {percent(row['share'])} of its image tokens",
        origin_line(sample.id, str(sample.group)),
    ]
    return sample_card(pictures, sample.question, lines, score=number(row["value"]), columns=2)
