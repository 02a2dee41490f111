"""Every edit, in prefill and in decode, against the same arithmetic written into an eager model's softmax.

Three samples left-padded in one batch on one side; on the other each alone, without cache, every token of every
step computed again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor

import interp
from interp.conformance.tiny import tiny
from interp.inputs.tokens import TokenMap
from interp.tracing import (
    Apply,
    Boost,
    Edit,
    Guide,
    Knockout,
    Mllm,
    PatchResidual,
    PatchRows,
    Residual,
    Rows,
    ScaleScores,
    ScaleWeights,
    Site,
    Trace,
    wrap,
)
from tests.covering import ATTENDING, every_family
from tests.tiny import uneven_samples as samples
from tests.tracing.reference_attention import Changes, Steps, greedy
from tests.tracing.site_cells import Where

N = 3
LAYERS, HEADS = (1, 2), (0, 3)
AFTER = ("after_image", "answer")


@pytest.fixture(scope="module", params=["llava", "qwen2_5_vl", "gemma3"])
def mllm(request) -> Mllm:
    return wrap(*tiny(request.param))


@pytest.fixture(scope="module")
def eager(mllm) -> Any:
    return tiny(mllm.family, "eager")[0]


@pytest.fixture(scope="module")
def tokens(mllm) -> tuple[TokenMap, ...]:
    return mllm.encode(samples()).tokens


@pytest.fixture(scope="module")
def masks(tokens) -> list[np.ndarray]:
    return [(np.arange(t.n) + i) % 3 > 0 for i, t in enumerate(tokens)]


def alone(mllm: Mllm, eager: Any, i: int, changes: Changes | None = None) -> Steps:
    return greedy(eager, mllm.encode(samples()[i]).inputs, N, changes=changes)


def squash(values: Tensor, cells: Tensor) -> Tensor:
    return torch.tanh(values / 2) + 0.1


def even(values: Tensor, cells: Tensor) -> Tensor:
    """The cells of a row share their mass evenly."""
    share = torch.where(cells, values, torch.zeros(()))
    return share.sum(-1, keepdim=True) / cells.sum(-1, keepdim=True).clamp(min=1)


CASES: dict[str, tuple[Callable[[Site], Edit], str, Callable[[Tensor], Tensor], dict[str, Any]]] = {
    "scale": (
        lambda site: ScaleWeights(site, 1.7, "all"),
        "probabilities",
        lambda p: p * 1.7,
        {"rows": "after_image", "steps": "all", "heads": HEADS},
    ),
    "temper": (
        lambda site: ScaleScores(site, 0.3, "all"),
        "scores",
        lambda e: e * 0.3,
        {"rows": "last", "steps": "all"},
    ),
    "temper in the prompt": (
        lambda site: ScaleScores(site, 2.5),
        "scores",
        lambda e: e * 2.5,
        {"rows": "after_image", "steps": "prefill"},
    ),
    "boost": (
        lambda site: Boost(site, 0.6, "all"),
        "scores",
        lambda e: e + 0.6 * e.abs(),
        {"rows": "last", "steps": "all"},
    ),
    "boost in decode": (
        lambda site: Boost(site, -0.6, "decode"),
        "scores",
        lambda e: e - 0.6 * e.abs(),
        {"rows": "after_image", "steps": "decode", "heads": HEADS},
    ),
    "guide": (
        lambda site: Guide(site, 0.5, "all"),
        "scores",
        lambda e: e + 0.5 * e.abs().mean(0, keepdim=True),
        {"rows": "last", "steps": "all", "heads": HEADS},
    ),
    "apply to scores": (
        lambda site: Apply(site, squash, "scores", "all"),
        "scores",
        lambda e: torch.tanh(e / 2) + 0.1,
        {"rows": "after_image", "steps": "all", "heads": HEADS},
    ),
}


@pytest.mark.covering
@pytest.mark.parametrize("executor", ["tap", "source"])
@pytest.mark.parametrize("case", CASES)
def test_edits_are_eagers_with_the_formula_in_its_softmax(mllm, eager, tokens, masks, case, executor):
    make, stage, new, where = CASES[case]
    queries = "last" if where["rows"] == "last" else AFTER if where["steps"] != "prefill" else "after_image"
    keys = interp.image_mask(masks)
    edit = make(
        Site(
            layers=LAYERS, heads=[*where["heads"]] if "heads" in where else "all", queries=queries, keys=keys
        )
    )
    cells = [Where(t, t.image[mask], **where) for t, mask in zip(tokens, masks, strict=True)]
    changes = [Changes(**{stage: one.change(new)}) for one in cells]
    check(mllm.using(executor), eager, [edit], changes, moved=where["steps"] != "decode")


def check(mllm: Mllm, eager: Any, edits: list[Edit], changes: list[Changes], *, moved: bool = True) -> None:
    """Logits, rows of every step and tokens: batched and padded, after a prefix, and alone."""
    read = [Rows(Site(queries="last", keys="all"))]
    plain = mllm.trace(samples(), reads=read, generate=N)
    together = mllm.trace(samples(), reads=read, edits=edits, generate=N)
    after = mllm.trace(mllm.prefix(samples()), reads=read, edits=edits, generate=N)
    for i, change in enumerate(changes):
        reference = alone(mllm, eager, i, change)
        text = mllm.processor.tokenizer.decode(reference.ids, skip_special_tokens=True).strip()
        length = together.tokens[i].length
        for trace in (together, after):
            assert_allclose(trace.logits[i], reference.logits[0], atol=1e-5, rtol=1e-5)
            assert trace.answers[i] == text
            for step in range(trace[i].rows.sizes["step"]):
                row = reference.attention[step][:, :, -1, :length]
                assert_allclose(trace[i].rows[step, :, :, 0], row, atol=3e-6)
        if reference.ids and (len(reference.ids) > 1 or moved):
            assert difference(plain, together, i) > 1e-4


def difference(plain: Trace, edited: Trace, i: int) -> float:
    """How much an edit changes of a sample's logits and rows, of the steps both have."""
    before, after = (trace[i].rows.values for trace in (plain, edited))
    n = min(len(before), len(after))
    rows = np.abs(before[:n] - after[:n]).max()
    return max(float(rows), float(np.abs(plain.logits[i] - edited.logits[i]).max()))


