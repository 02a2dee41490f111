"""Edits of the vision tower against the same arithmetic written into an eager tower's softmax, down to the answer."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import interp
from interp import Apply, Boost, Guide, Knockout, Rows, ScaleScores, ScaleWeights, Site
from interp.errors import EditError
from interp.tracing import Mllm
from tests.covering import every_family
from tests.tracing.tower_reference import UNREAD, EagerTower, line_lengths, sharp, shown

HEADS = (1,)
SIZES = ([(84, 140)], [(190, 60)], [(84, 140), (90, 60)])


@cache
def model(family: str) -> Mllm:
    return sharp(family)


@cache
def eager(family: str) -> EagerTower:
    return EagerTower.of(family)


@cache
def samples() -> list[interp.Sample]:
    rng = np.random.default_rng(1)
    pictures = [[rng.integers(0, 255, (*size, 3)).astype(np.uint8) for size in sizes] for sizes in SIZES]
    asked = ("is it red?", "where is the nodule in the left lung?", "what is there?")
    return [interp.Sample(images=p, question=q) for p, q in zip(pictures, asked, strict=True)]


@cache
def unedited(family: str):
    """The samples encoded for a family's model, and the logits of their plain pass."""
    batch = model(family).encode(shown(model(family), samples()))
    return batch, model(family).trace(batch).logits.values


def flags(batch, masks) -> np.ndarray:
    """(place in the tower's order,) which are patches of the samples' masks."""
    starts = np.cumsum([0, *(one.length for one in batch.patches)])
    found = np.zeros(starts[-1], bool)
    for one, start, mask in zip(batch.patches, starts[:-1], masks, strict=True):
        found[start + one.slots[one.image[mask]]] = True
    return found


def cells(rows, columns, places, n_heads, heads):
    """(line, head, query, key) where a call has cells of a site."""
    found = torch.from_numpy(rows[places][:, None, :, None] & columns[places][:, None, None, :])
    return found & torch.isin(torch.arange(n_heads), torch.tensor(heads))[None, :, None, None]


def changes(kind, rows, columns, layers, heads):
    """An edit of this kind as changes of the eager tower, by stage."""

    def on(layer, values, places):
        if layer not in layers:
            return values
        mean = values.abs().mean(1, keepdim=True)
        new = {
            "renormalise": torch.full_like(values, -torch.inf),
            "zero": torch.zeros_like(values),
            "weights": 3 * values,
            "scores": 0.25 * values,
            "boost": values + 0.5 * values.abs(),
            "guide": values + 0.5 * mean,
        }[kind]
        return torch.where(cells(rows, columns, places, values.shape[1], heads), new, values)

    return {"probabilities" if kind in ("zero", "weights") else "scores": on}


def edit(kind, site):
    made = {
        "renormalise": lambda: Knockout(site),
        "zero": lambda: Knockout(site, "zero"),
        "weights": lambda: ScaleWeights(site, 3),
        "scores": lambda: ScaleScores(site, 0.25),
        "boost": lambda: Boost(site, 0.5),
        "guide": lambda: Guide(site, 0.5),
    }
    return made[kind]()


KINDS = ["renormalise", "zero", "weights", "scores", "boost", "guide"]


def masks_of(batch, seed, share=0.4):
    rng = np.random.default_rng(seed)
    return [rng.random(one.n) < share for one in batch.patches]


