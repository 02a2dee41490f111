"""Opens data by name or path: bundled data, benchmarks, and files or folders whose layout tells which reader to use.

`guess` names the reader of a path, and `read` calls it.
"""

from __future__ import annotations

import hashlib
import inspect
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from interp.data.benchmarks import huatuo
from interp.data.benchmarks.catalogue import BENCHMARKS, benchmark_source
from interp.data.benchmarks.mmmu import mmmu
from interp.data.benchmarks.omnimedvqa import omnimedvqa
from interp.data.benchmarks.path_vqa import path_vqa
from interp.data.benchmarks.pmc_vqa import VERSIONS, pmc_vqa
from interp.data.benchmarks.vqa_rad import FILE, vqa_rad
from interp.data.lines import as_path, needs, read_json, shown
from interp.data.readers.bundled import SPLITS, bundled, check_draw
from interp.data.readers.coco_and_vgmed import KINDS, coco, vgmed
from interp.data.readers.coco_instances import coco_instances
from interp.data.readers.csv import csv
from interp.data.readers.hub import hub
from interp.data.readers.jsonl import jsonl
from interp.data.readers.medsam import medsam
from interp.data.readers.medsg import medsg
from interp.data.readers.nifti_and_dicom import dicom, nifti
from interp.data.readers.refcoco import refcoco
from interp.data.readers.sa_med2d import sa_med2d
from interp.data.readers.slake import FILES, slake
from interp.data.readers.voc import voc
from interp.data.readers.yolo import yolo
from interp.data.samples import Samples
from interp.errors import DataError
from interp.inputs.files import unreadable
from interp.inputs.sample import Sample
from interp.inputs.text import brief, meant, storable

__all__ = ["BUNDLED", "OTHER", "READERS", "guess", "label", "named", "read", "sets"]


BUNDLED = ("natural", "medical")
ALL = "all"
"""The word that stands for every split."""
SHARE = 1 / 3
MOST_NAMES = 10_000
"""The most files of a folder that are compared with the name of a missing one."""
OTHER = "rows of the split "
"""The beginning of the reason in `Samples.skipped` for rows of another split."""


def named(name: str, *, split: str = "test", n: int | None = None, seed: int = 0) -> Samples:
    """Returns the samples of one split of the data that `name` names.

    `"natural"` and `"medical"` are bundled and have splits of their own. Names such as `vqa_rad:FOLDER` open a
    benchmark (`interp.data.benchmarks.catalogue.benchmark_source`), which has splits of its own too.
    Any other `name` is a path: a file or folder whose layout says which reader it needs (`interp.data.open.guess`),
    such as a .jsonl or .csv file, or a folder of `VGMED_*.jsonl` with their images. If a folder holds several kinds of
    questions or splits, all are read. Rows of a file belong to the split in `meta["split"]`. If that names none of the
    three splits, a hash of the group's name (of the image's content, where there is no group) decides: a third of the
    groups are "validation" and the others "test", so that no group is used both to choose and to report. Every sample
    returned has its split in `meta["split"]`, and `samples.skipped` counts the rows of the other splits.

    Args:
        name: A bundled name, a benchmark and its folder, or a path.
        split: "train", "validation" or "test"; "all" for every split, each sample with its own.
        n: The largest number of rows, drawn with `seed` and kept in order; None for all (200 natural scenes).
        seed: The seed of the draw and of the natural scenes.

    Raises:
        DataError: The name or the split is unknown, or a file cannot be read. An empty split is no error.

    >>> import interp.data
    >>> len(interp.data.named("medical", split="validation", n=20))
    20
    """
    if not isinstance(split, str) or split not in (*SPLITS, ALL):
        raise DataError(
            f"no split {split!r}; choose one of {', '.join(SPLITS)}, or {ALL!r}.{meant(split, (*SPLITS, ALL))}"
        )
    check_draw(n, seed)
    if isinstance(name, str) and name == "natural" and split != ALL:
        return bundled(name, split=split, n=n, seed=seed)
    rows = _rows(name, split, seed)
    if n is None or n >= len(rows):
        return rows
    drawn = np.sort(np.random.default_rng(seed).choice(len(rows), n, replace=False)).tolist()
    return rows.like(rows[i] for i in drawn)


def _rows(name: str, split: str, seed: int) -> Samples:
    """All samples of a split of what `name` names."""
    if isinstance(name, str) and name in BUNDLED:
        return _bundled(name, split, seed)
    source = benchmark_source(name)
    return _of_split(_read(as_path(name, "data")), split) if source is None else source.samples(split)


def _bundled(name: str, split: str, seed: int) -> Samples:
    """The bundled samples of a split, or of all of them."""
    first, *others = (bundled(name, split=one, seed=seed) for one in (SPLITS if split == ALL else (split,)))
    return sum(others, first)


