from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import transformers

from interp.conformance.tiny import kit, recipe, tiny
from interp.errors import ModelError, PromptError
from interp.indicators import Attention, AttentionGradient
from interp.inputs.prompt import GENERIC_PROMPT, Target, diff
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.models.families.llava import Llava
from interp.tracing import Mllm, Residual, Rows, Site, image_mask, wrap
from interp.tracing.cost import Meter
from interp.tracing.layers.rope import Rope
from interp.tracing.layers.visibility import Visibility, chunks, windows
from interp.tracing.passes.run import run_pass
from interp.tracing.prefix import exact


def prompt() -> TokenMap:
    """T I I T I I I T: two runs of image tokens."""
    image = np.array([1, 2, 4, 5, 6])
    return TokenMap(image, np.full((5, 4), np.nan), None, np.full(5, ""), np.zeros(5, int), ((8, 8),), 8)


@pytest.mark.parametrize(
    ("attends", "last"),
    [
        ("causal", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("image_blocks", [0, 2, 2, 3, 6, 6, 6, 7]),
        ("sliding_image_blocks", [0, 2, 2, 3, 6, 6, 6, 7]),
        ("images", [0, 6, 6, 3, 6, 6, 6, 7]),
        ("prefix", [7] * 8),
    ],
)
def test_the_horizon_is_the_last_position_a_row_sees(attends, last):
    assert Visibility(attends).horizon(prompt()).tolist() == last


@pytest.mark.parametrize(
    ("attends", "layer", "row", "seen"),
    [
        ("causal", 0, 5, [0, 1, 2, 3, 4, 5]),
        ("causal", 1, 5, [4, 5]),
        ("image_blocks", 1, 6, [4, 5, 6]),
        ("image_blocks", 1, 4, [3, 4, 5, 6]),
        ("image_blocks", 1, 3, [2, 3]),
        ("sliding_image_blocks", 1, 6, [5, 6]),
        ("sliding_image_blocks", 1, 4, [3, 4, 5, 6]),
        ("sliding_image_blocks", 0, 4, [0, 1, 2, 3, 4]),
        ("images", 0, 4, [0, 1, 2, 3, 4, 5, 6]),
        ("images", 0, 1, [0, 1, 2, 4, 5, 6]),
        ("images", 0, 3, [0, 1, 2, 3]),
        ("prefix", 1, 0, [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_windows_cut_what_comes_before_but_no_image_block(attends, layer, row, seen):
    assert Visibility(attends, (None, 2)).seen(prompt(), row, layer).tolist() == seen


def test_chunks_begin_anew():
    sees = Visibility(windows=(None, None), chunks=(4, None))
    seen = [sees.seen(prompt(), row, 0).tolist() for row in (3, 4, 7)]
    assert seen == [[0, 1, 2, 3], [4], [4, 5, 6, 7]]
    assert sees.seen(prompt(), 7, 1).tolist() == list(range(8))
    assert (sees.limits, sees.narrowest) == ((4, None), 4)
    assert sees.windows_fit([2, 3], [4, 5])
    assert not sees.windows_fit([2, 3], [4, 6])
    kinds = SimpleNamespace(layer_types=["chunked_attention", "full_attention"], attention_chunk_size=4)
    assert chunks(kinds, 2) == (4, None)
    assert chunks(SimpleNamespace(), 2) == (None, None)


@pytest.mark.parametrize(
    ("attends", "lengths"),
    [
        ("causal", [1, 2, 3, 4, 5, 6, 7]),
        ("image_blocks", [1, 3, 4, 7]),
        ("sliding_image_blocks", [1, 3, 4, 7]),
        ("images", [1, 7]),
        ("prefix", []),
    ],
)
def test_a_prefix_is_exact_where_no_row_of_it_sees_what_follows(attends, lengths):
    found = [n for n in range(9) if exact([n], [prompt()], Visibility(attends))]
    assert found == lengths


def test_a_prefix_is_not_exact_where_read_or_beyond_windows():
    tokens = [prompt(), prompt()]
    assert exact([3, 3], tokens, Visibility(), [3, None])
    assert not exact([3, 3], tokens, Visibility(), [2, None])
    assert not exact([3, 4], tokens, Visibility("causal", (None, 6)))  # padding would lie inside the window
    assert exact([3, 4], tokens, Visibility("causal", (None, 9)))
    assert not exact([3, 4], tokens, Visibility("causal", (None, 9)), generate=1)
    assert exact([3, 3], tokens, Visibility("causal", (None, 6)))


def test_states_go_on_through_padding_and_all_must_be_closed():
    tokens, states = [prompt(), prompt()], Visibility(recurrent=True)
    assert exact([3, 3], tokens, states)
    assert not exact([3, 4], tokens, states)
    blocks = Visibility("image_blocks")
    assert [blocks.closed(tokens, own) for own in ([1, 3], [1, 2], [2, 3])] == [True, False, False]


def test_a_layer_may_have_a_window_or_a_chunk():
    assert Visibility(windows=(3, None), chunks=(None, 4)).limits == (3, 4)
    assert Visibility(windows=(6, None), chunks=(None, 4)).narrowest == 4
    assert (Visibility(windows=(None, 5)).limits, Visibility().limits) == ((None, 5), ())
    assert Visibility(windows=(None,)).narrowest is None
    both = Visibility(windows=(3,), chunks=(4,))
    assert [both.seen(prompt(), row, 0).tolist() for row in (1, 5, 7)] == [[0, 1], [4, 5], [5, 6, 7]]


def test_a_prompt_without_images_has_no_blocks():
    text = TokenMap(np.empty(0, int), np.empty((0, 4)), None, np.empty(0, str), np.empty(0, int), (), 3)
    assert Visibility("image_blocks").horizon(text).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"sliding_window": None}, (None, None)),
        ({}, (None, None)),
        ({"sliding_window": 7}, (7, 7)),
        ({"sliding_window": 7, "use_sliding_window": False}, (None, None)),
        ({"sliding_window": 7, "layer_types": ["sliding_attention", "full_attention"]}, (7, None)),
    ],
)
def test_windows_of_a_config(config, expected):
    assert windows(SimpleNamespace(**config), 2) == expected


def test_an_adapter_that_attends_otherwise_is_refused():
    class Odd(Llava):
        attends = "everywhere"

    mllm = wrap(*tiny("llava"), adapter=Odd())
    with pytest.raises(
        ModelError,
        match="one of causal, image_blocks, sliding_image_blocks, images, prefix; llava has 'everywhere'",
    ):
        mllm.trace([Sample(np.zeros((8, 8, 3), np.uint8), "is it?")])


LIMIT = 60
SCALINGS: dict[str, dict[str, Any]] = {
    "longrope": {
        "original_max_position_embeddings": LIMIT,
        "short_factor": [1.0] * 8,
        "long_factor": [2.0 + i for i in range(8)],
    },
    "dynamic": {},
}
PICTURE = np.random.default_rng(0).integers(0, 255, (64, 80, 3), np.uint8)
SHORT, LONG, LONGER = (
    Sample(PICTURE, question)
    for question in (
        "where is the nodule ?",
        "what is in the left lung ? " * 5,
        "what is in the left lung ? " * 8,
    )
)
ALL = [LONGER, SHORT, LONG, SHORT]


@pytest.fixture(scope="module", params=SCALINGS)
def mllm(request: pytest.FixtureRequest) -> Mllm:
    made = recipe("llava")
    config: Any = made.config()
    if request.param == "dynamic":
        config.text_config.max_position_embeddings = LIMIT
    own = {"rope_type": request.param, "rope_theta": 1e4, "factor": 4.0, **SCALINGS[request.param]}
    config.text_config.rope_parameters = own
    return wrap(kit.build(made.model, config), made.processor())


def test_a_batch_gives_each_sample_what_it_gets_alone(mllm):
    reads = [Rows(Site(queries="after_image")), Residual()]
    together = mllm.trace(ALL, reads=reads, generate=1)
    for i, sample in enumerate(ALL):
        alone = mllm.trace([sample], reads=reads, generate=1)
        np.testing.assert_allclose(together.logits.values[i], alone.logits.values[0], atol=1e-4)
        np.testing.assert_allclose(together[i].rows, alone[0].rows, atol=1e-5)
        np.testing.assert_allclose(together[i].residual, alone[0].residual, atol=1e-4)
        assert together.answers[i] == alone.answers[0]
        assert together.tokens[i].length == alone.tokens[0].length


def test_logits_are_those_of_transformers_on_the_sample_alone(mllm):
    together = mllm.trace([LONG, SHORT]).logits.values
    for i, sample in enumerate((LONG, SHORT)):
        fresh = kit.build(transformers.LlavaForConditionalGeneration, copy.deepcopy(mllm.hf.config))
        inputs = mllm.encode(sample).inputs
        np.testing.assert_allclose(together[i], fresh(**inputs).logits[0, -1].detach(), atol=1e-4)


def test_a_pass_does_not_depend_on_longer_ones_before_it(mllm):
    first = mllm.trace(LONG).logits.values
    mllm.trace(LONGER)
    np.testing.assert_array_equal(mllm.trace(LONG).logits.values, first)


def test_scores_and_relative_maps_too(mllm):
    target = Target(diff("yes", "no"))
    alone = [mllm.score(sample, target).values[0] for sample in ALL]
    np.testing.assert_allclose(mllm.score(ALL, target).values, alone, atol=1e-4)
    maps = Attention(relative_to=GENERIC_PROMPT)(mllm, [LONG, SHORT])
    for one, sample in zip(maps.arrays, (LONG, SHORT), strict=True):
        np.testing.assert_allclose(one, Attention(relative_to=GENERIC_PROMPT)(mllm, sample)[0], rtol=1e-3)


def test_a_prefix_serves_only_on_its_own_side(mllm):
    batch = mllm.encode([SHORT])
    lengths = [20]
    assert exact(lengths, batch.tokens, mllm.visibility)
    assert not exact(lengths, mllm.encode([LONG]).tokens, mllm.visibility)
    prefix = mllm.prefix([LONG, SHORT])
    alone = [mllm.trace(sample).logits.values[0] for sample in (LONG, SHORT)]
    np.testing.assert_allclose(mllm.trace(prefix).logits.values, alone, atol=1e-4)


def test_samples_beyond_the_limit_share_no_keys_of_before_it(mllm):
    other = Sample(PICTURE, "is the nodule in it red ? " * 5)
    alone = [mllm.trace(sample).logits.values[0] for sample in (LONG, other)]
    np.testing.assert_allclose(mllm.trace([LONG, other]).logits.values, alone, atol=1e-4)


def test_generating_across_the_limit_is_refused(mllm):
    n = LIMIT - mllm.encode(SHORT).tokens[0].length
    mllm.trace(SHORT, generate=n + 1)  # the last token is not run
    with pytest.raises(ModelError, match=rf"change beyond {LIMIT} positions.*Ask for fewer tokens"):
        mllm.trace(SHORT, generate=LIMIT)


def test_what_cannot_be_run_apart_is_refused(mllm):
    batch = mllm.encode([SHORT, LONG])
    inputs = batch.inputs | {"position_ids": batch.positions}
    with pytest.raises(
        ModelError,
        match=rf"longest sample of a batch \(beyond {LIMIT} positions\).*Run the samples one by one",
    ):
        run_pass(mllm.hf, inputs, Meter(mllm.device))


def test_each_sample_run_apart_keeps_its_own_mask(mllm):
    masks = np.eye(16, dtype=bool)[:4]
    own = [Rows(Site(keys=image_mask(mask))) for mask in masks]
    found = mllm.trace(ALL, reads=[Rows(Site(keys=image_mask(masks)))])
    for one, sample, read in zip(found, ALL, own, strict=True):
        np.testing.assert_allclose(one.rows, mllm.trace(sample, reads=[read])[0].rows, atol=1e-5)


def test_maps_of_gradients_are_those_of_each_sample_alone(mllm):
    found = AttentionGradient()(mllm, [SHORT, LONG])
    for one, sample in zip(found, (SHORT, LONG), strict=True):
        np.testing.assert_allclose(one, AttentionGradient()(mllm, sample)[0], atol=1e-5)


def test_prompts_beyond_the_scaled_limit_are_refused(mllm):
    limit = mllm.rope.limit
    assert limit == (4096 if mllm.rope.scalings == ((LIMIT, False),) else 4 * LIMIT)
    with pytest.raises(PromptError, match=f"but the model has {limit}"):
        mllm.trace(Sample(PICTURE, "what is it ? " * (limit // 4)))


def config(largest: Any, **parameters: Any) -> Any:
    return SimpleNamespace(max_position_embeddings=largest, rope_parameters=parameters)


@pytest.mark.parametrize(
    ("given", "limit", "scalings"),
    [
        (config(2048, rope_type="default"), 2048, ()),
        (config(2048, rope_type="linear", factor=4.0), 8192, ()),
        (config(2048, rope_type="dynamic", factor=2.0), 4096, ((2048, True),)),
        (config(32768, rope_type="yarn", factor=4.0, original_max_position_embeddings=32768), 131072, ()),
        (config(131072, rope_type="llama3", factor=8.0, original_max_position_embeddings=8192), 131072, ()),
        (
            config(
                100,
                sliding_attention={"rope_type": "default"},
                full_attention={"rope_type": "longrope", "original_max_position_embeddings": 50},
            ),
            100,
            ((50, False),),
        ),
        (SimpleNamespace(), None, ()),
    ],
)
def test_what_a_config_says(given, limit, scalings):
    assert (Rope.of(given).limit, Rope.of(given).scalings) == (limit, scalings)


def test_lengths_that_share_frequencies():
    longrope, dynamic = Rope(scalings=((60, False),)), Rope(scalings=((60, True),))
    assert longrope.groups([61, 3, 90, 60]) == [[0, 2], [1, 3]]
    assert dynamic.groups([61, 3, 90, 60, 90]) == [[0], [1, 3], [2, 4]]
    assert longrope.shared([61, 90])
    assert not dynamic.shared([61, 90])
    several = Rope(scalings=((60, False),), several_axes=True)
    assert several.shared([3, 60])
    assert not several.shared([61, 90])  # of tokens: positions are fewer
