"""Logit lens, residual parts and direct attribution, against hooks and formulas on transformers' own model."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import interp
from interp.conformance.tiny import tiny
from interp.errors import ModelError, PromptError, SiteError
from interp.tracing.lens import SUPPORTED, Lens
from interp.tracing.lens.logit_lens import score_words, word_ids
from tests.tiny import uneven_samples as samples
from tests.tracing.lens.lenses import BY_DEFAULT, lens_of

BY_HAND = ("llava", "gemma3", "qwen2_5_vl")


class Seen:
    """One unpadded pass of a fresh eager model: what enters and leaves its modules."""

    def __init__(self, family: str, inputs: Any) -> None:
        self.hf: Any = tiny(family, "eager")[0]
        self.decoder = self.hf.get_decoder()
        self.into: dict[Any, torch.Tensor] = {}
        self.out: dict[Any, torch.Tensor] = {}

        def hook(module: Any, given: Any, kwargs: Any, output: Any) -> None:
            self.into[module] = given[0] if given else kwargs["hidden_states"]
            self.out[module] = output[0] if isinstance(output, tuple) else output

        with ExitStack() as stack, torch.no_grad():
            for module in (*self.decoder.layers.modules(), self.decoder.norm):
                stack.enter_context(module.register_forward_hook(hook, with_kwargs=True))  # pyright: ignore
            self.logits = self.hf(**inputs, use_cache=False).logits[0].double().numpy()

    def norm(self, module: Any) -> np.ndarray:
        """gain / RMS at each position, from the formula; Gemma's gains are stored less one."""
        x = self.into[module][0].double().numpy()
        epsilon = getattr(module, "variance_epsilon", None) or module.eps
        gain = module.weight.detach().double().numpy() + ("Gemma" in type(module).__name__)
        return gain / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon)

    def heads(self) -> np.ndarray:
        """(layer, head, position, hidden): what each head adds to the stream."""
        found = []
        for layer in self.decoder.layers:
            project = layer.self_attn.o_proj
            z = self.into[project][0].double().numpy()
            weight = project.weight.detach().double().numpy()
            width = weight.shape[1] // 4
            own = [
                z[:, h * width : (h + 1) * width] @ weight[:, h * width : (h + 1) * width].T for h in range(4)
            ]
            behind = (
                self.norm(layer.post_attention_layernorm)
                if hasattr(layer, "pre_feedforward_layernorm")
                else 1
            )
            found.append(np.stack(own) * behind)
        return np.stack(found)

    def mlps(self) -> np.ndarray:
        """(layer, position, hidden)."""
        modules = [getattr(layer, "post_feedforward_layernorm", layer.mlp) for layer in self.decoder.layers]
        return np.stack([self.out[module][0].double().numpy() for module in modules])


@pytest.mark.parametrize("family", BY_HAND)
def test_direct_attribution_is_the_sum_by_hand(family):
    lens = lens_of(family)
    found = lens.attribution(samples(), interp.Target(interp.diff("yes", "no")))
    centred = lens.attribution(samples(), interp.Target("yes"), relative_to="mean")
    yes, no = (word_ids(lens.mllm.processor.tokenizer, word)[0] for word in ("yes", "no"))
    for i in (0, 2):
        seen = Seen(family, lens.mllm.encode(samples()[i]).inputs)
        rows = seen.hf.lm_head.weight.detach().double().numpy()
        turned = seen.norm(seen.decoder.norm)[-1]
        for one, along in ((found[i], rows[yes] - rows[no]), (centred[i], rows[yes] - rows.mean(0))):
            assert_allclose(one.heads, seen.heads()[:, :, -1] @ (turned * along), atol=1e-4)
            assert_allclose(one.mlp, seen.mlps()[:, -1] @ (turned * along), atol=1e-4)
            entering = seen.into[seen.decoder.layers[0]][0, -1].double().numpy()
            assert float(one.embedding) == pytest.approx(entering @ (turned * along), abs=1e-4)
        last = seen.logits[-1]
        assert float(found[i].logit) == pytest.approx(last[yes] - last[no], abs=1e-4)
        assert float(centred[i].logit) == pytest.approx(last[yes] - last.mean(), abs=1e-4)
        assert found[i].attrs["words"] == ["yes", "no"]


def test_the_mean_cancels_in_a_difference_of_two_answers():
    lens, target = lens_of("llava"), interp.Target(interp.diff("yes", "no"))
    plain, centred = (lens.attribution(samples()[0], target, relative_to=one)[0] for one in ("zero", "mean"))
    for part in ("heads", "mlp", "embedding", "logit"):
        assert_allclose(centred[part], plain[part], atol=1e-6)


