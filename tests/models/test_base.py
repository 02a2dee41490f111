"""What every family has from its base class, by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from interp.errors import ModelError
from interp.inputs.footprints import squash
from interp.models.adapter import attends_in
from interp.models.base import Family, chatml, image_reads_prompt


class Plain(Family):
    name = "plain"
    model_types = ("plain", "plain_text")
    layout = "a grid"

    def footprints(self, *given: Any) -> Any:
        return squash((8, 4), (2, 4))


class Moving(Plain):
    name = "moving"
    video = True
    unread_tower = "it is convolutions"


@pytest.mark.parametrize(
    ("config", "still", "moving"),
    [
        ({"image_token_id": 5}, [1, 3], [1, 3]),
        ({"image_token_index": 5, "video_token_id": 7}, [1, 3], [1, 2, 3]),
        (
            {"image_token_id": 0, "image_token_index": 5, "video_token_index": 7},
            [0],
            [0, 2],
        ),  # 0 is an id too
        ({"image_token_id": None, "image_token_index": 7}, [2], [2]),
        ({"video_token_id": 7}, [], [2]),
    ],
)
def test_image_tokens_are_those_of_the_configs_ids(
    config: dict[str, Any], still: list[int], moving: list[int]
) -> None:
    ids = np.array([[0, 5, 7, 5, 9]])
    for family, places in ((Plain(), still), (Moving(), moving)):
        assert family.image_positions(ids, SimpleNamespace(**config)).tolist() == places


def test_a_family_is_known_by_its_model_types() -> None:
    assert Plain().matches(SimpleNamespace(model_type="plain_text"))
    assert not Plain().matches(SimpleNamespace(model_type="plain_vision"))
    assert not Plain().matches(SimpleNamespace())


@pytest.mark.usefixtures("unchecked")
def test_layers_are_those_of_the_decoder() -> None:
    decoder = SimpleNamespace(layers=("first", "second"))
    model: Any = SimpleNamespace(get_decoder=lambda: decoder, layers=("tower",))
    assert Plain.layers(Plain(), model) == ["first", "second"]  # pyright: ignore[reportArgumentType]


@pytest.mark.usefixtures("unchecked")
def test_attention_is_causal_unless_a_family_says_more() -> None:
    config = SimpleNamespace()
    assert Plain().attends_in(config) == "causal"
    assert attends_in(SimpleNamespace(), config) == "causal"  # pyright: ignore[reportArgumentType]
    assert attends_in(SimpleNamespace(attends="prefix"), config) == "prefix"  # pyright: ignore[reportArgumentType]
    by_config: Any = SimpleNamespace(attends="prefix", attends_in=lambda given: given.reach)
    assert attends_in(by_config, SimpleNamespace(reach="images")) == "images"
    assert not image_reads_prompt(Plain())
    assert not image_reads_prompt(SimpleNamespace())
    assert image_reads_prompt(SimpleNamespace(image_reads_prompt=True))


def test_prompts_hold_the_system_message_before_the_question() -> None:
    assert Plain().fallback_prompt("Why?", 2, None) == "<image><image>\nWhy?"
    assert Plain().fallback_prompt("Why?", 1, "Be brief.") == "Be brief.\n<image>\nWhy?"
    assert chatml("<image>Why?", None) == "<|im_start|>user\n<image>Why?<|im_end|>\n<|im_start|>assistant\n"
    assert chatml("Why?", "Be brief.") == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_patches_are_the_tokens_cut_by_what_merges_them() -> None:
    """2×4 tokens of 2 pixels, each of 2×2 patches of one pixel."""
    vision = SimpleNamespace(model_type="siglip_vision_model", image_size=8, patch_size=1)
    config = SimpleNamespace(vision_config=vision, scale_factor=2)
    found = Plain().patches([(8, 4)], {}, None, config)
    (one,) = found.sequences
    assert one.cells.grid == (4, 8)
    assert one.cells.boxes[[0, 1, 8]].tolist() == [[0, 0, 1, 1], [1, 0, 2, 1], [0, 1, 1, 2]]
    assert found.weights.shape == (8, 32)


@pytest.mark.usefixtures("unchecked")
def test_what_a_family_lacks_is_refused_with_its_reason() -> None:
    model: Any = SimpleNamespace()
    with pytest.raises(ModelError, match="tower of moving cannot be read or edited: it is convolutions"):
        Moving.vision_layers(Moving(), model)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ModelError, match="tower of moving cannot be read or edited: it is convolutions"):
        Moving().patches([(8, 4)], {}, None, None)
    with pytest.raises(ModelError, match="the family plain takes images and no video"):
        Plain().video_footprints((8, 4), 2, {}, None, None)
