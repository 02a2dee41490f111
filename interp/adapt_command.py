"""`interp adapt`: measure a model that nobody wrote an adapter for, show what was measured, write an adapter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from interp.terminal import console, table

__all__ = ["adapt"]

_SIZES = ((336, 336), (448, 252), (224, 420))
"""Width and height of the pictures, unless --image names some: square, wide and tall."""


def adapt(
    model: Annotated[str, tyro.conf.Positional],
    *,
    image: tuple[Path, ...] = (),
    out: Path | None = None,
    picture: Path | None = Path("adapt.png"),
    device: str = "cpu",
    dtype: str = "float32",
    revision: str | None = None,
    processor: str | None = None,
) -> int:
    """Measure where a model's image tokens look, without an adapter, and write one where a regular layout fits.

    Prints a table of the sizes measured and, where a regular layout fits, the adapter file. The exit code is 1 if a
    size could not be measured surely, or if --out was given and no layout fits all sizes.

    Args:
        model: a family (its tiny model with random weights is measured), a folder, or a hub id.
        image: image files whose sizes to measure at; by default a square, a wide and a tall size.
        out: the adapter file to write, such as my_adapter.py, instead of printing it.
        picture: an overlay of the footprints of the first size.
        device: device that the model runs on.
        dtype: dtype of the weights.
        revision: revision of a hub id.
        processor: folder or hub id of the processor, if the checkpoint has none.
    """
    from interp.models.measured import layout_of

    mllm = _opened(model, device, dtype, revision, processor)
    adapter: Any = mllm.adapter
    found = [adapter.measured(size, mllm.processor) for size in _sizes(image)]
    _print(found, adapter)
    if picture is not None:
        print(f"overlay: {_overlay(found[0], picture)}")
    layout = layout_of(found, [adapter.inputs(one.size, mllm.processor) for one in found])
    print(f"layout: {layout.words if layout else 'no regular layout fits all sizes'}")
    if layout is not None:
        source = layout.source(adapter.behaviour, mllm.hf.config)
        print(
            f"adapter: {out or 'below'}, class Adapter. docs/new_model.md says how to check and install it."
        )
        if out is None:
            print(source)
        else:
            out.write_text(source, encoding="utf-8")
    return 0 if all(one.sure for one in found) and (layout is not None or out is None) else 1


def _opened(model: str, device: str, dtype: str, revision: str | None, processor: str | None) -> Any:
    from interp.conformance.tiny import families, tiny
    from interp.tracing import load, wrap

    if model in families():
        return wrap(*tiny(model), "measured")
    options: dict[str, Any] = {"device": device, "dtype": dtype, "revision": revision, "processor": processor}
    return load(model, adapter="measured", **options)


def _sizes(images: Sequence[Path]) -> list[tuple[int, int]]:
    from interp.inputs.sample import Sample

    return [Sample(path, "?").sizes[0] for path in images] or list(_SIZES)


def _print(found: Sequence[Any], adapter: Any) -> None:
    made = table(
        "image",
        "tokens",
        "grids (rows×columns)",
        "expected right",
        "outside grids",
        "pictures run",
        show_lines=False,
    )
    for one in found:
        width, height = one.size
        mark = "" if one.sure else " (not sure)"
        tokens = f"{len(one.positions)}, {int(np.isnan(one.footprints.boxes[:, 0]).sum())} without area"
        cells = (
            f"{width}×{height}",
            tokens,
            one.layout or "none",
            f"{one.trust:.0%}{mark}",
            f"{one.stray:.0%}",
        )
        made.add_row(*cells, str(one.n_images))
    console().print(made)
    for one in found:
        if one.doubts:
            print(f"{one.size[0]}×{one.size[1]} is not sure: {'; '.join(one.doubts)}")
    seen = adapter.behaviour
    print(f"image ids {list(seen.ids)}; attends {seen.attends}; position ids begin at {seen.first_position}")


def _overlay(measurement: Any, path: Path) -> Path:
    """Draws the footprints on the pattern that was painted, brighter where more confident; views side by side."""
    from PIL import Image, ImageDraw

    from interp.models.measured.patterns import texture

    views = list(dict.fromkeys(measurement.footprints.views.tolist()))
    scale = max(1, 480 // max(measurement.size))
    width, height = (scale * side for side in measurement.size)
    sheet = Image.new("RGB", (width * len(views) + 8 * (len(views) - 1), height), "white")
    for number, view in enumerate(views):
        shown = Image.fromarray(texture(measurement.size, 0)).resize((width, height))
        draw = ImageDraw.Draw(shown)
        for i in np.flatnonzero(measurement.footprints.views == view):
            box = measurement.footprints.boxes[i]
            if not np.isnan(box[0]):
                level = int(255 * min(1.0, measurement.confidence[i]))
                x0, y0, x1, y1 = (int(scale * edge) for edge in box)
                draw.rectangle((x0, y0, max(x1 - 1, x0), max(y1 - 1, y0)), outline=(255 - level, level, 0))
                draw.text((x0 + 2, y0 + 1), str(i), fill="white")
        sheet.paste(shown, (number * (width + 8), 0))
    sheet.save(path)
    return path
