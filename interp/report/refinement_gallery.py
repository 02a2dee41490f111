"""Samples drawn by seed, before and after a method: where it looked, what it hid or cropped, what it said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageDraw

from interp.report.gallery import data_uri, overlay, picture
from interp.report.words import card, number, safe, tag
from interp.study.frames import records, where

if TYPE_CHECKING:
    from interp.sample import Sample
    from interp.study.refinement_result import RefinementCell
    from interp.tokens import TokenMap

__all__ = ["drawn", "sample_card", "shaded"]

SHADE = 0.22
CROP_COLOUR = (250, 204, 21)
Picture = tuple[str, Image.Image]


def drawn(cells: Sequence[RefinementCell], n: int, seed: int) -> list[int]:
    """Up to `n` samples that every one of the cells measured, drawn with a seed and not by what came of them."""
    measured = [set(cell.frame("samples")["index"].tolist()) for cell in cells]
    shared = np.array(sorted(set.intersection(*measured)), int)
    if len(shared) <= n:
        return shared.tolist()
    return np.sort(np.random.default_rng(seed).choice(shared, n, replace=False)).tolist()


def sample_card(cell: RefinementCell, index: int) -> str:
    """One sample: its pictures, its question, the answers and their probabilities before and after."""
    frame = cell.frame("samples")
    row = records(where(frame, frame["index"] == index))[0]
    scores = cell.frame("scores")
    own = where(scores, scores["index"] == index)
    values = {(r["measure"], r["when"]): r["value"] for r in records(own)}
    shown = _pictures(cell, index, row)
    group = "" if row["group"] == row["sample"] else f" · group {safe(row['group'])}"
    return card(
        _side_by_side(shown),
        tag("p", safe(row["question"])),
        tag("p", _answers(row, values)),
        tag("p", _ratios(values), kind="soft"),
        tag("p", f"<code>{safe(row['sample'])}</code>{group}", kind="soft"),
        kind="sample",
    )


def shaded(sample: Sample, tokens: TokenMap, kept: Bool[np.ndarray, " token"], image: int = 0) -> Image.Image:
    """The image with every hidden token's footprint darkened; what no token sees is left as it is."""
    shown = picture(sample.replace(boxes=()), image)
    seen = tokens.to_pixels(np.asarray(kept, float), image=image).astype(np.float32)
    light = np.asarray(Image.fromarray(seen).resize(shown.size, Image.Resampling.NEAREST))
    weight = np.where(np.isnan(light), 1.0, SHADE + (1 - SHADE) * np.nan_to_num(light))[..., None]
    return Image.fromarray((np.asarray(shown.convert("RGB"), float) * weight).round().astype(np.uint8))


def _pictures(cell: RefinementCell, index: int, row: Mapping[str, Any]) -> list[Picture]:
    sample, tokens = cell.study.data[index], cell.tokens(index)
    image = sample.boxes[0].image if sample.boxes else 0
    maps = cell.maps([index])[index]
    shown: list[Picture] = [("image and box" if sample.boxes else "image", picture(sample, image))]
    for name, caption in (
        ("before", "looks, before"),
        ("after", "looks, after"),
        ("method", "the method's map"),
    ):
        if name in maps:
            shown.append((caption, overlay(sample, tokens, maps[name], image)))
    if "kept" in maps:
        shown.append((f"hidden: dark ({_hidden(row)})", shaded(sample, tokens, maps["kept"] > 0.5, image)))
    if row["crop"] is not None:
        edges = tuple(int(edge) for edge in row["crop"])
        shown += [("where it crops", _framed(sample, edges)), ("the crop", _cropped(sample, edges))]
    return shown


def _hidden(row: Mapping[str, Any]) -> str:
    return f"{int(row['n_tokens'] - row['n_kept'])} of {int(row['n_tokens'])}"


def _framed(sample: Sample, edges: tuple[int, ...]) -> Image.Image:
    base = sample.load()
    shown = picture(sample.replace(boxes=()))
    scale = shown.width / base.width
    places = [round(edge * scale) for edge in edges]
    ImageDraw.Draw(shown).rectangle(
        (places[0], places[1], max(places[2] - 1, places[0]), max(places[3] - 1, places[1])),
        outline=CROP_COLOUR,
        width=3,
    )
    return shown


def _cropped(sample: Sample, edges: tuple[int, ...]) -> Image.Image:
    found = sample.load().crop((edges[0], edges[1], edges[2], edges[3]))
    side = 300 / max(found.size)
    size = (max(1, round(found.width * side)), max(1, round(found.height * side)))
    return found.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def _answers(row: Mapping[str, Any], values: Mapping[tuple[str, str], float]) -> str:
    """“answer green · before blue 31 % → after green 88 %”."""
    known = isinstance(row["answer"], str)
    told = f"answer <b>{safe(row['answer'])}</b>" if known else "no answer given"
    said = [_said(row, values, when) for when in ("before", "after")]
    return f"{told} · {said[0]} → {said[1]}"


def _said(row: Mapping[str, Any], values: Mapping[tuple[str, str], float], when: str) -> str:
    right = row[f"correct_{when}"]
    kind = "" if right is None else "right" if right else "wrong"
    mark = "" if right is None else " ✓" if right else " ✗"
    share = values.get(("probability", when), float("nan"))
    chance = "" if np.isnan(share) else f" ({100 * share:.1f} %)"
    return tag("b", safe(row[f"text_{when}"]) + mark, kind=kind) + chance


def _ratios(values: Mapping[tuple[str, str], float]) -> str:
    before, after = (values.get(("ar", when), float("nan")) for when in ("before", "after"))
    if np.isnan(before):
        return ""
    return f"attention ratio {number(before)}" + ("" if np.isnan(after) else f" → {number(after)}")


def _side_by_side(shown: Sequence[Picture]) -> str:
    pictures = (
        f'<figure style="margin:0"><img alt="{safe(words)}" src="{data_uri(drawn)}" width="{drawn.width}" '
        f'height="{drawn.height}"><figcaption style="font-size:.8rem">{safe(words)}</figcaption></figure>'
        for words, drawn in shown
    )
    columns = f"grid-template-columns: repeat({max(len(shown), 4)}, 1fr)"
    return f'<div class="pair" style="{columns}">{"".join(pictures)}</div>'
