"""`interp models` and `interp adapt`: the model families, and an adapter for a checkpoint of another one."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import numpy as np
import tyro

from interp.errors import ModelError
from interp.inputs.text import meant
from interp.terminal import console, table

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from interp.conformance.family_facts import FamilyFacts

__all__ = ["adapt", "models"]


UNLIMITED = 10_000
"""Columns in which any table fits: a table is measured in them, since rich measures no more than there is room for."""
_ATTENDS = {
    "causal": "none",
    "image_blocks": "its own image",
    "sliding_image_blocks": "its own image, in sliding layers",
    "images": "all images",
    "prefix": "the prompt",
}
"""What the values of an adapter's `attends` mean, in plain words."""

_FACTS = ("maps", "attends", "video", "tower", "prefix", "images", "executors", "checked")


def models(family: Annotated[str | None, tyro.conf.Positional] = None) -> int:
    """List the model families: their image tokens, what each supports, and how it was checked.

    Args:
        family: one family, such as llava; by default all.
    """
    from interp.conformance.check_result import read_record
    from interp.conformance.family_facts import every_family, known_types, without_maps

    record, shown, known = read_record(), console(), known_types()
    every = every_family()
    found_here = {adapter.name: adapter for adapter in every if adapter.is_available(known)}
    each = [(adapter, _facts(adapter, record.get(name))) for name, adapter in found_here.items()]
    if family is not None:
        each = [one for one in each if one[0].name == family] or _unknown(family, list(found_here))
    wide = _wide(each)
    needed = shown.measure(wide, options=shown.options.update_width(UNLIMITED)).minimum
    fits = family is None and needed <= shown.width
    shown.print(wide if fits else _narrow(each))
    if family is not None:
        return 0
    if lacking := [adapter.name for adapter in every if adapter.name not in found_here]:
        shown.print(
            f"transformers {version('transformers')} lacks {', '.join(lacking)}, or has them in a form that is not "
            "supported; a newer one has them."
        )
    versions = {", ".join(f"{n} {v}" for n, v in found["versions"].items()) for found in record.values()}
    shown.print(
        "maps: self, the image tokens are positions of the sequence; cross, they are keys of cross-attention layers; "
        "composed, they are latents of a resampler, and maps are products with its attention. "
        "attends: which later tokens a row of the prompt sees. video: whether a sample may show one. tower: whether "
        "the vision tower's own attention is read and edited. prefix: whether the prompt up to the last image token "
        "can be run once for many questions. images: whether a sample may have several. "
        "checked: result of `interp check FAMILY` on tiny random weights "
        f"({'; '.join(versions) or 'no record'}). To check your own checkpoint: `interp check FOLDER`."
    )
    shown.print(
        "Without a map, answers and scores only (adapter='answers_only', with the reason where they are opened without "
        f"it): {', '.join(without_maps())}."
    )
    return 0


def _unknown(name: str, known: list[str]) -> NoReturn:
    raise ModelError(
        f"no family is called {name!r}.{meant(name, known)} Those there are: {', '.join(known)}."
    )


def _wide(each: list[tuple[FamilyFacts, dict[str, str]]]) -> Table:
    """A column for every fact."""
    made = table()
    made.add_column(
        "family", no_wrap=True, min_width=max((len(adapter.name) for adapter, _ in each), default=0)
    )
    made.add_column("image tokens, and checkpoints of the family", min_width=36, overflow="fold")
    for name in _FACTS:
        whole = max((len(facts[name]) for _, facts in each), default=0)
        made.add_column(
            name, no_wrap=True, min_width=max(whole, len(name))
        )  # else rich cuts the last ones off
    for adapter, facts in each:
        made.add_row(adapter.name, _layout(adapter), *facts.values())
    return made


def _narrow(each: list[tuple[FamilyFacts, dict[str, str]]]) -> Table:
    """Two columns: the family, and its facts as lines of text."""
    made = table()
    made.add_column("family", no_wrap=True)
    made.add_column("image tokens, checkpoints of the family, and what it supports", ratio=1, overflow="fold")
    for adapter, facts in each:
        text = _layout(adapter)
        text.append("\n" + " · ".join(f"{name}: {value}" for name, value in facts.items()))
        made.add_row(adapter.name, text)
    return made


def _layout(adapter: FamilyFacts) -> Text:
    """How the family's image tokens lie, and its checkpoints."""
    from rich.text import Text

    text = Text(adapter.layout or "–")
    for example in adapter.examples:
        text.append(f"\n{example}", "dim")
    return text


def _facts(adapter: FamilyFacts, found: dict[str, Any] | None) -> dict[str, str]:
    """The facts of one family. `found` is its record; None if it was never recorded."""
    attends, maps = adapter.attends, adapter.maps
    video, tower = ("yes" if one else "no" for one in (adapter.video, adapter.tower))
    known = (maps, _ATTENDS.get(attends, attends), video, tower)
    if found is None:
        return dict(zip(_FACTS, (*known, "?", "?", "?", "never recorded"), strict=True))

    def holds(check: str, yes: str) -> str:
        return yes if check in found["checks"] and check not in found["failed"] else "FAILS"

    checked = (
        holds("image prefix", _prefix(attends, maps)),
        holds("several images", "several" if adapter.several_images else "one"),
        holds("executors", "tap, source"),
        f"{found['passed']}/{found['total']}, {found['date']}",
    )
    return dict(zip(_FACTS, (*known, *checked), strict=True))


def _prefix(attends: str, maps: str) -> str:
    """Whether an image prefix is exact, in words."""
    if maps == "cross":
        return "none, not used"
    return "not exact, not used" if attends == "prefix" else "exact"


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
    """Measure which pixels a model's image tokens see, without an adapter, and write one where a regular layout fits.

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
    from interp.conformance.suite import moved
    from interp.conformance.tiny import families, tiny
    from interp.tracing import load, wrap

    if model in families():
        hf, own = tiny(model)
        return wrap(moved(hf, device, dtype), own, "measured")
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
