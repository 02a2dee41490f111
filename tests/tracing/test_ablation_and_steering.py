"""AblateHeads, AddResidual and what is averaged for them, against plain torch hooks on an eager model.

The reference runs each sample alone, without a cache, and every token again at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import Tensor

import interp
import tests.tiny as tiny
from interp.errors import EditError, MapError, ModelError, SiteError
from interp.tracing import AblateHeads, AddResidual, Knockout, Residual, Rows, Site, image_mask
from tests.tracing.reference_attention import Steps, greedy, layers_of

N = 3
PAIRS = [(1, 0), (2, 3)]
DIM = 16


@contextmanager
def hooked(eager: Any, before_o_proj: dict[int, Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Changes what `o_proj` is given, (row, head, dim), in some layers of an eager model."""
    handles = []
    for layer, change in before_o_proj.items():

        def hook(module: Any, given: tuple[Tensor], change: Callable[[Tensor], Tensor] = change) -> Any:
            heads = given[0][0].unflatten(-1, (-1, DIM)).clone()
            return (change(heads).flatten(1)[None],)

        handles.append(layers_of(eager)[layer].self_attn.o_proj.register_forward_pre_hook(hook))
    yield
    for handle in handles:
        handle.remove()


def alone(eager: Any, single: Any, changes: dict[int, Callable[[Tensor], Tensor]]) -> Steps:
    with hooked(eager, changes):
        return greedy(eager, single.inputs, N)


def put(head: int, rows: slice, value: Tensor) -> Callable[[Tensor], Tensor]:
    """Puts a value into a head's output at some rows."""

    def change(heads: Tensor) -> Tensor:
        heads[rows, head] = value
        return heads

    return change


ROWS = {
    "last": ("last", "prefill", lambda length: slice(length - 1, length)),
    "every row": ("all", "prefill", lambda length: slice(0, length)),
    "generated too": (["after_image", "last"], "all", lambda length: slice(-1, None)),
    "generated alone": ("last", "decode", lambda length: slice(length, None)),
}


def rows_of(case: str, tokens: Any) -> slice:
    if case == "generated too":
        return slice(int(tokens.positions("after_image")[0]), None)
    return ROWS[case][2](tokens.length)


@pytest.mark.covering
@pytest.mark.parametrize("case", ROWS)
@pytest.mark.parametrize("by", ["zero", "mean"])
def test_ablated_heads_are_hooks_before_o_proj(mllm, eager, batch, case, by):
    queries, steps, _ = ROWS[case]
    site = Site(heads=PAIRS, queries=queries)
    means = np.random.default_rng(0).normal(0, 1, (2, DIM)).astype(np.float32) if by == "mean" else None
    edit = AblateHeads(site, by=by, means=means, steps=steps)
    value = torch.zeros(2, DIM) if means is None else torch.from_numpy(means)
    plain = mllm.trace(batch, generate=N)
    traces = [
        mllm.trace(batch, edits=[edit], generate=N),
        mllm.using("source").trace(batch, edits=[edit], generate=N),
        mllm.trace(mllm.prefix(batch), edits=[edit], generate=N),
    ]
    for i, tokens in enumerate(batch.tokens):
        at = rows_of(case, tokens)
        reference = alone(
            eager,
            batch.singles[i],
            {layer: put(head, at, value[k]) for k, (layer, head) in enumerate(PAIRS)},
        )
        for trace in traces:
            assert_allclose(trace.logits[i], reference.logits[0], atol=1e-5, rtol=1e-5)
            n = len(trace[i].ids)
            assert list(trace[i].ids) == reference.ids[:n]
        if steps != "decode":
            assert np.abs(traces[0].logits[i] - plain.logits[i]).max() > 1e-4
    if steps == "prefill" and queries == "last":  # rows after the image alone: the prefix served
        assert traces[2].cost.tokens < traces[0].cost.tokens


def test_an_ablation_of_rows_in_the_prefix_runs_whole_prompts(mllm, batch):
    prefix = mllm.prefix(batch)
    inside, after = (AblateHeads(Site(heads=PAIRS, queries=q)) for q in ("image", "after_image"))
    whole = sum(tokens.length for tokens in batch.tokens)
    assert mllm.trace(prefix, edits=[inside]).cost.tokens >= whole
    assert mllm.trace(prefix, edits=[after]).cost.tokens < whole
    vector = np.ones(64)
    assert mllm.trace(prefix, edits=[AddResidual([1], "image", vector)]).cost.tokens >= whole
    assert mllm.trace(prefix, edits=[AddResidual([1], "question", vector)]).cost.tokens < whole