def test_one_sample_alone_is_edited_the_same(mllm, eager, tokens, masks):
    for i, (own, mask) in enumerate(zip(tokens, masks, strict=True)):
        site = Site(layers=LAYERS, queries="last", keys=interp.image_mask(mask))
        edits = [Boost(site, 0.6, "all"), ScaleWeights(site, 0.5, "all")]
        where = Where(own, own.image[mask], "last", "all")
        changes = Changes(where.change(lambda e: e + 0.6 * e.abs()), where.change(lambda p: 0.5 * p))
        reference = alone(mllm, eager, i, changes)
        trace = mllm.trace(samples()[i], edits=edits, generate=N)
        assert_allclose(trace.logits[0], reference.logits[0], atol=1e-5, rtol=1e-5)
        assert (
            trace.answers[0]
            == mllm.processor.tokenizer.decode(reference.ids, skip_special_tokens=True).strip()
        )


@pytest.mark.by_default(family=ATTENDING)
@pytest.mark.parametrize("family", every_family(maps="self"))
def test_every_family_is_edited_the_same(family):
    """A score, a probability and the stream, in the prompt and in decode."""
    mllm, eager = wrap(*tiny(family)), tiny(family, "eager")[0]
    text = mllm.hf.config.get_text_config()
    hidden = text.hidden_size * getattr(text, "altup_num_inputs", 1)  # Gemma 3n has four streams
    stream = np.random.default_rng(3).normal(0, 0.3, (N, 1, 1, hidden)).astype(np.float32)
    layers = mllm.attention_layers[1:3] or mllm.attention_layers
    site = Site(layers=layers, heads=[*HEADS])
    edits = [
        Boost(site, 0.6, "all"),
        ScaleWeights(site, 0.5, "all"),
        PatchResidual([0], "last", stream, "all"),
    ]
    trace = mllm.trace(samples(), edits=edits, generate=N)
    for i, own in enumerate(trace.tokens):

        def put(layer, values, own=own):
            for step in (s for s in range(N) if layer == 0 and own.length - 1 + s < len(values)):
                values[own.length - 1 + step] = torch.from_numpy(stream[step, 0, 0])
            return values

        where = Where(own, own.image, "last", "all", HEADS, layers)
        boost, scale = where.change(lambda e: e + 0.6 * e.abs()), where.change(lambda p: 0.5 * p)
        kind = int(mllm.visibility.attends == "prefix")
        inputs = mllm.encode(samples()[i]).inputs
        reference = greedy(eager, inputs, N, type_of_generated=kind, changes=Changes(boost, scale, put))
        # float32 sums in another order: 1.8e-5 on Gemma 4, whose logits are up to 6
        assert_allclose(trace.logits[i], reference.logits[0], atol=3e-5, rtol=1e-5)
        text = mllm.processor.tokenizer.decode(reference.ids, skip_special_tokens=True).strip()
        assert trace.answers[i] == text


