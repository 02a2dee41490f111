"""A form: one HTML page on which a person answers the same questions about each item, and saves the answers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from interp.report.html import save_form

__all__ = ["VERSION", "Form", "FormItem", "FormPicture", "FormScale", "ScaleOption", "View", "write_form"]

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
        format: What kind of answers it gives; stands in their file.
        id: Tells these items and scales from others; stands in the file, too.
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
    which `interp.report.form_answers.read_answers` reads. The same form gives the same bytes.

    Args:
        form: The form.
        path: The file; its folder is made. An old page stays until the new one is whole.

    Raises:
        RunError: The file cannot be written.
    """
    own = ("format", "id", "noun", "stem", "scales", "items", "text_label")
    data = {name: value for name, value in asdict(form).items() if name in own}
    return save_form(path, form, {**data, "version": VERSION})
