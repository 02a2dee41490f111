# ruff: noqa: E501 - a row of a table is a line
"""Advice of the errors of models."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

import interp
from interp.conformance.tiny import tiny
from interp.inputs.footprints import Footprints, squash
from interp.models.adapter import find

GEOMETRY = [
    ("asked('paligemma', do_center_crop=True, crop_size=SQUARE)", "Set it to False", "asked('paligemma', do_center_crop=False, crop_size=SQUARE)"),
    ("asked('paligemma', do_center_crop=True, crop_size=SQUARE)", "pass adapter= with your own footprints", "asked('paligemma', do_center_crop=True, crop_size=SQUARE, adapter=Own('paligemma', (5, 5)))"),
    ("cells('paligemma', {'size': {'shortest_edge': 70}}, {})", "Set processor.image_processor.size", "cells('paligemma', {'size': SQUARE}, {})"),
    ("cells('paligemma', {'size': {'height': 56, 'width': 42}}, {})", "Set them on processor.image_processor", "cells('paligemma', *2 * [{'size': {'height': 56, 'width': 42}}])"),
    ("cells('internvl', {}, {}, ONE_TILE)", "in processor.images_kwargs where the processor has its own", "cells('internvl', {}, {}, ONE_TILE, ONE_TILE)"),
    ("asked('gemma3', size={'height': 56, 'width': 72})", "Set processor.image_processor.size", "asked('gemma3', size={'height': 64, 'width': 64})"),
    ("cells('internvl', *2 * [{'size': {'height': 50, 'width': 50}}])", "Set processor.image_processor.size", "cells('internvl', *2 * [{'size': {'height': 48, 'width': 48}}])"),
    ("cells('qwen2_vl', {'patch_size': 16}, {})", "Pass the processor of this checkpoint", "cells('qwen2_vl', {}, {})"),
    ("cells('qwen2_vl', {'size': {'height': 56, 'width': 56}}, {})", "Set both", "cells('qwen2_vl', *2 * [{'size': {'shortest_edge': 28**2, 'longest_edge': 8 * 28**2}}])"),
    ("cells('qwen2_vl', {}, {'size': FOUR})", "Set them on processor.image_processor", "cells('qwen2_vl', {'size': FOUR}, {'size': FOUR})"),
    ("find_('qwen3_vl').footprints([(140, 84)], {'video_grid_thw': [1]}, None, None)", "pass its frames as images", "mllm_of('qwen3_vl').trace(Sample(images=[PIC, PIC], question='?'))"),
    ("cells('llava', {}, {'do_center_crop': False})", "Set them on processor.image_processor instead", "cells('llava', *2 * [{'do_center_crop': False}])"),
    ("asked('llava', size={'longest_edge': 56}, crop=True)", "Pass adapter= with your own footprints", "asked('llava', size={'longest_edge': 56}, crop=True, adapter=Own('llava', (4, 4)))"),
    ("cells('mistral3', {}, {'size': {'longest_edge': 56}})", "Set them on processor.image_processor instead", "cells('mistral3', *2 * [{'size': {'longest_edge': 56}}])"),
    ("asked('mistral3', spatial_merge_size=1, on='processor')", "Set both to the checkpoint's", "asked('mistral3', spatial_merge_size=2, on='processor')"),
    ("asked('llava_onevision', vision_aspect_ratio='anyres_max_9', on='processor')", "Set both to the checkpoint's", "asked('llava_onevision', vision_aspect_ratio='anyres_max_4', on='processor')"),
    ("asked('llava_next', image_grid_pinpoints=[[56, 112]])", "Set both to the checkpoint's", "asked('llava_next', image_grid_pinpoints=[[56, 112]], config={'image_grid_pinpoints': [[56, 112]]})"),
    ("asked('llava_next', size={'shortest_edge': 28}, crop_size={'height': 56, 'width': 56})", "Set both to 56", "asked('llava_next', size={'shortest_edge': 56}, crop_size={'height': 56, 'width': 56})"),
]  # fmt: skip
ROWS: list[tuple[str, str, str]] = [*GEOMETRY]  # (a call that fails, words of its message, a call that follows them)

ELSEWHERE: dict[str, str] = {}  # the beginning of a message: why no row follows it, or the test that does

PICTURE = np.random.default_rng(0).integers(0, 255, (84, 140, 3), dtype=np.uint8)


class Own:
    """An adapter of a built-in family with footprints of its own: a grid over the whole image."""

    def __init__(self, family: str, grid: tuple[int, int]) -> None:
        self.family, self.grid = family_of(family), grid

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["family"], name)

    def footprints(self, sizes: Any, *_: Any) -> Footprints:
        return squash(sizes[0], self.grid)


def family_of(name: str) -> Any:
    """The adapter of a family."""
    return find(SimpleNamespace(model_type=name), name)


def asked(
    family: str, adapter: Any = None, on: str = "image_processor", config: dict[str, Any] | None = None, crop: bool = False, **settings: Any
) -> Any:  # fmt: skip
    """What a user's model with these settings makes of a sample."""
    hf, processor = tiny(family)
    for name, value in settings.items():
        setattr(processor if on == "processor" else processor.image_processor, name, value)
    for name, value in (config or {}).items():
        setattr(hf.config, name, value)
    mllm = interp.wrap(hf, processor, adapter)
    return mllm.encode([interp.Sample(PICTURE, "where is the nodule?")])


def cells(
    family: str, own: dict[str, Any], called: dict[str, Any], called_kwargs: Any = None, own_kwargs: Any = None
) -> Footprints:  # fmt: skip
    """The footprints by a processor of one's own settings of what it made when it was called with others."""
    adapter, (hf, one), (_, other) = family_of(family), tiny(family), tiny(family)
    for processor, settings, kwargs in ((one, own, own_kwargs), (other, called, called_kwargs)):
        for name, value in settings.items():
            setattr(processor.image_processor, name, value)
        if kwargs is not None:
            processor.images_kwargs = {**processor.images_kwargs, **kwargs}
    content = [{"type": "image"}, {"type": "text", "text": "where is it?"}]
    text = adapter.fallback_prompt("where is it?", 1, None)
    if other.chat_template:
        text = other.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
    inputs = dict(other(text=[text], images=[Image.fromarray(PICTURE)], return_tensors="pt"))
    return adapter.footprints([(140, 84)], inputs, one, hf.config)


def names() -> dict[str, Any]:
    """What the calls use, beside the names of `tests/test_advice.py`."""
    return {
        "Own": Own, "asked": asked, "cells": cells, "find_": family_of, "mllm_of": lambda family: interp.wrap(*tiny(family)),
        "SQUARE": {"height": 70, "width": 70}, "ONE_TILE": {"crop_to_patches": False}, "FOUR": {"shortest_edge": 28**2, "longest_edge": 4 * 28**2},
    }  # fmt: skip
