"""Models on a server against the same models here: what of them must be equal, and how nearly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import interp
from interp import (
    Boost,
    Decoding,
    Guide,
    Knockout,
    Mllm,
    Residual,
    Rows,
    ScaleScores,
    ScaleWeights,
    Site,
    Target,
    indicators,
)
from interp.tracing.cost import Meter
from interp.tracing.gradients import input_function, row_gradients
from interp.tracing.lens.lens import ServedLens
from tests.remote.serving import samples

READS = [Rows(Site(queries=("question", "last"), keys="all")), Rows(Site(heads=[(2, 0), (0, 3)])), Residual()]
EVERY = Knockout(Site(heads=[(0, 1), (2, 3)], queries="last"), mode="zero", steps="all")


def like(far: interp.Trace, near: interp.Trace) -> None:
    """Equal to 1e-6 of the largest value, and labelled alike."""
    assert far.answers == near.answers
    np.testing.assert_allclose(far.logits, near.logits, rtol=0, atol=1e-6 * float(np.abs(near.logits).max()))
    for mine, theirs in zip(far, near, strict=True):
        assert mine.ids == theirs.ids
        for a, b in zip(mine.reads, theirs.reads, strict=True):
            assert a.dims == b.dims
            assert all(np.array_equal(a[name], b[name]) for name in a.coords)
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * max(1.0, float(np.abs(b).max())))


def alike(far: Mllm, near: Mllm) -> None:
    """Reads and edits of a prompt and of generated tokens, and the score of an answer of several tokens."""
    edits = [Knockout(Site(layers=[1], queries="after_image")), EVERY]
    given = {"reads": READS, "edits": edits, "generate": 4}
    like(far.trace(samples(), **given), near.trace(samples(), **given))
    target = Target("left lung nodule")
    np.testing.assert_allclose(
        far.score(samples(), target).values, near.score(samples(), target).values, atol=2e-6
    )


def alike_in_all(far: Mllm, near: Mllm) -> None:
    """Every kind of pass."""
    alike(far, near)
    site = Site(layers=[0])
    for edits in (
        [],
        [Guide(site, 0.5), ScaleScores(site, 1.5), Boost(site, 0.5), ScaleWeights(site, 0.5)],
        [Knockout(Site(queries="all", keys=interp.positions([2])))],
    ):
        like(far.trace(samples(), reads=READS, edits=edits), near.trace(samples(), reads=READS, edits=edits))
    drawn = {"reads": READS, "generate": 4, "seed": 3, "decoding": Decoding(temperature=1.0)}
    like(far.trace(samples(), **drawn), near.trace(samples(), **drawn))
    for target in (Target("greedy"), Target(interp.diff("yes", "no"))):
        np.testing.assert_allclose(
            far.score(samples(), target).values, near.score(samples(), target).values, atol=2e-6
        )


def differentiated(far: Mllm, near: Mllm, n_targets: int = 2) -> None:
    """Gradients of rows and of inputs."""
    for target in (Target("greedy"), Target("left lung"))[:n_targets]:
        rows = [
            list(row_gradients(mllm, samples(), target, None, Meter(mllm.device), layers=[0, 2]))
            for mllm in (far, near)
        ]
        for mine, theirs in zip(*rows, strict=True):
            for sample in range(2):
                for a, b in zip(mine.of(sample, 1), theirs.of(sample, 1), strict=True):
                    # here a prefix is shared, which rounds differently
                    torch.testing.assert_close(a, b, rtol=0, atol=3e-6 * float(b.abs().max()))
    for of in ("pixels", "embeddings"):
        mine, theirs = (
            input_function(mllm, samples(), Target("yes"), None, Meter(mllm.device), of=of)
            for mllm in (far, near)
        )
        wanted = theirs.gradient(theirs.start)
        torch.testing.assert_close(
            mine.gradient(mine.start), wanted, rtol=0, atol=1e-6 * float(wanted.abs().max())
        )


def near_enough(mine, theirs, share: float) -> None:
    """Labelled alike, and equal to a share of the largest value of any."""
    largest = max(float(np.nanmax(np.abs(b))) for b in theirs)
    for a, b in zip(mine, theirs, strict=True):
        assert a.dims == b.dims
        np.testing.assert_allclose(a, b, rtol=0, atol=share * largest)


def mapped_alike(far: Mllm, near: Mllm, of=("embeddings", "pixels")) -> None:
    """Maps that need every layer's attention, its values, or many gradients."""
    both = indicators.Rollout(), indicators.ValueWeightedAttention(per_head=True, layers=[2, 0])
    for indicator, share in ((both[0], 1e-6), (both[1], 1e-6)):
        mine, theirs = (indicator(mllm, samples()) for mllm in (far, near))
        near_enough(mine, theirs, share)
        np.testing.assert_allclose(mine.logits, theirs.logits, rtol=0, atol=2e-6)
    for one in of:
        integral = indicators.IntegratedGradients(of=one, steps=3)
        mine, theirs = (integral(mllm, samples(1), target=Target("left lung")) for mllm in (far, near))
        near_enough(mine, theirs, 1e-5)
        for name in ("completeness_error", "completeness_of"):
            np.testing.assert_allclose(mine[0].attrs[name], theirs[0].attrs[name], rtol=0, atol=1e-4)
        assert mine.cost.backwards == theirs.cost.backwards


