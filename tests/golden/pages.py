"""The pages that take more than a result, and how a study's JSON is hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from interp.report import gallery
from interp.run import canonical
from interp.study.head_attribution import page as attribution_page
from interp.study.layer_sweep import failures as failures_page
from interp.study.layer_sweep import text_tokens as tokens_page
from interp.study.layer_sweep.page import write_maps


def report(result: Any, path: Path, **options: Any) -> Path:
    """The page of a study."""
    return result.report(path, **options)


def attribution(result: Any, rankings: Mapping[str, Any], path: Path) -> Path:
    """The page of a head attribution beside head rankings of the same samples."""
    return attribution_page.write_page(result, path, rankings=rankings)


def text_tokens(results: Mapping[str, Any], choices: Mapping[str, Any], last: str, path: Path) -> Path:
    """The page of what kinds of text tokens attend to."""
    return tokens_page.write_page(results, path, choices=choices, last=last)


def failures(result: Any, validation: Any, choice: Any, path: Path, wrong: Sequence[str] = ()) -> Path:
    """The page of samples where attention and answer disagree; the answers of `wrong` samples are marked wrong."""
    limits = failures_page.thresholds(validation, choice)
    found = failures_page.verdicts(result, choice, limits)
    found = found.assign(correct=found.correct & ~found["sample"].isin(wrong))
    both = zip(found.looked, found.correct, strict=True)
    found = found.assign(
        outcome=[failures_page.OUTCOMES[bool(looked), bool(right)] for looked, right in both]
    )
    return failures_page.write_page(result, path, choice=choice, limits=limits, found=found)


def maps(results: Mapping[str, Any], choice: Any, path: Path) -> Path:
    """The page of drawn samples with their maps."""
    return write_maps(results, choice, path)


def overlay(sample: Any, tokens: Any, values: np.ndarray, image: int = 0) -> Image.Image:
    """The picture of a map over its image."""
    return gallery.overlay(sample, tokens, values, image)


def digest(content: Mapping[str, Any]) -> str:
    """What names a run's folder."""
    return hashlib.sha256(canonical(content).encode()).hexdigest()[:12]
