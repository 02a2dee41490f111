"""What a model shows of itself, where that has no name or cannot be told."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.conformance.tiny import families, tiny
from interp.errors import ModelError
from interp.models.adapter import attends_in, find
from interp.models.measured.behaviour import Call, Felt, _among, attends_by
from interp.models.measured.behaviour import felt as rows_that_felt
from interp.models.measured.embedder import Embedder, fitted, prompt_text

FAST = ("gemma4", "molmo2")


def felt(last: int, image: str, sliding: bool = False) -> Felt:
    """One layer: rows before the last token (all or none) and rows before the last image token that felt a change."""
    return Felt(np.full(7, bool(last)), np.array([c == "x" for c in image]), sliding)


IMAGE = np.array([c == "i" for c in "tiitiiit"])
"""Text, two image tokens, text, three image tokens, text."""


@pytest.mark.parametrize(
    ("layers", "attends"),
    [
        ([felt(0, "......"), felt(0, "......", True)], "causal"),
        ([felt(1, "xxxxxx")] * 2, "prefix"),
        (
            [felt(0, "....xx"), felt(0, "....x.", True)],
            "image_blocks",
        ),  # one row attends to it with a weight of 0
        ([felt(0, "....xx", True), felt(0, "......"), felt(0, "....xx", True)], "sliding_image_blocks"),
        ([felt(0, ".xx.xx")] * 2, "images"),
    ],
)
def test_rules_by_what_was_felt(layers: list[Felt], attends: str) -> None:
    assert attends_by(layers, IMAGE) == attends


@pytest.mark.parametrize(
    "layers",
    [
        [felt(0, "x...xx")],  # text felt a later image token
        [felt(0, "....xx"), felt(0, "......", True)],  # blocks in the layers without a window alone
        [felt(1, "xxxxxx"), felt(0, "......")],  # the whole prompt in one layer of two
    ],
)
def test_an_attention_without_a_name_is_refused(layers: list[Felt]) -> None:
    with pytest.raises(
        ModelError, match=r"none of causal, image_blocks, .*by layer: layer 0: \d of 7 and \d of 6"
    ):
        attends_by(layers, IMAGE)


class Bands(torch.nn.Module):
    """Row i of the output is 1 where the last token's feature lies in a band of its own, the last row is the token."""

    bands = ((2, 4), (-4, -2), (7, 9), (-9, -7), (20, 30))

    def forward(self, hidden_states: torch.Tensor, alone: bool = False) -> Any:
        one = hidden_states[:, -1:]
        rows = [*(((low < one) & (one < high)).float() for low, high in self.bands), one]
        return torch.cat(rows, dim=1) if alone else (torch.cat(rows, dim=1), None)


STATES = torch.ones(1, 6, 4)


@pytest.mark.parametrize(
    "given", [((STATES,), {}), ((), {"hidden_states": STATES}), ((STATES,), {"alone": True})]
)
def test_a_row_that_felt_any_change_felt_it(given: tuple[Any, Any]) -> None:
    """A token of ones becomes 3, −3, 8 and −8; each of four rows sees one of these, the fifth none."""
    call = Call(Bands(), *given, positions=None, attention=True)
    assert rows_that_felt(call, 5).tolist() == [True, True, True, True, False]
    assert (STATES == 1).all()


@pytest.mark.parametrize(
    ("words", "rows", "found"),
    [
        (
            "tiCiCit",
            ["..xxx", "....."],
            [67],
        ),  # the column tokens see the last image token, in one of the layers
        ("tiCiCit", ["..x..", "....x"], [67]),  # each in another layer
        ("tiCiCit", ["..xx."], []),  # one of them does not
        ("tiCiCiC", ["..xxx"], [67]),  # one behind the last image token cannot
        ("CiCiEit", ["x.x.x"], [67, 69]),
        ("tiCiCit", [".x.x."], []),  # image tokens alone
    ],
)
def test_tokens_that_see_later_images_wherever_they_are(
    words: str, rows: list[str], found: list[int]
) -> None:
    ids = np.array([ord(c) for c in words])
    image = np.array([c == "i" for c in words])
    assert _among(ids, image, [felt(0, one) for one in rows]).tolist() == found


