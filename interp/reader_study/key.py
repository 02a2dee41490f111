"""The key of a reader study: which condition each map of the page shows. Readers must not have it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from interp.data.lines import as_path, file_bytes, json_object, shown
from interp.errors import DataError
from interp.inputs.files import canonical, checksum, write_atomically
from interp.inputs.text import brief, faulty_text
from interp.report.answer_form import FormScale, ScaleOption

__all__ = ["FORMAT", "QUESTION", "Key", "KeyItem", "choice_scale", "read_key", "write_key"]

FORMAT = "interp reader study"
KEY_FORMAT = "interp reader study key"
VERSION = 1
QUESTION = "Which map is more clinically reasonable and trustworthy?"
"""The paper's question (its appendix J.1)."""


@dataclass(frozen=True)
class KeyItem:
    """What one item of the page shows.

    Attributes:
        item: The item's key on the page.
        case: The index of the sample among those that were passed.
        sample: The sample's id.
        group: The sample's group, by which cases are resampled.
        a: The condition of map A.
        b: The condition of map B.
        duplicate_of: The item that showed the same maps before, with the sides exchanged; None for a first showing.
    """

    item: str
    case: int
    sample: str
    group: str
    a: str
    b: str
    duplicate_of: str | None = None


@dataclass(frozen=True)
class Key:
    """The key of a pack, as `write_pack` writes it and `read_key` reads it.

    Attributes:
        form: The identity of the form, shared by the page and its answers.
        page: SHA-256 of the page's bytes.
        seed: The seed that drew cases, order and sides.
        conditions: The names of the two conditions.
        ties: Whether readers could say that neither map is better.
        items: The content of each item, in the page's order.
    """

    form: str
    page: str
    seed: int
    conditions: tuple[str, str]
    ties: bool
    items: tuple[KeyItem, ...]

    def __post_init__(self) -> None:
        pair, names = set(self.conditions), {one.item: one for one in self.items}
        if len(pair) != 2 or not names or len(names) < len(self.items):
            raise DataError(
                f"a key has two conditions, and items that differ; got {brief(self.conditions)} and "
                f"{len(self.items)} items, {len(names)} different."
            )
        for one in self.items:
            first = names.get(one.duplicate_of or one.item)
            again = (
                first is not None and first.case == one.case and (first is one or first.duplicate_of is None)
            )
            if {one.a, one.b} != pair or not again:
                raise DataError(
                    f"item {one.item} of the key names other conditions or is no duplicate: {brief(one)}."
                )


def choice_scale(ties: bool) -> FormScale:
    """The question about each item, with the answers A and B, and with `ties` neither."""
    options = [ScaleOption("A", "Map A", "a"), ScaleOption("B", "Map B", "b")]
    if ties:
        options.append(ScaleOption("tie", "Neither is better", "t"))
    return FormScale("choice", QUESTION, tuple(options))


def write_key(key: Key, path: str | os.PathLike[str]) -> None:
    """Writes the key as JSON."""
    write_atomically(path, canonical({"format": KEY_FORMAT, "version": VERSION, **asdict(key)}).encode())


def read_key(path: str | os.PathLike[str], *, page: str | os.PathLike[str] | None = None) -> Key:
    """Returns the key in a file that `write_pack` wrote.

    Args:
        path: The file.
        page: The page that the key must belong to; None skips this check.

    Raises:
        DataError: The file is damaged or is no key, or it is not the page's.
    """
    path = as_path(path, "the key")
    record = json_object(file_bytes(path), shown(path))
    needed = {"format": str, "version": int, "form": str, "page": str, "seed": int, "conditions": list}
    _fields(path, record, {**needed, "ties": bool, "items": list})
    if record["format"] != KEY_FORMAT or record["version"] != VERSION:
        raise DataError(
            f"{shown(path)} is {brief(record['format'])}, version {record['version']}; expected {KEY_FORMAT!r}, "
            f"version {VERSION}. Pass the key that write_pack wrote beside the page."
        )
    if page is not None:
        content = file_bytes(as_path(page, "the page"))
        if checksum(content) != record["page"]:
            raise DataError(
                f"{shown(path)} is not the key of {shown(page)}: it was written for another page, or the page was "
                "changed. Pass the two files that one write_pack wrote."
            )
    conditions = _pair(path, record["conditions"])
    items = tuple(_item(path, place, one) for place, one in enumerate(record["items"]))
    return Key(record["form"], record["page"], record["seed"], conditions, record["ties"], items)


def _pair(path: Path, given: Sequence[Any]) -> tuple[str, str]:
    if len(given) != 2 or not all(isinstance(one, str) for one in given):
        raise DataError(f"{shown(path)}: conditions are two names; got {brief(given)}.")
    return given[0], given[1]


def _item(path: Path, place: int, record: Any) -> KeyItem:
    kinds: dict[str, Any] = {"item": str, "case": int, "sample": str, "group": str, "a": str, "b": str}
    if not isinstance(record, dict):
        raise DataError(f"{shown(path)}: item {place} is an object; got {brief(record)}.")
    _fields(path, record, {**kinds, "duplicate_of": (str, type(None))})
    return KeyItem(**record)


def _fields(path: Path, record: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    """Raises `DataError` unless the record has exactly these fields, of these types."""
    right = set(record) == set(kinds) and all(
        isinstance(record[name], kind) and (kind is bool or not isinstance(record[name], bool))
        for name, kind in kinds.items()
    )
    problem = faulty_text("the key", dict(record))
    if not right or problem:
        came = problem or f"expected the fields {list(kinds)}, got {brief(dict(record))}"
        raise DataError(f"{shown(path)} is not a key: {came}. Pass the key that write_pack wrote, unchanged.")
