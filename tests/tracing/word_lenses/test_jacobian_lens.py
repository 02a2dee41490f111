"""The Jacobian lens against autograd and finite differences on transformers' own eager model; its files."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor

import interp.tracing.word_lenses.jacobian_lens as jacobian_lens
from interp.conformance.tiny import tiny
from interp.errors import ModelError, PromptError
from interp.tracing import wrap
from interp.tracing.cost import Meter
from interp.tracing.lens import SUPPORTED
from interp.tracing.word_lenses import JacobianLens, Jacobians, fit_jacobians, load_jacobians, read_words
from interp.tracing.word_lenses.corpus import corpus_digest
from tests.tiny import uneven_samples as samples
from tests.tracing.word_lenses.hooked import Hooked

TEXTS = (
    "what is in the image ? there is a red circle in the left lung , there is a nodule in the right",
    "where is the nodule ? the nodule is in the right lung , or is there a circle ? a single word . yes",
)
SKIPPED = 16


@cache
def model(family: str) -> Any:
    return wrap(*tiny(family), family)


@cache
def fitted(family: str) -> Jacobians:
    return fit_jacobians(model(family), TEXTS, max_tokens=30, show_progress=False)


def after(hooked: Hooked, layer: int, inputs: dict[str, Tensor], stream: Tensor) -> Tensor:
    """The stream after the last layer, given the whole stream after a layer."""
    found: list[Tensor] = []

    def put(_: Any, given: Any, out: Any) -> Any:
        return (stream, *out[1:]) if isinstance(out, tuple) else stream

    def keep(_: Any, given: Any, out: Any) -> None:
        found.append(out[0] if isinstance(out, tuple) else out)

    handles = [
        hooked.layers[layer].register_forward_hook(put),
        hooked.layers[-1].register_forward_hook(keep),
    ]
    try:
        hooked.hf(**inputs, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return found[0]


@pytest.mark.by_default(family=["llava"])
@pytest.mark.parametrize("family", SUPPORTED)
def test_matrices_are_means_of_whole_jacobians(family: str) -> None:
    """Every position's Jacobian at once, summed over targets and averaged over sources afterwards."""
    hooked, found, means = Hooked(family), fitted(family), []
    assert found.n_prompts == len(TEXTS)
    assert sorted(found.matrices) == list(range(len(hooked.layers) - 1))
    for layer in (0, len(hooked.layers) - 2):
        each = []
        for text in TEXTS:
            ids = torch.tensor([model(family).processor.tokenizer(text)["input_ids"]])
            stream = hooked.streams(input_ids=ids)[0][layer + 1][None]
            whole = torch.autograd.functional.jacobian(
                lambda one, ids=ids, layer=layer: after(hooked, layer, {"input_ids": ids}, one),
                stream,
                vectorize=True,
            )
            own = whole[0, SKIPPED:-1, :, 0, SKIPPED:-1, :]  # (target, hidden, source, hidden)
            each.append(own.sum(dim=0).mean(dim=1))
        means.append((layer, torch.stack(each).mean(dim=0)))
    for layer, mean in means:
        assert_allclose(found.matrices[layer], mean, atol=2e-5)
        assert float((mean - torch.eye(len(mean))).abs().max()) > 1e-3


def test_a_column_is_what_a_small_step_does() -> None:
    hooked = Hooked("llava")
    hooked.hf = hooked.hf.double()
    ids = torch.tensor([model("llava").processor.tokenizer(TEXTS[0])["input_ids"]])
    one = fit_jacobians(model("llava"), TEXTS[:1], show_progress=False)
    stream, step, dim = hooked.streams(input_ids=ids)[0][1][None], 1e-4, 5
    columns = []
    for source in range(SKIPPED, ids.shape[1] - 1):
        ends = []
        for sign in (1, -1):
            moved = stream.clone()
            moved[0, source, dim] += sign * step
            with torch.no_grad():
                ends.append(after(hooked, 0, {"input_ids": ids}, moved)[0, SKIPPED:-1])
        columns.append((ends[0] - ends[1]).sum(dim=0) / (2 * step))
    assert_allclose(one.matrices[0][:, dim], torch.stack(columns).mean(dim=0), atol=1e-5)


