"""How right measured footprints are: against the adapters of the built-in families, on tiny random weights.

    python benchmarks/measured_footprints.py [--families llava qwen2_vl …] [--sizes 256x256 150x290 …] [--leak 0 4 20]
        [--seeds 0 1 2] [--why]

Each family's tiny model (or an organism) is measured from outside and compared with its adapter. A line is a family at
an image size:

- IoU: the median intersection over union of the measured and the true footprints, over tokens that have a true one; 0
  for a token that was measured to have none.
- ≥ 0.5: the share of these tokens whose IoU is at least 0.5: what confidence estimates.
- order: of the tokens with both footprints, the share whose centres lie less than 0.75 of a cell apart.
- covered: the share of tokens with a true footprint that were given one.
- confidence: the mean confidence of the tokens.
- verdict: "right" if the IoU is at least 0.7 and the order at least 0.95. "wrong" is a measurement that is used and is
  not right; "refused" one that is neither right nor used, "refused (was right)" one that could have been used. With
  --why, a line below says why it was refused (`Measurement.doubts`).

--seeds draws the tiny families' weights anew (organisms have one set), and --sizes sweep takes 13 sizes: square,
wide, tall, tiny and odd ones.

With --leak, what each picture changes in a token leaks into others as through attention: by so many times the squares
of fixed random weights; confidence was fitted with leaks of 0, 4 and 20.

The last lines are how many measurements were used and refused, rightly and wrongly, and the reliability of the
confidence: tokens by predicted probability, and the share that was right.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Any

import numpy as np

import interp
from interp.conformance.tiny import families, tiny
from interp.models.measured import Measured, Measurement, overlap
from interp.models.measured.embedder import fitted
from interp.models.measured.measurement import decoded, scan

SIZES = ((256, 256), (320, 180), (150, 290))
SWEEP = (
    "256x256 320x180 150x290 300x200 180x320 333x97 199x401 64x48 224x224 448x448 640x480 1024x256 120x700"
)
RIGHT_IOU, RIGHT_ORDER = 0.7, 0.95
_HEAD = f"{'family':20} {'size':8}   IoU ≥ 0.5 order covered confidence CPU s  verdict"
_BINS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.95, 1.01)


@dataclass(frozen=True, eq=False)
class Row:
    """One measurement against the truth; the fields are those of the module's docstring."""

    family: str
    size: tuple[int, int]
    iou: float
    share: float
    order: float
    covered: float
    found: Measurement
    per_token: np.ndarray
    seconds: float

    @property
    def reliability(self) -> tuple[np.ndarray, np.ndarray]:
        """The confidence of each token that changes with the image, and whether its footprint is right."""
        return self.found.confidence, self.per_token >= 0.5

    @property
    def right(self) -> bool:
        """Whether the footprints are the adapter's."""
        return self.iou >= RIGHT_IOU and self.order >= RIGHT_ORDER

    @property
    def verdict(self) -> str:
        """Whether they were used, and whether that was right."""
        if self.found.sure:
            return "right" if self.right else "WRONG"
        return "refused (was right)" if self.right else "refused"


def opened(name: str, seed: int = 0) -> tuple[Any, Any, Any]:
    """Returns the model by its adapter, and again the transformers model with its processor.

    Args:
        name: A family, or a model that `interp.load` opens.
        seed: The seed of a family's tiny weights.
    """
    if name in families():
        return interp.wrap(*tiny(name, seed=seed), name), *tiny(name, seed=seed)
    known, other = interp.load(name), interp.load(name)
    return known, other.unwrap(), known.processor


def measured_rows(
    name: str, size: tuple[int, int], leaks: Sequence[float] = (0,), seed: int = 0
) -> list[Row]:
    """Measures a tiny family or an organism at an image of (width, height), and compares, once for each leak."""
    known, model, processor = opened(name, seed)
    picture = np.full((size[1], size[0], 3), 90, np.uint8)
    true = known.encode(interp.Sample(picture, "where is it?")).tokens[0]
    begun = time.process_time()
    first = Measured().layers(model)[0]
    seen = scan(
        fitted(model, processor, first, 1, known.adapter.fallback_prompt("where is it?", 1, None)), [size]
    )
    rows = []
    for leak in leaks:
        found = decoded(replace(seen, energies=_leaking(seen.energies, leak)))
        rows.append(compared(name, size, true, found, time.process_time() - begun))
    return rows


