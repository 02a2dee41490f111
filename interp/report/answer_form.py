"""A form: one HTML page on which a person answers the same questions about each item, and saves the answers.

Files of answers come from outside, so everything in them is checked as they are read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from interp.data.lines import as_path, file_bytes, json_object, shown
from interp.errors import DataError
from interp.inputs.text import brief, faulty_text
from interp.report.html import save_form

__all__ = [
    "VERSION",
    "Form",
    "FormAnswers",
    "FormItem",
    "FormPicture",
    "FormScale",
    "ScaleOption",
    "View",
    "read_answers",
    "write_form",
]


VERSION = 1
"""Of the file of answers."""


@dataclass(frozen=True)
class ScaleOption:
    """One answer on a scale.

    Attributes:
        value: What the file of answers holds.
        label: What the page says; nothing more than the value where it is the value's text.
        key: The key that chooses it.
    """

    value: int | str
    label: str
    key: str


@dataclass(frozen=True)
class FormScale:
    """One question that is asked about every item: exactly one option answers it."""

    name: str
    label: str
    options: tuple[ScaleOption, ...]
    words: str = ""


@dataclass(frozen=True)
class View:
    """One part of a picture: its caption, and what a screen reader says of it."""

    caption: str
    alt: str


@dataclass(frozen=True)
class FormPicture:
    """A picture in a URI, cut by the page into as many parts of equal width as there are views."""

    src: str
    width: int
    height: int
    views: tuple[View, ...]


@dataclass(frozen=True)
class FormItem:
    """What is judged: pictures, a text (the question asked of the model), and facts as (term, words)."""

    key: str
    text: str
    pictures: tuple[FormPicture, ...]
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Form:
    """A form.

    Attributes:
        format: The kind of answers; files of answers name it.
        id: The id of these items and scales; files of answers name it too.
        title: The small line over the heading.
        question: The heading.
        intro: Paragraphs below it.
        noun: What an item is called.
        stem: How names of files of answers begin.
        scales: The questions about each item.
        items: The items, in order.
        text_label: The label of the item's text where it may be edited; empty where it may not.
    """

    format: str
    id: str
    title: str
    question: str
    intro: tuple[str, ...]
    noun: str
    stem: str
    scales: tuple[FormScale, ...]
    items: Sequence[FormItem]
    text_label: str = ""


def write_form(form: Form, path: str | os.PathLike[str]) -> Path:
    """Writes the form as one HTML file that loads nothing from elsewhere, and returns its path.

    The page works by keyboard, stores answers in the browser after each change, and saves and loads them as a file,
    which `interp.report.answer_form.read_answers` reads. The same form gives the same bytes.

    Args:
        form: The form.
        path: The file; its folder is made. An old page stays until the new one is whole.

    Raises:
        RunError: The file cannot be written.
    """
    own = ("format", "id", "noun", "stem", "scales", "items", "text_label")
    data = {name: value for name, value in asdict(form).items() if name in own}
    return save_form(path, form, {**data, "version": VERSION})


MOST_BYTES = 64_000_000
LONGEST = {"by": 100, "text": 5000, "comment": 5000}
"""Characters; the page's fields take no more."""


@dataclass(frozen=True)
class FormAnswers:
    """The answers of one person to a form.

    Attributes:
        by: The name or code they gave.
        values: Item → scale → value, as far as they answered.
        texts: Item → the text as they edited it.
        comments: Item → their comment.
        path: The file.
    """

    by: str
    values: Mapping[str, Mapping[str, int | str]]
    texts: Mapping[str, str] = field(default_factory=dict)
    comments: Mapping[str, str] = field(default_factory=dict)
    path: Path = Path()


def read_answers(
    paths: Sequence[str | os.PathLike[str]],
    *,
    format: str,
    form: str,
    items: Sequence[str],
    scales: Sequence[FormScale],
    editable: bool,
) -> tuple[FormAnswers, ...]:
    """Returns the answers in the files, in order.

    Args:
        paths: The files that the page saved, one for each person.
        format: The form's format.
        form: Its id.
        items: The keys of its items.
        scales: Its scales.
        editable: Whether the items' texts may be edited.

    Raises:
        DataError: No files; a file that cannot be read, is no JSON, or belongs to another form; a name, an item, a
            scale or a value that the form does not have; two files by one person.
    """
    if isinstance(paths, str | os.PathLike) or not isinstance(paths, Sequence) or not paths:
        raise DataError(
            f"files of answers are a list of paths, one for each person; got {brief(paths)}. Write [path]."
        )
    options = {scale.name: {option.value for option in scale.options} for scale in scales}
    found: dict[str, FormAnswers] = {}
    for path in (as_path(one, "a file of answers") for one in paths):
        record = _opened(path, format, form)
        one = _answers(path, record, set(items), options, editable)
        name = " ".join(one.by.split()).casefold()
        if name in found:
            raise DataError(
                f"{shown(found[name].path)} and {shown(path)} are both by {brief(one.by)}. Pass one file for each "
                "person; if they are two, change the name in one of the files."
            )
        found[name] = one
    return tuple(found.values())