def test_each_sample_has_its_own_means_and_streams(mllm, batch):
    """Of several samples in one pass, in micro-batches, and each alone."""
    draw = np.random.default_rng(2)
    means = [draw.normal(0, 1, (2, DIM)).astype(np.float32) for _ in range(len(batch))]
    streams = [draw.normal(0, 1, (1, 1, 64)).astype(np.float32) for _ in range(len(batch))]

    def logits(samples: Any, at: slice, **how: Any) -> np.ndarray:
        edits = [
            AblateHeads(Site(heads=PAIRS), "mean", means[at]),
            interp.PatchResidual([0], "last", streams[at]),
        ]
        return mllm.trace(samples, edits=edits, **how).logits.values

    together = logits(batch, slice(None))
    assert_allclose(logits(batch, slice(None), batch_size=2), together, atol=1e-5)
    for i, sample in enumerate(tiny.samples()):
        assert_allclose(logits([sample], slice(i, i + 1))[0], together[i], atol=1e-5)


def test_zero_is_a_knockout_of_all_keys_and_more_in_decode(mllm, batch):
    ablated, hidden = (
        [AblateHeads(Site(heads=PAIRS), steps="all")],
        [Knockout(Site(heads=PAIRS, keys="all"), "zero", "all")],
    )
    reads = [Rows(Site(layers=[1, 2], keys="all"))]
    mine, other = (mllm.trace(batch, reads=reads, edits=edits, generate=N) for edits in (ablated, hidden))
    assert_allclose(mine.logits, other.logits, atol=1e-5)
    plain = mllm.trace(batch, reads=reads)
    assert_allclose(mine[0].rows[0, 0], plain[0].rows[0], atol=1e-7)  # the weights are not touched
    assert np.abs(other[0].rows[0, 0, 0]).max() == 0
    two = mllm.trace(batch, reads=[Residual("all", "last")], edits=ablated, generate=N)
    three = mllm.trace(batch, reads=[Residual("all", "last")], edits=hidden, generate=N)
    assert np.abs(two[0].residual[2] - three[0].residual[2]).max() > 1e-4  # keys of generated tokens


def test_head_means_are_eagers(mllm, eager, batch):
    """Over a sample's rows, then over samples; pairs in the order given."""
    site = Site(heads=[(2, 3), (1, 0)], queries="after_image")
    found = interp.head_means(mllm, batch, site, batch_size=2, progress=False)
    kept: dict[int, list[Tensor]] = {1: [], 2: []}
    for single, tokens in zip(batch.singles, batch.tokens, strict=True):
        first = int(tokens.positions("after_image")[0])

        def keep(layer: int, first: int = first) -> Callable[[Tensor], Tensor]:
            return lambda heads: (kept[layer].append(heads[first:].mean(0)), heads)[1]

        with torch.no_grad(), hooked(eager, {layer: keep(layer) for layer in kept}):
            eager(**single.inputs)
    wanted = [torch.stack(kept[layer]).mean(0)[head] for layer, head in [(2, 3), (1, 0)]]
    assert_allclose(found, torch.stack(wanted), atol=1e-6)
    grid = interp.head_means(mllm, batch, Site(layers=[1, 2], queries="after_image"), progress=False)
    assert_allclose(grid[[1, 0], [3, 0]], found, atol=1e-6)


def test_samples_without_a_row_are_left_out_of_the_means(mllm):
    first, second, _ = tiny.samples()
    some, none = np.arange(16) < 2, np.zeros(16, bool)

    def means(samples, *masks, **heads):
        site = Site(queries=image_mask(masks), **heads)
        return interp.head_means(mllm, samples, site, progress=False)

    found = means([first, second], some, none, heads=[(1, 0), (1, 3)])
    assert_allclose(found, means([first], some, heads=[(1, 0), (1, 3)]), atol=1e-6)
    assert_allclose(means([first], some, layers=[1], heads=[3, 0])[0], found[::-1], atol=1e-6)
    with pytest.raises(ModelError, match="names no row in any sample, so there is nothing to average"):
        means([second], none, layers=[1])