def test_both_stages_compose_in_their_order(mllm, eager, tokens, masks):
    """Guide sees what Boost and ScaleScores left, keys knocked out included; ScaleWeights and Apply come last."""
    first, last = (
        Site(layers=LAYERS, keys=interp.image_mask(masks)),
        Site(layers=LAYERS, heads=[*HEADS], keys="all"),
    )
    edits = [
        Boost(first, 0.4, "all"),
        Knockout(Site(layers=[2], heads=[1], keys=interp.image_mask(masks)), "renormalise", "all"),
        ScaleScores(last, 1.3, "all"),
        Guide(first, 0.3, "all"),
        ScaleWeights(first, 0.7, "all"),
        Apply(last, even, "probabilities", "all"),
    ]
    changes = []
    for own, mask in zip(tokens, masks, strict=True):
        image = Where(own, own.image[mask], "last", "all")
        every = Where(own, np.arange(own.length), "last", "all", HEADS)
        gone = Where(own, own.image[mask], "last", "all", (1,), (2,))
        before = [
            image.change(lambda e: e + 0.4 * e.abs()),
            every.change(lambda e: 1.3 * e),
            image.change(lambda e: e + 0.3 * e.abs().mean(0, keepdim=True)),
            gone.change(lambda e: torch.full_like(e, -torch.inf)),
        ]
        after = [
            image.change(lambda p: 0.7 * p),
            lambda layer, p, every=every: every.change(lambda p: even(p, every.cells(p.shape[-1])))(layer, p),
        ]
        changes.append(Changes(chain(before), chain(after)))
    trace = mllm.trace(samples(), edits=edits)
    if mllm.visibility.narrowest is None:  # an even share would also reach keys outside a sliding window
        check(mllm, eager, edits, changes)
    assert np.isfinite(trace.logits).all()


def chain(steps: list[Callable[[int, Tensor], Tensor]]) -> Callable[[int, Tensor], Tensor]:
    def run(layer: int, values: Tensor) -> Tensor:
        for step in steps:
            values = step(layer, values)
        return values

    return run


@pytest.mark.covering
@pytest.mark.parametrize("executor", ["tap", "source"])
@pytest.mark.parametrize("steps", ["prefill", "all", "decode"])
def test_patched_rows(mllm, eager, tokens, masks, steps, executor):
    rng = np.random.default_rng(1)
    n_steps = () if steps == "prefill" else (N,)
    given = [
        rng.uniform(0, 0.2, (*n_steps, len(LAYERS), len(HEADS), 1, int(mask.sum()))).astype(np.float32)
        for mask in masks
    ]
    site = Site(layers=LAYERS, heads=[*HEADS], queries="last", keys=interp.image_mask(masks))
    changes = []
    for own, mask, values in zip(tokens, masks, given, strict=True):

        def put(layer, p, own=own, mask=mask, values=values):
            if layer not in LAYERS:
                return p
            p = p.clone()
            rows = {"prefill": [0], "all": range(N), "decode": range(1, N)}[steps]
            for step in (s for s in rows if own.length - 1 + s < p.shape[1]):
                line = values if steps == "prefill" else values[step]
                for place, head in enumerate(HEADS):
                    row = p[head, own.length - 1 + step]
                    keys = torch.tensor(own.image[mask])
                    seen = row[keys] > 0  # outside a sliding window rows keep their zeros
                    row[keys[seen]] = torch.from_numpy(line[LAYERS.index(layer), place, 0])[seen]
            return p

        changes.append(Changes(probabilities=put))
    edit = PatchRows(site, given, steps)
    check(mllm.using(executor), eager, [edit], changes, moved=steps != "decode")


