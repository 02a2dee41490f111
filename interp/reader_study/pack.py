"""The page of a reader study, which shows two maps a case in random order on random sides, and its key.

`stored_maps` gives the maps that two runs stored, for the samples that both measured.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from PIL import Image

from interp.data.samples import Samples
from interp.errors import DataError, MapError, StudyError
from interp.indicators.maps import Maps
from interp.inputs.argument_checks import check_bool, check_text, check_whole
from interp.inputs.files import as_path, checksum, digest
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.reader_study.key import FORMAT, QUESTION, Key, KeyItem, choice_scale, read_key, write_key
from interp.report.answer_form import Form, FormItem, FormPicture, View, write_form
from interp.report.gallery import data_uri, overlay, picture
from interp.study.layer_sweep.result import Cell
from interp.study.refinement.result import RefinementCell
from interp.study.result import GridResult, stored_tokens
from interp.tracing import Cost

__all__ = ["Pack", "draw_items", "stored_maps", "write_pack"]


SIDE = 384
INTRO = (
    "Each case shows an image, the question that a model was asked about it, and two maps, A and B, of where the model "
    "may have looked: bright is strong, and each map has its own scale. Choose the map that is more clinically "
    "reasonable and trustworthy for this question.",
    "You are not told which method made which map, and the sides vary. Some cases may come again; judge them as they "
    "are.",
)


@dataclass(frozen=True)
class Pack:
    """The files that `write_pack` wrote.

    Attributes:
        page: The page for the readers.
        key: The key, which readers must not have.
        n_items: The number of items on the page, duplicates included.
    """

    page: Path
    key: Path
    n_items: int


def write_pack(
    samples: Samples,
    maps: Mapping[str, Maps],
    *,
    page: str | os.PathLike[str],
    key: str | os.PathLike[str],
    n_cases: int | None = None,
    n_duplicates: int = 0,
    ties: bool = False,
    boxes: bool = False,
    side: int = SIDE,
    seed: int | None = None,
) -> Pack:
    """Writes the page of a blinded reader study and, apart from it, its key.

    Cases are drawn and ordered at random. Each condition is A on half of the cases. A duplicate shows a case of the
    first third again in the second half, with the sides exchanged. Both maps of a case are rendered by
    `interp.report.gallery.overlay`, each on its own scale, and are put beside the image in one PNG without metadata, so
    that names, sizes, order, colours and files do not reveal the condition; only the maps themselves could.

    Args:
        samples: The cases, of one image each.
        maps: The two conditions: name → maps of these samples, one (token,) array each, over the same footprints.
        page: The HTML file to write for the readers.
        key: The JSON file to write for the key; keep it from the readers.
        n_cases: The number of cases drawn from the samples; None takes all.
        n_duplicates: The number of cases shown twice, at most a third of the cases.
        ties: Whether readers may say that neither map is better.
        boxes: Whether the samples' boxes or masks are drawn. They show the expected place, so readers judge overlap.
        side: The longer side of each picture in pixels.
        seed: The seed that draws cases, order and sides; the same seed gives the same bytes. Only the key holds it.
            None draws a random seed; use that for real readers, because anyone who knows the seed can work out the
            sides.

    Raises:
        DataError: Not two conditions, too few samples or cases, a sample with several images, or the key of another
            page at `key`.
        MapError: Maps that are not one for each sample, that have layers, or that have different footprints.
        RunError: A file cannot be written.
    """
    names = _checked(samples, maps)
    for name, value in (("ties", ties), ("boxes", boxes)):
        check_bool(name, value, DataError)
    n = len(samples) if n_cases is None else check_whole("n_cases", n_cases, 2, DataError, most=len(samples))
    check_whole("n_duplicates", n_duplicates, 0, DataError, most=n // 3)
    check_whole("side", side, 64, DataError, most=2048)
    drawn = secrets.randbits(63) if seed is None else check_whole("seed", seed, 0, DataError, most=2**63 - 1)
    if as_path("page", page).resolve() == as_path("key", key).resolve():
        raise DataError(
            f"page and key are two files; got {os.fspath(page)!r} for both. Keep the key elsewhere."
        )
    shown = draw_items(samples, names, n, n_duplicates, np.random.default_rng(drawn))
    items = [_item(one, samples[one.case], maps, boxes, side) for one in shown]
    scale = choice_scale(ties)
    visible = [(one.text, checksum(one.pictures[0].src.encode())) for one in items]
    identity = digest({"format": FORMAT, "items": visible, "options": [o.value for o in scale.options]})[:32]
    form = Form(FORMAT, identity, "Reader study", QUESTION, INTRO, "case", "reader-study", (scale,), items)
    made = Key(identity, "", drawn, names, ties, tuple(shown))
    _check_no_other(as_path("key", key), made)
    written = write_form(form, as_path("page", page))
    write_key(replace(made, page=checksum(written.read_bytes())), key)
    return Pack(written, as_path("key", key), len(items))


def _check_no_other(path: Path, key: Key) -> None:
    """Raises `DataError` if the file is another page's key, without which its readers' answers could not be read."""
    if os.path.exists(path) and replace(read_key(path), page="") != key:
        raise DataError(
            f"{os.fspath(path)} is the key of another page, whose answers need it. Write this study elsewhere, or "
            "delete that key if no reader has its page."
        )


def _checked(samples: Any, maps: Any) -> tuple[str, str]:
    """The names of the conditions in alphabetical order, so that the order of the arguments reveals nothing."""
    if not isinstance(samples, Samples) or len(samples) < 2:
        raise DataError(
            f"a reader study needs Samples, at least two; got {samples!r}. Wrap a list: Samples([…])."
        )
    named = isinstance(maps, Mapping) and len(maps) == 2 and all(isinstance(one, str) and one for one in maps)
    if not named or not all(isinstance(one, Maps) for one in maps.values()):
        raise DataError(
            "maps are two conditions, such as {'plain': maps, 'VGRefine': maps}, each interp.indicators.Maps; got "
            f"{list(maps) if isinstance(maps, Mapping) else maps!r}."
        )
    for name, own in maps.items():
        check_text("the name of a condition", name, DataError)
        if len(own) != len(samples) or any(array.ndim != 1 for array in own.arrays):
            sizes = sorted({str(dict(array.sizes)) for array in own.arrays})
            raise MapError(
                f"{name!r} needs one (token,) map for each of the {len(samples)} samples; got {len(own)} of {sizes}. "
                "Choose a layer first: Maps(tuple(a.sel(layer=…) for a in maps.arrays), maps.tokens, maps.cost)."
            )
    first, second = sorted(maps)
    for place, (one, other) in enumerate(zip(maps[first].tokens, maps[second].tokens, strict=True)):
        if len(samples[place].images) != 1:
            raise DataError(
                f"sample {samples[place].id} has {len(samples[place].images)} images; a case shows one."
            )
        if not _alike(one, other):
            raise MapError(
                f"the maps of sample {samples[place].id} lie on different footprints ({one.n} and {other.n} tokens), "
                "which would tell the conditions apart. Compare maps of one model at one image size."
            )
    return first, second


def _alike(one: TokenMap, other: TokenMap) -> bool:
    same = one.n == other.n and one.sizes == other.sizes
    return same and np.array_equal(one.footprints, other.footprints, equal_nan=True)


def draw_items(
    samples: Samples, names: tuple[str, str], n: int, n_duplicates: int, rng: np.random.Generator
) -> list[KeyItem]:
    """The items in the order of the page, with the condition of each side."""
    groups = samples.groups
    cases = [int(case) for case in rng.choice(len(samples), n, replace=False)]
    exchanged = [bool(side) for side in rng.permutation(np.arange(n) % 2)]

    def item(place: int, exchange: bool) -> KeyItem:
        a, b = names[::-1] if exchange else names
        return KeyItem("", cases[place], samples[cases[place]].id, groups[cases[place]], a, b)

    first = [item(place, exchanged[place]) for place in range(n)]
    again = [
        (int(k), item(int(k), not exchanged[k]))
        for k in rng.choice(max(n // 3, 1), n_duplicates, replace=False)
    ]
    half = n // 2
    later: list[Any] = [(None, one) for one in first[half:]] + [(k, one) for k, one in again]
    order = [(None, one) for one in first[:half]] + [later[i] for i in rng.permutation(len(later))]
    return [
        replace(one, item=str(place + 1), duplicate_of=None if k is None else str(k + 1))
        for place, (k, one) in enumerate(order)
    ]


def _item(shown: KeyItem, sample: Sample, maps: Mapping[str, Maps], boxes: bool, side: int) -> FormItem:
    """The item: image, map A and map B side by side in one PNG."""
    drawn = sample if boxes else sample.replace(boxes=(), masks=())
    parts = [picture(drawn, 0, side).convert("RGB")]
    for name in (shown.a, shown.b):
        own = maps[name]
        parts.append(overlay(drawn, own.tokens[shown.case], own.arrays[shown.case].values, 0, side))
    width, height = parts[0].size
    sheet = Image.new("RGB", (3 * width, height))
    for place, part in enumerate(parts):
        sheet.paste(part, (place * width, 0))
    views = [View("Image", "The image alone")]
    views += [View(f"Map {letter}", f"The image with map {letter} over it") for letter in "AB"]
    src = data_uri(sheet, "png")
    return FormItem(shown.item, sample.question, (FormPicture(src, 3 * width, height, tuple(views)),))


def stored_maps(runs: Mapping[str, tuple[GridResult, int | str]]) -> tuple[Samples, dict[str, Maps]]:
    """Returns the samples that every run measured, and each run's maps of them, as `write_pack` takes them.

    Args:
        runs: Condition → (result, which). `which` is a layer of a `LayerSweep`, or "before", "after" or "method" of a
            `Refinement`. One result may be used twice. Each result has one run, all on the same samples.

    Raises:
        DataError: The runs are of different samples, or no sample has a map in all of them.
        StudyError: A value that is no such result, a result with several runs, or a layer that was not measured.

    Example:
        samples, maps = stored_maps({"layer 2": (result, 2), "layer 6": (result, 6)})
    """
    if not isinstance(runs, Mapping) or not runs:
        raise DataError(f"runs are a mapping of a condition to (result, which); got {runs!r}.")
    cells = {name: _cell(name, given) for name, given in runs.items()}
    data = {name: cell.study.data for name, (cell, _) in cells.items()}
    if len({own.fingerprint for own in data.values()}) > 1:
        raise DataError(
            f"the runs of {', '.join(data)} are on different samples: {[len(own) for own in data.values()]} of them. "
            "Run both on the same data."
        )
    found = {name: _maps(cell, which) for name, (cell, which) in cells.items()}
    common = sorted(set.intersection(*(set(own) for own in found.values())))
    if not common:
        raise DataError("no sample has a map in every run. Read result.failures for the reasons.")
    samples = next(iter(data.values()))
    made = {}
    for name, (cell, _) in cells.items():
        arrays = tuple(xr.DataArray(found[name][index], dims=["token"], name=name) for index in common)
        made[name] = Maps(arrays, tuple(stored_tokens(cell, index) for index in common), Cost())
    return samples.like(samples[index] for index in common), made


def _cell(name: str, given: Any) -> tuple[Cell | RefinementCell, int | str]:
    pair = isinstance(given, tuple) and len(given) == 2
    if not pair or not isinstance(given[0], GridResult) or isinstance(given[1], bool):
        raise StudyError(f"{name!r} needs (result, which), such as (study.run(), 14); got {given!r}.")
    result, which = given
    kind = int if isinstance(result.cells[0], Cell) else str
    if not isinstance(result.cells[0], Cell | RefinementCell) or not isinstance(which, kind):
        raise StudyError(
            f"{name!r}: maps are stored by a LayerSweep, by layer, and by a Refinement, as 'before', 'after' or "
            f"'method'; got a {type(result).__name__} and {which!r}."
        )
    if len(result.cells) > 1:
        raise StudyError(
            f"{name!r} has {len(result.cells)} runs. Pass the result of one study, not of a Grid."
        )
    return result.cells[0], which


def _maps(cell: Cell | RefinementCell, which: int | str) -> dict[int, np.ndarray]:
    """Index → map, for the samples that have it."""
    indices = [int(index) for index in cell.frame("samples")["index"]]
    if isinstance(cell, Cell):
        return cell.maps(indices, int(which))
    found = cell.maps(indices)
    known = sorted({name for own in found.values() for name in own})
    if which not in known:
        raise StudyError(f"this Refinement stored the maps {', '.join(known) or 'of none'}; got {which!r}.")
    return {index: own[str(which)] for index, own in found.items() if which in own}