def test_short_prompts_are_left_out_of_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """18 tokens, 17 and 18, with the tokenizer's own at the start; none of them fit together."""
    tokenizer, seen = model("llava").processor.tokenizer, []
    special = len(tokenizer("")["input_ids"])
    texts = [" ".join([word] * (n - special)) for word, n in (("red", 18), ("lung", 17), ("is", 18))]

    def fit(bridge: Any, prompts: Any, corpus: str, max_tokens: int) -> Any:
        seen.extend([list(prompts), corpus, max_tokens])
        return SimpleNamespace(jacobians={}, n_prompts=2)

    monkeypatch.setattr(jacobian_lens, "_fitted", fit)
    found = fit_jacobians(model("llava"), texts, max_tokens=18, show_progress=False)
    kept = [texts[0], texts[2]]
    assert seen == [kept, corpus_digest(kept), 18]
    assert (found.n_prompts, found.corpus) == (2, corpus_digest(kept))


def test_scores_are_of_the_carried_stream(tmp_path: Path) -> None:
    mllm, hooked = model("llava"), Hooked("llava")
    path = fitted("llava").save(tmp_path / "j.safetensors")
    found = read_words(mllm, samples(), ["red", "lung"], JacobianLens(path), top=3)
    assert found.unit == "log probability, nats"
    decoder, tokenizer = hooked.hf.get_decoder(), mllm.processor.tokenizer
    ids = [tokenizer.convert_tokens_to_ids(word) for word in ("red", "lung")]
    for one, sample in zip(found, samples(), strict=True):
        batch = mllm.encode(sample)
        streams = hooked.streams(**batch.inputs)[0][:, batch.tokens[0].image]
        assert one.layer.values.tolist() == [0, 1, 2]  # what enters the first layer has no Jacobian
        for layer in (0, 1, 2):
            matrix = fitted("llava").matrices.get(layer, torch.eye(streams.shape[-1]))
            with torch.no_grad():
                logits = hooked.hf.lm_head(decoder.norm(streams[layer + 1] @ matrix.T))
            here = one.sel(layer=layer)
            assert_allclose(here.score, logits.log_softmax(dim=-1)[:, ids], atol=1e-5)
            order = logits.argsort(dim=-1, descending=True)
            assert (here["rank"] == np.stack([(order == i).int().argmax(dim=1) for i in ids], axis=1)).all()
            assert [tokenizer.decode([int(i)]).strip() for i in order[:, 0]] == here.top_word[
                :, 0
            ].values.tolist()


def test_after_the_last_layer_it_is_the_logit_lens() -> None:
    lens = JacobianLens(corpus=TEXTS, max_tokens=30)
    carried, plain = (read_words(model("llava"), samples(), ["red"], one) for one in (lens, "logit"))
    for one, other in zip(carried, plain, strict=True):
        assert_allclose(one.score.sel(layer=2), other.score.sel(layer=2), atol=1e-5)
        assert float(np.abs(one.score.sel(layer=0) - other.score.sel(layer=0)).max()) > 1e-3


def test_transformer_lens_reads_the_same() -> None:
    from transformer_lens.tools.analysis import JacobianLens as Theirs

    mllm = model("llava")
    bridge = mllm.to_lens().bridge
    bridge.tokenizer = mllm.processor.tokenizer
    found = fitted("llava")
    theirs = Theirs(dict(found.matrices), n_prompts=found.n_prompts, d_model=64)
    ids = bridge.to_tokens(TEXTS[0])
    read = theirs.readout(bridge, ids, return_full_logits=True, top_k=3)
    opened = JacobianLens(corpus=TEXTS, max_tokens=30).open(mllm, [], Meter(mllm.device))
    streams = Hooked("llava").streams(input_ids=ids)[0]
    for layer, logits in (read.lens_logits or {}).items():
        with torch.no_grad():
            own = opened.at(layer, streams[layer + 1], opened.find(["red"], 3), 3)
        assert_allclose(own[3], logits.log_softmax(dim=-1).topk(3).values, atol=1e-5)


