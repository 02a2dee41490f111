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
    """Pairs of a sample's id and its text, by id."""
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
    """Where a model says that the finding is, where the expert says, and where the model's attention lies.

        study = interp.StatedBoxes(data=samples, model="Qwen/Qwen2.5-VL-7B-Instruct")
        study.run().report("stated_boxes.html")

    The model is asked for boxes and writes them; `interp.parse_boxes` reads them by an explicit convention. The map is
    the indicator's of the same prompt, averaged over layers. `scores` has a row per (sample, measure):

    - `stated`: 1 where at least one box could be read, else 0. The other measures are NaN without one, but for those
      of the expert's boxes alone.
    - `iou`: of the union of the stated boxes and the union of the expert's, exact areas, in [0, 1].
    - `iou_shuffled`: the same with another sample's expert boxes, at the same relative place: what a model scores that
      always names the usual place.
    - `ar_stated`, `ar_expert`: attention ratio inside the stated and inside the expert's boxes; a uniform map has 1.
    - `ar_gap`: ar_stated − ar_expert of the same sample. Above 0: attention follows what the model says more than what
      is there. Ratios favour small boxes, so compare the boxes' areas (`area_stated`, `area_expert`: shares of the
      image) before a gap is read.
    - `mask_stated`, `mask_expert`: pixel IoU of the attention mask (`interp.indicators.map_mask`) with the stated boxes
      and with the expert's masks, or boxes where there is no mask.

    `samples` has what was said, how many boxes were read, how many parts were unparsed, and why. Nothing is guessed: a
    box that cannot be read is left out and counted. Attention where the box is does not show that the box was read off
    it, nor that the answer depends on it.

    Args:
        data: Samples of one image each, with boxes or masks; a plain list becomes `Samples`.
        model: Id, `ModelSpec`, or an opened model (which only one process can use).
        convention: How the model writes boxes: a name of `interp.BOX_CONVENTIONS`, an `interp.BoxConvention`, or None
            for that of the model's family, where it has one.
        answers: Sample id → what the model wrote, to be read instead of generating; a sample without one has failed.
            None: the model is asked.
        prompt: How the question is put. `interp.BOX_CONVENTIONS["qwen2_5_vl"].prompt` asks as that family expects it.
        generate: Tokens to generate at most.
        indicator: What gives the map, one per layer or one alone.
        layers: The maps' layers that are averaged; None for all.
        upsample: "bicubic", "bilinear" or "nearest", for the mask.
        threshold: "otsu", "positive" or a share, for the mask.
        rule: When a token belongs to a box, for the ratios: "touch" or "center".
        seed: Of the other sample, and of the bootstrap.
        batch: Samples per forward pass. Part of the hash.

    Raises:
        StudyError: No samples, or something of the wrong type.

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