@pytest.mark.parametrize("case", ROWS)
def test_what_is_added_to_the_stream_is_a_hook_on_the_layer(mllm, eager, batch, case):
    queries, steps, _ = ROWS[case]
    vectors = np.random.default_rng(1).normal(0, 0.3, (2, 64)).astype(np.float32)
    edit = AddResidual([0, 2], queries, vectors, alpha=-1.5, steps=steps)
    reads = [Residual([0], "last")]
    traces = [
        mllm.trace(batch, reads=reads, edits=[edit], generate=N),
        mllm.using("source").trace(batch, reads=reads, edits=[edit], generate=N),
        mllm.trace(mllm.prefix(batch), reads=reads, edits=[edit], generate=N),
    ]
    for i, tokens in enumerate(batch.tokens):
        at, streams = rows_of(case, tokens), []

        def hook(module: Any, given: Any, output: Any, k: int, at: slice = at, streams: Any = streams) -> Any:
            stream = (output[0] if isinstance(output, tuple) else output).clone()
            stream[0, at] += -1.5 * torch.from_numpy(vectors[k])
            if k == 0:
                streams.append(stream[0, -1])
            return (stream, *output[1:]) if isinstance(output, tuple) else stream

        handles = [
            layers_of(eager)[layer].register_forward_hook(lambda m, g, o, k=k, h=hook: h(m, g, o, k))
            for k, layer in enumerate((0, 2))
        ]
        reference = greedy(eager, batch.singles[i].inputs, N)
        for handle in handles:
            handle.remove()
        for trace in traces:
            assert_allclose(trace.logits[i], reference.logits[0], atol=1e-5, rtol=1e-5)
            n = trace[i].residual.sizes["step"]
            assert_allclose(trace[i].residual[:, 0, 0], torch.stack(streams[:n]), atol=1e-5)


def test_each_sample_has_its_own_vector_in_micro_batches_too(mllm, batch):
    own = [np.full(64, i * 0.1) for i in range(len(batch))]
    edit = AddResidual([1], "last", own)
    together = mllm.trace(batch, edits=[edit])
    one_by_one = mllm.trace(batch, edits=[edit], batch_size=1)
    assert_allclose(together.logits, one_by_one.logits, atol=1e-5)
    plain = mllm.trace(batch)
    assert_array_equal(together.logits[0], plain.logits[0])  # a vector of zeros changes no bit
    assert np.abs(together.logits[2] - plain.logits[2]).max() > 1e-3
    assert_array_equal(mllm.trace(batch, edits=[AddResidual([1], "last", own[2], 0)]).logits, plain.logits)


def test_a_steering_vector_is_the_mean_difference_and_steers(mllm, tmp_path):
    samples = tiny.samples()
    positive, negative = samples[:2], [samples[2], samples[0]]
    found = interp.steering_vector(
        mllm, positive, negative, layers=[2, 0], positions="question", progress=False
    )
    streams = {
        name: [mllm.trace(s, reads=[Residual([2, 0], "question")])[0].residual.mean("position") for s in some]
        for name, some in (("positive", positive), ("negative", negative))
    }
    differences = np.array(streams["positive"]) - np.array(streams["negative"])
    assert_allclose(found.vectors, differences.mean(0), atol=1e-5)
    cosine = np.sum(differences[0] * differences[1], 1) / np.prod(np.linalg.norm(differences, axis=2), axis=0)
    assert_allclose(found.agreement, cosine, atol=1e-5)
    assert found.layers == (2, 0)
    assert found.n_pairs == 2
    again = interp.load_steering_vector(found.save(tmp_path / "v.safetensors"))
    assert_array_equal(again.vectors, found.vectors)
    assert again.edit(0, 2.0) == found.edit(0, 2.0) == AddResidual([0], "last", found.vectors[1], 2.0)
    one = interp.steering_vector(mllm, samples[0], samples[2], layers=[2], progress=False)
    assert np.isnan(one.agreement).all()
    moved = mllm.trace(samples[2], reads=[Residual([2], "last")], edits=[one.edit(2)])
    there = mllm.trace(samples[0], reads=[Residual([2], "last")])
    assert_allclose(moved[0].residual, there[0].residual, atol=1e-5)
    assert_allclose(moved.logits, there.logits, atol=1e-4)  # after the last layer nothing else is left