@pytest.mark.by_default(family=BY_DEFAULT)
@pytest.mark.parametrize("family", SUPPORTED)
def test_the_parts_add_up_to_the_stream_and_to_the_logits(family):
    lens = lens_of(family)
    logits, cache = lens.run_with_cache(samples(), hooks=["hook_resid_post"])
    greedy = lens.attribution(samples())
    kinds = {"embedding", "head", "mlp", *({"added"} if family.startswith("qwen3_vl") else ())}
    for i, one in enumerate(greedy):
        top = int(logits.values[i].argmax())
        assert one.attrs["answers"] == [top]
        assert one.attrs["completeness_error"] < 1e-4
        parts = float(
            one.heads.sum() + one.mlp.sum() + one.embedding + one.added
        )  # no family has biases here
        assert parts == pytest.approx(float(logits[i, top]), abs=1e-4)
    for i, parts in enumerate(lens.components(samples(), positions="image")):
        assert set(parts.kind.values) == kinds
        expected = cache[i]["hook_resid_post"].isel(layer=-1).sel(position=parts.position)
        assert_allclose(parts.sum("component"), expected, atol=1e-4)


def test_the_biases_of_attention_and_unembedding_count():
    hf, processor = tiny("llava")
    torch.manual_seed(1)
    for layer in hf.get_decoder().layers:
        layer.self_attn.o_proj.bias = torch.nn.Parameter(torch.randn(64) / 4)
    hf.lm_head.bias = torch.nn.Parameter(torch.randn(hf.lm_head.weight.shape[0]))
    lens = interp.wrap(hf, processor, "llava").to_lens()
    parts = lens.components(samples()[0])[0]
    assert parts.layer[parts.kind == "attention bias"].values.tolist() == [0, 1, 2]
    assert_allclose(
        parts[parts.kind == "attention bias"][1, 0], hf.get_decoder().layers[1].self_attn.o_proj.bias.detach()
    )
    one = lens.attribution(samples()[0], interp.Target("yes"))[0]
    assert float(one.bias) == pytest.approx(float(hf.lm_head.bias[one.attrs["answers"][0]]))
    assert float(one.attention.sum() - one.heads.sum()) != pytest.approx(0, abs=1e-3)
    assert one.attrs["completeness_error"] < 1e-4
    centred = lens.attribution(samples()[0], interp.Target("yes"), relative_to="mean")[0]
    assert centred.attrs["completeness_error"] < 1e-4
    assert float(centred.bias) == pytest.approx(float(one.bias) - float(hf.lm_head.bias.mean()), abs=1e-5)


@pytest.mark.parametrize("family", ["llava", "gemma3"])
def test_the_logit_lens_is_norm_and_unembedding_by_hand(family):
    lens = lens_of(family)
    found = lens.logit_lens(samples(), ["lung", "red"], top=3)
    i = 2
    seen = Seen(family, lens.mllm.encode(samples()[i]).inputs)
    tokens, one = found.tokens[i], found[i]
    assert one.logprob.dims == ("layer", "token", "word")
    assert (one.position == tokens.image).all()
    layers = seen.decoder.layers
    streams = [seen.into[layers[0]], *(seen.out[layer] for layer in layers)]
    for layer, stream in enumerate(streams, start=-1):
        with torch.no_grad():
            logits = seen.hf.lm_head(
                seen.decoder.norm(stream[0, torch.from_numpy(tokens.image.copy())])
            ).double()
        logprobs = logits.log_softmax(-1).numpy()
        for word in ("lung", "red"):
            (token,) = word_ids(lens.mllm.processor.tokenizer, word)
            here = one.sel(layer=layer, word=word)
            assert_allclose(here.logprob, logprobs[:, token], atol=1e-4)
            order = np.argsort(-logprobs, axis=1)
            assert (here["rank"] == (order == token).argmax(axis=1)).all()
        assert (one.top.sel(layer=layer) == order[:, :3]).all()
        assert_allclose(
            one.top_logprob.sel(layer=layer), np.take_along_axis(logprobs, order[:, :3], 1), atol=1e-4
        )
    assert (
        lens.mllm.processor.tokenizer.decode([int(one.top[0, 0, 0])]).strip() == one.top_word.values[0, 0, 0]
    )


