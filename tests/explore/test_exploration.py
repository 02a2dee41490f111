"""What the explorer computes, against plain traces and against numbers worked by hand."""

from __future__ import annotations

import math

import jaxtyping
import numpy as np
import pytest
from PIL import Image

import interp
from interp.conformance.tiny import tiny as tiny_of
from interp.errors import EditError, ModelError
from interp.explore import Change, Exploration, local_server
from interp.explore.application import _answer_text, _change
from interp.explore.exploration import KEPT, KINDS, ROWS, first_tokens, reproduction
from interp.explore.screen import head_figure, image_figure, token_at, tokens_in
from interp.tracing import wrap


@pytest.fixture(scope="module")
def explored():
    return Exploration(interp.load("organism"), generate=3)


@pytest.fixture(scope="module")
def sample():
    return interp.data.bundled("natural", n=1)[0]


def test_rows_are_those_of_a_trace(explored, sample):
    reading = explored.read(sample)
    reads = [interp.Rows(interp.Site(queries="last", keys="image"))]
    trace = explored.mllm.trace([sample], reads=reads, generate=3)
    assert reading.answer == trace.answers[0]
    np.testing.assert_allclose(reading.rows.values, trace[0].rows.values[:, :, :, 0], atol=1e-6)
    np.testing.assert_allclose(reading.map(0, 3), trace[0].rows.values[0, 3, :, 0].mean(0), atol=1e-6)
    np.testing.assert_allclose(
        reading.head_shares(1, (2, 5)), trace[0].rows.values[1, :, :, 0][..., [2, 5]].sum(-1), atol=1e-6
    )


def test_words_and_probability_are_the_answers(explored, sample):
    reading = explored.read(sample)
    assert "".join(reading.words).startswith(reading.answer)
    assert len(reading.words) == reading.rows.sizes["step"]
    score = explored.mllm.score([sample], interp.Target(reading.answer)).values[0]
    assert reading.log_probability == pytest.approx(score, abs=1e-6)
    assert reading.likely[0][0] == reading.words[0]


def test_likely_tokens_are_softmax_of_logits():
    class Tokenizer:
        def decode(self, ids):
            return "abc"[ids[0]]

    found = first_tokens(np.log([0.2, 0.5, 0.3]), Tokenizer())
    assert [word for word, _ in found] == ["b", "c", "a"]
    np.testing.assert_allclose([share for _, share in found], [0.5, 0.3, 0.2])


@pytest.mark.parametrize(
    ("kind", "edit"),
    [
        ("knockout", lambda site: interp.Knockout(site, steps="all")),
        ("zero", lambda site: interp.Knockout(site, mode="zero", steps="all")),
        ("weights", lambda site: interp.ScaleWeights(site, 0.5, steps="all")),
        ("scores", lambda site: interp.ScaleScores(site, 0.5, steps="all")),
    ],
)
def test_changes_are_the_edits_they_name(explored, sample, kind, edit):
    n = explored.read(sample).tokens.n
    mask = np.arange(n) < 40
    change = Change(kind, tokens=tuple(range(40)), heads=((3, 1), (4, 0)), factor=0.5)
    expected = edit(interp.Site(heads=[(3, 1), (4, 0)], queries="last", keys=interp.image_mask(mask)))
    assert change.edit(n) == expected
    assert explored.read(sample, change).answer == explored.mllm.answers([sample], edits=[expected])[0]


def test_hidden_tokens_get_nothing(explored, sample):
    change = Change("knockout", tokens=(7, 9), layers=(2,))
    rows = explored.read(sample, change).rows
    assert rows.sel(layer=2).isel(token=[7, 9]).values.max() == 0
    assert rows.sel(layer=3).isel(token=[7, 9]).values.max() > 0


def test_wrong_changes_are_refused(explored, sample):
    with pytest.raises(EditError, match="144 tokens, counted from 0; got token 144"):
        explored.read(sample, Change(tokens=(144,)))
    with pytest.raises(EditError, match="kind is 'knockout' or"):
        Change("hide")
    with pytest.raises(EditError, match="rows is 'last' or"):
        Change(rows="image")


@pytest.mark.parametrize("rows", ROWS)
def test_a_change_of_the_prompt_s_rows_is_made_once(rows):
    change = Change("weights", layers=(1, 2), rows=rows, factor=0.5)
    steps = "all" if rows == "last" else "prefill"
    assert change.edit(4) == interp.ScaleWeights(
        interp.Site(layers=(1, 2), queries=rows, keys="image"), 0.5, steps=steps
    )
    assert f'steps="{steps}"' in change.code(4)[-1]
    assert f"queries='{rows}'" in change.code(4)[0]
    with pytest.raises(EditError, match="4 tokens, counted from 0; got token -1"):
        Change(tokens=(3, -1)).edit(4)