@pytest.mark.covering
@pytest.mark.parametrize("executor", ["tap", "source"])
@pytest.mark.parametrize("steps", ["prefill", "all"])
def test_the_patched_stream(mllm, eager, tokens, steps, executor):
    rng, layers = np.random.default_rng(2), (0, 1)
    hidden = mllm.hf.config.get_text_config().hidden_size
    positions = "after_image" if steps == "prefill" else "last"
    rows = [t.positions(positions) for t in tokens]
    n_steps = () if steps == "prefill" else (N,)
    given = [rng.normal(0, 0.3, (*n_steps, 2, len(at), hidden)).astype(np.float32) for at in rows]
    changes = []
    for at, values in zip(rows, given, strict=True):

        def put(layer, stream, at=at, values=values):
            if layer not in layers:
                return stream
            stream = stream.clone()
            if steps == "prefill":
                stream[torch.tensor(at)] = torch.from_numpy(values[layers.index(layer)])
            else:
                for step in (s for s in range(N) if at[0] + s < len(stream)):
                    stream[at[0] + step] = torch.from_numpy(values[step, layers.index(layer), 0])
            return stream

        changes.append(Changes(stream=put))
    check(mllm.using(executor), eager, [PatchResidual(layers, positions, given, steps)], changes)


@pytest.mark.covering
@pytest.mark.parametrize("executor", ["tap", "source"])
def test_the_stream_that_is_read_is_what_layers_return(mllm, eager, tokens, executor):
    found: list[dict[int, np.ndarray]] = []
    for i in range(3):
        kept: dict[int, np.ndarray] = {}

        def keep(layer, stream, kept=kept):
            kept[layer] = stream.numpy().copy()
            return stream

        greedy(eager, mllm.encode(samples()[i]).inputs, 1, changes=Changes(stream=keep))
        found.append(kept)
    trace = mllm.using(executor).trace(samples(), reads=[Residual([2, 0], ("question", "last"))])
    after = mllm.using(executor).trace(mllm.prefix(samples()), reads=[Residual([2, 0], ("question", "last"))])
    for i, kept in enumerate(found):
        for one in (trace[i].residual, after[i].residual):
            assert one.dims == ("layer", "position", "hidden")
            for layer in (2, 0):
                expected = kept[layer][one.position.values]
                assert_allclose(one.sel(layer=layer), expected, atol=2e-5, rtol=1e-4)


@pytest.mark.covering
@pytest.mark.parametrize("executor", ["tap", "source"])
@pytest.mark.parametrize("mode", ["renormalise", "zero"])
def test_keys_behind_a_sliding_window_are_nothing_to_edit(executor, mode):
    """Bit-equal in the prompt and at every step, for knockouts and scales, of few rows and of most."""
    mllm = wrap(*tiny("gemma3")).using(executor)
    windowed = [i for i, window in enumerate(mllm.visibility.windows) if window is not None]
    reads = [Rows(Site(queries="last", keys="all"))]
    plain = mllm.trace(samples(), reads=reads, generate=4)
    early = interp.positions([0, 1])
    assert all((one.rows.sel(layer=windowed, key=[0, 1]) == 0).all() for one in plain)
    for queries in ("last", "after_image"):
        site = Site(layers=windowed, queries=queries, keys=early)
        for edit in (Knockout(site, mode, "all"), ScaleWeights(site, 3.0, "all")):
            trace = mllm.trace(samples(), reads=reads, edits=[edit], generate=4)
            assert np.array_equal(trace.logits, plain.logits)
            assert all(np.array_equal(a.rows, b.rows) for a, b in zip(trace, plain, strict=True))
