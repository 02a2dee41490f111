"""Boxes that a model writes into its answer: one parser for the conventions of all families.

Nothing is guessed from the numbers: the convention says what they mean. What cannot be read is kept with the reason.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from interp.errors import BoxError
from interp.inputs.box_conventions import BoxConvention, convention_of
from interp.inputs.boxes import Box
from interp.inputs.text import brief

__all__ = ["ParsedBox", "ParsedBoxes", "UnparsedText", "parse_boxes", "written"]

Size = tuple[int, int]  # (width, height)


@dataclass(frozen=True)
class ParsedBox:
    """A box that a text states.

    Attributes:
        box: In pixels of the original image.
        label: What the text says is there; "" where it says nothing.
        text: The part of the text that states it.
    """

    box: Box
    label: str
    text: str


@dataclass(frozen=True)
class UnparsedText:
    """A part of a text that begins like a box and states none, and why."""

    text: str
    reason: str


@dataclass(frozen=True)
class ParsedBoxes:
    """What a text states: boxes, and what could not be read. Both are empty for a text that states no box at all."""

    found: tuple[ParsedBox, ...]
    unparsed: tuple[UnparsedText, ...] = ()

    @property
    def boxes(self) -> tuple[Box, ...]:
        """The boxes, in the order of the text."""
        return tuple(one.box for one in self.found)


@dataclass(frozen=True)
class _Stated:
    """Four numbers as the text has them, or the reason why they are none."""

    text: str
    edges: tuple[float, ...] | None
    label: str = ""
    reason: str = ""


def parse_boxes(text: Any, convention: Any, size: Size, *, resized: Size | None = None) -> ParsedBoxes:
    """The boxes that a text states, in pixels of the original image, and what could not be read.

    A box is taken only if it has four finite numbers, within the range that its convention allows, with x0 < x1 and
    y0 < y1; anything else is kept as unparsed with the reason. Corners are not swapped and edges are not cut, but for
    the part of a box that lies in the padding of a "padded" frame.

    Args:
        text: What the model wrote; None for nothing.
        convention: A `BoxConvention` or a name of `BOX_CONVENTIONS`.
        size: (width, height) of the original image.
        resized: (width, height) of the image as the processor resized it, which a convention of the frame "resized"
            needs: Qwen2.5-VL's is image_grid_thw times the patch size.

    Raises:
        BoxError: An unknown convention, a size that is none, or a missing `resized`.

    Example:
        >>> text = '[{"bbox_2d": [10, 20, 30, 60], "label": "cyst"}]'
        >>> found = parse_boxes(text, "qwen2_5_vl", (100, 100), resized=(50, 100))
        >>> found.boxes[0].as_tuple(), found.found[0].label
        ((20.0, 20.0, 60.0, 60.0), 'cyst')
        >>> parse_boxes("<box>[[300, 10, 200, 50]]</box>", "internvl", (640, 480)).unparsed[0].reason
        'x1 is not larger than x0'
    """
    rule = convention_of(convention)
    if text is not None and not isinstance(text, str):
        raise BoxError(f"expected the text that a model wrote, or None for nothing; got {brief(text)}.")
    pair = _checked_size("size", size)
    if rule.frame == "resized" and rule.scale is None and resized is None:
        raise BoxError(
            f"boxes of the convention {rule.name!r} are in pixels of the image as its processor resized it. Pass "
            "resized=(width, height)."
        )
    given = None if resized is None else _checked_size("resized", resized)
    seen = _frame(rule, pair, given)
    found: list[ParsedBox] = []
    unparsed: list[UnparsedText] = []
    for stated in _READERS[rule.syntax](text or ""):
        reason = stated.reason or _fault(stated.edges, rule, seen)
        box = None if reason else _placed(stated.edges or (), rule, pair, seen)
        if box is None:
            unparsed.append(UnparsedText(stated.text, reason or "it lies in the padding alone"))
        else:
            found.append(ParsedBox(box, stated.label, stated.text))
    return ParsedBoxes(tuple(found), tuple(unparsed))


def _frame(rule: BoxConvention, size: Size, resized: Size | None) -> Size:
    """(width, height) of what a convention's numbers are relative to."""
    if rule.frame == "padded":
        return (max(size), max(size))
    return resized if rule.frame == "resized" and resized is not None else size


