"""Samples drawn by seed: the same image under every indicator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from interp.metrics import METRICS
from interp.report.gallery import data_uri, overlay, picture
from interp.report.words import card, number, safe, tag
from interp.study.frames import records, where
from interp.study.indicator_truth import truth_boxes

if TYPE_CHECKING:
    from PIL import Image

    from interp.study.indicator_result import IndicatorCell

__all__ = ["drawn_samples", "maps_card"]

ACROSS = 6
SIDE = 170


def drawn_samples(cell: IndicatorCell, n: int, seed: int) -> list[int]:
    """Up to `n` measured samples, drawn with a seed and not by what came of them."""
    measured = np.sort(cell.frame("samples")["index"].to_numpy(int))
    if len(measured) <= n:
        return measured.tolist()
    return np.sort(np.random.default_rng(seed).choice(measured, n, replace=False)).tolist()


def maps_card(cell: IndicatorCell, index: int) -> str:
    """One sample: its image with the truth, every indicator's map with its score, question and answer."""
    study, tokens = cell.study, cell.tokens(index)
    truth = truth_boxes(study.data[index], study.truth[0])
    sample = study.data[index].replace(boxes=truth)
    image = truth[0].image if truth else 0
    shown = [(study.truth[0], picture(sample, image))]
    scores = _scores(cell, index)
    for label, values in cell.maps([index])[index].items():
        shown.append((f"{label} {scores.get(label, '')}".strip(), overlay(sample, tokens, values, image)))
    frame = cell.frame("samples")
    row = records(where(frame, frame["index"] == index))[0]
    known = isinstance(row["answer"], str)
    told = f"answer <b>{safe(row['answer'])}</b> · " if known else ""
    return card(
        _grid(shown),
        tag("p", safe(row["question"])),
        tag("p", told, f"model <b>{safe(row['predicted'])}</b>", kind="soft"),
        tag("p", f"<code>{safe(row['sample'])}</code>", kind="soft"),
        kind="sample",
    )


def _scores(cell: IndicatorCell, index: int) -> dict[str, str]:
    metric, truth = cell.study.metrics[0], cell.study.truth[0]
    scores = cell.frame("scores")
    keep = (scores["index"] == index) & (scores.measure == metric) & (scores.against == truth)
    digits = 2 if METRICS[metric].chance_value is not None else 3
    return {row["indicator"]: number(row["value"], digits) for row in records(where(scores, keep))}


def _grid(shown: list[tuple[str, Image.Image]]) -> str:
    pictures = []
    for words, drawn in shown:
        drawn.thumbnail((SIDE, SIDE))
        pictures.append(
            f'<figure style="margin:0"><img alt="{safe(words)}" src="{data_uri(drawn)}" width="{drawn.width}" '
            f'height="{drawn.height}"><figcaption style="font-size:.76rem">{safe(words)}</figcaption></figure>'
        )
    columns = f"grid-template-columns: repeat({ACROSS}, 1fr)"
    return f'<div class="pair" style="{columns}">{"".join(pictures)}</div>'
