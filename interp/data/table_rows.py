"""Rows of tables: of a file, a DataFrame, a list of dicts, or a data set of the library `datasets`.

Cells with images are read when they are used, so that a table of a million pictures fits into memory.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from interp.data.lines import Row, as_path, file_bytes, json_rows, line_rows, needs, read_json, shown
from interp.errors import DataError
from interp.inputs.argument_checks import check_bool
from interp.inputs.files import unreadable
from interp.inputs.images import LazyImage
from interp.inputs.text import brief

__all__ = ["Table", "frame_rows", "is_frame", "is_missing", "opened", "plain"]

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")


@dataclass(frozen=True)
class Table:
    """A table's rows.

    Attributes:
        name: The table's name, in messages and as the name of samples.
        folder: The folder that paths in the table are relative to.
        columns: The names of the columns; empty where every row may have its own.
        images: The columns that hold encoded images.
        rows: The rows, which can be read once.
        split: The split that was chosen; None for a table without splits.
    """

    name: str
    folder: Path
    columns: tuple[str, ...]
    images: tuple[str, ...]
    rows: Iterator[Row]
    split: str | None = None


def opened(
    source: Any,
    *,
    split: str | None = None,
    config: str | None = None,
    revision: str | None = None,
    download: bool = False,
) -> Table:
    """Returns the table in a source.

    Args:
        source: A `datasets.Dataset` or `DatasetDict`, a DataFrame, a list of dicts, the path of a .json, .jsonl or
            .parquet file, a folder that `save_to_disk` wrote, or the id of a data set on the Hugging Face hub.
        split: The part of a `DatasetDict`, folder or id to read.
        config: The configuration of an id.
        revision: The revision of an id, a commit or tag; only with `download`.
        download: Whether an id may be downloaded. Otherwise it is read from the cache of `datasets`.

    Raises:
        DataError: A source that holds no table, an unknown split, or an id that is not in the cache.
    """
    for name, value in (("split", split), ("config", config), ("revision", revision)):
        if value is not None and not (isinstance(value, str) and value):
            raise DataError(f"{name} is a text or None; got {brief(value)}.")
    check_bool("download", download, DataError)
    if is_frame(source):
        return frame_rows(source)
    if isinstance(source, list | tuple):
        return _of_dicts(source)
    if isinstance(source, str | os.PathLike):
        return _at(source, split, config, revision, download)
    if type(source).__module__.split(".")[0] == "datasets":
        return _of_dataset(source, split, "the data set")
    raise DataError(
        "expected a Dataset, a DataFrame, a list of dicts, a path or the id of a data set on the hub; got "
        f"{type(source).__name__} {brief(source)}."
    )


def _of_dicts(source: Sequence[Any]) -> Table:
    names = dict.fromkeys(str(key) for row in source if isinstance(row, Mapping) for key in row)
    return Table("rows", Path("."), tuple(names), (), json_rows(Path("the list"), source, "row"))


def is_frame(value: Any) -> bool:
    """Whether a value is a pandas DataFrame; the check does not import pandas."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.DataFrame)


def frame_rows(table: Any) -> Table:
    """Returns the rows of a DataFrame.

    Raises:
        DataError: A table without rows, or with two columns of one name.
    """
    names = tuple(str(column) for column in table.columns)
    if len(set(names)) < len(names) or not len(table):
        raise DataError("the table needs rows, and columns that each have a name of their own.")
    rows = (
        Row(Path("the table"), number, dict(zip(names, cells, strict=True)), "row")
        for number, cells in enumerate(table.itertuples(index=False, name=None))
    )
    return Table("table", Path("."), names, (), rows)


def _at(
    source: str | os.PathLike[str],
    split: str | None,
    config: str | None,
    revision: str | None,
    download: bool,
) -> Table:
    path = as_path(source)
    if os.path.isdir(path):
        return _saved(path, split)
    if unreadable(path) is None:
        return _of_file(path)
    if path.suffix.lower() in (".json", ".jsonl", ".parquet") or not HUB_ID.fullmatch(os.fspath(source)):
        raise DataError(f"{shown(path)} cannot be read: it {unreadable(path)}")
    return _of_dataset(
        _from_hub(os.fspath(source), split, config, revision, download), split, os.fspath(source)
    )


