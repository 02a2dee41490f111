"""Rows and edits of the vision tower against an eager tower, on every family."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import interp
from interp import Apply, Boost, Guide, Knockout, Rows, ScaleScores, ScaleWeights, Site
from interp.conformance.tiny import families, tiny
from interp.errors import EditError, ModelError, SiteError
from interp.models.families.gemma import Gemma3
from interp.tracing import Mllm, wrap
from interp.tracing.attention.rows import Call
from interp.tracing.layers.layer_plan import Recorder
from interp.tracing.layers.vision_request import Tower, vision_edits, vision_selection
from interp.tracing.vision_tower import make_vision_work
from tests.covering import every_family
from tests.tracing.tower_reference import UNREAD, EagerTower, line_lengths, sharp, shown

SIZES = (
    [(84, 140)],
    [(190, 60)],
    [(84, 140), (90, 60)],
)
EVERY = Rows(Site(tower="vision", queries="all", keys="all"))


@cache
def model(family: str) -> Mllm:
    return sharp(family)


@cache
def samples() -> list[interp.Sample]:
    rng = np.random.default_rng(0)
    pictures = [[rng.integers(0, 255, (*size, 3)).astype(np.uint8) for size in sizes] for sizes in SIZES]
    asked = ("is it red?", "where is the nodule in the left lung?", "what is there?")
    return [interp.Sample(images=p, question=q) for p, q in zip(pictures, asked, strict=True)]


@pytest.mark.by_default(family=["llava_next", "qwen2_5_vl", "mistral3", "gemma4"])
@pytest.mark.parametrize("family", every_family(but=UNREAD))
def test_rows_are_an_eager_towers(family):
    mllm, eager = model(family), EagerTower.of(family)
    batch = mllm.encode(shown(mllm, samples()))
    eager.lengths = line_lengths(batch.patches)
    some = interp.image_mask([np.arange(one.n) % 5 == 1 for one in batch.patches])
    plain = mllm.trace(batch)
    trace = mllm.trace(batch, reads=[Rows(Site(tower="vision", queries=some, keys="all"))])
    assert (trace.logits.values == plain.logits.values).all(), "reading changed the answer"
    eager.logits(batch.inputs)
    starts = np.cumsum([0, *(one.length for one in batch.patches)])
    for layer in range(mllm.n_vision_layers):
        dense = eager.dense(layer)
        assert len(dense[0]) == starts[-1]
        assert dense.max() > 4 * dense[0, 0].mean(), "the tower's rows are too even to show a mistake"
        for own, start, one in zip(batch.patches, starts[:-1], trace, strict=True):
            at = start + own.slots
            assert_allclose(
                one.rows.values[layer], dense[:, at[one.rows["query"].values, None], at], atol=3e-6
            )


@pytest.mark.by_default(family=["qwen2_5_vl"])
@pytest.mark.parametrize("family", ["llava_next", "qwen2_5_vl", "mistral3"])
def test_rows_do_not_depend_on_the_batch(family):
    mllm = model(family)
    together = mllm.trace(samples(), reads=[EVERY])
    for one, sample in zip(together, samples(), strict=True):
        alone = mllm.trace(sample, reads=[EVERY], generate=2)[0]
        assert alone.rows.dims == one.rows.dims, "the tower runs once, so rows have no steps"
        assert_allclose(alone.rows, one.rows, atol=1e-6)


def test_a_part_of_the_rows_is_that_part():
    """Some layers, heads, rows and columns; averaged heads; (layer, head) pairs."""
    mllm = model("qwen2_5_vl")
    whole = mllm.trace(samples(), reads=[EVERY])
    masks = [np.arange(one.n) % 3 == 0 for one in mllm.encode(samples()).patches]
    site = Site(
        tower="vision",
        layers=[1],
        heads=[1, 0],
        queries=interp.positions([7, 2]),
        keys=interp.image_mask(masks),
    )
    pairs = Site(tower="vision", heads=[(1, 0), (0, 1)], queries=interp.positions([5]), keys="patches")
    trace = mllm.trace(samples(), reads=[Rows(site), Rows(site, reduce="head"), Rows(pairs)])
    for one, full, mask in zip(trace, whole, masks, strict=True):
        some, mean, paired = one.reads
        wanted = full.rows.values[1][[1, 0]][:, [2, 7]][:, :, mask]
        assert_allclose(some[0], wanted, atol=1e-6)
        assert_allclose(mean[0], wanted.mean(axis=0), atol=1e-6)
        assert some.dims == ("layer", "head", "query", "patch")
        assert some["patch"].values.tolist() == np.flatnonzero(mask).tolist()
        both = [full.rows.values[1, 0, 5], full.rows.values[0, 1, 5]]
        assert_allclose(paired.values[:, 0], both, atol=1e-6)


def test_class_tokens_have_names_and_labels():
    mllm = model("llava_next")
    rows = mllm.trace(samples()[0], reads=[Rows(Site(tower="vision", queries="cls", keys="all"))])[0].rows
    patches = mllm.encode(samples()[0]).patches[0]
    assert rows.dims[-1] == "key"
    assert rows.sizes["query"] == patches.sequence.max() + 1, "one class token a view"
    assert rows["view"].values.tolist() == patches.labels.tolist()
    assert set(rows["view"].values) == {"cls", "base", "tile"}
    for i, row in enumerate(rows.transpose("query", ...).values):
        assert_allclose(row[..., patches.sequence == i].sum(-1), 1, atol=1e-6)
        assert not row[..., patches.sequence != i].any(), "a view sees no other view"


def test_equal_samples_and_a_prefix_read_the_same():
    """The tower runs before any prefix, so a trace that reads it runs whole prompts; equal prompts run once."""
    mllm, sample = model("llava"), samples()[0]
    read = Rows(Site(tower="vision", queries="cls", keys="patches"))
    plain = mllm.trace(sample, reads=[read])[0].rows
    prefix = mllm.prefix(sample)
    assert mllm.trace(prefix, reads=[read])[0].rows.identical(plain)
    twice = mllm.trace([sample, sample], reads=[read])
    assert all(np.allclose(one.rows, plain, atol=1e-7) for one in twice)
    both = mllm.trace(sample, reads=[Rows(), read])[0].reads
    assert both[0].dims[-1] == "token"
    assert_allclose(both[1], plain, atol=1e-7)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "queries='last' is a group of the prompt"),
        ({"queries": "cls", "keys": "text"}, "keys='text' is a group of the prompt"),
        ({"queries": interp.word("red")}, "which the vision tower does not have"),
        ({"tower": "audio"}, 'tower is "vision"'),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_other_groups_and_towers_are_refused(fields, words):
    with pytest.raises(SiteError, match=words):
        Site(**{"tower": "vision", **fields})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"queries": "cls"}, "this vision tower has the groups 'all', 'patches'"),
        ({"queries": "all", "layers": [2]}, "the vision tower has 2 layers"),
        ({"queries": "all", "heads": [9]}, "the vision tower has 2 heads"),
        ({"queries": interp.positions([500])}, "positions in the vision tower"),
        ({"queries": interp.image_mask([True])}, "each of the 25 patches"),
        ({"queries": interp.image_mask([False] * 25)}, "selects nothing"),
    ],
)
def test_what_the_tower_has_not_is_refused(fields, words):
    read = Rows(Site(tower="vision", **fields))
    with pytest.raises(SiteError, match=words):
        model("paligemma").trace(samples()[0], reads=[read])


def test_a_site_of_the_tower_is_json():
    site = Site(tower="vision", layers=[1], queries="cls", keys="patches")
    assert Site.from_dict(site.to_dict()) == site
    assert "tower" not in Site().to_dict(), "sites of the language model keep their hash"


def test_an_adapter_that_miscounts_is_refused():
    mllm = sharp("gemma3")

    class Wrong(Gemma3):
        def patches_along(self, config: Any) -> int:
            return super().patches_along(config) + 1

    object.__setattr__(mllm, "adapter", Wrong())
    with pytest.raises(ModelError, match=r"over 64 positions, but the adapter 'gemma3' describes 144"):
        mllm.trace(samples()[0], reads=[EVERY])


@pytest.mark.parametrize(
    ("family", "words"),
    [
        ("gemma3n", "it is made of convolutions and of attention in timm's own code"),
        ("got_ocr2", "it is SAM's, whose attention is computed in code of its own"),
        ("mllama", "its layers attend over all tiles of an image at once"),
    ],
)
def test_towers_that_are_not_read_say_why(family, words):
    mllm = wrap(*tiny(family))
    message = rf"the vision tower of {family} cannot be read or edited: {words}.*Read the language model's"
    with pytest.raises(ModelError, match=message):
        mllm.trace(interp.Sample(np.zeros((60, 60, 3), np.uint8), "where ?"), reads=[EVERY])
    with pytest.raises(ModelError, match=message):
        _ = mllm.n_vision_layers


def test_a_batch_or_adapter_without_patches_is_refused():
    mllm = sharp("llava")
    with pytest.raises(ModelError, match="made without its model"):
        _ = replace(mllm.encode(samples()[0]), patches_of=None).patches

    class Plain:
        """The parts that an adapter must have, and no more."""

        name = "plain"
        matches, layers = mllm.adapter.matches, mllm.adapter.layers
        image_positions, footprints = mllm.adapter.image_positions, mllm.adapter.footprints
        fallback_prompt = mllm.adapter.fallback_prompt

    object.__setattr__(mllm, "adapter", Plain())
    assert mllm.n_vision_layers == 2, "transformers itself names the tower"
    with pytest.raises(ModelError, match="'plain' does not say where the patches"):
        mllm.trace(samples()[0], reads=[EVERY])


def test_packed_sequences_are_cut_as_separate_calls_are():
    """Flash attention takes all windows in one call, with their ends: the same rows as a call for each."""
    mllm = model("qwen2_5_vl")
    batch = mllm.encode(samples())
    tower = Tower(batch.patches, mllm.n_vision_layers, mllm.n_vision_heads)
    edit = ScaleWeights(
        Site(tower="vision", layers=[0], queries="patches", keys=interp.positions([3, 20])), 2
    )
    n = sum(one.length for one in batch.patches)
    ends = torch.tensor([0, 16, 24, 60, 90, n])
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, n, 16)
    found = []
    for packed in (True, False):
        recorder = Recorder()
        reads = {
            0: vision_selection(Rows(Site(tower="vision", layers=[0], queries="all", keys="all")), tower)
        }
        made = vision_edits([edit], tower)
        work = make_vision_work(reads, made, tower, mllm.vision_attentions, recorder, "x").layers[0]
        calls = [(0, n)] if packed else list(pairwise(ends.tolist()))
        output = []
        for start, stop in calls:
            parts = [one[:, :, start:stop] for one in (query, key, value)]
            call = Call.of(mllm.vision_attentions[0], parts, None, {"scaling": 0.3, "is_causal": False})
            lengths = {"cu_seq_lens_q": ends} if packed else {}
            output.append(work.finish(call, torch.zeros(1, stop - start, 2, 16), lengths))
        found.append((torch.cat(output, dim=1), recorder.rows[0, 0][0]))
    assert found[0][0].any()
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.by_default(family=["llava_next", "mistral3"])
@pytest.mark.parametrize(
    "family",
    every_family(but={*UNREAD, "kimi_k25", *(one for one in families() if one.startswith(("glm", "qwen")))}),
)
def test_the_source_executor_reads_and_edits_the_same(family):
    mllm = model(family)
    batch = mllm.encode(shown(mllm, samples()))
    some = interp.image_mask([np.arange(one.n) % 5 == 1 for one in batch.patches])
    read = Rows(Site(tower="vision", queries=some, keys="all"))
    site = Site(tower="vision", layers=[0], heads=[1], queries="patches", keys=some)
    runs = [
        one.trace(batch, reads=[read, Rows()], edits=[ScaleWeights(site, 3)], generate=2)
        for one in (mllm, mllm.using("source"))
    ]
    assert_allclose(runs[1].logits, runs[0].logits, atol=1e-6)
    assert runs[0].answers == runs[1].answers
    for tap, source in zip(*runs, strict=True):
        assert_allclose(source.reads[0], tap.reads[0], atol=1e-6)
        assert_allclose(source.reads[1], tap.reads[1], atol=1e-6)


@pytest.mark.by_default(family=["qwen2_5_vl"])
@pytest.mark.parametrize("family", ["qwen2_5_vl", "glm4v", "glm46v", "glm4v_moe"])
def test_source_refuses_a_tower_of_several_calls(family):
    with pytest.raises(ModelError, match='use the executor "tap"'):
        model(family).using("source").trace(samples()[2], reads=[EVERY])


HEADS = (1,)


@cache
def eager(family: str) -> EagerTower:
    return EagerTower.of(family)


@cache
def edited_samples() -> list[interp.Sample]:
    rng = np.random.default_rng(1)
    pictures = [[rng.integers(0, 255, (*size, 3)).astype(np.uint8) for size in sizes] for sizes in SIZES]
    asked = ("is it red?", "where is the nodule in the left lung?", "what is there?")
    return [interp.Sample(images=p, question=q) for p, q in zip(pictures, asked, strict=True)]


@cache
def unedited(family: str):
    """The samples encoded for a family's model, and the logits of their plain pass."""
    batch = model(family).encode(shown(model(family), edited_samples()))
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
    batch = mllm.encode(edited_samples())
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
    batch = mllm.encode(edited_samples())
    trace = mllm.trace(batch, reads=[read], edits=[Apply(site, flatten, stage="probabilities")])
    for one, patches in zip(trace, batch.patches, strict=True):
        for i in np.unique(patches.sequence):
            mine = patches.sequence == i
            assert_allclose(one.rows.values[0][:, mine][:, :, mine], 1 / mine.sum(), rtol=1e-5)
    assert len({shape[-1] for shape in seen}) > 1


