"""The events of the explorer's page as functions: what each changes, without a browser."""

from __future__ import annotations

import base64
import math
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from dash import no_update
from PIL import Image

import interp
from interp.errors import ImageError, SampleError
from interp.explore import Change, Exploration, application
from interp.explore.application import (
    MOST_SAMPLES,
    _counted,
    _decoded,
    _effect,
    _file_name,
    _map,
    _Session,
    _shown_word,
)
from interp.explore.screen import KINDS, ROW_NAMES, _marked, head_figure, image_figure, token_at
from interp.inputs.footprints import squash
from interp.inputs.tokens import TokenMap

LEFT = no_update


@pytest.fixture(scope="module")
def explored() -> Exploration:
    return Exploration(interp.load("organism"), generate=2)


@pytest.fixture(scope="module")
def sample() -> interp.Sample:
    return interp.data.bundled("natural", n=1)[0]


@pytest.fixture
def session(explored: Exploration) -> _Session:
    return _Session(explored, {"model": "organism"})


@pytest.fixture
def events(session: _Session, unchecked: None, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The page's events by name; `why` says what triggered them."""
    found: dict[str, Any] = {}

    def callback(*_: Any, **__: Any) -> Any:
        return lambda function: found.setdefault(function.__name__, function)

    app: Any = SimpleNamespace(callback=callback)
    for name in ("_asking", "_choosing", "_choosing_heads", "_showing", "_editing"):
        getattr(application, name)(app, session)
    why = SimpleNamespace(triggered=[])
    monkeypatch.setattr(application, "ctx", why)
    return SimpleNamespace(
        **found, why=lambda *ids: setattr(why, "triggered", [{"prop_id": one} for one in ids])
    )


def asked(session: _Session, sample: interp.Sample) -> str:
    return session.keep_sample(session.keep(session.images, (sample.images, ("a.png",))), sample.question)


def upload(size: tuple[int, int] = (4, 3)) -> str:
    buffer = BytesIO()
    Image.new("RGB", size, (9, 8, 7)).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def test_the_oldest_values_are_dropped(session: _Session) -> None:
    store: dict[str, Any] = {}
    names = [session.keep(store, i) for i in range(MOST_SAMPLES + 1)]
    assert list(store) == names[1:]
    assert [*store.values()] == [*range(1, MOST_SAMPLES + 1)]


def test_what_is_not_kept_is_asked_for_again(session: _Session) -> None:
    with pytest.raises(SampleError, match="choose an image first"):
        session.keep_sample(None, "?")
    with pytest.raises(SampleError, match=r"no longer kept\. Ask again"):
        session.sample("gone")


def test_uploaded_files_are_images_under_their_own_names(session: _Session) -> None:
    name = session.keep_images([upload(), upload((5, 6))], ["there/a.png", "b.png"])
    images, names = session.images[name]
    assert names == ("a.png", "b.png")
    assert [np.asarray(one).shape for one in images] == [(3, 4, 3), (6, 5, 3)]
    for content in ("data:,", "no comma", "a,b64!", "data:x,aGVsbG8="):
        with pytest.raises(ImageError, match=r"^c\.png cannot be read as an image"):
            _decoded(content, "folder/c.png")


def test_choosing_files_keeps_them_or_says_why_not(events: SimpleNamespace, session: _Session) -> None:
    assert events.upload(None, None) == (LEFT, "")
    name, said = events.upload([upload(), upload()], ["a.png", "b.png"])
    assert (said, session.images[name][1]) == ("a.png, b.png", ("a.png", "b.png"))
    name, said = events.upload([upload(), "x,y"], ["a.png", "b.png"])
    assert name is None
    assert said.startswith("b.png cannot be read")


def test_a_question_clears_what_was_chosen(
    events: SimpleNamespace, session: _Session, sample: interp.Sample
) -> None:
    assert events.ask(None, None, "") == (LEFT,) * 11
    assert events.ask(1, None, "?") == (*(LEFT,) * 10, "choose an image first.")
    files = session.keep(session.images, (sample.images, ("a.png",)))
    name, said, likely, steps, step, images, image, one_image, change, effect, message = events.ask(
        None, files, sample.question
    )
    reading = session.reading(name)
    assert said.startswith(f"“{reading.answer}”, probability ")
    assert [item.children for item in likely] == [f"{_shown_word(w)} {p:.3f}" for w, p in reading.likely]
    assert [one["value"] for one in steps] == [*range(len(reading.words))]
    assert (step, images, image, one_image, change, effect, message) == (0, [0], 0, True, None, None, "")


def test_clicks_and_regions_choose_tokens(
    events: SimpleNamespace, session: _Session, sample: interp.Sample
) -> None:
    name = asked(session, sample)
    tokens = session.reading(name).tokens
    x0, y0, x1, y1 = tokens.footprints[17]
    click = {"points": [{"x": (x0 + x1) / 2, "y": (y0 + y1) / 2}]}
    region = {"points": [{"customdata": 5}, {"customdata": 3}]}
    events.why("map.clickData")
    assert events.choose(click, None, 0, 0, name, [30, 2], 0) == ([2, 17, 30], None, LEFT)
    assert events.choose(click, None, 0, 0, name, [30, 17], 0) == ([30], None, LEFT)
    away = {"points": [{"x": -1, "y": -1}]}
    assert events.choose(away, None, 0, 0, name, [30], 0) == (LEFT, None, LEFT)
    events.why("map.selectedData")
    assert events.choose(click, region, 0, 0, name, [5, 9], 0) == ([3, 5, 9], LEFT, None)
    assert events.choose(None, None, 0, 0, name, [5], 0) == (LEFT, LEFT, LEFT)
    events.why("invert.n_clicks")
    assert events.choose(None, None, 0, 1, name, [*range(2, tokens.n)], 0) == ([0, 1], None, None)
    for one in ("clear.n_clicks", "sample.data"):
        events.why(one)
        assert events.choose(click, region, 1, 0, name, [5], 0) == ([], None, None)
    events.why("invert.n_clicks")
    assert events.choose(None, None, 0, 1, None, [5], 0) == ([], None, None)


def test_a_cell_chooses_its_layer_and_head(
    events: SimpleNamespace, session: _Session, sample: interp.Sample
) -> None:
    name = asked(session, sample)
    assert events.choose_head({"points": [{"x": 3, "y": 2}]}, name) == (2, 3)
    assert events.choose_head(None, name) == events.choose_head({"points": []}, None) == (LEFT, LEFT)
    assert events.add_head(1, ["4.1"], 2, 3) == ["4.1", "2.3"]
    assert events.add_head(1, ["2.3", "4.1"], 2, 3) == ["2.3", "4.1"]
    assert events.add_head(1, ["4.1"], 2, 0) == ["4.1", "2.0"]
    assert events.add_head(1, ["4.1"], 2, application.ALL_HEADS) is LEFT


def test_an_edit_is_run_or_refused(events: SimpleNamespace, session: _Session, sample: interp.Sample) -> None:
    assert events.run(1, None, [], "zero", 1, "last", [], []) == (LEFT, LEFT, LEFT, "ask a question first.")
    name = asked(session, sample)
    *kept, said = events.run(1, name, [999], "zero", 1, "last", [], [])
    assert kept == [LEFT] * 3
    assert "counted from 0; got token 999" in said
    given, effect, which, said = events.run(1, name, [1], "weights", 0.5, "last", [2, 1], ["3.1"])
    assert (which, said) == ("after", "")
    assert given == {
        "kind": "weights",
        "tokens": [1],
        "layers": [2, 1],
        "heads": ["3.1"],
        "rows": "last",
        "factor": 0.5,
    }
    after = session.reading(name, Change("weights", (1,), (1, 2), ((3, 1),), "last", 0.5))
    assert len(effect) == 2
    assert effect[1].children.endswith(", ".join(f"{_shown_word(w)} {p:.3f}" for w, p in after.likely))


def test_the_effect_is_told_in_three_rows(unchecked: None) -> None:
    before: Any = SimpleNamespace(answer="yes", log_probability=math.log(0.5))
    after: Any = SimpleNamespace(
        answer="no", log_probability=math.log(0.25), likely=(("no", 0.25), (" ", 0.125))
    )
    table, first = _effect(before, after, math.log(0.125))
    told = [(row.children[0].children, row.children[1].children) for row in table.children.children]
    assert told == [
        ("before", "“yes”, probability 0.500"),
        ("after the edit", "“no”, probability 0.250"),
        ("the first answer, after the edit", "“yes”, probability 0.125"),
    ]
    assert first.children == "Likeliest first tokens after the edit: no 0.250, ' ' 0.125"


def test_the_page_shows_the_row_that_was_chosen(
    events: SimpleNamespace, session: _Session, sample: interp.Sample
) -> None:
    assert events.show(None, 0, 0, 1, -1, [], [], None, "before")[2:] == ("", "", "")
    name = asked(session, sample)
    zeroed = {"kind": "zero", "tokens": [], "layers": [], "heads": [], "rows": "last", "factor": 1.0}
    _, heads, about, tokens, code = events.show(name, 0, 0, 3, 2, [], [], None, "after")
    assert about.startswith(f"Layer 3, head 2: {session.reading(name).map(0, 3, 2).sum():.3f} of the row")
    assert tokens == "The edit takes all image tokens. Click tokens or drag a region to choose some."
    assert heads.layout.title.text == "Share of the row on all image tokens"
    assert "edit =" not in code
    _, heads, about, tokens, code = events.show(name, 99, 0, 3, -1, ["relative"], [1, 2], zeroed, "after")
    assert about == "Layer 3, mean of all heads: 0.000 of the row is on the image."
    assert tokens == "The edit takes 2 chosen tokens."
    assert heads.layout.title.text == "Share of the row on 2 chosen tokens"
    assert 'edit = interp.Knockout(site, mode="zero", steps="all")' in code
    about = events.show(name, 0, 0, 3, -1, [], [], zeroed, "before")[2]
    assert about.startswith(f"Layer 3, mean of all heads: {session.reading(name).map(0, 3).sum():.3f}")


def test_only_the_first_row_is_divided(session: _Session, sample: interp.Sample) -> None:
    reading = session.exploration.read(sample)
    for head, said in ((None, "mean of all heads"), (2, "head 2")):
        quotient = session.exploration.relative(sample, per_head=head is not None).sel(layer=3)
        expected = (quotient if head is None else quotient.sel(head=head)).values
        values, about = _map(session, sample, reading, 0, 3, head, True)
        assert about == f"Layer 3, {said}, divided by the same under the generic prompt."
        np.testing.assert_allclose(values, expected)
        values, about = _map(session, sample, reading, 1, 3, head, True)
        assert about.endswith("Only the first token's row can be divided.")
        np.testing.assert_allclose(values, reading.map(1, 3, head))


def test_words_of_the_page() -> None:
    assert [_counted(n) for n in (1, 2)] == ["1 chosen token", "2 chosen tokens"]
    assert [_shown_word(word) for word in (" yes", "\n", "")] == ["yes", r"'\n'", "''"]
    named = [_file_name(one, 3) for one in ("a/b.png", Path("c.png"), np.zeros((2, 2)))]
    assert named == ["a/b.png", "c.png", "image3.png"]


@pytest.mark.parametrize(
    ("n", "shown"), [(8, [*range(8)]), (9, [0, 2, 4, 6, 8]), (10, [0, 2, 4, 6, 8, 9]), (1, [0])]
)
def test_about_eight_layers_have_their_number(n: int, shown: list[int]) -> None:
    assert [place for place in range(n) if _marked(place, n)] == shown


@pytest.mark.parametrize(
    ("shown", "frame"),
    [((4, 1), (0.5, 1.5, 0.5, 1.5)), ((7, None), (-0.5, 2.5, 1.5, 2.5)), ((3, 1), None)],
)
def test_the_shown_cell_has_a_frame(shown: tuple[int, int | None], frame: Any) -> None:
    figure = head_figure(np.zeros((3, 3)), [1, 4, 7], shown, "t")
    found = [(one.x0, one.x1, one.y0, one.y1) for one in figure.layout.shapes]
    assert found == ([] if frame is None else [frame])
    assert figure.layout.yaxis.ticktext == ("1", "4", "7")
    assert [row[0] for row in figure.data[0].customdata] == [1, 4, 7]
    many = head_figure(np.zeros((17, 33)), [*range(1, 18)], (0, None), "t").layout
    assert (many.yaxis.tickvals, many.yaxis.ticktext[1]) == (tuple(range(0, 17, 2)), "3")
    assert many.xaxis.dtick == 3


def test_tokens_are_clicked_on_their_own_image() -> None:
    laid = squash((40, 20), (1, 2))
    boxes = np.concatenate([laid.boxes, laid.boxes, [[np.nan] * 4]])
    tokens = TokenMap(
        np.arange(5),
        boxes,
        (1, 5),
        np.repeat(laid.views[:1], 5),
        np.array([0, 0, 1, 1, 1]),
        ((40, 20),) * 2,
        5,
    )
    places = [(0, 0), (19.9, 19.9), (20, 5), (40, 5), (5, 20)]
    assert [token_at(tokens, x, y) for x, y in places] == [0, 0, 1, None, None]
    assert [token_at(tokens, x, y, 1) for x, y in places] == [2, 2, 3, None, None]
    pair = interp.Sample(images=[np.zeros((20, 40, 3), np.uint8)] * 2, question="?")
    figure = image_figure(pair, tokens, None, [1, 3, 4], 1)
    assert [(one.x0, one.y0, one.x1, one.y1) for one in figure.layout.shapes] == [(20, 0, 40, 20)]
    points = figure.data[1]
    assert (list(points.x), list(points.y), list(points.customdata)) == ([10, 30], [10, 10], [2, 3])


def test_a_large_picture_is_sent_small_and_drawn_in_its_pixels() -> None:
    """1280×321 pixels are sent 640 wide; each of these is two pixels wide and, by rounding, not quite two high."""
    laid = squash((1280, 321), (1, 2))
    tokens = TokenMap(np.arange(2), laid.boxes, (1, 2), laid.views, np.zeros(2, int), ((1280, 321),), 2)
    wide = interp.Sample(np.zeros((321, 1280, 3), np.uint8), "?")
    for values in (None, np.array([0.2, 0.8])):
        drawn = image_figure(wide, tokens, values).data[0]
        sent = Image.open(BytesIO(base64.b64decode(drawn.source.split(",", 1)[1])))
        assert sent.width == 640
        assert (drawn.dx, drawn.x0) == (2, 1)
        assert drawn.dy != 2
        assert (drawn.dy * sent.height, drawn.y0) == (pytest.approx(321), drawn.dy / 2)


def test_the_picture_is_of_the_image_that_is_shown() -> None:
    laid = squash((40, 20), (1, 2))
    boxes = np.concatenate([laid.boxes, laid.boxes])
    tokens = TokenMap(
        np.arange(4), boxes, None, np.repeat(laid.views[:1], 4), np.array([0, 0, 1, 1]), ((40, 20),) * 2, 4
    )
    pair = interp.Sample(images=[np.full((20, 40, 3), grey, np.uint8) for grey in (0, 255)], question="?")
    for values in (None, np.zeros(4)):
        shown = [image_figure(pair, tokens, values, image=image).data[0].source for image in (0, 1)]
        dark, light = (
            np.asarray(Image.open(BytesIO(base64.b64decode(one.split(",", 1)[1]))).convert("L")).mean()
            for one in shown
        )
        assert light > dark + 100


def parts(part: Any) -> list[Any]:
    """A part of the page and all parts in it."""
    held = getattr(part, "children", None)
    listed = held if isinstance(held, list | tuple) else [held]
    return [part, *(inner for one in listed if hasattr(one, "to_plotly_json") for inner in parts(one))]


@pytest.fixture(scope="module")
def page(explored: Exploration, sample: interp.Sample) -> dict[str, Any]:
    """The parts of the page by their ids; under "" all of them."""
    app = application.application(explored, {"model": "mine"}, sample)
    found = parts(app.layout)
    return {"": found, "app": app, **{one.id: one for one in found if getattr(one, "id", None)}}


def test_the_page_begins_with_the_sample_and_the_model(page: dict[str, Any], sample: interp.Sample) -> None:
    said = [one.children for one in page[""] if isinstance(getattr(one, "children", None), str)]
    assert "mine · up to 2 tokens an answer" in said
    assert page["question"].value == sample.question
    assert page["files"].data is not None
    assert page["app"].server.config["MAX_CONTENT_LENGTH"] == 64 * 2**20


def test_an_empty_page_keeps_no_files(explored: Exploration) -> None:
    found = {one.id: one for one in parts(application.application(explored, {"model": "m"}).layout)
             if getattr(one, "id", None)}  # fmt: skip
    assert (found["files"].data, found["question"].value) == (None, "")


def test_the_page_offers_every_layer_and_head(page: dict[str, Any], explored: Exploration) -> None:
    layers, n = explored.layers, explored.mllm.n_heads
    slider = page["layer"]
    assert (slider.min, slider.max, slider.step) == (layers[0], layers[-1], None)
    assert list(slider.marks) == layers
    assert slider.value == layers[len(layers) // 2]
    assert [one["value"] for one in page["head"].options] == [application.ALL_HEADS, *range(n)]
    assert [one["label"] for one in page["head"].options[:2]] == ["mean of all heads", "head 0"]
    assert page["head"].value == application.ALL_HEADS
    assert page["layers"].options == layers
    assert page["pairs"].options == [f"{layer}.{head}" for layer in layers for head in range(n)]


def test_the_page_offers_the_edits_there_are(page: dict[str, Any]) -> None:
    from interp.explore import exploration

    for name, known, told in (("kind", exploration.KINDS, KINDS), ("rows", exploration.ROWS, ROW_NAMES)):
        assert [one["value"] for one in page[name].options] == list(known)
        assert [one["label"] for one in page[name].options] == [told[one] for one in known]
        assert page[name].value == known[0]
    assert (page["factor"].value, page["factor"].min) == (2.0, 0)
    assert [one["value"] for one in page["which"].options] == ["before", "after"]
    assert page["which"].value == "before"
    assert (page["layers"].value, page["pairs"].value, page["relative"].value) == ([], [], [])


def test_every_event_is_of_a_part_of_the_page(page: dict[str, Any]) -> None:
    app = page["app"]
    named = {
        (one["id"], one["property"])
        for call in app.callback_map.values()
        for one in (*call["inputs"], *call["state"])
    }
    assert named
    for part, name in named:
        assert name in page[part].available_properties, (part, name)
    assert {one.htmlFor for one in page[""] if getattr(one, "htmlFor", None)} <= set(page)


@pytest.fixture
def pair() -> interp.Sample:
    """A sample of two images of different sizes."""
    first, second = (one.load() for one in interp.data.bundled("natural", n=2))
    return interp.Sample(images=[first, second.resize((96, 96))], question="What color is it?")


def test_each_of_two_images_can_be_shown_and_clicked(
    events: SimpleNamespace, session: _Session, pair: interp.Sample
) -> None:
    files = session.keep(session.images, (pair.images, ("a.png", "b.png")))
    name, *_, images, image, one_image, _, _, message = events.ask(1, files, pair.question)
    assert (images, image, one_image, message) == ([0, 1], 0, False, "")
    tokens = session.reading(name).tokens
    of_second = int(np.flatnonzero(tokens.shows(1))[3])
    x0, y0, x1, y1 = tokens.footprints[of_second]
    click = {"points": [{"x": (x0 + x1) / 2, "y": (y0 + y1) / 2}]}
    events.why("map.clickData")
    assert events.choose(click, None, 0, 0, name, [], 1)[0] == [of_second]
    assert events.choose(click, None, 0, 0, name, [], 0)[0] != [of_second]
    figure, *_, code = events.show(name, 0, 1, 3, -1, [], [of_second], None, "before")
    assert [(one.x0, one.y1) for one in figure.layout.shapes] == [(x0, y1)]
    assert figure.layout.xaxis.range == (0, 96)
    assert "images=['a.png', 'b.png']" in code


def test_the_second_row_of_heads_and_code_is_the_step_s(
    events: SimpleNamespace, session: _Session, sample: interp.Sample
) -> None:
    name = asked(session, sample)
    reading = session.reading(name)
    assert len(reading.words) > 1
    _, heads, about, tokens, code = events.show(name, 1, 0, 3, 2, [], [4], None, "before")
    np.testing.assert_allclose(heads.data[0].z, reading.rows.values[1, :, :, 4], atol=1e-6)
    (frame,) = heads.layout.shapes
    at = reading.layers.index(3)
    assert (frame.x0, frame.x1, frame.y0, frame.y1) == (1.5, 2.5, at - 0.5, at + 0.5)
    assert f"{reading.map(1, 3, 2).sum():.3f} of the row" in about
    assert tokens == "The edit takes 1 chosen token."
    assert "isel(step=1, query=0).sel(layer=3)" in code
    assert "row.sel(head=2)" in code
    assert "image='a.png'" in code
    assert "generate=2" in code


def test_a_cell_is_of_the_layer_that_was_read(
    events: SimpleNamespace, session: _Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Session, "reading", lambda *_: SimpleNamespace(layers=[3, 8, 13]))
    assert events.choose_head({"points": [{"x": 1, "y": 2}]}, "any") == (13, 1)


def test_the_effect_tells_the_first_answer_under_the_edit(
    events: SimpleNamespace, session: _Session, sample: interp.Sample
) -> None:
    name = asked(session, sample)
    change = Change("zero")
    _, (table, _), _, _ = events.run(1, name, [], "zero", 1, "last", [], [])
    told = [row.children[1].children for row in table.children.children]
    before, after = session.reading(name), session.reading(name, change)
    kept = session.exploration.mllm.score(
        [sample], interp.Target(str(before.answer)), edits=[change.edit(before.tokens.n)]
    ).values[0]
    assert [one.rpartition(" ")[2] for one in told] == [
        f"{math.exp(value):.3f}" for value in (before.log_probability, after.log_probability, kept)
    ]


@pytest.mark.parametrize(("kind", "factor"), [("weights", None), ("scores", -1)])
def test_an_edit_without_a_factor_is_refused(
    events: SimpleNamespace, session: _Session, sample: interp.Sample, kind: str, factor: float | None
) -> None:
    *kept, said = events.run(1, asked(session, sample), [], kind, factor, "last", [], [])
    assert kept == [LEFT] * 3
    assert "factor" in said
