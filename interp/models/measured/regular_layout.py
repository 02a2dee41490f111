"""The regular layout that fits measurements at several sizes, and the adapter file that states it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp.inputs.footprints import Footprints, Size, center_crop, pad_to_square, squash
from interp.models.measured.behaviour import Behaviour
from interp.models.measured.consistency import overlap
from interp.models.measured.measurement import Measurement
from interp.models.resizing import down_columns

__all__ = ["Layout", "layout_of"]

_FITS = 0.7
"""The smallest median intersection over union, at every size, of a layout that fits."""

_WINDOWS: dict[str, tuple[Callable[[Size, tuple[int, int]], Footprints], str]] = {
    "squash": (squash, "the whole image, each axis resized on its own"),
    "pad_to_square": (pad_to_square, "the image padded to a square, in the middle"),
    "center_crop": (center_crop, "the central square of the image"),
}
"""Name of a function of `interp.inputs.footprints` → the function and what it means."""


@dataclass(frozen=True)
class Layout:
    """One grid over one window of the image, at every size.

    Attributes:
        window: A function of `interp.inputs.footprints`: "squash", "pad_to_square" or "center_crop".
        grid: (rows, columns), or None if they change with the image's size as `image_grid_thw` says.
        order: "rows" or "columns".
        overlap: The smallest median intersection over union with what was measured, over sizes.
    """

    window: str
    grid: tuple[int, int] | None
    order: str
    overlap: float

    @property
    def words(self) -> str:
        """The layout as a line of text."""
        grid = (
            "a grid that follows image_grid_thw"
            if self.grid is None
            else f"{self.grid[0]}×{self.grid[1]} tokens"
        )
        along = "row by row" if self.order == "rows" else "down the columns"
        return f"{grid}, {along}, over {_WINDOWS[self.window][1]} (median IoU ≥ {self.overlap:.2f} at every size)"

    def source(self, behaviour: Behaviour, config: Any) -> str:
        """Returns the text of an adapter file: the class `Adapter`, for the config's model type.

        Args:
            behaviour: What was observed of the model.
            config: The model's config.
        """
        helper = ", ".join(sorted({"Footprints", "concatenate", self.window}))
        turned = "from interp.models.resizing import down_columns\n" if self.order == "columns" else ""
        one = f"{self.window}(size, grid)"
        return _SOURCE.format(
            words=self.words.partition(" (")[0],
            helper=helper,
            turned=turned,
            kind=config.model_type,
            attends=behaviour.attends,
            first=behaviour.first_position,
            nested=behaviour.nested_images,
            ids=list(behaviour.ids),
            grids=_FROM_THW if self.grid is None else f"        grids = [{self.grid}] * len(sizes)",
            one=one if self.order == "rows" else f"down_columns({one})",
        )


_FROM_THW = """        merge = getattr(processor.image_processor, "merge_size", 1)
        thw = inputs["image_grid_thw"] if sizes else ()
        grids = [(int(rows) // merge, int(columns) // merge) for _, rows, columns in thw]"""

_SOURCE = '''"""An adapter for interp, written by `interp adapt` from measurements: {words}."""

import numpy as np

from interp.inputs.footprints import {helper}
from interp.models.base import Family
{turned}

class Adapter(Family):
    name = "{kind}_measured"
    model_types = ("{kind}",)
    layout = "{words}"
    attends = "{attends}"
    first_position = {first}
    nested_images = {nested}

    def image_positions(self, input_ids, config):
        return np.flatnonzero(np.isin(np.asarray(input_ids).reshape(-1), {ids}))

    def footprints(self, sizes, inputs, processor, config) -> Footprints:
{grids}
        return concatenate([{one} for size, grid in zip(sizes, grids, strict=True)])
'''


def layout_of(found: Sequence[Measurement], inputs: Sequence[Any] = ()) -> Layout | None:
    """Returns the layout that fits all measurements best; None where none fits every size.

    Layouts of several views (tiles) are not tried: how many tiles an image gets cannot be told from a few sizes.

    Args:
        found: Measurements at several sizes.
        inputs: What the processor made at each size, for `image_grid_thw`.
    """
    if not found or any(len(one.views) != 1 or not one.sure for one in found):
        return None
    views = [one.views[0] for one in found]
    orders = {lattice.order for view in views for lattice in view.lattices}
    shapes = {view.shape for view in views}
    told = [one.get("image_grid_thw") is not None for one in inputs]
    if len(orders) > 1 or (len(shapes) > 1 and not (told and all(told))):
        return None
    order, grid = orders.pop(), views[0].shape if len(shapes) == 1 else None
    layouts = [Layout(name, grid, order, min(_fit(one, name, order) for one in found)) for name in _WINDOWS]
    best = max(layouts, key=lambda one: one.overlap)
    return best if best.overlap >= _FITS else None


def _fit(one: Measurement, window: str, order: str) -> float:
    cells = _WINDOWS[window][0](one.size, one.views[0].shape)
    boxes = (cells if order == "rows" else down_columns(cells)).boxes
    if len(boxes) != len(one.positions):
        return 0.0
    return float(np.median(overlap(boxes, one.footprints.boxes)))
