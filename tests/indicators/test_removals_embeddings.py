"""Replaced embeddings equal whole passes whose decoder is given other embeddings, deepstack features included."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

import tests.tiny as small
from interp.errors import MapError
from interp.indicators import EmbeddingReplacement, ReplaceEmbeddings
from interp.indicators.removals import in_order
from interp.inputs.prompt import Target
from interp.inputs.sample import Sample
from interp.tracing import Mllm
from tests.indicators.family_models import FAMILIES, OTHER, SAMPLE, family, log_p, masks


@contextmanager
def decoder_gets(mllm: Mllm, change: Any) -> Iterator[None]:
    hook = mllm.hf.get_decoder().register_forward_pre_hook(
        lambda _, args, given: (args, change(dict(given))), with_kwargs=True
    )
    yield
    hook.remove()


def features(mllm: Mllm, sample: Sample, change: Any) -> np.ndarray:
    """Logits of a whole pass, vision tower and all; `change` sees and gives each (token, hidden) of features."""
    batch = mllm.encode([sample])
    image = torch.from_numpy(batch.tokens[0].image.copy())

    def given(arguments: dict[str, Any]) -> dict[str, Any]:
        entering = arguments["inputs_embeds"].clone()
        entering[0, image] = change(0, entering[0, image])
        arguments["inputs_embeds"] = entering
        deep = arguments.get("deepstack_visual_embeds")
        if deep is not None:
            arguments["deepstack_visual_embeds"] = [change(1 + i, one) for i, one in enumerate(deep)]
        return arguments

    with torch.no_grad(), decoder_gets(mllm, given):
        inputs = {**batch.inputs, "position_ids": batch.positions}
        return mllm.hf(**inputs, use_cache=False, logits_to_keep=1).logits[0, -1].numpy()


@pytest.mark.covering
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("by", ["mean", "zero", "other"])
def test_it_equals_a_whole_pass_over_other_embeddings(name: str, by: Any) -> None:
    mllm, theirs = family(name), {}
    features(mllm, OTHER, lambda i, own: theirs.setdefault(i, own.clone()))
    fills = {"mean": lambda i, own: own.mean(0, keepdim=True), "zero": lambda i, own: torch.zeros_like(own)}
    fill = fills.get(by, lambda i, own: theirs[i])
    variants = masks(len(theirs[0]), 3)
    answer = mllm.score(SAMPLE).aims[0].answers[0][0]
    expected = [
        log_p(features(mllm, SAMPLE, lambda i, x, m=m: torch.where(torch.tensor(m)[:, None], fill(i, x), x)))[
            answer
        ]
        for m in variants
    ]
    removal = ReplaceEmbeddings(by, OTHER if by == "other" else None)
    found = removal.scores(mllm, SAMPLE, variants, batch=2)
    np.testing.assert_allclose(found.values, expected, atol=1e-5)
    assert np.ptp(expected) > 1e-3
    assert (len(theirs) > 1) == (name == "qwen3_vl")


def test_the_tower_and_rows_before_the_image_run_once() -> None:
    mllm, towers = family("llava"), []
    hook = mllm.hf.model.vision_tower.register_forward_hook(lambda *_: towers.append(1))
    tokens = mllm.encode([SAMPLE]).tokens[0]
    ends = np.eye(tokens.n, dtype=bool)[[-1, 0, -2]]
    cost = ReplaceEmbeddings().scores(mllm, SAMPLE, ends, batch=1).cost
    hook.remove()
    assert len(towers) == 1
    after = tokens.length - tokens.image
    assert cost.tokens == tokens.length + after[-1] + after[0] + after[-2]


def test_the_indicator_is_the_loss_of_each_token_alone() -> None:
    mllm, target = family("llava"), Target("left lung")
    maps = EmbeddingReplacement("zero")(mllm, [SAMPLE, OTHER], target=target)
    found = ReplaceEmbeddings("zero").scores(
        mllm, SAMPLE, np.eye(maps.tokens[0].n, dtype=bool), target=target
    )
    np.testing.assert_allclose(maps[0].values, found.plain - found.values, atol=1e-6)
    assert maps[0].attrs["plain"] == pytest.approx(mllm.score(SAMPLE, target).values[0], abs=1e-5)
    np.testing.assert_array_equal(maps[1], EmbeddingReplacement("zero")(mllm, OTHER, target=target)[0])
    assert np.ptp(maps[0].values) > 1e-3


def test_it_describes_itself_and_refuses_what_makes_no_sense(unchecked: None) -> None:
    removal = ReplaceEmbeddings("other", OTHER)
    assert removal.to_dict() == {"removal": "replace_embeddings", "by": "other", "other": OTHER.fingerprint}
    assert removal == ReplaceEmbeddings("other", OTHER)
    assert (removal.name, ReplaceEmbeddings().name) == ("other embedding", "mean embedding")
    assert EmbeddingReplacement("zero").to_dict()["removal"] == {
        "removal": "replace_embeddings",
        "by": "zero",
    }
    with pytest.raises(MapError, match="by of ReplaceEmbeddings is 'mean' or 'zero' or 'other'; got 'blur'"):
        ReplaceEmbeddings("blur")  # pyright: ignore[reportArgumentType]
    with pytest.raises(MapError, match=r'by="other" needs other=, an interp\.Sample'):
        EmbeddingReplacement("other")
    mllm, wide = family("qwen2_5_vl"), Sample(small.picture(400, 80, seed=7), "is it red?")
    n, theirs = (mllm.encode([one]).tokens[0].n for one in (SAMPLE, wide))
    with pytest.raises(
        MapError, match=rf"that has {theirs} image tokens, but sample .* has {n}.* image of the same size"
    ):
        ReplaceEmbeddings("other", wide).scores(mllm, SAMPLE, masks(n))


def test_variants_of_a_batch_begin_near_each_other() -> None:
    found = [part.tolist() for part in in_order(np.eye(16, dtype=bool)[[15, 3, 5, 4, 0, 2, 2]], 2)]
    assert found == [[4, 5], [6, 1], [3, 2], [0]]
    assert [part.tolist() for part in in_order(np.zeros((2, 16), bool), 4)] == []