def sets(
    names: Sequence[str],
    *,
    split: str = "test",
    n: int | None = None,
    seed: int = 0,
    needed: bool = False,
) -> dict[str, Samples]:
    """Returns a dict of label → `named(…)` for each name; sets without samples of the split are left out.

    Args:
        names: Bundled names, benchmarks and their folders, or paths.
        split: "train", "validation", "test", or "all".
        n: The largest number of rows of each set, drawn with `seed`; None for all.
        seed: The seed of the draw and of the natural scenes.
        needed: Whether it is an error if no set has samples of the split.

    Raises:
        DataError: A name or the split is unknown; a file cannot be read; there are no names; two names have the same
            label; or, with `needed`, no set has samples.
    """
    labels = [label(name) for name in names]
    if not names or len(set(labels)) < len(labels):
        raise DataError(f"expected one or more data sets with different labels, got {labels}. Rename a file.")
    read = {label(name): named(name, split=split, n=n, seed=seed) for name in names}
    found = {name: samples for name, samples in read.items() if len(samples)}
    if needed and not found:
        raise DataError(
            f'none of {", ".join(names)} has {split} samples. Rows belong to the split that their "split" names; '
            f"without one, a third of the groups are validation and the others test."
        )
    return found


def label(name: str) -> str:
    """Returns the label of the data in figures: the name of the file or folder without its path, or the benchmark."""
    if name in BUNDLED:
        return name
    source = benchmark_source(name)
    return storable(Path(os.path.realpath(name)).stem if source is None else source.label)


def _read(path: Path) -> Samples:
    problem = unreadable(path)
    if problem is not None and not os.path.isdir(path):
        raise DataError(
            f"no data {brief(str(path))}: it {problem} Expected 'natural', 'medical', a file such as rows.jsonl or "
            "rows.csv, a folder of a data set that docs/data.md lists, or a benchmark such as vqa_rad:FOLDER."
            f"{_meant(path)}"
        )
    return read(path)


def _meant(path: Path) -> str:
    """A hint for a path that does not exist: the bundled name, benchmark or file of the same folder that it is like."""
    name, colon, rest = str(path).partition(":")
    if colon:
        close = meant(name.split(",")[0], BENCHMARKS)
        return close.replace("'?", f":{rest}'?")
    with suppress(OSError, ValueError):
        there = {one.name: str(one) for one in sorted(path.parent.iterdir())[:MOST_NAMES]}
        if close := meant(path.name, there):
            return close
    return meant(name, BUNDLED)


def _of_split(rows: Samples, split: str) -> Samples:
    drawn = all(row.meta.get("split") in SPLITS for row in rows)
    groups = [""] * len(rows) if drawn else rows.groups
    splits = [_split(row, group) for row, group in zip(rows, groups, strict=True)]
    own = [
        row.replace(meta={**row.meta, "split": of})
        for row, of in zip(rows, splits, strict=True)
        if split in (of, ALL)
    ]
    others = Counter(f"{OTHER}{of}" for of in splits if split not in (of, ALL))
    return Samples((), rows.name, {**rows.skipped, **others}).like(own)


def _split(sample: Sample, group: str) -> str:
    """The sample's own split, or one drawn by a hash of its group."""
    given = sample.meta.get("split")
    if given in SPLITS:
        return str(given)
    drawn = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") / 2**64
    return "validation" if drawn < SHARE else "test"


Given = Mapping[str, Any]
"""`images`, `labels`, `bad_rows`, `box_format` and `columns`, as the caller gives them."""

ENDINGS = {
    ".jsonl": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".npz": "medsam",
    ".yaml": "yolo",
    ".yml": "yolo",
    ".parquet": "hub",
    ".nii": "nifti",
    ".gz": "nifti",
    ".p": "refcoco",
}
"""Ending of a file → its reader."""
FOLDERS = (
    ("vgmed", "VGMED_*.jsonl"),
    ("coco", "COCO_*.jsonl"),
    ("sa_med2d", "SAMed2D_v1.json"),
    ("slake", "imgs/*/source.jpg"),
    ("vqa_rad", FILE),
    ("omnimedvqa", "QA_information/Open-access/*.json"),
    ("huatuo", huatuo.FILE),
    ("mmmu", "*_Medicine/*.parquet"),
    *(("pmc_vqa", files["test"]) for files in VERSIONS.values()),
    ("voc", "Annotations/*.xml"),
    ("yolo", "data.yaml"),
    ("yolo", "classes.txt"),
    ("yolo", "labels/classes.txt"),
    ("medsam", "*.npz"),
    ("hub", "dataset_dict.json"),
    ("hub", "dataset_info.json"),
    ("dicom", "*.dcm"),
    ("voc", "*.xml"),
)
"""A reader, and a file that marks a folder as its own; the first such file that exists decides."""