def _checked_size(name: str, size: Any) -> Size:
    pair = tuple(size) if isinstance(size, tuple | list) else ()
    whole = all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in pair)
    if len(pair) != 2 or not whole:
        raise BoxError(f"{name} is (width, height) in pixels, two whole numbers above 0; got {brief(size)}.")
    return pair


def _fault(edges: tuple[float, ...] | None, rule: BoxConvention, seen: Size) -> str:
    """Why these numbers are no box of the convention; "" where they are one."""
    if edges is None or len(edges) != 4:
        return (
            "its edges are no list of numbers"
            if edges is None
            else f"a box has four numbers, not {len(edges)}"
        )
    if not all(map(math.isfinite, edges)):
        return "an edge is not a finite number"
    x0, y0, x1, y1 = _xyxy(edges, rule)
    width, height = seen if rule.scale is None else (rule.scale, rule.scale)
    if min(x0, y0, x1, y1) < 0 or max(x0, x1) > width or max(y0, y1) > height:
        whole = f"{width:g}×{height:g} pixels" if rule.scale is None else f"0 to {rule.scale:g}"
        return f"an edge lies outside the image ({whole})"
    if x1 <= x0:
        return "x1 is not larger than x0"
    return "y1 is not larger than y0" if y1 <= y0 else ""


def _xyxy(edges: tuple[float, ...], rule: BoxConvention) -> tuple[float, float, float, float]:
    a, b, c, d = edges
    return (a, b, c, d) if rule.order == "xyxy" else (b, a, d, c)


def _placed(edges: tuple[float, ...], rule: BoxConvention, size: Size, seen: Size) -> Box | None:
    """The box in pixels of the original image; None for one in the padding alone."""
    x0, y0, x1, y1 = _xyxy(edges, rule)
    width, height = size
    if rule.frame == "padded":
        side, scale = max(size), rule.scale or float(max(size))
        left, top = (side - width) // 2, (side - height) // 2
        x0, x1 = (x * side / scale - left for x in (x0, x1))
        y0, y1 = (y * side / scale - top for y in (y0, y1))
        x0, y0, x1, y1 = max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))
        return Box(x0, y0, x1, y1, pixels=True) if x1 > x0 and y1 > y0 else None
    across, down = seen if rule.scale is None else (rule.scale, rule.scale)
    return Box(x0 * width / across, y0 * height / down, x1 * width / across, y1 * height / down, pixels=True)


_NUMBER = r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+|nan|inf(?:inity)?)"
_LIST = re.compile(rf"\s*{_NUMBER}\s*(?:,\s*{_NUMBER}\s*)*,?\s*", re.IGNORECASE)
_KEY = re.compile(r"""["']?\bbbox(?:_2d)?\b["']?\s*:\s*""")
_LABEL = re.compile(
    r"""["'](?:label|sub_label|text_content)["']\s*:\s*(["'])((?:\\.|(?!\1)[^\\])*)\1""", re.DOTALL
)
_QUOTED = re.compile(r'"(?:\\.|[^"\\\n])*"')
_OPEN = re.compile(r"<box>|<\|box_start\|>")
_CLOSE = {"<box>": "</box>", "<|box_start|>": "<|box_end|>"}
_REF = re.compile(r"(?:<ref>([^<]*)</ref>|<\|object_ref_start\|>(.*?)<\|object_ref_end\|>)\s*$", re.DOTALL)
_LOCATIONS = re.compile(r"(?:<loc\d{4}>\s*)+")
_PATCHES = re.compile(r"<object>(.*?)(?:</object>|$)", re.DOTALL)
_PHRASE_BEFORE = re.compile(r"<phrase>([^<]*)</phrase>\s*$")
_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_PAIRS = re.compile(r"\(([^()]*)\)\s*,\s*\(([^()]*)\)")


def _numbers(text: str) -> tuple[float, ...] | None:
    """The numbers of a list; None for anything else."""
    if not _LIST.fullmatch(text):
        return None
    return tuple(float(one) for one in text.split(",") if one.strip())


