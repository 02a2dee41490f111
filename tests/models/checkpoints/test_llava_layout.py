"""What LLaVA's original config says of the tower, the layers and the ends of answers, setting by setting."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import CLIPVisionConfig, LlamaConfig

from interp.models.checkpoints.llava_kinds import HuatuoVision7, LlavaMed
from interp.models.checkpoints.llava_layout import (
    EMBEDDED,
    OriginalLlava,
    Sources,
    _llava_config,
    _scales,
    _stops,
)
from interp.models.checkpoints.tensors import Part
from interp.models.checkpoints.towers import Tower


class Held:
    """Tensors of these names, on the meta device."""

    def __init__(self, **shapes: tuple[int, ...]) -> None:
        self._shapes = {name.replace("__", "."): shape for name, shape in shapes.items()}

    def names(self) -> list[str]:
        return list(self._shapes)

    def meta(self, name: str) -> torch.Tensor:
        return torch.empty(self._shapes[name], device="meta")

    def read(self, name: str) -> torch.Tensor:
        raise AssertionError(f"{name} was read")


def tower() -> Tower:
    """A CLIP of 28 pixels in patches of 7, 8 wide."""
    config = CLIPVisionConfig(image_size=28, patch_size=7, hidden_size=8, num_attention_heads=2)
    return Tower(config, Part(Held(), ()), 28)


@pytest.mark.parametrize(
    ("raw", "layer", "strategy", "tied"),
    [
        ({}, -2, "default", False),
        ({"mm_vision_select_layer": -1, "mm_vision_select_feature": "patch"}, -1, "default", False),
        ({"mm_vision_select_feature": "cls_patch", "tie_word_embeddings": True}, -2, "full", True),
    ],
)
def test_features_are_of_the_layer_and_tokens_that_are_named(
    raw: dict[str, Any], layer: int, strategy: str, tied: bool
) -> None:
    found: Any = _llava_config(raw, LlamaConfig(), tower(), 77, ())
    assert (found.vision_feature_layer, found.vision_feature_select_strategy) == (layer, strategy)
    assert (found.tie_word_embeddings, found.image_token_index, found.image_seq_length) == (tied, 77, 16)
    scaled: Any = _llava_config(raw, LlamaConfig(), tower(), 77, (28, 56))
    assert (scaled.scales, scaled.scale_feature_layer) == ([28, 56], layer)
    assert (scaled.vision_feature_layer, scaled.tie_word_embeddings) == ([0, 1], tied)


@pytest.mark.parametrize(
    ("width", "told", "sides"),
    [(8, "28,56", []), (16, "56,28", [28, 56]), (24, None, [336, 672, 1008]), (24, "56,28,84", [28, 56, 84])],
)
def test_the_sides_of_several_sizes_are_told_by_the_width(
    width: int, told: str | None, sides: list[int], tmp_path: Path
) -> None:
    raw = {} if told is None else {"s2_scales": told}
    one, other = Held(model__mm_projector__0__weight=(5, width)), Held(model__norm=(1,))
    assert _scales(Sources(tmp_path, raw, one, None, tmp_path), tower()) == sides
    assert _scales(Sources(tmp_path, raw, other, one, tmp_path), tower()) == sides  # in a file of its own
    assert _scales(Sources(tmp_path, raw, other, None, tmp_path), tower()) == []


@pytest.mark.parametrize(
    ("told", "stop", "found"),
    [(2, None, [2]), ([2, 3], None, [2, 3]), ([5, 3], "<end>", [5, 3, 2, 9]), (None, "<end>", [2, 9])],
)
def test_an_answer_ends_with_any_of_the_tokens_named(told: Any, stop: str | None, found: list[int]) -> None:
    tokenizer = SimpleNamespace(eos_token_id=2, convert_tokens_to_ids={"<end>": 9}.get)
    assert _stops(SimpleNamespace(eos_token_id=told), tokenizer, stop) == found


@pytest.mark.parametrize(
    ("kind", "inside", "raw", "given", "inner", "said"),
    [
        (LlavaMed, True, {}, None, False, "is not used"),
        (LlavaMed, True, {"unfreeze_mm_vision_tower": True}, None, True, "own files"),
        (LlavaMed, True, {"unfreeze_mm_vision_tower": True}, "org/clip", False, "is not used"),
        (LlavaMed, True, {}, EMBEDDED, True, "own files"),
        (LlavaMed, False, {"unfreeze_mm_vision_tower": True}, None, False, None),
        (HuatuoVision7, True, {}, None, True, "own files"),
        (HuatuoVision7, True, {}, "org/clip", False, "is not used"),
    ],
)
def test_the_tower_is_the_one_given_then_the_tuned_one(
    kind: Any,
    inside: bool,
    raw: dict[str, Any],
    given: str | None,
    inner: bool,
    said: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []
    own, other = tower(), tower()

    def outer(self: Any, files: Sources, given: str | Path | None, *, download: bool) -> Tower:
        asked.append((given, download))
        return other

    monkeypatch.setattr(OriginalLlava, "inner_tower", lambda self, files: own)
    monkeypatch.setattr(OriginalLlava, "outer_tower", outer)
    name = "model__vision_tower__vision_tower__x" if inside else "model__norm"
    found, notes = kind()._tower(Sources(tmp_path, raw, Held(**{name: (1,)}), None, tmp_path), given, True)
    assert found is (own if inner else other)
    assert asked == ([] if inner else [(given, True)])
    assert [said in note for note in notes] == ([] if said is None else [True])
