"""A known truth in a deep model: image tokens inside a box are a word's input embedding, written by the projector."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import tests.trained_like as trained_like
from interp.inputs.sample import Sample
from interp.tracing.passes.run import embeddings
from interp.tracing.word_lenses import JacobianLens, LatentLens, Patchscope, read_words
from tests.tiny import sample

WORDS = ("circle", "nodule")
"""Inside the box, and outside."""
BOX = (8, 8, 40, 30)
SENTENCES = ("there is a {word} in the image", "where is the {word}", "the answer is a {word}")
RUNNING = (
    "what is in the image ? there is a circle in the left lung , or a nodule is in the right lung . yes",
)


@cache
def planted() -> tuple[Any, list[Sample]]:
    """The deep LLaVA of 30 layers, its projector solved so that the tokens of three images are words' embeddings."""
    hf, processor = trained_like.deep()
    samples = [sample(seed=seed, boxes=[BOX]) for seed in range(3)]
    mllm = trained_like.wrapped((hf, processor))
    batch, entering = mllm.encode(samples), []
    projector = hf.model.multi_modal_projector.linear_2
    hook = projector.register_forward_pre_hook(lambda _, given: entering.append(given[0]))
    with torch.no_grad():
        hf(**batch.inputs)
        hook.remove()
        at = [processor.tokenizer.convert_tokens_to_ids(word) for word in WORDS]
        inside = np.concatenate([tokens.mask([BOX]) for tokens in batch.tokens])
        wanted = hf.get_input_embeddings().weight[[at[0] if one else at[1] for one in inside]]
        features = entering[0].reshape(len(wanted), -1).double()
        projector.bias.zero_()
        projector.weight.copy_((torch.linalg.pinv(features) @ wanted.double()).T)
    return trained_like.wrapped((mllm.unwrap(), processor)), samples


LENSES: dict[str, Any] = {
    "contextual": LatentLens(SENTENCES),
    "contextual, same layer": LatentLens(SENTENCES, "same"),
    "logit": "logit",
    "jacobian": JacobianLens(corpus=RUNNING),
    "patchscope": Patchscope("red - red , left - left , lung - lung , ?"),
}


def shares_first(name: str) -> np.ndarray:
    """(layer,) the share of the box's tokens at which the planted word is the first of all that the lens ranks."""
    mllm, samples = planted()
    read = read_words(mllm, samples, list(WORDS), LENSES[name])
    own = [
        (one["rank"].sel(word=WORDS[0]).values[:, tokens.mask([BOX])] == 0)
        for one, tokens in zip(read, read.tokens, strict=True)
    ]
    return np.concatenate(own, axis=1).mean(axis=1)


def test_the_plant_is_what_it_says() -> None:
    mllm, samples = planted()
    batch = mllm.encode(samples[0])
    entering = mllm.hf.get_input_embeddings().weight
    stream = embeddings(mllm, batch)[0][batch.tokens[0].image]
    at = [mllm.processor.tokenizer.convert_tokens_to_ids(word) for word in WORDS]
    mask = batch.tokens[0].mask([BOX])
    expected = entering[[at[0] if one else at[1] for one in mask]]
    assert float((stream - expected).abs().max()) < 1e-3


@pytest.mark.by_default(name=["contextual", "patchscope"])
@pytest.mark.parametrize("name", LENSES)
def test_only_embeddings_in_context_show_a_planted_embedding(name: str) -> None:
    """The unembedding of these random weights has nothing to do with the embeddings; docs/lens.md quotes this."""
    found = shares_first(name)
    assert len(found) == (30 if name == "jacobian" else 31)
    assert (found == (1 if name.startswith("contextual") else 0)).all()