def _opened(path: Path, format: str, form: str) -> dict[str, Any]:
    """The record in a file, which is of this form."""
    content = file_bytes(path)
    if len(content) > MOST_BYTES:
        raise DataError(
            f"{shown(path)} has {len(content):,} bytes; a file of answers has at most {MOST_BYTES:,}."
        )
    record = json_object(content, shown(path))
    _fields(path, "the file", record, needed=("format", "version", "form", "by", "answers"))
    for name, wanted in (("format", format), ("version", VERSION), ("form", form)):
        if type(record[name]) is not type(wanted) or record[name] != wanted:
            raise DataError(
                f"{shown(path)}: {name} is {brief(record[name])}, but these samples need {wanted!r}. Pass the file "
                "that was saved on the page of these very samples, and do not edit it."
            )
    return record


def _answers(
    path: Path, record: Mapping[str, Any], items: set[str], options: Mapping[str, set[Any]], editable: bool
) -> FormAnswers:
    by = _text(path, "by", record["by"])
    if not by.strip():
        raise DataError(
            f"{shown(path)}: by is empty. Enter a name or code on the page and save the file again."
        )
    if not isinstance(record["answers"], list):
        raise DataError(f"{shown(path)}: answers is a list; got {brief(record['answers'])}.")
    values, texts, comments = {}, {}, {}
    for place, one in enumerate(record["answers"]):
        where = f"answer {place}"
        if not isinstance(one, dict):
            raise DataError(f"{shown(path)}, {where}: expected an object; got {brief(one)}.")
        _fields(path, where, one, needed=("item", "values"), allowed=("text", "comment")[not editable :])
        key = one["item"]
        if not isinstance(key, str) or key not in items or key in values:
            problem = "is answered twice" if isinstance(key, str) and key in values else "is not on the page"
            raise DataError(f"{shown(path)}, {where}: item {brief(key)} {problem}.")
        values[key] = _values(path, where, one["values"], options)
        for name, into in (("text", texts), ("comment", comments)):
            if name in one:
                into[key] = _text(path, f"{where}, {name}", one[name], LONGEST[name])
        if key in texts and not texts[key].strip():
            raise DataError(
                f"{shown(path)}, {where}: the text is empty. Leave it out where it was not edited."
            )
    return FormAnswers(" ".join(by.split()), values, texts, comments, path)


def _values(path: Path, where: str, given: Any, options: Mapping[str, set[Any]]) -> dict[str, int | str]:
    """Scale → value of one answer."""
    if not isinstance(given, dict):
        raise DataError(f"{shown(path)}, {where}: values is an object; got {brief(given)}.")
    for name, value in given.items():
        known = options.get(name, set())
        if isinstance(value, bool) or not isinstance(value, int | str) or value not in known:
            raise DataError(
                f"{shown(path)}, {where}: {brief(name)} is {brief(value)}; expected one of "
                f"{ {one: sorted(values) for one, values in options.items()} }."
            )
    return dict(given)


def _fields(
    path: Path, where: str, record: Mapping[str, Any], *, needed: Sequence[str], allowed: Sequence[str] = ()
) -> None:
    """Raises `DataError` unless the record has the fields needed, and none that is not allowed."""
    missing, strange = set(needed) - set(record), set(record) - set(needed) - set(allowed)
    if missing or strange:
        raise DataError(
            f"{shown(path)}: {where} has the fields {brief(sorted(record))}; expected {', '.join(needed)}"
            f"{' and perhaps ' + ', '.join(allowed) if allowed else ''}. Pass a file that the page saved."
        )


def _text(path: Path, what: str, value: Any, most: int = LONGEST["by"]) -> str:
    if not isinstance(value, str) or len(value) > most:
        raise DataError(
            f"{shown(path)}: {what} is a text of at most {most:,} characters; got {brief(value)}."
        )
    if problem := faulty_text(what, value):
        raise DataError(f"{shown(path)}: {problem}")
    return value