def test_what_was_read_last_is_kept(explored):
    made, kept = [], Exploration(explored.mllm)
    for key in [*range(KEPT), 0, KEPT, 0, 1]:  # the 17th takes the place of 1, which was read longest ago
        assert kept._once(key, lambda key=key: made.append(key) or key) == key
    assert made == [*range(KEPT), KEPT, 1]


def test_an_answer_is_shown_with_its_probability():
    assert _answer_text(None, math.nan) == "no answer: the thought did not end"
    assert _answer_text(" ", math.nan) == "(nothing)"
    assert _answer_text("yes", math.log(0.25)) == "“yes”, probability 0.250"
    given = {
        "kind": "scores",
        "tokens": [3],
        "layers": [4, 2],
        "heads": ["3.11"],
        "rows": "last",
        "factor": 0.5,
    }
    assert _change(given) == Change("scores", (3,), (2, 4), ((3, 11),), "last", 0.5)
    assert _change(None) is None


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("a.b", False),
    ],
)
def test_only_addresses_of_this_machine_are_loopback(host, expected):
    assert local_server._is_loopback(host) is expected
    assert local_server._written("::1") == "[::1]"


def test_models_without_a_map_are_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside of tests
    with pytest.raises(ModelError, match="needs a model with a map"):
        Exploration(object())


def test_patches_of_composed_maps_cannot_be_edited():
    explored = Exploration(wrap(*tiny_of("idefics2")), generate=1)
    sample = interp.Sample(image=np.zeros((60, 80, 3), np.uint8), question="what is it ?")
    reading = explored.read(sample)
    assert reading.rows.sizes["token"] == reading.tokens.n
    own = interp.indicators.Attention()(explored.mllm, [sample])
    np.testing.assert_allclose(reading.map(0, 1), own[0].sel(layer=1).values, atol=1e-6)
    with pytest.raises(EditError, match="latents that each look at the whole image"):
        explored.read(sample, Change(tokens=(0,)))
    assert explored.read(sample, Change("weights", factor=0.0)).rows.values.max() == 0


@pytest.mark.slow
@pytest.mark.parametrize("family", interp.conformance.tiny.families())
def test_every_family_is_explored(family):
    explored = Exploration(wrap(*tiny_of(family)), generate=2)
    sample = interp.Sample(image=np.zeros((60, 80, 3), np.uint8), question="what is it ?")
    reading = explored.read(sample)
    layer = reading.layers[-1]
    assert reading.layers == explored.layers
    assert image_figure(sample, reading.tokens, reading.map(0, layer), [0]).data
    assert head_figure(reading.head_shares(0), reading.layers, (layer, 0), "share").data
    edited = explored.read(sample, Change("weights", layers=(layer,), factor=0.0))
    assert math.isfinite(float(edited.rows.sel(layer=layer).values.max()))


def test_the_first_row_of_pixels_is_at_the_top(explored, sample):
    width, height = sample.sizes[0]
    layout = image_figure(sample, explored.read(sample).tokens, None).layout
    assert (layout.xaxis.range, layout.yaxis.range) == ((0, width), (height, 0))


def test_clicks_find_the_smallest_footprint(explored, sample):
    tokens = explored.read(sample).tokens
    x0, y0, x1, y1 = tokens.footprints[17]
    assert token_at(tokens, (x0 + x1) / 2, (y0 + y1) / 2) == 17
    assert token_at(tokens, -1, 5) is None
    assert tokens_in({"points": [{"customdata": 4}, {"customdata": 2}, {"x": 1}]}) == [2, 4]
    assert tokens_in(None) == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_code_of_a_change_makes_its_edit(kind):
    for change in (
        Change(kind, layers=(2, 3)),
        Change(kind, tokens=(1, 4), heads=((0, 1),), rows="question"),
    ):
        found = {"interp": interp, "np": np}
        exec("\n".join(change.code(9)), found)
        assert found["edit"] == change.edit(9)


