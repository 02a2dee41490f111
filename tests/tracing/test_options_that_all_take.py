"""Whatever is computed of samples: the prompt, the size of micro-batches and the bar are those that were asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import interp
import tests.tiny as tiny
from interp.inputs.prompt import Prompt, Target
from interp.inputs.sample import Sample
from interp.tracing import Features, Mllm, ReconstructResidual, Residual, Site
from interp.tracing.passes import progress_bar
from interp.tracing.word_lenses import LatentLens, Patchscope, read_words

PROMPT = Prompt("is {question} a", system="be brief")
YES = Target("yes")


def coder() -> Features:
    """Features of the stream after layer 1."""
    draw = torch.Generator().manual_seed(0)
    weights = [torch.randn(shape, generator=draw) / 8 for shape in ((64, 6), (6,), (6, 64), (64,))]
    return Features(*weights, 1)


def streams(mllm: Mllm, samples: list[Sample]) -> np.ndarray:
    """(sample, hidden) after layer 1, at the last token under the prompt."""
    found = mllm.trace(samples, PROMPT, [Residual([1])])
    return np.stack([one.residual.values[0, 0] for one in found])


def norms_and_shares(found: Any) -> np.ndarray:
    return np.concatenate([np.concatenate([one.norm, one.share, [one.threshold]]) for one in found])


Way = Callable[..., Any]
ENCODED: dict[str, Way] = {
    "trace": lambda mllm, given, **how: mllm.trace(given, **how).logits.values,
    "score": lambda mllm, given, **how: mllm.score(given, YES, **how).values,
    "answers": lambda mllm, given, **how: mllm.answers(given, generate=2, **how),
    "head means": lambda mllm, given, **how: interp.head_means(mllm, given, Site(queries="all"), **how),
    "sinks": lambda mllm, given, **how: norms_and_shares(interp.sinks(mllm, given, "decoder", k=1, **how)),
}
"""What takes samples or a batch of them."""
OTHERS: dict[str, tuple[Way, Way]] = {
    "steering": (
        lambda mllm, given, **how: (
            interp.steering_vector(mllm, given[:2], given[1:], layers=[1], **how).vectors
        ),
        lambda mllm, given: (streams(mllm, given)[[0, 1]] - streams(mllm, given)[[1, 2]]).mean(
            0, keepdims=True
        ),
    ),
    "features": (
        lambda mllm, given, **how: np.concatenate(list(coder().read(mllm, given, positions="last", **how))),
        lambda mllm, given: coder().encode(streams(mllm, given)),
    ),
    "fidelity": (
        lambda mllm, given, **how: (
            coder().fidelity(mllm, given, positions="last", target=YES, **how).samples.change
        ),
        lambda mllm, given: (
            mllm.score(given, YES, prompt=PROMPT, edits=[ReconstructResidual(coder(), "last")]).values
            - mllm.score(given, YES, prompt=PROMPT).values
        ),
    ),
}
"""What takes samples alone, and the same from traces and scores."""
EVERY = {**ENCODED, **{name: way for name, (way, _) in OTHERS.items()}}


def same(found: Any, wanted: Any) -> bool:
    if isinstance(found, list):
        return found == wanted
    return np.allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize("name", EVERY)
def test_a_given_prompt_is_the_one_that_is_asked(mllm: Mllm, name: str) -> None:
    given = tiny.samples()
    found = EVERY[name](mllm, given, prompt=PROMPT)
    wanted = (
        ENCODED[name](mllm, mllm.encode(given, PROMPT)) if name in ENCODED else OTHERS[name][1](mllm, given)
    )
    assert same(found, wanted)
    assert not same(found, EVERY[name](mllm, given))


@pytest.mark.parametrize("name", EVERY)
def test_passes_are_as_large_as_asked_and_bars_hidden(mllm: Mllm, name: str) -> None:
    seen: list[tuple[int, bool]] = []

    def watch(_: Any, __: Any, named: dict[str, Any]) -> None:
        seen.append((len(named["input_ids"]), progress_bar._HIDDEN.get()))

    hook = mllm.hf.register_forward_pre_hook(watch, with_kwargs=True)
    try:
        EVERY[name](mllm, tiny.samples(), batch_size=1, progress=False)
        alone, seen = seen, []
        EVERY[name](mllm, tiny.samples())
    finally:
        hook.remove()
    assert set(alone) == {(1, True)}
    assert max(seen) > (2, False)
    assert not any(hidden for _, hidden in seen)


@pytest.mark.parametrize(
    "lens", ["logit", LatentLens(["a red circle"]), Patchscope("red - red , ?")], ids=str
)
def test_words_are_read_under_the_prompt(mllm: Mllm, lens: Any) -> None:
    wanted = mllm.trace(tiny.samples()[:1], PROMPT)
    found = read_words(mllm, tiny.samples()[:1], ["red"], lens, prompt=PROMPT)
    assert_allclose(found.logits, wanted.logits, atol=1e-5)
    assert found.logits.dims == wanted.logits.dims == ("sample", "token_id")
    assert found[0].position.values.tolist() == wanted.tokens[0].image.tolist()
    assert {"score", "rank", "top_word", "top_score"} == set(found[0].data_vars)


def test_a_lens_runs_under_the_prompt(mllm: Mllm) -> None:
    lens, given, wanted = mllm.to_lens(), tiny.samples()[:1], mllm.trace(tiny.samples()[:1], PROMPT)
    for found in (
        lens.logit_lens(given, prompt=PROMPT),
        lens.attribution(given, YES, prompt=PROMPT),
    ):
        assert_allclose(found.logits, wanted.logits, atol=1e-5)
    parts = lens.components(given, prompt=PROMPT)[0]
    assert parts.position.values.tolist() == [wanted.tokens[0].length - 1]