def _leaking(energies: list[list[np.ndarray]], leak: float) -> list[list[np.ndarray]]:
    """Returns the squared changes with those of other tokens added, by the squares of random weights of attention."""
    n = len(energies[0][0])
    weights = np.exp(3 * np.random.default_rng(n).normal(size=(n, n)))
    weights /= weights.sum(axis=1, keepdims=True)
    return [[one + leak * weights**2 @ one for one in pair] for pair in energies]


def _matching(true: Any, found: Measurement) -> np.ndarray:
    """Returns which of the true image tokens those that changed are; the prompt may begin differently."""
    with_area = np.flatnonzero(~np.isnan(true.footprints[:, 0]))
    if len(with_area) == len(found.positions):
        return with_area
    shift = true.image[0] - found.positions[0] if len(true.image) == len(found.positions) else 0
    return np.searchsorted(true.image, found.positions + shift)


def compared(name: str, size: tuple[int, int], tokens: Any, found: Measurement, seconds: float) -> Row:
    """Returns the comparison of a measurement with the token map by the adapter."""
    at, true = _matching(tokens, found), tokens.footprints
    boxes = np.full((len(true), 4), np.nan)
    boxes[at] = found.footprints.boxes
    area, given = ~np.isnan(true[:, 0]), ~np.isnan(boxes[:, 0])
    ious, both = overlap(true, boxes), area & given
    centres = [(one[both][:, :2] + one[both][:, 2:]) / 2 for one in (true, boxes)]
    cell = np.maximum(*((one[both][:, 2:] - one[both][:, :2]) for one in (true, boxes)))
    near = (np.abs(centres[0] - centres[1]) < 0.75 * cell).all(axis=1)
    return Row(
        name,
        size,
        float(np.median(ious[area])),
        float((ious[area] >= 0.5).mean()),
        float(near.mean()) if near.size else 0.0,
        float(given[area].mean()),
        found,
        ious[at],
        seconds,
    )


def main(arguments: Iterable[str] | None = None) -> int:
    """Prints the table; the exit code is 1 if a measurement that is used is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--families", nargs="+", default=[*families("self"), "organism", "shortcut-organism"])
    parser.add_argument("--leak", nargs="+", type=float, default=[0.0])
    parser.add_argument("--sizes", nargs="+", default=["x".join(map(str, size)) for size in SIZES])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--why", action="store_true")
    options = parser.parse_args(None if arguments is None else list(arguments))
    sizes = SWEEP.split() if options.sizes == ["sweep"] else options.sizes
    print(_HEAD)
    rows: list[Row] = []
    for name, seed, size in product(options.families, options.seeds, sizes):
        if seed and name not in families():
            continue
        width, height = (int(side) for side in size.split("x"))
        for row in measured_rows(name, (width, height), options.leak, seed):
            rows.append(row)
            print(
                f"{name:20} {size:8} {row.iou:5.2f} {row.share:5.2f} {row.order:5.2f} {row.covered:7.2f} "
                f"{row.found.trust:10.2f} {row.seconds:5.1f}  {row.verdict} ({row.found.layout})",
                *(f"\n    {doubt}" for doubt in row.found.doubts if options.why),
                flush=True,
            )
    counts = Counter(row.verdict for row in rows)
    print("measurements:", ", ".join(f"{n} {verdict}" for verdict, n in counts.most_common()))
    predicted, right = (
        np.concatenate(found) for found in zip(*(row.reliability for row in rows), strict=True)
    )
    print("confidence: tokens, mean confidence, share right")
    for low, high in pairwise(_BINS):
        inside = (predicted >= low) & (predicted < high)
        if inside.any():
            print(
                f"{low:.1f} to {high:.1f}: {inside.sum()}, {predicted[inside].mean():.2f}, {right[inside].mean():.2f}"
            )
    return int(any(row.verdict == "WRONG" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