@pytest.mark.parametrize(
    "family", [pytest.param(f, marks=[] if f in FAST else pytest.mark.slow) for f in families("self")]
)
def test_what_rows_attend_to_is_observed(family: str) -> None:
    """The adapter's rule, which the conformance suite holds to eager attention.

    A plain forward pass of transformers' Gemma 4 unified opens image blocks in every layer; what it masks while
    generating is the adapter's rule.
    """
    mllm = interp.wrap(*tiny(family), "measured")
    known = attends_in(find(mllm.hf.config, family), mllm.hf.config)
    seen = mllm.adapter.behaviour  # type: ignore[attr-defined]
    assert seen.attends == ("image_blocks" if family == "gemma4_unified" else known)
    if family == "molmo2":  # start, column and end tokens see the image tokens as those see each other
        assert len(seen.ids) > 1


class TextOnly:
    """A processor that takes no images."""

    chat_template = "{{ messages[0]['content'][-1]['text'] }}"

    def apply_chat_template(self, messages: list[dict[str, Any]], **_: object) -> str:
        return messages[0]["content"][-1]["text"]

    def __call__(self, **_: object) -> None:
        raise ValueError("no images, please.")


class Lists:
    """A processor that takes the images of a prompt as a list of their own, or one list alone."""

    chat_template = None

    def __init__(self, nested: bool, template: str | None = None) -> None:
        self.nested, self.tokenizer = nested, SimpleNamespace(chat_template=template)

    def __call__(self, *, text: list[str], images: list[Any], return_tensors: str) -> dict[str, Any]:
        if isinstance(images[0], list) is not self.nested:
            raise ValueError("another list, please.")
        sizes = [one.size for one in (images[0] if self.nested else images)]
        return {"sizes": torch.tensor(sizes), "labels": torch.ones(1), "words": text}

    def apply_chat_template(self, messages: Any, *, add_generation_prompt: bool, chat_template: str) -> str:
        assert add_generation_prompt
        return " ".join([chat_template, *(one.get("text", "<image>") for one in messages[0]["content"])])


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("joined", [True, False])
def test_images_are_given_as_the_processor_takes_them(
    monkeypatch: pytest.MonkeyPatch, nested: bool, joined: bool
) -> None:
    monkeypatch.setattr(Embedder, "joins", lambda self, samples: joined)
    found = fitted(None, Lists(nested), torch.nn.Identity(), 2, "two images")
    assert (found.nested, found.text, found.n_images) == (nested, "two images", 2)
    assert (found.at_once > 1) is joined
    inputs = found.inputs([np.zeros((4, 6, 3), np.uint8), np.zeros((5, 3, 3), np.uint8)])
    assert {name: value.tolist() for name, value in inputs.items()} == {"sizes": [[6, 4], [3, 5]]}


def test_a_prompt_has_words_between_its_images() -> None:
    found = prompt_text(Lists(True, "the template:"), 3, "")
    assert found.startswith("the template: <image> and <image> and <image> where ")


def test_a_processor_that_takes_no_images_is_refused() -> None:
    with pytest.raises(ModelError, match=r"takes no prompt with 2 images: no images, please\. The prompt is"):
        fitted(None, TextOnly(), torch.nn.Identity(), 2, "")


def test_pictures_that_give_other_shapes_are_refused() -> None:
    model, processor = tiny("qwen2_vl")
    embedder = Embedder(
        model, processor, model.get_decoder().layers[0], prompt_text(processor, 1, ""), at_once=2
    )
    pictures = [[np.zeros((height, 112, 3), np.uint8)] for height in (112, 224)]
    with pytest.raises(ModelError, match="images of the same size give inputs of different shapes"):
        list(embedder(pictures))


def test_what_enters_the_decoder_is_transformers_own() -> None:
    """The image's features, from `get_image_features`, stand at the image's positions."""
    model, processor = tiny("llava")
    embedder = Embedder(model, processor, model.get_decoder().layers[0], prompt_text(processor, 1, ""))
    picture = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    (entering,) = embedder([[picture]])
    inputs = embedder.inputs([picture])
    with torch.no_grad():
        features = model.get_image_features(pixel_values=inputs["pixel_values"])
    features = getattr(features, "pooler_output", features)[0]
    at = (inputs["input_ids"][0] == model.config.image_token_id).numpy()
    np.testing.assert_allclose(entering[at], features.reshape(-1, entering.shape[1]).numpy(), atol=1e-6)
