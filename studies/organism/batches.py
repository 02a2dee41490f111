"""Turns lessons into tensors: tokens, positions, and a mask with which turns see the image but not each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import LlavaProcessor

from interp.organism.parts import GRID, IMAGE_TOKEN_ID
from studies.organism.lessons import Lesson

__all__ = ["Batch", "Packer"]

PAD_TURN = -1


@dataclass(frozen=True)
class Batch:
    """One training step's tensors. `labels` is −100 at positions without a prediction."""

    pixels: Float[Tensor, "lesson 3 row col"]
    ids: Int[Tensor, "lesson position"]
    positions: Int[Tensor, "lesson position"]
    labels: Int[Tensor, "lesson position"]
    mask: Bool[Tensor, "lesson 1 position position"]
    names: Float[Tensor, "lesson token name"]
    aspects: Int[Tensor, "lesson token aspect"]


class Packer:
    """Turns lessons into batches with a processor's own tokenizer, image processor and chat template."""

    def __init__(self, processor: LlavaProcessor) -> None:
        self.processor = processor
        self._turn = lru_cache(maxsize=4096)(self._tokenise)
        self.head, _ = self._split("what")

    def _split(self, text: str) -> tuple[list[int], list[int]]:
        """Returns the prompt's ids up to the image and after it."""
        message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
        prompt = self.processor.apply_chat_template(message, add_generation_prompt=True)
        ids = self.processor.tokenizer(prompt)["input_ids"]
        at = ids.index(IMAGE_TOKEN_ID)
        return ids[:at], ids[at + 1 :]

    def _tokenise(self, text: str, answer: str) -> tuple[tuple[int, ...], int]:
        _, suffix = self._split(text)
        tokenizer = self.processor.tokenizer
        reply = tokenizer(answer, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        return (*suffix, *reply), len(reply)

    def _sequence(self, lesson: Lesson) -> tuple[list[int], list[int], list[int], list[int]]:
        """Returns ids, turn numbers (0 is the image's part), positions and labels of one lesson."""
        ids = [*self.head, *[IMAGE_TOKEN_ID] * GRID**2]
        start = len(ids)
        turns, positions, labels = [0] * start, list(range(start)), [-100] * start
        for number, (text, answer) in enumerate(lesson.turns, start=1):
            tokens, n_reply = self._turn(text, answer)
            ids += tokens
            turns += [number] * len(tokens)
            positions += range(start, start + len(tokens))
            # the token before each reply token predicts it
            labels += [-100] * (len(tokens) - n_reply - 1) + [*tokens[-n_reply:], -100]
        return ids, turns, positions, labels

    def __call__(self, lessons: Sequence[Lesson]) -> Batch:
        """Returns the lessons as one right-padded batch."""
        rows = [self._sequence(lesson) for lesson in lessons]
        length = max(len(row[0]) for row in rows)
        fill = (self.processor.tokenizer.pad_token_id, PAD_TURN, 0, -100)
        ids, turns, positions, labels = (
            torch.tensor([[*row[k], *[fill[k]] * (length - len(row[k]))] for row in rows]) for k in range(4)
        )
        shared = (turns[:, None, :] == 0) | (turns[:, None, :] == turns[:, :, None])
        mask = shared & torch.ones(length, length, dtype=torch.bool).tril()
        pixels = self.processor.image_processor([lesson.pixels for lesson in lessons], return_tensors="pt")
        return Batch(
            pixels=pixels["pixel_values"],
            ids=ids,
            positions=positions,
            labels=labels,
            mask=mask[:, None],
            names=torch.from_numpy(np.stack([lesson.names for lesson in lessons])).float(),
            aspects=torch.from_numpy(np.stack([lesson.aspects for lesson in lessons])),
        )
