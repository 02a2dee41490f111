"""Made-up inputs, and what must hold of each: boxes, images, files, metrics, sites, prompts, answers.

A property takes one drawn value. It may raise an `InterpError`; whatever else it raises is a fault.
"""

from __future__ import annotations

import io
import json
import math
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import rankdata

import interp
from interp import metrics
from interp.data import jsonl
from interp.inputs.answers import is_right
from interp.inputs.footprints import squash
from interp.inputs.prompt import Prompt
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**6), 10**6),
    st.sampled_from([10**30, -1, 0]),
    st.floats(),
    st.text(max_size=6),
    st.binary(max_size=4),
)
"""A value of any plain type."""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
TEXT = st.text(max_size=30) | st.sampled_from(
    ["", " ", "is it red?", "<image>", "{question}", "\0", "\ud800", "é́"]
)


@cache
def scratch() -> Path:
    """A folder for files."""
    return Path(tempfile.mkdtemp(prefix="interp-fuzz-"))


def mutated(data: st.SearchStrategy[bytes], *, most: int = 6) -> st.SearchStrategy[bytes]:
    """Bytes with some changed, a piece doubled or dropped, or the end cut off."""

    @st.composite
    def drawn(draw: st.DrawFn) -> bytes:
        found = bytearray(draw(data))
        for _ in range(draw(st.integers(0, most))):
            at = draw(st.integers(0, max(len(found) - 1, 0)))
            how = draw(st.sampled_from(["change", "cut", "drop", "double"]))
            if how == "change" and found:
                found[at] = draw(st.integers(0, 255))
            elif how == "cut":
                del found[at:]
            elif how == "drop":
                del found[at : at + draw(st.integers(1, 20))]
            else:
                found[at:at] = found[at : at + draw(st.integers(1, 20))]
        return bytes(found)

    return drawn()


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value with one place in it changed to something else."""
    if isinstance(value, dict) and value and draw(st.booleans()):
        name = draw(st.sampled_from(sorted(value)))
        if draw(st.integers(0, 5)) == 0:
            return {key: one for key, one in value.items() if key != name}
        return {**value, name: draw(changed(value[name]))}
    if isinstance(value, list) and value and draw(st.booleans()):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], draw(changed(value[at])), *value[at + 1 :]]
    return draw(JSON | st.sampled_from([value, [value], {"x": value}, str(value)]))


# ---- boxes ----------------------------------------------------------------------------------------------------------

EDGE = st.one_of(st.integers(-3, 90), st.floats(-3, 90), st.floats(0, 1), ODD)


@st.composite
def boxes(draw: st.DrawFn) -> tuple[Any, ...]:
    """Boxes and a grid of tokens over an image of 80 × 60."""
    listed = draw(st.lists(st.tuples(EDGE, EDGE, EDGE, EDGE) | ODD, min_size=1, max_size=3) | ODD)
    grid = draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    return listed, grid


def token_map(size: tuple[int, int], grid: tuple[int, int]) -> TokenMap:
    """Image tokens in a grid over the whole image."""
    found, n = squash(size, grid), grid[0] * grid[1]
    return TokenMap(np.arange(n), found.boxes, grid, found.views, found.image, (size,), n + 2)


def check_boxes(value: tuple[Any, ...]) -> None:
    """Coverage and masks agree, lie in [0, 1], add up to the boxes' area, and follow from pixels counted finely."""
    listed, grid = value
    tokens = token_map((80, 60), grid)
    coverage, mask = tokens.coverage(listed), tokens.mask(listed)
    assert ((coverage >= 0) & (coverage <= 1)).all()
    assert ((coverage > 0) <= mask).all()
    assert (tokens.mask(listed, "center") <= mask).all()
    sample = Sample(np.zeros((60, 80, 3), np.uint8), "?", boxes=listed)
    for box in sample.boxes:
        assert box.x1 > box.x0
        assert box.y1 > box.y0
    if len(sample.boxes) == 1:
        inside = sample.boxes[0].clip(80, 60)
        area = (coverage * 80 * 60 / (grid[0] * grid[1])).sum()
        assert math.isclose(area, inside.area, rel_tol=1e-6, abs_tol=1e-3)


# ---- images ---------------------------------------------------------------------------------------------------------


def encoded(kind: str) -> bytes:
    """A small picture as the bytes of a file."""
    held = io.BytesIO()
    Image.fromarray(np.arange(12 * 9 * 3, dtype=np.uint8).reshape(12, 9, 3)).save(held, kind)
    return held.getvalue()


