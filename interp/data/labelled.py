"""Samples of pictures with labelled regions: one sample per picture and label, with the boxes of that label.

`mask_values` reads a mask's file as it is stored, and checks its size against its image's.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Shaped

from interp.data.lines import Row
from interp.data.row_fields import boxes_of
from interp.errors import DataError, InterpError
from interp.inputs.images import ImageLike, grey_values
from interp.inputs.masks import Mask
from interp.inputs.sample import Sample
from interp.inputs.text import brief, faulty_text

__all__ = ["NO_AREA", "PRESENT", "VISIBLE", "Asked", "mask_values", "plain_label", "with_area"]


PRESENT = "Is there {a} {label} in the image?"
"""The question about things in photographs."""
VISIBLE = "Is the {label} visible?"
"""The question about structures in medical images, as in the bundled ones."""
NO_AREA = "boxes without an area"


@dataclass(frozen=True)
class Asked:
    """The question that is asked about each label of a picture.

    Attributes:
        question: A template with {label} for the label and, optionally, {a} for "a" or "an".
        answer: The answer of every sample; None for no answer.

    Raises:
        DataError: A question or an answer that is no text, or a template with other fields.
    """

    question: str
    answer: str | None

    def __post_init__(self) -> None:
        problem = faulty_text("question", self.question) if isinstance(self.question, str) else None
        try:
            filled = self.question.format(label="label", a="a") if isinstance(self.question, str) else ""
        except (KeyError, IndexError, ValueError, TypeError, AttributeError):
            filled = ""
        if not filled.strip() or problem or len(filled) > 10_000:
            raise DataError(
                "question is a text that may hold {label} and {a}, such as 'Is there {a} {label} in the image?'; got "
                f"{brief(self.question)}."
            )
        if self.answer is not None and not isinstance(self.answer, str):
            raise DataError(
                f"answer is the text that answers every question, or None; got {brief(self.answer)}."
            )

    def samples(
        self,
        row: Row,
        image: ImageLike,
        regions: Mapping[str, Sequence[Any]],
        *,
        box_format: str | None = "xyxy",
        size: tuple[int, int] | None = None,
        group: str | None = None,
        meta: Mapping[str, Any] | None = None,
        field: str = "boxes",
        masks: Mapping[str, Sequence[Mask]] | None = None,
    ) -> list[Sample]:
        """Returns one sample a label, in the order of the labels.

        Args:
            row: The row that describes the picture, for messages and ids.
            image: The picture.
            regions: Label → its boxes; a label without a box makes no sample.
            box_format: The format of the boxes, as for `interp.Sample`.
            size: (width, height) of the picture, inside which boxes must lie; None skips this check.
            group: The group of the samples.
            meta: Entries for the meta of every sample, beside `label`.
            field: The name of the boxes in messages.
            masks: Label → its masks, which samples hold beside the boxes.

        Raises:
            DataError: A box is invalid; the message names the row.
        """
        made = []
        for label, listed in regions.items():
            boxes = boxes_of(row, field, listed, [image], box_format)
            try:
                for box in boxes:
                    if size is not None:
                        box.check_inside(size)
                if boxes:
                    made.append(
                        Sample(
                            image,
                            self.text(label),
                            boxes,
                            self.answer,
                            group=group,
                            meta={"label": label, **(meta or {})},
                            id=f"{row.id}:{label}",
                            masks=(masks or {}).get(label, ()),
                        )
                    )
            except InterpError as error:
                raise row.bad(field, f"{label}: {error}") from error
        return made

    def text(self, label: str) -> str:
        """The question about a label, with its underscores written as spaces."""
        shown = plain_label(label)
        article = "an" if shown[:1].lower() in "aeiou" else "a"
        return self.question.format(label=shown, a=article)


def plain_label(label: str) -> str:
    """A label as questions write it: underscores become spaces, with one space between words."""
    return " ".join(label.replace("_", " ").split())


def with_area(
    boxes: Iterable[Sequence[float]], dropped: Counter[str], *, sides: bool
) -> list[Sequence[float]]:
    """Returns the boxes that have an area, and counts the others.

    Args:
        boxes: The boxes, each of four numbers.
        dropped: A counter of what is left out, to which boxes without an area are added.
        sides: Whether the last two numbers are width and height, not the second corner.
    """
    kept = []
    for box in boxes:
        width, height = (box[2], box[3]) if sides else (box[2] - box[0], box[3] - box[1])
        if width == 0 or height == 0:
            dropped[NO_AREA] += 1
        else:
            kept.append(box)
    return kept


def mask_values(path: str | os.PathLike[str], size: tuple[int, int]) -> Shaped[np.ndarray, "row col"]:
    """Returns the grey values or palette indices of a mask's file.

    Args:
        path: The image file.
        size: (width, height) of the image that it belongs to.

    Raises:
        DataError: The file cannot be read, is in colours, or has another size than its image.
    """
    try:
        values = grey_values(path)
    except InterpError as error:
        raise DataError(str(error)) from error
    if values.shape != size[::-1]:
        raise DataError(
            f"mask {brief(os.fspath(path))} is {values.shape[1]}×{values.shape[0]} pixels, its image "
            f"{size[0]}×{size[1]} (width×height)."
        )
    return values