def test_files_keep_everything_and_belong_to_a_model(tmp_path: Path) -> None:
    path = fitted("llava").save(tmp_path / "j.safetensors")
    again = load_jacobians(path)
    for name in ("n_prompts", "model", "corpus"):
        assert getattr(again, name) == getattr(fitted("llava"), name)
    assert all(torch.equal(one, fitted("llava").matrices[layer]) for layer, one in again.matrices.items())
    assert list(again.matrices) == [0, 1]
    other = fit_jacobians(model("llava"), TEXTS[:1], show_progress=False)
    second = JacobianLens(other.save(tmp_path / "other.safetensors"))
    assert second.to_dict() != JacobianLens(path).to_dict()
    with pytest.raises(
        ModelError, match=r"was fitted on other weights than this qwen2_5_vl's\. Fit it again"
    ):
        read_words(model("qwen2_5_vl"), samples(), ["red"], JacobianLens(path))


def test_a_file_that_was_changed_since_is_refused(tmp_path: Path) -> None:
    path = fitted("llava").save(tmp_path / "j.safetensors")
    lens = JacobianLens(path)
    lens.open(model("llava"), [], Meter(model("llava").device))
    fit_jacobians(model("llava"), TEXTS[:1], max_tokens=30, show_progress=False).save(path)
    with pytest.raises(ModelError, match=r"no longer the file .*Make the lens again: JacobianLens\(file\)"):
        lens.open(model("llava"), [], Meter(model("llava").device))
    JacobianLens(path).open(model("llava"), [], Meter(model("llava").device))


def test_what_makes_no_sense_is_refused(tmp_path: Path, unchecked: None) -> None:
    mllm, damaged, other = model("llava"), tmp_path / "d.safetensors", tmp_path / "o.safetensors"
    damaged.write_bytes(b"no tensors")
    from safetensors.torch import save_file

    save_file({"layer.0": torch.eye(2)}, other)
    path = fitted("llava").save(tmp_path / "j.safetensors")
    for make, kind, said in (
        (
            lambda: fit_jacobians(mllm, ["a red circle"]),
            PromptError,
            "18 tokens or more.*Give more or longer",
        ),
        (
            lambda: fit_jacobians(mllm, TEXTS, max_tokens=17),
            PromptError,
            "whole number of at least 18; got 17",
        ),
        (lambda: fit_jacobians(model("paligemma"), TEXTS), ModelError, "has no adapter for PaliGemma"),
        (lambda: JacobianLens(tmp_path / "none.safetensors"), ModelError, "does not exist.*fit_jacobians"),
        (lambda: JacobianLens(3), ModelError, "read from the path of a file; got 3"),
        (lambda: JacobianLens(damaged), ModelError, "is not a complete safetensors file"),
        (lambda: JacobianLens(other), ModelError, "holds no Jacobians. Give a file that"),
        (lambda: JacobianLens(path, corpus=TEXTS), PromptError, "got both. Pass one of them"),
        (lambda: fitted("llava").save(tmp_path / "j.pt"), ModelError, r"Write name\.safetensors"),
    ):
        with pytest.raises(kind, match=said):
            make()


def test_a_lens_without_a_file_is_fitted_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def fit(*given: Any, **named: Any) -> Jacobians:
        asked.extend([given[1:], named])
        return Jacobians({1: torch.eye(2), 0: torch.eye(2)}, 1, "", "")

    mllm = model("llava")
    monkeypatch.setattr(jacobian_lens, "fit_jacobians", fit)
    lens = JacobianLens(corpus=["where is the {word}"], max_tokens=33)
    opened = lens.open(mllm, ["red", "lung"], Meter(mllm.device))
    assert asked == [(("where is the {word}",), ["red", "lung"]), {"max_tokens": 33}]
    assert opened.layers == (0, 1, 2)
    others = [JacobianLens(corpus=["where is the {word}"]), JacobianLens(corpus=["a"], max_tokens=33)]
    assert len({str(one.to_dict()) for one in (lens, *others)}) == 3


def test_words_stand_in_the_prompts_of_a_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def fit(bridge: Any, prompts: Any, corpus: str, max_tokens: int) -> Any:
        seen.append(list(prompts))
        return SimpleNamespace(jacobians={}, n_prompts=2)

    monkeypatch.setattr(jacobian_lens, "_fitted", fit)
    text = "where is the {word} " * 6
    fit_jacobians(model("llava"), [text], ["red", "lung"], max_tokens=25, show_progress=False)
    assert seen == [[text.strip().replace("{word}", word) for word in ("red", "lung")]]
