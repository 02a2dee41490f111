"""The one place that knows how a page is written today, and what of a study is not public yet."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from interp.report import gallery
from interp.run import canonical
from interp.study.head_attribution.page import write_attribution
from interp.study.layer_sweep.failures import thresholds, verdicts, write_failures
from interp.study.layer_sweep.page import write_maps
from interp.study.layer_sweep.text_tokens import write_text_tokens
from interp.study.logit_lens.page import write_lens
from interp.tracing import load


def report(result: Any, path: Path, **options: Any) -> Path:
    """The page of a study."""
    return result.report(path, **options)


def attribution(result: Any, rankings: Mapping[str, Any], path: Path) -> Path:
    """The page of a head attribution."""
    return write_attribution(result, rankings, path)


def lens(result: Any, path: Path) -> Path:
    """The page of a logit lens."""
    write_lens(result, path)
    return path


def text_tokens(results: Mapping[str, Any], choices: Mapping[str, Any], last: str, path: Path) -> Path:
    """The page of what kinds of text tokens attend to."""
    return write_text_tokens(results, choices, last, path)


def failures(result: Any, validation: Any, choice: Any, path: Path) -> Path:
    """The page of samples where the look and the answer disagree."""
    limits = thresholds(validation, choice)
    return write_failures(result, choice, limits, verdicts(result, choice, limits), path)


def maps(results: Mapping[str, Any], choice: Any, path: Path) -> Path:
    """The page of drawn samples with their maps."""
    return write_maps(results, choice, path)


def overlay(sample: Any, tokens: Any, values: np.ndarray, image: int = 0) -> Image.Image:
    """The picture of a map over its image."""
    return gallery.overlay(sample, tokens, values, image)


def to_dict(study: Any) -> dict[str, Any]:
    """A study as JSON; two kinds have no `to_dict` of their own yet."""
    if hasattr(study, "to_dict"):
        return study.to_dict()
    return study.task(load(study.model.id)).to_dict()


def digest(content: Mapping[str, Any]) -> str:
    """What names a run's folder."""
    return hashlib.sha256(canonical(content).encode()).hexdigest()[:12]
