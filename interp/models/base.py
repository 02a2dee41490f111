"""What most model families share; a family overrides what is different about it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Int
from torch import nn

from interp.inputs.footprints import Footprints

__all__ = ["Attends", "Family"]

Attends = Literal["causal", "image_blocks", "prefix"]
"""What a prompt's row may attend to: itself and what comes before it; for image tokens, all of their own run of
image tokens too; or the whole prompt."""


class Family(ABC):
    """A transformers family whose image tokens share one id and whose decoder `get_decoder()` returns.

    Attributes:
        name: the family's name.
        model_types: the `model_type` of its configs.
        layout: one line on what the image tokens are and how the image is prepared, for people.
        attends: how far a prompt's row sees (`Attends`). Decides whether an image prefix is exact.
        first_position: the position of a prompt's first token.
        examples: hub ids of the family.
    """

    name: ClassVar[str]
    model_types: ClassVar[tuple[str, ...]]
    layout: ClassVar[str]
    attends: ClassVar[Attends] = "causal"
    first_position: ClassVar[int] = 0
    examples: ClassVar[tuple[str, ...]] = ()

    def matches(self, config: Any) -> bool:
        """Whether the config's model type is one of the family's."""
        return getattr(config, "model_type", None) in self.model_types

    def layers(self, model: nn.Module) -> list[nn.Module]:
        """The language model's layers."""
        return list(model.get_decoder().layers)  # pyright: ignore[reportCallIssue]

    def image_positions(self, input_ids: Any, config: Any) -> Int[np.ndarray, " token"]:
        """Where the ids equal the config's image token."""
        token = getattr(config, "image_token_id", None)
        token = getattr(config, "image_token_index", None) if token is None else token
        return np.flatnonzero(np.asarray(input_ids).reshape(-1) == token)

    @abstractmethod
    def footprints(
        self, sizes: Sequence[tuple[int, int]], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """The footprint of each image token; every family has its own."""

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Images, then the text: for processors without a chat template."""
        head = "" if system is None else f"{system}\n"
        return head + "<image>" * n_images + f"\n{text}"