def guided_alike(far: Mllm, near: Mllm, **more: object) -> None:
    """Guided logits and tokens, with edits by mask and by row of the lines with images alone."""
    edits = [
        Knockout(Site(layers=[1], queries="after_image")),
        Boost(Site(layers=[0], queries="last", keys="image"), 0.5, steps="all"),
        EVERY,
    ]
    for contrast in (interp.Contrast(gamma=1.5, cutoff=None), interp.Contrast(gamma=3.0)):
        given = {"reads": READS, "edits": edits, "decoding": Decoding(contrast=contrast), **more}
        mine, theirs = (mllm.trace(samples(), **given) for mllm in (far, near))
        seen = np.isfinite(theirs.logits.values)
        assert np.array_equal(np.isfinite(mine.logits.values), seen)
        off = np.abs(mine.logits.values[seen] - theirs.logits.values[seen])
        assert off.max() < 4e-6 * np.abs(theirs.logits.values[seen]).max()
        assert [one.ids for one in mine] == [one.ids for one in theirs]
        for a, b in zip(mine, theirs, strict=True):
            for own, wanted in zip(a.reads, b.reads, strict=True):
                np.testing.assert_allclose(
                    own, wanted, rtol=0, atol=2e-6 * max(1.0, float(np.abs(wanted).max()))
                )


def read_alike(far: Mllm, near: Mllm, attributed: bool = True) -> None:
    """The logit lens and direct attribution, against TransformerLens here."""
    served, lens = ServedLens(far), near.to_lens()
    mine, theirs = (one.logit_lens(samples(), ["nodule", "left"], top=3) for one in (served, lens))
    for a, b in zip(mine, theirs, strict=True):
        near_enough([a.logprob], [b.logprob], 1e-6)
        assert a["rank"].equals(b["rank"])
        assert a.top_word.equals(b.top_word)
    for relative_to in ("zero", "mean") if attributed else ():
        target = Target("left") if relative_to == "zero" else Target(interp.diff("left", "right"))
        mine, theirs = (one.attribution(samples(), target, relative_to=relative_to) for one in (served, lens))
        for a, b in zip(mine, theirs, strict=True):
            assert a.attrs["answers"] == b.attrs["answers"]
            assert set(a.data_vars) == set(b.data_vars)
            near_enough([a[name] for name in b.data_vars], list(b.data_vars.values()), 1e-6)


TARGETS = (Target("greedy"), Target("left lung"))
REMOVALS = (
    indicators.HideTokens(),
    indicators.HideTokens(layers=[1], queries="last"),
    indicators.ReplaceEmbeddings(),
    indicators.ReplaceEmbeddings("other", interp.Sample(samples(2)[1].load(), "another")),
    indicators.PaintPixels("mean"),
)


def removed_alike(far: Mllm, near: Mllm, removals=REMOVALS, targets=TARGETS) -> None:
    """The target's value with tokens removed, several variants in a job, to 1e-6 of the largest logit."""
    sample = samples(1)[0]
    near_by = 1e-6 * float(np.abs(near.trace(sample).logits).max())
    n = far.encode(sample).tokens[0].n
    masks = np.random.default_rng(2).random((5, n)) < 0.3
    masks[1] = False
    for removal in removals:
        for target in targets:
            mine, theirs = (
                removal.scores(mllm, sample, masks, target=target, batch=3) for mllm in (far, near)
            )
            assert mine.plain == pytest.approx(theirs.plain, abs=near_by)
            np.testing.assert_allclose(mine.values, theirs.values, rtol=0, atol=near_by)
            assert mine.values[1] == mine.plain
            assert np.abs(theirs.values - theirs.plain).max() > 1e-4  # something was removed


def patched_alike(far: Mllm, near: Mllm) -> None:
    """The stream of a partner put in the place of the sample's own."""
    own, other = samples(2)
    indicator = indicators.ActivationPatching([(own, interp.Sample(other.load(), own.question))], block=2)
    mine, theirs = (indicator(mllm, own, target=Target("left lung"))[0] for mllm in (far, near))
    near_by = 1e-6 * float(np.abs(near.trace(own).logits).max())  # of a difference of two values
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=2 * near_by)
    assert float(np.abs(theirs).max()) > 1e-4