def test_the_tower_is_edited_before_any_prefix():
    """A prefix that was run unedited cannot serve; shared prefixes do not hold edited images."""
    mllm, sample = model("llava"), edited_samples()[0]
    site = Site(tower="vision", queries="patches", keys=interp.positions([3, 4, 5]))
    wanted = mllm.trace(sample, edits=[Knockout(site)]).logits.values
    plain = mllm.trace(sample).logits.values
    assert np.abs(wanted - plain).max() > 1e-3
    prefix = mllm.prefix(sample)
    assert (mllm.trace(prefix, edits=[Knockout(site)]).logits.values == wanted).all()
    assert_allclose(mllm.trace(prefix).logits, plain, atol=1e-4)
    both = mllm.trace([sample, edited_samples()[1], sample], edits=[Knockout(site)]).logits.values
    assert_allclose(both[[0, 2]], np.repeat(wanted, 2, axis=0), atol=1e-5)
    assert (
        mllm.answers(sample, edits=[Knockout(site)], generate=3)
        == mllm.trace(sample, edits=[Knockout(site)], generate=3).answers
    )
    scored = mllm.score(sample, interp.Target("yes"), edits=[Knockout(site)])
    assert scored.values[0] != mllm.score(sample, interp.Target("yes")).values[0]


def test_edits_of_tower_and_language_model_go_together():
    """Each part is ordered on its own: a score edit of one may follow a weight edit of the other."""
    mllm, sample = model("llava"), edited_samples()[0]
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
    patches = mllm.encode(edited_samples()[2]).patches[0]
    some = interp.image_mask(patches.sequence[patches.image] == 0)
    site = Site(tower="vision", layers=[0], queries=some, keys=some)
    with pytest.raises(EditError, match="every key of its image or window hidden"):
        mllm.trace(edited_samples()[2], edits=[Knockout(site)])
    rows = mllm.trace(
        edited_samples()[2],
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
            "PatchRows works only on the language model",
        ),
    ],
)
def test_edits_without_meaning_are_refused(made, words):
    mllm = model("llava")
    with pytest.raises(EditError, match=words):
        mllm.trace(edited_samples()[0], edits=[made(Site(tower="vision", queries="patches"))])