def test_code_reproduces_what_is_shown(explored, sample, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sample.load().save("image0.png")
    change = Change("knockout", tokens=tuple(range(60)), layers=(2, 3))
    reading = explored.read(sample)
    code = reproduction(
        {"model": "organism"}, sample, ["image0.png"], explored.prompt, 3,
        step=1, layer=4, head=2, change=change, n_tokens=reading.tokens.n,
    )  # fmt: skip
    found: dict = {}
    exec(compile(code, "code", "exec"), found)
    np.testing.assert_allclose(found["row"].values, reading.map(1, 4, 2), atol=1e-6)
    assert found["answers"] == [reading.answer]
    assert found["edited"] == [explored.read(sample, change).answer]


def test_code_keeps_the_image_of_each_box(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["a.png", "b.png"]
    for name in names:
        Image.fromarray(np.zeros((40, 50), np.uint8)).save(name)
    sample = interp.Sample(
        images=names, question="?", boxes=[(1, 2, 9, 9), interp.Box(3, 4, 20, 30, image=1)]
    )
    code = reproduction({"model": "m"}, sample, names, interp.Prompt(), 1, step=0, layer=0, head=None)
    (line,) = [line for line in code.splitlines() if line.startswith("sample =")]
    found = {"interp": interp}
    exec(line, found)
    assert found["sample"].boxes == sample.boxes


PROMPT = interp.Prompt("{question} In one word:")


def test_another_prompt_is_read_scored_and_divided(explored, sample):
    other = Exploration(explored.mllm, PROMPT, generate=2)
    reads = [interp.Rows(interp.Site(queries="last", keys="image"))]
    trace = other.mllm.trace([sample], prompt=PROMPT, reads=reads, generate=2)
    reading = other.read(sample)
    np.testing.assert_allclose(reading.rows.values, trace[0].rows.values[:, :, :, 0], atol=1e-6)
    assert not np.allclose(reading.map(0, 3), explored.read(sample).map(0, 3))
    score = other.mllm.score([sample], interp.Target("yes"), prompt=PROMPT).values[0]
    assert other.log_probability(sample, "yes") == pytest.approx(score, abs=1e-6)
    for per_head in (False, True):
        quotient = interp.indicators.Attention(relative_to=interp.GENERIC_PROMPT, per_head=per_head)
        expected = quotient(other.mllm, [sample], prompt=PROMPT)[0]
        found = other.relative(sample, per_head=per_head)
        assert found.dims == expected.dims
        np.testing.assert_allclose(found.values, expected.values, rtol=1e-5)


def test_answers_are_scored_under_the_same_edit(explored, sample):
    change = Change("zero", layers=(0, 1, 2, 3, 4))
    reading = explored.read(sample, change)
    edit = interp.Knockout(
        interp.Site(layers=(0, 1, 2, 3, 4), queries="last", keys="image"), mode="zero", steps="all"
    )
    plain, edited = (
        explored.mllm.score([sample], interp.Target(reading.answer), edits=edits).values[0]
        for edits in ([], [edit])
    )
    assert plain != pytest.approx(edited, abs=1e-4)
    assert reading.log_probability == pytest.approx(edited, abs=1e-6)
    assert explored.log_probability(sample, reading.answer, change) == pytest.approx(edited, abs=1e-6)
    assert explored.log_probability(sample, reading.answer) == pytest.approx(plain, abs=1e-6)
    assert math.isnan(explored.log_probability(sample, None, change))


def test_a_sum_over_no_named_token_is_over_all(explored, sample):
    reading = explored.read(sample)
    np.testing.assert_allclose(reading.head_shares(0), reading.rows.values[0].sum(-1), atol=1e-6)
    assert list(reading.layers) == list(explored.layers) == list(reading.rows["layer"].values)


def test_five_likely_tokens_are_shown():
    class Tokenizer:
        def decode(self, ids):
            return str(ids[0])

    assert [word for word, _ in first_tokens(np.arange(7.0), Tokenizer())] == ["6", "5", "4", "3", "2"]
    assert [word for word, _ in first_tokens(np.zeros(7), Tokenizer())] == ["0", "1", "2", "3", "4"]


def test_only_layers_that_look_across_are_read():
    explored = Exploration(wrap(*tiny_of("mllama")), generate=1)
    sample = interp.Sample(image=np.zeros((60, 80, 3), np.uint8), question="what is it ?")
    reading = explored.read(sample)
    assert reading.layers == explored.layers
    assert len(reading.layers) < explored.mllm.n_layers
    edited = explored.read(sample, Change("weights", layers=(reading.layers[-1],), factor=0.0))
    assert edited.rows.values[:, -1].max() == 0


def test_code_names_every_option_of_the_model():
    sample = interp.Sample("a.png", "it's?")
    code = reproduction(
        {"model": "m", "dtype": "bfloat16", "revision": "v1"}, sample, ["a.png"], PROMPT, 5, step=0, layer=7, head=None
    )  # fmt: skip
    assert "mllm = interp.load('m', dtype='bfloat16', revision='v1')" in code
    assert 'row = row.mean("head")' in code
    assert ".isel(step=0, query=0).sel(layer=7)" in code
    assert "generate=5" in code
    found = {"interp": interp}
    exec("\n".join(line for line in code.splitlines() if line.startswith(("sample =", "prompt ="))), found)
    assert (found["sample"], found["prompt"]) == (sample, PROMPT)
    assert "numpy" not in code
    assert "edited" not in code
