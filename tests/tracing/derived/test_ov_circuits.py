"""Copying scores against eigenvalues of the whole circuit, token × token, and of heads planted to copy."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

import tests.tiny as tiny
from interp.tracing import wrap
from interp.tracing.derived.ov_circuits import _padded, copying_scores
from tests.tracing.reference_attention import layers_of

DIM = 16


def circuit(hf: nn.Module, layer: int, head: int) -> np.ndarray:
    """W_U W_O W_V W_E with the norms' weights in it, (answer, attended token)."""
    one = layers_of(hf)[layer]
    share = 4 * DIM // one.self_attn.v_proj.out_features
    kv = slice(head // share * DIM, (head // share + 1) * DIM)
    own = slice(head * DIM, (head + 1) * DIM)
    with torch.no_grad():
        embedded = hf.get_input_embeddings().weight * one.input_layernorm.weight
        sent = embedded @ one.self_attn.v_proj.weight[kv].T @ one.self_attn.o_proj.weight[:, own].T
        return (
            ((sent * hf.get_decoder().norm.weight) @ hf.get_output_embeddings().weight.T).T.double().numpy()
        )


def test_scores_are_of_the_whole_circuits_eigenvalues():
    hf = copy.deepcopy(tiny.llava())
    with torch.no_grad():
        for i, norm in enumerate([one.input_layernorm for one in layers_of(hf)] + [hf.get_decoder().norm]):
            norm.weight.copy_(torch.rand(64, generator=torch.Generator().manual_seed(i)) + 0.5)
    found = copying_scores(wrap(hf, tiny.processor()))
    assert found.shape == (3, 4)
    for layer, head in ((0, 0), (1, 2), (2, 3)):
        values = np.linalg.eigvals(circuit(hf, layer, head))
        assert found[layer, head] == pytest.approx(values.sum().real / np.abs(values).sum(), abs=1e-4)


def test_copying_scores_one_and_suppressing_minus_one():
    hf = copy.deepcopy(tiny.llava())
    attention = layers_of(hf)[1].self_attn
    with torch.no_grad():
        hf.get_output_embeddings().weight.copy_(
            hf.get_input_embeddings().weight
        )  # a word is read as it is written
        for head, sign in ((0, 1.0), (3, -1.0)):
            kv = head // (4 * DIM // attention.v_proj.out_features) * DIM
            value = attention.v_proj.weight[kv : kv + DIM]
            attention.o_proj.weight[:, head * DIM : (head + 1) * DIM] = sign * value.T
        layers_of(hf)[2].self_attn.o_proj.weight.zero_()
    found = copying_scores(wrap(hf, tiny.processor()))
    assert_allclose(found[1, [0, 3]], [1, -1], atol=1e-4)
    assert np.isnan(found[2]).all()  # a head that says nothing copies nothing


def test_short_lines_of_columns_repeat_their_last():
    lines = [np.array([5, 6, 7]), np.array([9]), np.array([], int)]
    assert _padded(lines, torch.device("cpu")).tolist() == [[5, 6, 7], [9, 9, 9], [0, 0, 0]]