class Reader(NamedTuple):
    """A reader, and a function that calls it with a path and the caller's options."""

    function: Callable[..., Samples]
    call: Callable[[Path, Given], Samples]


PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")


def read(
    path: Path,
    reader: str | None = None,
    *,
    images: Path | None = None,
    labels: Path | None = None,
    bad_rows: str = "raise",
    box_format: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> Samples:
    """Returns the samples at a path; of a folder with several splits or kinds of questions all of them.

    Args:
        path: A file or a folder.
        reader: A name of `READERS`; None guesses it from the layout.
        images: The folder of the images, where the layout does not give it.
        labels: The label map of a volume.
        bad_rows: The treatment of bad rows, by readers of rows. "raise" raises the error of the first; "record" keeps
            a stand-in for each.
        box_format: The format of the boxes, as for `interp.Sample`; None takes the reader's default.
        columns: Field → column, as for `interp.data.csv`.

    Raises:
        DataError: An unknown reader, a layout that no reader knows, an option that the reader does not have, or what
            the reader refuses.
    """
    name = guess(path) if reader is None else reader
    if name not in READERS:
        raise DataError(
            f"there is no reader {brief(name)}; there are {', '.join(READERS)}.{meant(name, READERS)}"
        )
    for option, value in (("box_format", box_format), ("columns", columns)):
        if value is not None and not _takes(READERS[name].function, option):
            able = ", ".join(one for one, known in READERS.items() if _takes(known.function, option))
            raise DataError(f"the reader {name} takes no {option}=; these do: {able}. Leave it out.")
    given = {"images": images, "labels": labels, "bad_rows": bad_rows}
    return READERS[name].call(path, {**given, "box_format": box_format, "columns": columns})


def _takes(reader: Callable[..., Samples], option: str) -> bool:
    return option in inspect.signature(reader).parameters


def _options(reader: Callable[..., Samples], given: Given) -> dict[str, Any]:
    """The options about rows that were given and that the reader takes."""
    named = ("bad_rows", "box_format", "columns")
    return {name: given[name] for name in named if given[name] is not None and _takes(reader, name)}


def guess(path: Path) -> str:
    """Returns the name of the reader that a path's layout calls for.

    Raises:
        DataError: A layout that no reader knows.
    """
    if os.path.isdir(path):
        found = next((name for name, sign in FOLDERS if any(path.glob(sign))), None)
    elif path.suffix.lower() == ".json":
        found = _of_json(path)
    else:
        found = ENDINGS.get(path.suffix.lower())
    if found is None:
        raise DataError(
            f"no reader knows the layout of {shown(path)}.{_pictures_alone(path)} If one of {', '.join(READERS)} can "
            "read it, name it by --reader on the command line, or call it in Python, such as interp.data.csv(path)."
        )
    return found


def _pictures_alone(path: Path) -> str:
    """A hint for a folder that holds only pictures, which need questions, or a table beside its pictures."""
    held = sorted(path.iterdir()) if os.path.isdir(path) else []
    if table := next((one for one in held if one.suffix.lower() in (".csv", ".jsonl")), None):
        return f" It holds {table.name}: name that file."
    if not any(one.suffix.lower() in PICTURES for one in held):
        return ""
    return (
        " It holds pictures, and data need questions too: write a table beside it, such as rows.csv with the columns "
        f"image,question,answer and a line like {path.name}/one.png,Is there a nodule?,yes."
    )


def _of_json(path: Path) -> str | None:
    """The reader of a JSON file, by the names in it."""
    content = read_json(path, object)
    if isinstance(content, dict):
        return "coco_instances" if {"images", "annotations", "categories"} <= set(content) else None
    first = content[0] if isinstance(content, list) and content and isinstance(content[0], dict) else {}
    if {"sentences", "ann_id"} <= set(first):
        return "refcoco"
    if {"images", "question", "answer"} <= set(first):
        return "medsg"
    return "hub" if "question" in first else None


def _vgmed(path: Path, given: Given) -> Samples:
    kinds = (kind for kind in KINDS if (path / f"VGMED_{kind}.jsonl").is_file())
    return _joined((vgmed(path, kind, **_options(vgmed, given)) for kind in kinds), path, "VGMED")


def _joined(found: Iterator[Samples], path: Path, name: str) -> Samples:
    """All samples of several parts under one name."""
    parts = list(found)
    if not parts:
        raise DataError(f"{shown(path)} holds no part that its reader knows. Check the folder.")
    joined = sum(parts[1:], parts[0])
    return joined.like(joined, name)


def _coco(path: Path, given: Given) -> Samples:
    inner = path / "val2014"
    images = given["images"] or (inner if inner.is_dir() else path)
    kinds = (kind for kind in KINDS if (path / f"COCO_{kind}.jsonl").is_file())
    return _joined((coco(images, path, kind, **_options(coco, given)) for kind in kinds), path, "COCO")


def _coco_instances(path: Path, given: Given) -> Samples:
    return coco_instances(path, given["images"] or _images_of(path), **_options(coco_instances, given))


def _images_of(path: Path) -> Path:
    """The folder of a COCO file's images: beside the file or one folder up, named as its split or `images`."""
    content = read_json(path, dict)
    first = next((one.get("file_name") for one in content.get("images", ()) if isinstance(one, dict)), None)
    split = path.stem.split("_")[-1]
    around = [
        base / one
        for base in (path.parent, path.parent.parent)
        for one in ("", split, "images", f"images/{split}")
    ]
    return next(
        (one for one in around if isinstance(first, str) and os.path.isfile(one / first)), path.parent
    )


def _slake(path: Path, given: Given) -> Samples:
    splits = (split for split, names in FILES.items() if any((path / one).is_file() for one in names))
    return _joined((slake(path, split, **_options(slake, given)) for split in splits), path, "SLAKE")


def _pmc_vqa(path: Path, given: Given) -> Samples:
    there = (name for name, files in VERSIONS.items() if (path / files["test"]).is_file())
    return pmc_vqa(path, version=next(there, "clean"), images=given["images"], **_options(pmc_vqa, given))


def _everything(reader: Callable[..., Samples]) -> Callable[[Path, Given], Samples]:
    """A benchmark's reader for all of its questions."""

    def call(path: Path, given: Given) -> Samples:
        return reader(path, split="all", questions="all", **_options(reader, given))

    return call


def _hub(path: Path, given: Given) -> Samples:
    if not (path / "dataset_dict.json").is_file():
        return hub(path, images=given["images"], **_options(hub, given))
    parts = needs("datasets").load_from_disk(os.fspath(path))
    return _joined(
        (hub(parts, split, images=given["images"], **_options(hub, given)) for split in parts),
        path,
        path.name,
    )


def _with_labels(reader: Callable[..., Samples], path: Path, given: Given) -> Samples:
    if given["labels"] is None:
        raise DataError(
            f"{shown(path)} is a volume; its boxes come from a label map. Name it: --labels FILE on the command "
            "line, or interp.data.nifti(image, labels) in Python."
        )
    return reader(path, given["labels"])


def _both(reader: Callable[..., Samples], name: str) -> Callable[[Path, Given], Samples]:
    """A reader that takes the folder of images as `images`."""

    def call(path: Path, given: Given) -> Samples:
        return reader(path, **{name: given["images"]}, **_options(reader, given))

    return call


def _plain(reader: Callable[..., Samples]) -> Callable[[Path, Given], Samples]:
    """A reader that takes only a path and options about rows."""
    return lambda path, given: reader(path, **_options(reader, given))


def _refcoco(path: Path, given: Given) -> Samples:
    return refcoco(path, given["images"], instances=_instances(path), **_options(refcoco, given))


def _mmmu(path: Path, given: Given) -> Samples:
    more = {"questions": "all", **_options(mmmu, given)}
    return _joined((mmmu(path, split=split, **more) for split in ("validation", "test")), path, "MMMU")


READERS: dict[str, Reader] = {
    "coco": Reader(coco, _coco),
    "coco_instances": Reader(coco_instances, _coco_instances),
    "csv": Reader(csv, _both(csv, "images")),
    "dicom": Reader(dicom, lambda path, given: _with_labels(dicom, path, given)),
    "hub": Reader(hub, _hub),
    "huatuo": Reader(huatuo.huatuo, _everything(huatuo.huatuo)),
    "jsonl": Reader(jsonl, _plain(jsonl)),
    "medsam": Reader(medsam, _plain(medsam)),
    "medsg": Reader(medsg, _both(medsg, "images")),
    "mmmu": Reader(mmmu, _mmmu),
    "nifti": Reader(nifti, lambda path, given: _with_labels(nifti, path, given)),
    "omnimedvqa": Reader(omnimedvqa, _everything(omnimedvqa)),
    "path_vqa": Reader(path_vqa, _everything(path_vqa)),
    "pmc_vqa": Reader(pmc_vqa, _pmc_vqa),
    "refcoco": Reader(refcoco, _refcoco),
    "sa_med2d": Reader(sa_med2d, _plain(sa_med2d)),
    "slake": Reader(slake, _slake),
    "vgmed": Reader(vgmed, _vgmed),
    "vqa_rad": Reader(vqa_rad, _everything(vqa_rad)),
    "voc": Reader(voc, _both(voc, "images")),
    "yolo": Reader(yolo, _plain(yolo)),
}
"""Readers by name."""


def _instances(path: Path) -> Path | None:
    beside = path.parent / "instances.json"
    return beside if beside.is_file() else None