def _of_file(path: Path) -> Table:
    ending = path.suffix.lower()
    if ending == ".parquet":
        return _of_dataset(_from_parquet(path), None, os.fspath(path))
    if ending == ".jsonl":
        rows = list(line_rows(path))
    elif ending == ".json":
        rows = list(json_rows(path, read_json(path, list)))
    else:
        raise DataError(
            f"{shown(path)}: expected a .json, .jsonl or .parquet file. For others see docs/data.md."
        )
    names = dict.fromkeys(str(key) for row in rows if isinstance(row.values, Mapping) for key in row.values)
    return Table(path.stem, path.parent, tuple(names), (), iter(rows))


def _from_parquet(path: Path) -> Any:
    datasets = needs("datasets")
    try:
        return datasets.Dataset.from_parquet(os.fspath(path))
    except Exception as error:  # ArrowInvalid, DatasetGenerationError and others
        reason = error.__cause__ or error
        raise DataError(
            f"{shown(path)} cannot be read as parquet ({type(reason).__name__}: {brief(str(reason))[1:-1]}). Was it "
            "downloaded whole? A pointer of Git LFS is a text of three lines."
        ) from error


def _saved(path: Path, split: str | None) -> Table:
    datasets = needs("datasets")
    try:
        found = datasets.load_from_disk(os.fspath(path))
    except Exception as error:  # FileNotFoundError, ValueError, pyarrow's own
        raise DataError(
            f"{shown(path)} is no folder that save_to_disk wrote ({brief(str(error))}). For folders of other data sets "
            "see docs/data.md."
        ) from error
    return _of_dataset(found, split, os.fspath(path))


def _from_hub(
    source: str, split: str | None, config: str | None, revision: str | None, download: bool
) -> Any:
    """A data set of the hub; without `download`, one that was downloaded before."""
    datasets = needs("datasets")
    try:
        if download:
            return datasets.load_dataset(source, config, revision=revision)
        cached = needs("datasets.packaged_modules.cache.cache").Cache
        builder = cached(
            repo_id=source,
            dataset_name=source.split("/")[-1],
            config_name=config,
            version="auto",
            hash="auto",
        )
        return builder.as_dataset()
    except Exception as error:  # whatever datasets, the hub's client and pyarrow raise
        reason = brief(str(error))[1:-1]
        if download:
            raise DataError(
                f"{source!r} cannot be loaded from the hub ({type(error).__name__}: {reason})."
            ) from error
        raise DataError(
            f"there is no file or folder {source!r}, and no data set of that id in the cache ({reason}). To download "
            "it from the Hugging Face hub, pass download=True."
        ) from error


def _of_dataset(source: Any, split: str | None, name: str) -> Table:
    """The rows of a `Dataset`, or of one part of a `DatasetDict`."""
    datasets = needs("datasets")
    if isinstance(source, datasets.DatasetDict):
        parts = list(source)
        if split is None and len(parts) == 1:
            split = parts[0]
        if split not in parts:
            raise DataError(
                f"{name} has the splits {', '.join(parts)}; got {brief(split)}. Pass one as split=."
            )
        source = source[split]
    if not isinstance(source, datasets.Dataset):
        raise DataError(
            f"{name} is a {type(source).__name__}; a datasets.Dataset is read. Of a streamed one take "
            "some rows into a list, and pass that."
        )
    if not len(source):
        raise DataError(
            f"{name} holds no rows. Was it filtered, or its download cut off? Choose another split or file."
        )
    images = tuple(one for one, kind in source.features.items() if _of_images(datasets, kind))
    known = split if split is not None else None if source.split is None else str(source.split)
    rows = _dataset_rows(datasets, source, images, Path(name))
    return Table(Path(name).name, Path("."), tuple(source.column_names), images, rows, known)


def _of_images(datasets: Any, kind: Any) -> bool:
    inner = kind[0] if isinstance(kind, list) and kind else getattr(kind, "feature", kind)
    return isinstance(inner, datasets.Image)


