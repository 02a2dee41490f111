"""What the methods of a model hand on: edits, seeds and every option of a first look."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import tests.tiny as tiny
from interp.errors import ModelError, PromptError
from interp.inputs.prompt import GENERIC_PROMPT, Target
from interp.tracing import AddResidual, Contrast, Decoding, Knockout, Mllm, Residual, Rows, Site, wrap


def test_answers_are_those_of_a_trace_under_the_same_edits(mllm: Mllm) -> None:
    given, edits = tiny.samples(), [Knockout(Site(queries=("last", "answer")), steps="all")]
    how: dict[str, Any] = {"generate": 5, "seed": 2, "decoding": Decoding(2.0, top_k=30)}
    found = mllm.answers(given, GENERIC_PROMPT, edits, **how)
    assert found == mllm.trace(given, GENERIC_PROMPT, edits=edits, **how).answers
    assert found != mllm.answers(given, GENERIC_PROMPT, **how)
    assert found != mllm.answers(given, GENERIC_PROMPT, edits, **{**how, "seed": 3})
    assert found != mllm.answers(given, GENERIC_PROMPT, edits, generate=5)


def test_a_seed_is_that_of_what_is_random_in_a_pass() -> None:
    """The output layer adds noise of torch's own generator, whose state is put back."""
    hf = tiny.llava()
    hf.lm_head.register_forward_hook(lambda _, __, output: output + torch.rand(output.shape))
    mllm = wrap(hf, tiny.processor())
    torch.manual_seed(5)
    one, same, other = (mllm.trace(tiny.sample(), seed=seed).logits.values for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.1
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), after)
    free = [mllm.trace(tiny.sample()).logits.values for _ in range(2)]
    assert np.abs(free[0] - free[1]).max() > 0.1


def test_a_first_look_gets_every_option(mllm: Mllm, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def provided(name: str) -> Any:
        return lambda *given, **named: asked.append((name, given, named))

    monkeypatch.setattr("interp.tracing.model.provided", provided)
    options: dict[str, Any] = {
        "boxes": [(1, 2, 3, 4)],
        "box_format": "xywh",
        "indicator": "gradient",
        "layer": 2,
        "prompt": GENERIC_PROMPT,
        "target": Target("yes"),
        "generate": 5,
        "trust": "full",
        "seed": 7,
    }
    mllm.look("a.png", "is it?", **options)
    mllm.look("a.png")
    assert asked[0] == ("look", (mllm, "a.png", "is it?"), options)
    assert asked[1][1:] == (
        (mllm, "a.png", ""),
        {
            **dict.fromkeys(("boxes", "box_format", "indicator", "prompt")),
            "layer": "auto",
            "target": Target("greedy"),
            "generate": 16,
            "trust": "quick",
            "seed": 0,
        },
    )


def test_another_executor_or_store_is_another_view_of_the_model(mllm: Mllm, unchecked: None) -> None:
    source = mllm.using("source")
    assert (source.executor, mllm.executor, source.hf is mllm.hf) == ("source", "tap", True)
    assert source.using("tap").executor == "tap"
    with pytest.raises(ModelError, match='the executors are "tap" and "source"; got \'hooks\''):
        mllm.using("hooks")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"sharing takes an interp\.tracing\.Prefixes, or None .* got dict"):
        mllm.sharing({})  # type: ignore[arg-type]
    at_once = mllm.at_once()
    assert (at_once.batches, mllm.batches, at_once.at_once() is at_once) == (False, True, True)
    with pytest.raises(PromptError, match=r"generate=0\. Write generate=1 or more"):
        mllm.answers(tiny.samples(), generate=0)
    for call, said in ((mllm.embeddings, "embeddings"), (mllm.image_features, "image_features")):
        with pytest.raises(ModelError, match=f"{said} takes an encoded batch, .* got list"):
            call(tiny.samples())  # type: ignore[arg-type]


def test_a_batch_and_a_prefix_stay_as_they_were(mllm: Mllm) -> None:
    batch = mllm.encode(tiny.samples())
    prefix = mllm.prefix(batch)
    held = [*batch.inputs.values(), batch.positions, *prefix.keys, *prefix.values]
    names, before = list(batch.inputs), [one.clone() for one in held]
    edits = [AddResidual([0], "last", np.ones(64), steps="all"), Knockout(Site(queries="all"))]
    guided = Decoding(contrast=Contrast())
    for given in (batch, prefix):
        mllm.trace(given, reads=[Rows(Site()), Residual()], edits=edits, generate=2, decoding=guided)
        mllm.score(given, Target("yes"), edits=edits[:1])
    assert list(batch.inputs) == names
    assert all(torch.equal(one, old) for one, old in zip(held, before, strict=True))
