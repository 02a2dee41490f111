"""Boxes that a model writes into its answer, beside the expert's and where its attention lies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interp.errors import BoxError, MapError, StudyError
from interp.indicators import Attention
from interp.indicators.map_masks import Threshold, Upsampling, check_mask_rule
from interp.inputs.box_conventions import ASK, BoxConvention, convention_of
from interp.inputs.prompt import Prompt
from interp.study.result import GridResult
from interp.study.runs import GridCell
from interp.study.stated_boxes.task import StatedTask
from interp.study.study import (
    Indicator,
    Study,
    as_tuple,
    field,
    is_indicator,
    is_prompt,
    one_of,
    whole_number,
)

__all__ = ["StatedBoxes"]


def _is_convention(name: str, value: Any) -> None:
    if value is None:
        return
    try:
        convention_of(value)
    except BoxError as error:
        raise StudyError(str(error)) from error


def _pairs(given: Any) -> Any:
    """Pairs of a sample's id and its text, sorted by id."""
    if given is None:
        return None
    pairs = list(given.items()) if isinstance(given, Mapping) else given
    listed = isinstance(pairs, list | tuple) and all(
        isinstance(one, list | tuple) and len(one) == 2 and isinstance(one[0], str) for one in pairs
    )
    if not listed or not all(text is None or isinstance(text, str) for _, text in pairs):
        raise StudyError(
            "answers is a dict from each sample's id to what the model wrote, a text or None for nothing; got "
            f"{given!r:.200}."
        )
    if len({name for name, _ in pairs}) < len(pairs):
        raise StudyError("answers hold one text for each sample's id; an id comes twice.")
    return tuple(sorted((name, text) for name, text in pairs))


def _layers(name: str, value: Any) -> None:
    whole = isinstance(value, tuple) and all(
        isinstance(one, int) and not isinstance(one, bool) for one in value
    )
    if value is not None and not (whole and value and len(set(value)) == len(value) and min(value) >= 0):
        raise StudyError(
            f"{name} are the maps' layers that are averaged, such as [14, 15], or None for all; got {value!r:.200}."
        )


def _is_upsampling(name: str, value: Any) -> None:
    try:
        check_mask_rule(value, "otsu")
    except MapError as error:
        raise StudyError(str(error)) from error


def _is_threshold(name: str, value: Any) -> None:
    try:
        check_mask_rule("nearest", value)
    except MapError as error:
        raise StudyError(str(error)) from error


class StatedBoxes(Study[GridResult]):
    """Where the model states the finding, where the expert marks it, and where the model's attention lies.

        study = interp.StatedBoxes(data=samples, model="Qwen/Qwen2.5-VL-7B-Instruct")
        study.run().report("stated_boxes.html")

    The model is asked for boxes and writes them; `interp.parse_boxes` reads them by an explicit convention. The map is
    the indicator's map for the same prompt, averaged over layers. `scores` has one row per (sample, measure):

    - `stated`: 1 where at least one box could be read, else 0. Without a box the other measures are NaN, except those
      of the expert's boxes alone.
    - `iou`: the intersection over union of the stated boxes' union and the expert's boxes' union, by exact areas, in
      [0, 1].
    - `iou_shuffled`: the same with another sample's expert boxes at the same relative place: the score of a model that
      always states the usual place.
    - `ar_stated`, `ar_expert`: attention ratio inside the stated and inside the expert's boxes; a uniform map has 1.
    - `ar_gap`: ar_stated − ar_expert of the same sample. Above 0: attention follows the stated boxes more than the
      expert's. Ratios favour small boxes, so compare the boxes' areas (`area_stated`, `area_expert`: shares of the
      image) before you interpret a gap.
    - `mask_stated`, `mask_expert`: pixel IoU of the attention mask (`interp.indicators.map_mask`) with the stated
      boxes, and with the expert's masks or, where there is no mask, boxes.

    `samples` has the model's text, the number of boxes read, and the number of unparsed parts with the reasons. Nothing
    is guessed: a box that cannot be read is left out and counted. Attention inside a box does not show that the model
    derived the box from it, nor that the answer depends on it.

    Args:
        data: Samples of one image each, with boxes or masks; a plain list becomes `Samples`.
        model: Id, `ModelSpec`, or an opened model (which only one process can use).
        convention: How the model writes boxes: a name of `interp.BOX_CONVENTIONS`, an `interp.BoxConvention`, or None
            for the convention of the model's family, where it has one.
        answers: Sample id → the text the model wrote, which is read instead of generating one; a sample without a text
            fails. None: the model generates the texts.
        prompt: How the question is put. `interp.BOX_CONVENTIONS["qwen2_5_vl"].prompt` asks in the form that this family
            expects.
        generate: The maximum number of tokens to generate.
        indicator: The indicator that gives the map: one map per layer, or a single one.
        layers: The layers over which maps are averaged; None for all.
        upsample: How the map is upsampled for the mask: "bicubic", "bilinear" or "nearest".
        threshold: How the map is cut for the mask: "otsu", "positive" or a share.
        rule: The rule by which a token belongs to a box, for the ratios: "touch" or "center".
        seed: The seed of the choice of the other sample, and of the bootstrap.
        batch: Samples per forward pass. Part of the hash.

    Raises:
        StudyError: There are no samples, or a field has the wrong type.

    Source: the conventions name theirs; the attention ratio is of arXiv 2603.14323, the mask of arXiv 2410.08209.
    """

    prompt: Prompt = field(default=Prompt(template=ASK), validator=is_prompt)
    convention: str | BoxConvention | None = field(default=None, validator=_is_convention)
    answers: tuple[tuple[str, str | None], ...] | None = field(default=None, converter=_pairs)
    generate: int = field(default=128, validator=whole_number(1))
    indicator: Indicator = field(default=Attention(), validator=is_indicator)
    layers: tuple[int, ...] | None = field(default=None, converter=as_tuple, validator=_layers)
    upsample: Upsampling = field(default="bicubic", validator=_is_upsampling)
    threshold: Threshold = field(default="otsu", validator=_is_threshold)
    rule: str = field(default="touch", validator=one_of("touch", "center"))

    name = "stated-boxes"
    title = "Stated boxes"
    page = "interp.study.stated_boxes.page"

    @property
    def question(self) -> str:
        """What the study answers, in a sentence."""
        return "Does the model say that the finding is where it is, and where its attention lies?"

    def task(self, mllm: Any) -> StatedTask:
        """The study as work for the runner."""
        return StatedTask(self, mllm)

    def collect(self, whole: Any, cells: tuple[GridCell, ...], folder: Path) -> GridResult:
        """The result of this study, or of a grid over it."""
        return GridResult.of(whole, cells, folder)