def test_a_word_of_several_tokens_ranks_by_the_likeliest():
    scores = torch.tensor([[4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 4.0, 3.0]])
    logprob, rank, ids, _ = score_words(
        lambda stream: stream, scores, [torch.tensor([1, 3]), torch.tensor([2])], 1
    )
    assert rank.tolist() == [[1, 2], [1, 0]]
    assert ids.tolist() == [[0], [2]]
    shares = scores.softmax(-1)
    assert_allclose(logprob.exp(), torch.stack([shares[:, 1] + shares[:, 3], shares[:, 2]], 1), rtol=1e-6)


def test_equal_scores_share_the_better_rank():
    stream = torch.arange(300.0)[:, None] * torch.tensor([0.0, 1.0, 1.0])  # more than one chunk of places
    logprob, rank, ids, _ = score_words(lambda one: one, stream, [torch.tensor([1]), torch.tensor([2])], 0)
    assert (rank == 0).all()
    assert ids.shape == (300, 0)
    assert_allclose(logprob[[0, 299], 0], [-np.log(3), -np.log(2)], atol=1e-5)


def test_the_lens_after_the_last_layer_is_the_answer():
    lens = lens_of("qwen3_vl")
    found = lens.logit_lens(samples(), positions="last", top=1)
    assert found[0].logprob.sizes == {"layer": lens.mllm.n_layers + 1, "position": 1, "word": 0}
    for i, one in enumerate(found):
        assert int(one.top[-1, 0, 0]) == int(found.logits.values[i].argmax())
    assert_allclose(found.logits, lens.mllm.trace(samples()).logits, atol=1e-5)


IDS = {"Red": [3], " Red": [4], "red": [5], " red": [9, 5], "pancreas": [6, 7], "zz": [0]}


class Spelling:
    """A tokenizer of spellings: each text one of these ids, or several."""

    unk_token_id = 0

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return IDS.get(text, [1, 2])

    def decode(self, ids: list[int]) -> str:
        return " " if ids == [9] else "x"

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [f"t{i}" for i in ids]


def test_a_word_is_every_token_that_spells_it_and_one_token():
    assert word_ids(Spelling(), "Red") == (3, 4, 5)
    for word, said in (("pancreas", r"\['t6', 't7'\]"), ("zz", r"\['t0'\]"), (" ", r"\[\]")):
        with pytest.raises(PromptError, match=f"one token; '{word}' is {said} in this vocabulary"):
            word_ids(Spelling(), word)


def test_what_is_refused(unchecked):
    lens: Lens = lens_of("llava")
    with pytest.raises(PromptError, match='relative_to is "zero" or "mean"; got \'median\''):
        lens.attribution(samples(), relative_to="median")  # pyright: ignore[reportArgumentType]
    with pytest.raises(PromptError, match="begin with the same token, so its logit cannot tell them apart"):
        lens.attribution(samples(), interp.Target(interp.diff("left lung", "left nodule")))
    n = lens.readout.head.weight.shape[0]
    for top in (-1, n + 1, True, 1.0):
        with pytest.raises(PromptError, match=f"top is a number of tokens from 0 to {n}; got {top}"):
            lens.logit_lens(samples(), top=top)
    for words in ("red", ["red", "red"], ["red", 3], None):
        with pytest.raises(PromptError, match="words is a list of different words; got"):
            lens.logit_lens(samples(), words)
    with pytest.raises(SiteError, match="the question does not hold the word 'there'"):
        lens.logit_lens(samples(), positions=interp.word("there"))
    with pytest.raises(SiteError):
        lens.components(samples(), positions="nowhere")
    n = [one.n for one in lens.mllm.encode(samples()).tokens]
    masks = [np.full(one, i != 1) for i, one in enumerate(n)]
    with pytest.raises(SiteError, match=r"samples \[1\] of the batch have no tokens at"):
        lens.logit_lens(samples(), positions=interp.image_mask(masks))


def test_a_model_whose_logits_are_not_the_streams_is_refused(monkeypatch):
    lens = lens_of("llava")
    head = lens.bridge.unembed.original_component
    handle = head.register_forward_hook(lambda module, given, output: output * 2)
    try:
        with pytest.raises(
            ModelError, match="has a step between residual stream and logits that interp does not know"
        ):
            lens.attribution(samples())
    finally:
        handle.remove()


def test_a_norm_that_subtracts_the_mean_is_refused():
    from interp.tracing.lens.bridge import frozen

    class Norm:
        uses_rms_norm = False
        original_component = torch.nn.LayerNorm(4)

    with pytest.raises(ModelError, match="LayerNorm is not an RMS norm"):
        frozen(Norm(), torch.ones(2, 4))