def _from_json(text: str) -> Iterator[_Stated]:
    """Objects with `bbox_2d`, in fences or not, with any quotes, cut off at the end or not.

    A text that is no JSON is read too, object by object: a comma too many says nothing about the numbers of a box.
    """
    shape = _QUOTED.sub(lambda one: "_" * len(one.group()), text)  # braces inside texts end no object
    for found, following in pairwise([*_KEY.finditer(text), None]):
        if found is None:
            return
        end = len(text) if following is None else following.start()
        start = shape.rfind("{", 0, found.start())
        begins = found.start() if start < 0 or "}" in shape[start : found.start()] else start
        closes = shape.find("}", found.end(), end)
        whole = text[begins : end if closes < 0 else closes + 1]
        yield _of_object(whole, text[found.end() : end])


def _of_object(whole: str, value: str) -> _Stated:
    """What one object states: its text, and what follows its key."""
    named = _LABEL.search(whole)
    label = "" if named is None else _unescaped(named.group(2))
    listed = re.match(r"\[([^\[\]]*)\]", value)
    if listed is None:
        cut = re.match(r"\[[^\[\]{}]*$", value) is not None
        why = "the list of its edges does not end" if cut else "its edges are no list of four numbers"
        return _Stated(_short(whole), None, label, why)
    edges = _numbers(listed.group(1))
    return _Stated(_short(whole), edges, label, "" if edges else "its edges are no list of numbers")


def _unescaped(label: str) -> str:
    """A text as JSON means it; as it stands where it is no JSON."""
    try:
        return str(json.loads(f'"{label}"'))
    except ValueError:
        return label


def _from_tags(text: str) -> Iterator[_Stated]:
    """`<box>` with (x0,y0),(x1,y1), with [x0, y0, x1, y1], or with a list of those; what stands before is the label."""
    last = 0
    for found in _OPEN.finditer(text):
        close = _CLOSE[found.group()]
        end = text.find(close, found.end())
        following = _OPEN.search(text, found.end())
        if end < 0 or (following is not None and following.start() < end):
            shown = text[found.start() : None if following is None else following.start()]
            yield _Stated(_short(shown), None, reason=f"there is no {close}")
            continue
        inner, shown = text[found.end() : end], _short(text[found.start() : end + len(close)])
        label = _label_before(text[last : found.start()])
        last = end + len(close)
        listed = list(_inside_tag(inner))
        if not listed:
            yield _Stated(shown, None, label, "its edges are no list of four numbers")
        for edges in listed:
            yield _Stated(
                shown, edges, label, "" if edges is not None else "its edges are no list of numbers"
            )


def _inside_tag(inner: str) -> Iterator[tuple[float, ...] | None]:
    pairs = list(_PAIRS.finditer(inner))
    if pairs:
        for one in pairs:
            yield _numbers(f"{one.group(1)},{one.group(2)}")
        return
    lists = list(_BRACKETS.finditer(inner))
    for one in lists:
        yield _numbers(one.group(1))
    if not lists and inner.strip():
        yield _numbers(inner)


def _label_before(text: str) -> str:
    """The reference before a box, or the words before it on its line."""
    named = _REF.search(text)
    if named is not None:
        return (named.group(1) or named.group(2) or "").strip()
    line = text.rsplit("\n", 1)[-1]
    return re.sub(r"<[^>]*>", "", line).strip(" ,;:.-").strip()


def _from_locations(text: str) -> Iterator[_Stated]:
    """Four `<loc…>` tokens each, then the label up to a semicolon."""
    for found in _LOCATIONS.finditer(text):
        bins = [float(one) for one in re.findall(r"<loc(\d{4})>", found.group())]
        after = re.match(r"(?:\s*<seg\d{3}>)*([^;<\n]*)", text[found.end() :])
        label = after.group(1).strip() if after else ""
        shown = _short(text[found.start() : found.end()].strip())
        if len(bins) % 4:
            yield _Stated(
                shown, None, label, f"a box has four location tokens; here are {len(bins)} in a row"
            )
            continue
        for at in range(0, len(bins), 4):
            yield _Stated(shown, tuple(bins[at : at + 4]), label)


def _from_patches(text: str) -> Iterator[_Stated]:
    """Kosmos-2: the cells of the upper left and the lower right corner on a grid of 32 × 32.

    Corners are the centres of the cells; where both cells share a row or a column, the cells' outer edges.
    """
    for found in _PATCHES.finditer(text):
        named = _PHRASE_BEFORE.search(text[: found.start()])
        label, shown = named.group(1).strip() if named else "", _short(found.group())
        for one in found.group(1).split("</delimiter_of_multi_objects/>"):
            cells = [int(index) for index in re.findall(r"<patch_index_(\d{4})>", one)]
            if len(cells) != 2:
                yield _Stated(shown, None, label, f"a box has two patch tokens, not {len(cells)}")
            elif max(cells) >= 32 * 32:
                yield _Stated(shown, None, label, "a patch token is not on the grid of 32 × 32")
            else:
                yield _Stated(shown, _corners(*cells), label)