FILES = mutated(st.sampled_from([encoded(kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")]))
DTYPES = ("uint8", "int8", "uint16", "int32", "float32", "float64", "bool", "complex64", "object", "U1")


@st.composite
def images(draw: st.DrawFn) -> Any:
    """The bytes of a file, an array of any type and shape, a PIL image, or something else."""
    how = draw(st.sampled_from(["file", "array", "pil", "odd"]))
    if how == "file":
        return "file", draw(FILES)
    if how == "array":
        shape = draw(st.lists(st.integers(0, 5), max_size=4))
        return "value", np.ones(shape).astype(draw(st.sampled_from(DTYPES)))
    if how == "pil":
        mode = draw(st.sampled_from(["1", "L", "P", "RGB", "RGBA", "CMYK", "LA", "I", "F", "I;16", "HSV"]))
        return "value", Image.new(mode, (draw(st.integers(0, 4)), draw(st.integers(0, 4))))
    return "value", draw(ODD)


def check_image(value: tuple[str, Any]) -> None:
    """What is taken loads as an RGB picture of the size that its header says, the same each time."""
    how, given = value
    if how == "file":
        path = scratch() / "image.bin"
        path.write_bytes(given)
        given = path
    sample = Sample(given, "?")
    loaded = sample.load()
    assert loaded.mode == "RGB"
    assert (loaded.width, loaded.height) == sample.sizes[0]
    assert min(loaded.size) > 0
    assert Sample(given, "?").fingerprint == sample.fingerprint
    assert np.array_equal(np.asarray(loaded), np.asarray(Sample(given, "?").load()))


# ---- files of rows --------------------------------------------------------------------------------------------------

ROW = {
    "image": "a.png", "question": "is it red?", "boxes": [[1, 2, 5, 6]], "answer": "yes", "options": ["yes", "no"],
    "group": "p1", "id": "one", "meta": {"split": "test"}, "size": [9, 12],
}  # fmt: skip


@st.composite
def rows(draw: st.DrawFn) -> bytes:
    """The bytes of a file of one to three rows, some of them changed."""
    lines = [json.dumps(draw(changed(ROW) | st.just(ROW))) for _ in range(draw(st.integers(1, 3)))]
    return draw(mutated(st.just("\n".join(lines).encode()), most=2))


def check_rows(value: bytes) -> None:
    """What is read has samples of the right types, and comes through `to_dict` and back."""
    folder = scratch()
    if not (folder / "a.png").exists():
        (folder / "a.png").write_bytes(encoded("PNG"))
    (folder / "rows.jsonl").write_bytes(value)
    for sample in jsonl(folder / "rows.jsonl"):
        assert isinstance(sample.question, str)
        assert sample.question.strip()
        assert sample.answer is None or isinstance(sample.answer, str)
        json.dumps(dict(sample.meta))
        again = Sample.from_dict(sample.to_dict())
        assert again == sample
        assert again.id == sample.id


# ---- metrics --------------------------------------------------------------------------------------------------------

NUMBER = st.floats(-10, 10) | st.sampled_from([0.0, 1.0, 2.0, math.nan, math.inf, -math.inf, 1e-300, 1e300])


@st.composite
def maps(draw: st.DrawFn) -> tuple[Any, Any]:
    """A map and a mask of as many tokens, or of other lengths and types."""
    n = draw(st.integers(1, 9))
    values = draw(st.lists(NUMBER, min_size=n, max_size=n))
    mask = draw(st.lists(st.booleans(), min_size=n, max_size=n) | st.lists(ODD, max_size=4))
    kind = draw(st.sampled_from(["list", "array", "float32"]))
    return (values if kind == "list" else np.array(values, None if kind == "array" else kind)), mask


def check_metrics(value: tuple[Any, Any]) -> None:
    """AUROC by counting pairs, ranges, and no change under scaling; NaN where a metric is not defined."""
    given, mask = value
    found = {
        name: float(metric(given, mask)) for name, metric in metrics.METRICS.items() if not metric.needs_grid
    }
    values, inside = np.asarray(given, float), np.asarray(mask)
    defined = np.isfinite(values).all() and (values != 0).any() and inside.any() and not inside.all()
    assert (not math.isnan(found["auroc"])) == defined
    if not defined:
        assert all(math.isnan(one) for one in found.values())
        return
    pairs = [(a > b) + 0.5 * (a == b) for a in values[inside] for b in values[~inside]]
    assert math.isclose(found["auroc"], np.mean(pairs), abs_tol=1e-12)
    ranks, n_in = rankdata(-values, method="max"), inside.sum()
    precision = [(ranks[inside] <= rank).sum() / rank for rank in ranks[inside]]
    assert math.isclose(found["ap"], sum(precision) / n_in, abs_tol=1e-12)
    for name, high in (
        ("pointing", 1.0),
        ("iou", 1.0),
        ("js", math.log(2) + 1e-12),
        ("ar", len(values) / n_in),
    ):
        assert math.isnan(found[name]) or -1e-12 <= found[name] <= high + 1e-9, name
    if np.abs(values).max() < 1e9 and np.abs(values[values != 0]).min() > 1e-9:
        for name, one in found.items():
            assert np.isclose(metrics.METRICS[name](values * 4.0, mask), one, equal_nan=True, atol=1e-9), name


# ---- sites ----------------------------------------------------------------------------------------------------------

INDEX = st.integers(-1, 7) | ODD
SELECTOR = st.one_of(
    st.sampled_from(["last", "image", "question", "text", "after_image", "all", "answer", "x"]),
    st.builds(lambda values: ("positions", values), st.lists(st.integers(-1, 9), max_size=3) | ODD),
    st.builds(lambda text: ("word", text), TEXT),
    ODD,
)
SITES = st.fixed_dictionaries(
    {},
    optional={
        "layers": st.just("all") | st.lists(INDEX, max_size=3) | ODD,
        "heads": st.just("all") | st.lists(INDEX | st.tuples(INDEX, INDEX), max_size=3) | ODD,
        "queries": SELECTOR | st.lists(SELECTOR, max_size=2),
        "keys": SELECTOR | st.lists(SELECTOR, max_size=2),
    },
)


def _selected(value: Any) -> Any:
    if isinstance(value, list):
        return [_selected(one) for one in value]
    if isinstance(value, tuple) and value and value[0] in ("positions", "word"):
        return (interp.positions if value[0] == "positions" else interp.word)(value[1])
    return value


def check_site(value: dict[str, Any]) -> None:
    """A site comes through JSON and back, and names layers and heads that the model has."""
    site = interp.Site(**{name: _selected(one) for name, one in value.items()})
    stored = json.loads(json.dumps(site.to_dict()))
    assert interp.Site.from_dict(stored) == site
    assert hash(interp.Site.from_dict(stored)) == hash(site)
    for layer, heads in site.resolve(6, 8).items():
        assert 0 <= layer < 6
        assert all(0 <= head < 8 for head in heads)
        assert len(set(heads)) == len(heads)


STORED_SITES = changed(interp.Site(layers=[1], heads=[2], queries=interp.word("red"), keys="image").to_dict())


def check_stored_site(value: Any) -> None:
    """A stored site that was changed is refused, or is a site that comes back as itself."""
    site = interp.Site.from_dict(value)
    assert interp.Site.from_dict(site.to_dict()) == site


# ---- prompts --------------------------------------------------------------------------------------------------------

PIECES = st.lists(
    st.sampled_from(["{question}", "{", "}", "{{", "}}", "{x}", " ", "a", "{question!r}", "\n"]) | TEXT
)
PROMPTS = st.tuples(
    st.fixed_dictionaries(
        {"template": PIECES.map("".join) | st.just("{question}") | ODD},
        optional={
            "options": st.sampled_from(["letters", "none"]) | ODD,
            "image_first": st.booleans(),
            "system": st.none() | TEXT,
        },
    ),
    TEXT,
    st.none() | st.lists(TEXT, max_size=3) | ODD,
)


def check_prompt(value: tuple[dict[str, Any], str, Any]) -> None:
    """The question stands in the text where the span says, and a prompt comes through JSON and back."""
    fields, question, options = value
    prompt = Prompt(**fields)
    assert Prompt(**json.loads(json.dumps(prompt.to_dict()))) == prompt
    sample = Sample(np.zeros((4, 4, 3), np.uint8), question, options=options)
    text, span = prompt.text(sample), prompt.question_span(sample)
    assert (span is None) == (not prompt.has_question)
    if span is not None:
        assert text[slice(*span)] == sample.question


# ---- answers --------------------------------------------------------------------------------------------------------

SAID = TEXT | st.sampled_from(
    ["yes", "no", "A", "B", "(a)", "Yes.", "<1 cm", ">1 cm", "C++", "C", "-", "−5", "A. yes"]
)
ANSWERS = st.tuples(SAID, SAID, st.none() | st.lists(SAID, min_size=2, max_size=4, unique=True))


def check_answer(value: tuple[str, str, list[str] | None]) -> None:
    """The answer itself is right, and another option's very text is wrong."""
    said, answer, options = value
    if options is not None:
        answer = options[0]
    sample = Sample(np.zeros((4, 4, 3), np.uint8), "?", answer=answer, options=options)
    prompt = Prompt(options="none")
    assert is_right(said, sample, prompt) in (True, False, None)
    if answer.strip():
        assert is_right(answer, sample, prompt)
    for other in (options or [])[1:]:
        if other.strip().casefold() != answer.strip().casefold():
            assert not is_right(other, sample, prompt), other