@pytest.mark.by_default(
    family=["llava_next", "qwen2_5_vl", "mistral3"], kind=["renormalise", "weights", "scores", "zero"]
)
@pytest.mark.covering
@pytest.mark.parametrize("layers", [(0,), (0, 1)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", every_family(but=UNREAD))
def test_an_edit_is_the_plain_one(family, kind, layers):
    mllm = model(family)
    batch, plain = unedited(family)
    queries, keys = masks_of(batch, 2), masks_of(batch, 3)
    masks = {"queries": interp.image_mask(queries), "keys": interp.image_mask(keys)}
    site = Site(tower="vision", layers=layers, heads=list(HEADS), **masks)
    every = Rows(Site(tower="vision", layers=[1], queries=masks["queries"], keys="all"))
    trace = mllm.trace(batch, reads=[every], edits=[edit(kind, site)])
    tower = eager(family)
    tower.lengths = line_lengths(batch.patches)
    wanted = tower.logits(
        batch.inputs, **changes(kind, flags(batch, queries), flags(batch, keys), layers, HEADS)
    )
    assert_allclose(trace.logits, wanted, atol=1e-4)
    assert np.abs(trace.logits.values - plain).max() > 2e-4, "the edit changes nothing that is seen"
    dense = tower.dense(1)
    starts = np.cumsum([0, *(one.length for one in batch.patches)])
    for one, own, start in zip(trace, batch.patches, starts[:-1], strict=True):
        at = start + own.slots
        assert_allclose(one.rows[0], dense[:, at[one.rows["query"].values, None], at], atol=2e-5)


def test_an_edit_of_one_sample_leaves_the_others():
    """In Pixtral all images lie in one row of the tower's attention."""
    mllm = model("mistral3")
    batch = mllm.encode(samples())
    keys = [np.zeros(one.n, bool) for one in batch.patches]
    keys[1][3] = True
    site = Site(tower="vision", queries="patches", keys=interp.image_mask(keys))
    edited, plain = mllm.trace(batch, edits=[ScaleWeights(site, 0)]), mllm.trace(batch)
    same = [(a == b).all() for a, b in zip(edited.logits.values, plain.logits.values, strict=True)]
    assert same == [True, False, True]
    nothing = Site(
        tower="vision",
        queries="patches",
        keys=interp.image_mask([np.zeros(one.n, bool) for one in batch.patches]),
    )
    still = mllm.trace(batch, edits=[Knockout(nothing), ScaleWeights(site, 1)])
    assert (still.logits.values == plain.logits.values).all()


def test_a_function_sees_the_cells_of_its_own_image():
    """Sharing out the mass of the site's keys: in one image of two, though both lie in one row of the tower."""
    seen = []

    def flatten(values, cells):
        seen.append(cells.shape)
        share = torch.where(cells, values, 0.0)
        return share.sum(-1, keepdim=True) / cells.sum(-1, keepdim=True).clamp(min=1)

    mllm = model("mistral3")
    site = Site(tower="vision", layers=[0], queries="patches", keys="patches")
    read = Rows(Site(tower="vision", layers=[0], queries="patches", keys="all"))
    batch = mllm.encode(samples())
    trace = mllm.trace(batch, reads=[read], edits=[Apply(site, flatten, stage="probabilities")])
    for one, patches in zip(trace, batch.patches, strict=True):
        for i in np.unique(patches.sequence):
            mine = patches.sequence == i
            assert_allclose(one.rows.values[0][:, mine][:, :, mine], 1 / mine.sum(), rtol=1e-5)
    assert len({shape[-1] for shape in seen}) > 1


def test_the_tower_is_edited_before_any_prefix():
    """A prefix that was run unedited cannot serve; shared prefixes do not hold edited images."""
    mllm, sample = model("llava"), samples()[0]
    site = Site(tower="vision", queries="patches", keys=interp.positions([3, 4, 5]))
    wanted = mllm.trace(sample, edits=[Knockout(site)]).logits.values
    plain = mllm.trace(sample).logits.values
    assert np.abs(wanted - plain).max() > 1e-3
    prefix = mllm.prefix(sample)
    assert (mllm.trace(prefix, edits=[Knockout(site)]).logits.values == wanted).all()
    assert_allclose(mllm.trace(prefix).logits, plain, atol=1e-4)
    both = mllm.trace([sample, samples()[1], sample], edits=[Knockout(site)]).logits.values
    assert_allclose(both[[0, 2]], np.repeat(wanted, 2, axis=0), atol=1e-5)
    assert (
        mllm.answers(sample, edits=[Knockout(site)], generate=3)
        == mllm.trace(sample, edits=[Knockout(site)], generate=3).answers
    )
    scored = mllm.score(sample, interp.Target("yes"), edits=[Knockout(site)])
    assert scored.values[0] != mllm.score(sample, interp.Target("yes")).values[0]


def test_edits_of_tower_and_language_model_go_together():
    """Each part is ordered on its own: a score edit of one may follow a weight edit of the other."""
    mllm, sample = model("llava"), samples()[0]
    tower = Knockout(Site(tower="vision", queries="patches", keys=interp.positions([3])), "zero")
    decoder = Knockout(Site(layers=[1]))
    both = mllm.trace(sample, edits=[tower, decoder]).logits.values
    assert (mllm.trace(sample, edits=[decoder, tower]).logits.values == both).all()
    for alone in (tower, decoder):
        assert np.abs(mllm.trace(sample, edits=[alone]).logits.values - both).max() > 1e-4


@pytest.mark.parametrize("family", ["qwen2_5_vl", "mistral3"])
def test_a_row_without_keys_is_refused(family):
    """Of a window or an image every key is hidden, though others are left."""
    mllm = model(family)
    patches = mllm.encode(samples()[2]).patches[0]
    some = interp.image_mask(patches.sequence[patches.image] == 0)
    site = Site(tower="vision", layers=[0], queries=some, keys=some)
    with pytest.raises(EditError, match="every key of its image or window hidden"):
        mllm.trace(samples()[2], edits=[Knockout(site)])
    rows = mllm.trace(
        samples()[2],
        edits=[Knockout(site, "zero")],
        reads=[Rows(Site(tower="vision", layers=[0], queries=some, keys="all"))],
    )[0].rows
    assert not rows.values.any()


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda s: Knockout(s, steps="all"), "have steps='prefill'"),
        (
            lambda s: interp.PatchRows(s, np.zeros((2, 2, 16, 16))),
            "PatchRows works on the language model alone",
        ),
    ],
)
def test_edits_without_meaning_are_refused(made, words):
    mllm = model("llava")
    with pytest.raises(EditError, match=words):
        mllm.trace(samples()[0], edits=[made(Site(tower="vision", queries="patches"))])
