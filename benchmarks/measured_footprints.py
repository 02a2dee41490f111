"""How right measured footprints are: against the adapters of the built-in families, on tiny random weights.

    python benchmarks/measured_footprints.py [--families llava qwen2_vl …] [--sizes 256x256 150x290 …]

Each family's tiny model (or an organism) is measured from outside and compared with its adapter. A line is a family at
an image size:

- IoU: the median intersection over union of the measured and the true footprints, over tokens that have a true one; 0
  for a token that was measured to have none.
- ≥ 0.5: the share of these tokens whose IoU is at least 0.5: what confidence estimates.
- order: of the tokens with both footprints, the share whose centres lie less than 0.75 of a cell apart.
- covered: the share of tokens with a true footprint that were given one.
- confidence: the mean confidence of the tokens; "refused" where that, or the tokens outside grids, are not enough.
- verdict: "right" if the IoU is at least 0.7 and the order at least 0.95. "wrong" is a measurement that is used and is
  not right; "refused" one that is neither right nor used, "refused (was right)" one that could have been used.

The last lines are the reliability of the confidence: tokens by predicted probability, and the share that was right.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

import interp
from interp.conformance.tiny import families, tiny
from interp.models.measured import Measured, Measurement, overlap

SIZES = ((256, 256), (320, 180), (150, 290))
RIGHT_IOU, RIGHT_ORDER = 0.7, 0.95
_HEAD = f"{'family':20} {'size':8}   IoU ≥ 0.5 order covered confidence CPU s  verdict"
_BINS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0)


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
    def right(self) -> bool:
        """Whether the footprints are the adapter's."""
        return self.iou >= RIGHT_IOU and self.order >= RIGHT_ORDER

    @property
    def verdict(self) -> str:
        """Whether they were used, and whether that was right."""
        if self.found.sure:
            return "right" if self.right else "WRONG"
        return "refused (was right)" if self.right else "refused"


def opened(name: str) -> tuple[Any, Any, Any]:
    """Returns the model by its adapter, and again the transformers model with its processor."""
    if name in families():
        return interp.wrap(*tiny(name), name), *tiny(name)
    known, other = interp.load(name), interp.load(name)
    return known, other.unwrap(), known.processor


def measured_row(name: str, size: tuple[int, int]) -> Row:
    """Measures a tiny family or an organism at an image of (width, height), and compares."""
    known, model, processor = opened(name)
    picture = np.full((size[1], size[0], 3), 90, np.uint8)
    true = known.encode(interp.Sample(picture, "where is it?")).tokens[0]
    begun = time.process_time()
    adapter = Measured().bound(model, processor)
    found = adapter.measured(size, processor)
    boxes = np.full((len(true.image), 4), np.nan)
    boxes[_matching(true, found)] = found.footprints.boxes
    return compared(name, size, true.footprints, boxes, found, time.process_time() - begun)


def _matching(true: Any, found: Measurement) -> np.ndarray:
    """Returns which of the true image tokens those that changed are; the prompt may begin differently."""
    with_area = np.flatnonzero(~np.isnan(true.footprints[:, 0]))
    if len(with_area) == len(found.positions):
        return with_area
    shift = true.image[0] - found.positions[0] if len(true.image) == len(found.positions) else 0
    return np.searchsorted(true.image, found.positions + shift)


def compared(
    name: str, size: tuple[int, int], true: np.ndarray, boxes: np.ndarray, found: Measurement, seconds: float
) -> Row:
    """Returns the comparison of true and measured boxes, (token, 4) each."""
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
        float(near.mean()) if len(near) else 0.0,
        float(given[area].mean()),
        found,
        ious,
        seconds,
    )


def main(arguments: Iterable[str] | None = None) -> int:
    """Prints the table; the exit code is 1 if a measurement that is used is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--families", nargs="+", default=[*families("self"), "organism", "shortcut-organism"])
    parser.add_argument("--sizes", nargs="+", default=["x".join(map(str, size)) for size in SIZES])
    options = parser.parse_args(None if arguments is None else list(arguments))
    print(_HEAD)
    rows: list[Row] = []
    for name in options.families:
        for size in options.sizes:
            width, height = (int(side) for side in size.split("x"))
            row = measured_row(name, (width, height))
            rows.append(row)
            print(
                f"{name:20} {size:8} {row.iou:5.2f} {row.share:5.2f} {row.order:5.2f} {row.covered:7.2f} "
                f"{row.found.trust:10.2f} {row.seconds:5.1f}  {row.verdict} ({row.found.layout})",
                flush=True,
            )
    return int(any(row.verdict == "WRONG" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