MISUSE = [
    (lambda: AblateHeads([0]), EditError, r"takes a Site first, such as Site\(heads="),
    (lambda: AblateHeads(Site(keys="question")), EditError, r"over all keys; got keys=.*interp.Knockout"),
    (lambda: AblateHeads(Site(tower="vision", queries="all")), EditError, r"heads of the language model"),
    (lambda: AblateHeads(Site(), by="median"), EditError, r'by is "zero" or "mean"; got \'median\''),
    (
        lambda: AblateHeads(Site(), by="mean"),
        EditError,
        r"got by='mean'.*interp.head_means\(mllm, samples, site\)",
    ),
    (
        lambda: AblateHeads(Site(), means=np.ones((1, 1, 2))),
        EditError,
        r"got by='zero' and means of type ndarray",
    ),
    (
        lambda: AblateHeads(Site(), by="mean", means=np.ones(3)),
        EditError,
        r"values are an array of 3 dimensions",
    ),
    (
        lambda: AblateHeads(Site(queries="all"), steps="all"),
        EditError,
        r'as "last"; got \(\'all\',\) with steps',
    ),
    (
        lambda: AddResidual([0], "text", np.ones(3), steps="decode"),
        EditError,
        r'queries that name rows of generated tokens, "last"',
    ),
    (
        lambda: AddResidual([0], ["answer", "last"], np.ones(3), steps="all"),
        EditError,
        r"each generated token as",
    ),
    (lambda: AddResidual([0], "last", [np.nan]), EditError, r"values must be finite"),
    (
        lambda: AddResidual([0], "last", np.ones((2, 3, 4, 5))),
        EditError,
        r"values are an array of 2 dimensions",
    ),
    (lambda: AddResidual([0], "last", np.ones(3), alpha=np.inf), EditError, r"alpha is a finite number"),
    (lambda: interp.steering_vector(None, [], []), ModelError, r"takes a model of interp.load"),
    (lambda: interp.load_steering_vector("nowhere.safetensors"), MapError, r"nowhere.safetensors"),
]


@pytest.mark.parametrize(("make", "error", "message"), MISUSE)
def test_misuse_is_explained(make, error, message, unchecked):
    with pytest.raises(error, match=message):
        make()


IN_A_TRACE = [
    (AddResidual([0], "last", np.ones(9)), EditError, r"stream has 64 values.*vector of AddResidual has 9"),
    (
        AddResidual([0], "last", np.ones((2, 64))),
        EditError,
        r"names 1 layer; its vector has shape \(2, 64\)",
    ),
    (AddResidual([7], "last", np.ones(64)), SiteError, r"got layer 7"),
    (AblateHeads(Site(heads=[(0, 9)])), SiteError, r"got head 9"),
    (
        AblateHeads(Site(layers=[0]), "mean", np.ones((1, 3, DIM))),
        EditError,
        r"with shape \(1, 4\) before dim",
    ),
    (AblateHeads(Site(layers=[0]), "mean", np.ones((1, 4, 5))), EditError, r"output has 16 values.*have 5"),
]


@pytest.mark.parametrize(("edit", "error", "message"), IN_A_TRACE)
def test_what_does_not_fit_the_model_is_explained(mllm, batch, edit, error, message):
    with pytest.raises(error, match=message):
        mllm.trace(batch, edits=[edit])


def test_pairs_and_files_that_do_not_fit_are_explained(mllm, tmp_path):
    one, two, _ = tiny.samples()
    with pytest.raises(ModelError, match=r"as many positive as negative samples.*got 2 and 1"):
        interp.steering_vector(mllm, [one, two], [one])
    with pytest.raises(SiteError, match=r"has layers \[1\]; got 0"):
        interp.steering_vector(mllm, one, two, layers=[1], progress=False).edit(0)
    path = interp.steering_vector(mllm, one, two, layers=[1], progress=False).save(tmp_path / "v.safetensors")
    with pytest.raises(MapError, match=r"interp.load_steering_vector"):
        interp.load_maps(path)


def test_they_are_json_that_tells_them_apart():
    site = Site(heads=PAIRS)
    edits = [
        AblateHeads(site),
        AblateHeads(site, steps="all"),
        AblateHeads(site, "mean", np.zeros((2, DIM))),
        AblateHeads(site, "mean", np.ones((2, DIM))),
        AddResidual([1], "last", np.ones(4)),
        AddResidual([1], "last", np.ones(4), 2),
        AddResidual([1], "last", np.zeros(4)),
        AddResidual([2], "last", np.ones(4)),
    ]
    assert len({str(edit.to_dict()) for edit in edits}) == len(set(edits)) == len(edits)
