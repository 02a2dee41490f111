"""Attend-and-segment: do the masks of an answer's words lie on what the answer is about?

    python studies/attend_and_segment.py
    python studies/attend_and_segment.py --model llava-hf/llava-1.5-7b-hf --device cuda --data mine.jsonl \\
        --refine facebook/sam-vit-base

Each word of an answer gets a mask: the places where it looks more than the answer does on average (docs/masks.md). The
union of the masks is compared with the sample's masks, or its boxes: pixel IoU, and recall, the share of true masks
found at IoU ≥ 0.5. Two baselines stand beside them: the whole image, which is what a uniform map gives, and the centre
prior cut to as many pixels. `attend_and_segment.csv` under `--out` has one row per sample and kind of mask; the first
answers have pages beside it. A box counts as a whole, so a mask of a round object cannot reach 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import interp
from interp.cli import run_script
from interp.data.open import sets
from interp.errors import InterpError, RunError
from interp.indicators.map_masks import check_mask_rule, threshold_named, upsampled
from interp.inputs.masks import filled, union
from interp.metrics import mask_recall, pixel_iou
from interp.report.tables import count, estimate, percent, write_csv
from interp.stats import bootstrap
from interp.study.baselines import centre_prior

NAMES = {
    "attention": "attend-and-segment",
    "whole": "the whole image",
    "centre": "centre prior, as many pixels",
}


def main(
    model: str = "organism", data: str = "natural", out: Path = Path("runs"), seed: int = 0, n: int = 60,
    generate: int = 16, threshold: str = "otsu", upsample: str = "bicubic", refine: str = "", pages: int = 3,
    batch_size: int = 8, device: str = "cpu", dtype: str = "float32",
) -> None:  # fmt: skip
    """Masks of answers' words against true masks or boxes, beside two baselines.

    Args:
        model: "organism", a Hugging Face id or a local folder.
        data: "natural", "medical", a .jsonl file, or a folder of VGMED's or COCO's files.
        out: Folder for the table and the pages.
        seed: Draws the samples, and the bootstrap.
        n: The maximum number of samples, drawn with the seed.
        generate: The maximum number of tokens of an answer.
        threshold: "otsu", "positive", or the share of pixels that lie below the threshold, such as 0.9.
        upsample: "bicubic", "bilinear" or "nearest".
        refine: Id or folder of a SAM, which masks the object at the map's largest value; "" for the threshold.
        pages: The number of answers that get a page, from the first on.
        batch_size: Changes nothing here, because samples run one by one; other scripts have the same option.
        device: Where the model runs.
        dtype: The model's floating-point type.
    """
    (samples,) = sets((data,), n=n, seed=seed, needed=True).values()
    mllm = interp.load(model, device=device, dtype=dtype)
    segmenter = interp.Segmenter.load(refine, device=device) if refine else None
    how: dict[str, Any] = {"threshold": threshold_named(threshold), "upsample": upsample, "refine": segmenter}
    check_mask_rule(upsample, how["threshold"])
    rows, written = measured(mllm, samples, out, pages, generate=generate, **how)
    frame = pd.DataFrame(rows)
    write_csv(frame, out / "attend_and_segment.csv")
    told(frame, seed)
    print(f"Table: {out / 'attend_and_segment.csv'}{''.join(f'; page: {one}' for one in written)}")


def measured(
    mllm: Any, samples: Any, out: Path, pages: int, **how: Any
) -> tuple[list[dict[str, Any]], list[Path]]:
    """The rows of all samples that can be grounded, and the first answers' pages; says how many samples failed."""
    rows, written, failed = [], [], []
    for place, sample in enumerate(samples):
        try:
            grounded = interp.ground(mllm, sample, **how)
            rows += [{"sample": sample.id, "group": samples.groups[place], **row} for row in scored(grounded)]
        except InterpError as error:
            failed.append(f"{sample.id}: {error}")
            continue
        if len(written) < pages:
            written.append(grounded.save(out / f"grounded_{len(written)}.html"))
    if failed:
        print(f"{len(failed)} of {count(len(samples), 'sample')} failed. The first, {failed[0]}")
    if not rows:
        raise RunError("no sample could be measured; the reason of the first failure is printed above.")
    return rows, written


def scored(grounded: interp.GroundedAnswer) -> list[dict[str, Any]]:
    """A row for each kind of mask on the first image: IoU and recall, NaN where nothing is marked there."""
    sample, size = grounded.sample, grounded.sample.sizes[0]
    masks = [one for one in sample.masks if one.image == 0]
    boxes = [one for one in sample.boxes if one.image == 0]
    truths = [one.inside for one in masks] or [filled([one], size) for one in boxes]
    truth = union(masks, size) if masks else filled(boxes, size)
    every = [one.inside(0, size) for one in grounded.phrases]
    attention = np.any(every, axis=0) if every else np.zeros((size[1], size[0]), bool)
    tokens = grounded.tokens
    prior = upsampled(
        centre_prior(tokens.footprints, tokens.image_index, tokens.sizes), tokens, how=grounded.upsample
    )
    best = np.argsort(-np.nan_to_num(prior, nan=-np.inf), axis=None, kind="stable")[: int(attention.sum())]
    centre = np.zeros(attention.shape, bool)
    centre.flat[best] = True
    given = {"attention": attention, "whole": np.ones(attention.shape, bool), "centre": centre}
    return [
        {
            "mask": name,
            "said": grounded.text,
            "iou": pixel_iou(mask, truth) if truth.any() else float("nan"),
            "recall": mask_recall(every if name == "attention" else [mask], truths),
            "share": float(mask.mean()),
        }
        for name, mask in given.items()
    ]


def told(frame: pd.DataFrame, seed: int) -> None:
    """Prints means with intervals over groups."""
    for name, own in frame.groupby("mask", sort=False):
        values = {}
        for measure in ("iou", "recall"):
            found = bootstrap(own[measure].to_numpy(), own.group.to_numpy(), seed=seed)
            values[measure] = estimate(
                {"mean": found.mean, "low": found.low, "high": found.high, "n_groups": found.n_groups}
            )
        print(
            f"  {NAMES[str(name)]:>28}: IoU {values['iou']}, recall {values['recall']}, "
            f"{percent(own.share.mean())} of the image; {count(len(own), 'sample')}"
        )


if __name__ == "__main__":
    run_script(main)
