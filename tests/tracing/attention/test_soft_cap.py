"""A decoder that caps its scores, against its own eager attention: Gemma 2 as PaliGemma 2 has it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.testing import assert_allclose

import interp
from interp.conformance.tiny import recipe
from interp.conformance.tiny.kit import build, text_config
from interp.tracing import Knockout, Rows, Site, wrap
from tests.tiny import uneven_samples as samples
from tests.tracing.reference_attention import greedy

CAP = 0.5
"""Far below the scores of a tiny model, so that a missing cap shows."""


def capped() -> Any:
    """A tiny PaliGemma whose decoder is an eager Gemma 2."""
    made = recipe("paligemma")
    config = made.config()
    config.text_config = text_config(
        transformers.Gemma2Config,
        head_dim=16,
        query_pre_attn_scalar=16,
        attn_logit_softcapping=CAP,
        final_logit_softcapping=None,
    )
    return build(made.model, config, "eager")


@pytest.mark.parametrize("mode", ["renormalise", "zero"])
def test_rows_and_knockouts_are_those_of_capped_scores(mode: Any) -> None:
    mllm, sample = wrap(capped(), recipe("paligemma").processor()), samples()[0]
    batch = mllm.encode([sample])
    tokens = batch.tokens[0]
    hidden = torch.zeros(1, tokens.length, tokens.length, dtype=torch.bool)
    hidden[0, -1, tokens.image[::2].tolist()] = True
    site = Site(layers=[1], queries="last", keys=interp.image_mask([np.arange(tokens.n) % 2 == 0]))
    trace = mllm.trace(
        [sample], reads=[Rows(Site(queries="last", keys="all"))], edits=[Knockout(site, mode=mode)]
    )
    expected = greedy(capped(), batch.inputs, 1, lambda layer, _: hidden if layer == 1 else None, mode)
    assert_allclose(trace.logits[0], expected.logits[0], atol=2e-5)
    assert_allclose(trace[0].reads[0][:, :, 0], expected.attention[0][:, :, -1], atol=2e-6)
