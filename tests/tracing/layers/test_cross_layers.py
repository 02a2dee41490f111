"""Cross-attention layers: reads and edits against transformers' eager attention, changed by hand; what is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.conformance.tiny import tiny
from interp.errors import EditError, ModelError, SiteError
from interp.tracing import Knockout, Mllm, PatchRows, Rows, ScaleScores, ScaleWeights, Site, wrap

CROSS, SELF = (1, 3), (0, 2, 4)
Change = Callable[[torch.Tensor], torch.Tensor]


@pytest.fixture(scope="module")
def mllm() -> Mllm:
    return wrap(*tiny("mllama"))


@pytest.fixture(scope="module")
def eager() -> Any:
    return tiny("mllama", "eager")[0]


def samples() -> list[interp.Sample]:
    """A wide picture, and a small one with a longer question: the first is left-padded."""
    noise = np.random.default_rng(5)
    sizes = {"where is the nodule?": (150, 60), "what is there in the left lung, and is it red?": (56, 56)}
    return [
        interp.Sample(noise.integers(0, 255, (h, w, 3), dtype=np.uint8), text)
        for text, (w, h) in sizes.items()
    ]


def alone(mllm: Mllm, sample: interp.Sample) -> dict[str, torch.Tensor]:
    """A sample as its processor has it; transformers computes the positions."""
    return {name: value for name, value in mllm.encode(sample).inputs.items() if name != "position_ids"}


@contextmanager
def changed(
    eager: Any, layer: int, scores: Change = lambda x: x, weights: Change = lambda x: x
) -> Iterator[list]:
    """Changes scores before the mask, and weights, of one layer of eager attention; yields every layer's weights."""
    home: Any = sys.modules[type(eager).__mro__[1].__module__]
    own, found = home.eager_attention_forward, []
    layers = eager.get_decoder().layers
    at = getattr(layers[layer], "cross_attn", None) or layers[layer].self_attn

    def attend(module: Any, query: Any, key: Any, value: Any, mask: Any, **options: Any) -> Any:
        output, found_weights = own(module, query, key, value, mask, **options)
        if module is at:
            keys, values = (
                one.repeat_interleave(query.shape[1] // one.shape[1], dim=1) for one in (key, value)
            )
            found_weights = weights((scores(query @ keys.mT * module.scaling) + mask).softmax(-1))
            output = (found_weights @ values).transpose(1, 2).contiguous()
        if module.__class__.__name__.startswith("MllamaText"):
            found.append(found_weights)
        return output, found_weights

    home.eager_attention_forward = attend
    try:
        yield found
    finally:
        home.eager_attention_forward = own


@pytest.mark.parametrize("executor", ["tap", "source"])
def test_rows_are_eagers_alone_and_padded(mllm, eager, executor):
    reads = [
        Rows(Site(layers="cross", queries="text")),
        Rows(Site(layers="attention", queries="all", keys="all")),
    ]
    trace = mllm.using(executor).trace(samples(), reads=reads)
    for i, sample in enumerate(samples()):
        with changed(eager, 0) as weights, torch.no_grad():
            logits = eager(**alone(mllm, sample), use_cache=False).logits[0, -1]
        tokens, (cross, own) = trace.tokens[i], trace[i].reads
        np.testing.assert_allclose(trace.logits[i], logits, atol=2e-5)
        assert cross.dims == ("layer", "head", "query", "token")
        assert cross["layer"].values.tolist() == list(CROSS)
        assert cross["position"].values.tolist() == tokens.image.tolist()
        for at, layer in enumerate(CROSS):
            expected = weights[layer][0][:, tokens.positions("text")][:, :, tokens.image]
            np.testing.assert_allclose(cross[at], expected, atol=2e-6)
        assert own.dims[-1] == "key"
        for at, layer in enumerate(SELF):
            np.testing.assert_allclose(own[at], weights[layer][0], atol=2e-6)


def edits_and_changes(columns: np.ndarray) -> dict[str, tuple[Callable[[Site], Any], dict[str, Change]]]:
    """An edit of half the image's keys, for the last row, and the same change of eager attention."""

    def cells(x: torch.Tensor, change: Change) -> torch.Tensor:
        y = x.clone()
        y[0, :, -1, columns] = change(x[0, :, -1, columns])
        return y

    def filled(x: torch.Tensor, value: float) -> torch.Tensor:
        return cells(x, lambda part: torch.full_like(part, value))

    return {
        "knockout": (Knockout, {"scores": lambda x: filled(x, -torch.inf)}),
        "zero": (lambda site: Knockout(site, "zero"), {"weights": lambda x: filled(x, 0.0)}),
        "weights": (lambda site: ScaleWeights(site, 0.3), {"weights": lambda x: cells(x, lambda p: 0.3 * p)}),
        "scores": (lambda site: ScaleScores(site, 2.0), {"scores": lambda x: cells(x, lambda p: 2 * p)}),
    }


@pytest.mark.covering
@pytest.mark.parametrize("executor", ["tap", "source"])
@pytest.mark.parametrize("kind", ["knockout", "zero", "weights", "scores"])
@pytest.mark.parametrize("i", [0, 1])
def test_edits_are_those_changes_of_eager_attention(mllm, eager, executor, kind, i):
    masks = [np.arange(tokens.n) % 2 == 0 for tokens in mllm.encode(samples()).tokens]
    site = Site(layers=[3], queries="last", keys=interp.image_mask(masks))
    columns = mllm.encode(samples()).tokens[i].image[masks[i]]
    make, changes = edits_and_changes(columns)[kind]
    trace = mllm.using(executor).trace(samples(), reads=[Rows(Site(layers=[3]))], edits=[make(site)])
    with changed(eager, 3, **changes) as weights, torch.no_grad():
        logits = eager(**alone(mllm, samples()[i]), use_cache=False).logits[0, -1]
    np.testing.assert_allclose(trace.logits[i], logits, atol=2e-5)
    np.testing.assert_allclose(
        trace[i].rows[0, :, 0], weights[3][0, :, -1][:, trace.tokens[i].image], atol=2e-6
    )
    assert np.abs(trace.logits[i] - mllm.trace(samples()).logits[i]).max() > 1e-3


@pytest.mark.parametrize("executor", ["tap", "source"])
def test_a_knockout_of_most_rows_goes_into_the_mask(mllm, eager, executor):
    """All heads and most rows: hidden by the mask that the model's own attention gets."""
    sample, layer = samples()[0], 1
    tokens = mllm.encode(sample).tokens[0]
    half = np.arange(tokens.n) < tokens.n // 2
    edit = Knockout(Site(layers=[layer], queries="all", keys=interp.image_mask(half)))
    found = mllm.using(executor).trace(sample, edits=[edit]).logits[0]

    def hide(scores: torch.Tensor) -> torch.Tensor:
        scores[..., tokens.image[half]] = -torch.inf
        return scores

    with changed(eager, layer, scores=hide), torch.no_grad():
        logits = eager(**alone(mllm, sample), use_cache=False).logits[0, -1]
    np.testing.assert_allclose(found, logits, atol=2e-5)


@pytest.mark.parametrize("executor", ["tap", "source"])
def test_answers_and_edits_of_generated_rows(mllm, eager, executor):
    """A zero knockout of the whole image in every row is a model whose cross-attention gives nothing."""
    site = Site(layers="cross", queries=("text", "answer"), keys="image")
    plain = mllm.using(executor).answers(samples(), generate=4)
    trace = mllm.using(executor).trace(
        samples(), reads=[Rows(Site(layers="cross"))], edits=[Knockout(site, "zero", steps="all")], generate=4
    )
    for i, sample in enumerate(samples()):
        inputs = alone(mllm, sample)
        n, decode = inputs["input_ids"].shape[1], mllm.processor.tokenizer.decode
        ids = eager.generate(**inputs, max_new_tokens=4, do_sample=False)[0, n:]
        assert plain[i] == decode(ids, skip_special_tokens=True).strip()
        assert not trace[i].rows.values.any()
        rows = trace.tokens[i].positions("text")
        handles = [
            eager.get_decoder()
            .layers[layer]
            .cross_attn.o_proj.register_forward_pre_hook(
                lambda _, given, rows=rows, n=n: (
                    _without(given[0], rows if given[0].shape[1] == n else [0]),
                )
            )
            for layer in CROSS
        ]
        ids = eager.generate(**inputs, max_new_tokens=4, do_sample=False)[0, n:]
        for handle in handles:
            handle.remove()
        assert trace.answers[i] == decode(ids, skip_special_tokens=True).strip()


def _without(values: torch.Tensor, rows: Any) -> torch.Tensor:
    values = values.clone()
    values[:, rows] = 0
    return values


def test_rows_patched_with_themselves_change_nothing(mllm):
    site = Site(layers="cross", queries="after_image")
    plain = mllm.trace(samples(), reads=[Rows(site)])
    again = mllm.trace(samples(), edits=[PatchRows(site, [one.rows.values for one in plain])])
    assert (again.logits.values == plain.logits.values).all()


def test_samples_of_other_numbers_of_images_run_apart(mllm):
    """A row before the image sees every key, of padding too: beside two images, one image would not be alone."""
    one, two = samples()
    mixed = [one, two.replace(images=[*two.images, *one.images])]
    together = mllm.trace(mixed)
    for i, sample in enumerate(mixed):
        np.testing.assert_allclose(together.logits[i], mllm.trace(sample).logits[0], atol=1e-5)
    assert [tokens.cross.n for tokens in together.tokens] == [4 * 17, 8 * 17]


@pytest.mark.parametrize(
    ("site", "message"),
    [
        (Site(), r"layers='all' names layers of two kinds.*layers='cross'"),
        (Site(layers=[0, 2]), r"self-attention layers have no image keys. Write layers='cross'"),
        (Site(heads=[(0, 1), (1, 1)]), r"layers of two kinds"),
        (
            Site(layers="cross", keys="text"),
            r"keys of cross-attention layers come from the image. Write keys='image'",
        ),
        (Site(layers=[1], keys=("image", "last")), r"keys of cross-attention layers come from the image"),
        (Site(layers="cross", queries="image"), r"image tokens have no rows. Write queries='text'"),
    ],
)
def test_keys_that_a_layer_does_not_have_are_refused(mllm, site, message):
    with pytest.raises(SiteError, match=message):
        mllm.trace(samples(), reads=[Rows(site)])
    with pytest.raises(SiteError, match=message):
        mllm.trace(samples(), edits=[Knockout(site)])


def test_a_row_without_keys_is_refused(mllm):
    whole = Site(layers="cross", queries="last", keys="image")
    for steps in ("prefill", "decode", "all"):
        with pytest.raises(
            EditError, match=r"layer 1, head 0, the row at position \d+ would have every key of the image"
        ):
            mllm.trace(samples(), edits=[Knockout(whole, steps=steps)], generate=2)
    some = [np.arange(tokens.n) > 0 for tokens in mllm.encode(samples()).tokens]
    assert (
        len(mllm.trace(samples(), edits=[Knockout(Site(layers="cross", keys=interp.image_mask(some)))])) == 2
    )


def test_other_models_have_no_cross_attention_layers():
    with pytest.raises(
        SiteError, match=r"layers='cross' selects nothing: the model's 3 layers are of the kind 'attention'"
    ):
        wrap(*tiny("llava")).trace(samples(), reads=[Rows(Site(layers="cross"))])
    assert Site.from_dict(Site(layers="cross").to_dict()) == Site(layers="cross")


def test_what_needs_image_rows_says_so(mllm):
    one = samples()[0]
    for indicator in (
        interp.indicators.AttentionGradient(layers="cross"),
        interp.indicators.InputGradient(),
        interp.indicators.TokenKnockout(layers="cross"),
        interp.indicators.Rollout(),
        interp.indicators.ValueWeightedAttention(layers="cross"),
    ):
        with pytest.raises(
            ModelError,
            match=r"positions of the sequence; the image tokens of mllama are keys of cross-attention",
        ):
            indicator(mllm, one)


def test_its_prefix_serves_nothing_and_changes_nothing(mllm):
    prefix = mllm.prefix(samples())
    assert prefix.keys == ()
    np.testing.assert_allclose(mllm.trace(prefix).logits, mllm.trace(samples()).logits, atol=1e-6)


def test_maps_and_metrics_of_cross_layers(mllm):
    """The relative map and its attention ratio, from rows that were read apart."""
    one = samples()[0].replace(boxes=[(15, 15, 60, 45)])
    maps = interp.indicators.Attention(layers="cross", relative_to=interp.GENERIC_PROMPT)(mllm, one)
    read = [Rows(Site(layers="cross"), reduce="head")]
    rows, generic = (
        mllm.trace(one, prompt, read)[0].rows[:, 0] for prompt in (interp.PAPER_PROMPT, interp.GENERIC_PROMPT)
    )
    np.testing.assert_allclose(maps[0], rows / generic, rtol=1e-4)
    assert maps[0]["layer"].values.tolist() == list(CROSS)
    inside = maps.tokens[0].mask(one.boxes)
    assert inside.sum() == 6
    assert np.isfinite(interp.metrics.attention_ratio(maps[0][0].values, inside))


def test_a_layer_sweep_is_of_the_cross_layers(mllm, tmp_path):
    data = [one.replace(boxes=[(10, 10, 40, 40)], group=str(i)) for i, one in enumerate(samples())]
    sweep = interp.LayerSweep(data=data, model=mllm, indicator=interp.indicators.Attention(layers="cross"))
    result = sweep.run(out=tmp_path)
    assert sorted(set(result.scores["layer"])) == list(CROSS)
    assert result.failures.empty