def _dataset_rows(datasets: Any, source: Any, images: Sequence[str], path: Path) -> Iterator[Row]:
    """Rows whose images are not read yet, None in cells without an image, and classes by name."""
    source = source.with_format(None)
    others = [one for one in source.column_names if one not in images]
    classes = {
        one: source.features[one] for one in others if isinstance(source.features[one], datasets.ClassLabel)
    }
    encoded = {one: _undecoded(datasets, source, one) for one in images}
    empties = {one: _empty_cells(held, one) for one, held in encoded.items()}
    plain_ones = source.select_columns(others) if others else None
    empty: Iterator[dict[str, Any]] = ({} for _ in range(len(source)))
    for number, row in enumerate(_readable(plain_ones if plain_ones is not None else empty, path)):
        values = dict(row)
        for one, kind in classes.items():
            values[one] = None if values[one] is None or values[one] < 0 else kind.int2str(values[one])
        for one, held in encoded.items():
            name = f"{shown(path)}, row {number}, {one}"
            values[one] = None if number in empties[one] else _cells(held, number, one, name)
        yield Row(path, number, values, "row")


def _readable(rows: Iterable[Any], path: Path) -> Iterator[Any]:
    """The rows, whose texts are decoded one row at a time."""
    try:
        yield from rows
    except (ValueError, OSError) as error:  # text that is not UTF-8, and what pyarrow raises
        raise DataError(
            f"{shown(path)} holds a row that cannot be read ({type(error).__name__}: {brief(str(error))[1:-1]}). Was "
            "it copied whole?"
        ) from error


def _empty_cells(held: Any, column: str) -> frozenset[int]:
    """The rows without an image in a column of one image a row; no image is read for it."""
    if not hasattr(held.features[column], "decode"):
        return frozenset()
    found = [
        chunk.is_null().to_numpy(zero_copy_only=False)
        | np.logical_and.reduce(
            [chunk.field(name).is_null().to_numpy(zero_copy_only=False) for name in ("bytes", "path")]
        )
        for chunk in held.data.column(column).chunks
    ]
    at = set(np.flatnonzero(np.concatenate(found)).tolist()) if found else set[int]()
    order = getattr(held, "_indices", None)  # of a data set whose rows were selected or shuffled
    if order is None:
        return frozenset(at)
    return frozenset(i for i, place in enumerate(order.column(0).to_pylist()) if place in at)


def _undecoded(datasets: Any, source: Any, column: str) -> Any:
    kind, raw = source.features[column], datasets.Image(decode=False)
    held = raw if isinstance(kind, datasets.Image) else datasets.List(raw)
    return source.select_columns([column]).cast_column(column, held)


def _cells(held: Any, number: int, column: str, name: str) -> LazyImage | list[LazyImage]:
    """The image of a cell, or its images; only the number of images is read now."""
    if hasattr(held.features[column], "decode"):
        return LazyImage(partial(_encoded, held, number, column, None), f"image {name}")
    n = len(held[number][column] or ())
    return [LazyImage(partial(_encoded, held, number, column, i), f"image {name}, {i}") for i in range(n)]


def _encoded(held: Any, number: int, column: str, i: int | None) -> bytes:
    """The bytes of an image in a table, or of the file that its cell names."""
    cell = held[number][column]
    cell = cell if i is None else cell[i]
    if not cell or (cell.get("bytes") is None and not cell.get("path")):
        raise DataError(
            f"row {number} has no image in {column!r}: its cell holds neither bytes nor a path. Leave the row out."
        )
    return cell["bytes"] if cell["bytes"] is not None else file_bytes(Path(cell["path"]))


def is_missing(value: Any) -> bool:
    """Whether a cell is empty: None, NaN, NA, or a text of spaces."""
    if isinstance(value, str):
        return not value.strip()
    missing = ("NAType", "NaTType")  # of pandas
    return value is None or (isinstance(value, float) and value != value) or type(value).__name__ in missing


def plain(value: Any) -> Any:
    """A cell without types of numpy and pandas, as JSON stores it; missing values become None."""
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if not isinstance(value, str) and is_missing(value):
        return None
    return value.isoformat() if isinstance(value, date) else value