def _corners(first: int, last: int) -> tuple[float, float, float, float]:
    """The edges in cells of the grid."""
    (y0, x0), (y1, x1) = divmod(first, 32), divmod(last, 32)
    if x0 == x1 or y0 == y1:
        return (float(x0), float(y0), x1 + 1.0, y1 + 1.0)
    return (x0 + 0.5, y0 + 0.5, x1 + 0.5, y1 + 0.5)


def _from_lists(text: str) -> Iterator[_Stated]:
    """Every list of numbers in square brackets."""
    for found in _BRACKETS.finditer(text):
        edges = _numbers(found.group(1))
        if edges is not None:
            yield _Stated(found.group(), edges)
    cut = re.search(rf"\[\s*{_NUMBER}[^\[\]]*$", text, re.IGNORECASE)
    if cut is not None:
        yield _Stated(_short(cut.group()), None, reason="the list of its edges does not end")


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:199]}…"


_READERS: dict[str, Callable[[str], Iterator[_Stated]]] = {
    "json": _from_json,
    "tags": _from_tags,
    "location tokens": _from_locations,
    "patch tokens": _from_patches,
    "lists": _from_lists,
}


def written(box: Box, convention: Any, size: Size, *, label: str = "", resized: Size | None = None) -> str:
    """A box as a model of this convention would write it, rounded as it would be: whole numbers, or two decimals.

    It plants boxes whose truth is known. Edges are kept within the frame.

    Args:
        box: In pixels of the original image.
        convention: As in `parse_boxes`.
        size: (width, height) of the original image.
        label: What is there.
        resized: As in `parse_boxes`.

    Raises:
        BoxError: As `parse_boxes`; a convention that is not written here (patch tokens).
    """
    rule, (width, height) = convention_of(convention), _checked_size("size", size)
    if rule.syntax == "patch tokens":
        raise BoxError(
            "boxes as patch tokens are read, not written. Take another convention, such as 'internvl'."
        )
    if rule.frame == "resized" and rule.scale is None and resized is None:
        raise BoxError(
            f"boxes of {rule.name!r} are in pixels of the resized image. Pass resized=(width, height)."
        )
    x, y = (box.x0, box.x1), (box.y0, box.y1)
    if rule.frame == "padded":
        side = max(size)
        x = tuple((one + (side - width) // 2) / side for one in x)  # type: ignore[assignment]
        y = tuple((one + (side - height) // 2) / side for one in y)  # type: ignore[assignment]
    else:
        x, y = tuple(one / width for one in x), tuple(one / height for one in y)  # type: ignore[assignment]
    across, down = _frame(rule, size, resized) if rule.scale is None else (rule.scale, rule.scale)
    digits = 2 if rule.scale == 1 else None
    most = 1 if rule.syntax == "location tokens" else 0
    xs = [min(round(one * across, digits), across - most) for one in x]
    ys = [min(round(one * down, digits), down - most) for one in y]
    edges = [xs[0], ys[0], xs[1], ys[1]] if rule.order == "xyxy" else [ys[0], xs[0], ys[1], xs[1]]
    return _spelled(edges, rule, label)


def _spelled(edges: list[float], rule: BoxConvention, label: str) -> str:
    if rule.syntax == "location tokens":
        return "".join(f"<loc{int(one):04d}>" for one in edges) + f" {label}"
    listed = ", ".join(f"{one:g}" for one in edges)
    if rule.syntax == "json":
        return f'```json\n[{{"bbox_2d": [{listed}], "label": {json.dumps(label, ensure_ascii=False)}}}]\n```'
    if rule.syntax == "tags":
        if rule.name in ("qwen_vl", "qwen2_vl"):
            x0, y0, x1, y1 = (f"{one:g}" for one in edges)
            return f"<ref>{label}</ref><box>({x0},{y0}),({x1},{y1})</box>"
        return f"<ref>{label}</ref><box>[[{listed}]]</box>"
    return f"[{listed}]"
