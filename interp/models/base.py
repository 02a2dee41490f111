"""The base class of model families; a family overrides what differs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Int
from torch import nn

from interp.errors import ModelError
from interp.inputs.footprints import Footprints
from interp.inputs.patch_map import Patches
from interp.models.vision_patches import merged_side, tower_layers, usual_patches

__all__ = ["Attends", "Family", "Maps", "Resampler", "chatml", "image_reads_prompt"]

Attends = Literal["causal", "image_blocks", "sliding_image_blocks", "images", "prefix"]
"""What a row of the prompt may attend to. "causal": itself and earlier tokens. "image_blocks": for image tokens also
all tokens of their own run of image tokens. "sliding_image_blocks": the same in layers with a sliding window alone,
and what lies behind the window stays hidden. "images": for image tokens also all image tokens of the prompt.
"prefix": the whole prompt."""

Maps = Literal["self", "cross", "composed"]
"""What a map is made of. "self": the image tokens are positions of the sequence and stand for places. "cross": they are
keys of cross-attention layers, outside of the sequence. "composed": they are latents of a resampler, which are no
places; a map is the product of the rows over them and their own attention over the patches."""


class Resampler(NamedTuple):
    """A module that makes latents of an image's patches.

    Attributes:
        module: The module that is given the patches' features, (view, patch, hidden).
        features: The name of the argument that takes the features of the patches.
        attentions: The attention modules in it whose queries are the latents and whose keys are the patches; their
            outputs are (result, weights).
        attends_to_latents: Whether the latents are keys too, after the patches.
    """

    module: nn.Module
    features: str
    attentions: list[Any]
    attends_to_latents: bool = True


class Family(ABC):
    """A transformers family with one id for all image tokens and a decoder that `get_decoder()` returns.

    Attributes:
        name: The family's name.
        model_types: The `model_type` of its configs.
        layout: One line for readers on the image tokens and the preparation of the image.
        attends: What a row of the prompt sees (`Attends`). It decides whether an image prefix is exact. A family in
            which a model's config decides that overrides `attends_in`.
        first_position: The position id of a prompt's first token.
        maps: What a map is made of (`Maps`).
        examples: Hub ids of the family.
        video: Whether it takes videos; then `video_footprints` says where their tokens are.
        nested_images: Whether the processor takes the images of a sample as a list of their own.
        leading_images: Whether the processor puts image tokens in front of a prompt that holds no placeholder.
        several_images: Whether a sample may show several images.
        image_reads_prompt: Whether the features of the image depend on the words of the prompt; then no image prefix
            is kept.
        unread_tower: Why the patches of its vision tower are not mapped; "" where they are.
    """

    name: ClassVar[str]
    model_types: ClassVar[tuple[str, ...]]
    layout: ClassVar[str]
    attends: ClassVar[Attends] = "causal"
    first_position: ClassVar[int] = 0
    maps: ClassVar[Maps] = "self"
    examples: ClassVar[tuple[str, ...]] = ()
    video: ClassVar[bool] = False
    nested_images: ClassVar[bool] = True
    leading_images: ClassVar[bool] = False
    several_images: ClassVar[bool] = True
    image_reads_prompt: ClassVar[bool] = False
    unread_tower: ClassVar[str] = ""

    def matches(self, config: Any) -> bool:
        """Whether the config's model type is one of the family's."""
        return getattr(config, "model_type", None) in self.model_types

    def attends_in(self, config: Any) -> str:
        """Returns what a row of the prompt sees in a model with this config."""
        return self.attends

    def layers(self, model: nn.Module) -> list[nn.Module]:
        """Returns the language model's layers."""
        return list(model.get_decoder().layers)  # pyright: ignore[reportCallIssue]

    def image_positions(self, input_ids: Any, config: Any) -> Int[np.ndarray, " token"]:
        """Returns the positions of the config's image token and, of families with video, of its video token."""
        kinds = ("image", "video") if self.video else ("image",)
        ids = np.asarray(input_ids).reshape(-1)
        wanted = np.array([_token_id(config, kind) for kind in kinds])
        return np.flatnonzero((ids == wanted[:, None]).any(axis=0))

    @abstractmethod
    def footprints(
        self, sizes: Sequence[tuple[int, int]], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns the footprint of each image token; every family implements it."""

    def video_footprints(
        self, size: tuple[int, int], n_frames: int, inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns the footprint of each token of a video, with its frames; families with `video` implement it.

        Args:
            size: (width, height) of every frame.
            n_frames: How many frames the processor was given.
            inputs: The output of the processor for this sample alone.
            processor: The transformers processor; its `video_processor` made the inputs.
            config: The model's config.

        Raises:
            ModelError: The family takes no video, or the inputs do not follow from the settings.
        """
        del size, n_frames, inputs, processor, config
        raise ModelError(f"the family {self.name} takes images and no video. Pass the frames as images=[…].")

    def vision_layers(self, model: nn.Module) -> list[nn.Module]:
        """Returns the layers of the vision tower, in order; each has its attention among its children.

        Raises:
            ModelError: The model has no tower whose attention goes through transformers' attention interface.
        """
        self._check_tower()
        return tower_layers(model)

    def patches_along(self, config: Any) -> int:
        """Returns how many patches of the tower lie along the side of a token."""
        return merged_side(config)

    def patches(
        self, sizes: Sequence[tuple[int, int]], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Patches:
        """Returns the patches of the vision tower for one sample: `patches_along` patches along each side of a token.

        The tower must be of a form that `interp.models.vision_patches.usual_patches` knows.

        Args:
            sizes: (width, height) of each image of the sample.
            inputs: The output of the processor for this sample alone.
            processor: The transformers processor.
            config: The model's config.

        Raises:
            ModelError: The tower is of another form.
        """
        self._check_tower()
        found = self.footprints(sizes, inputs, processor, config)
        return usual_patches(found, inputs, config, self.patches_along(config))

    def _check_tower(self) -> None:
        if self.unread_tower:
            raise ModelError(
                f"the vision tower of {self.name} cannot be read or edited: {self.unread_tower}. Read the language "
                "model's attention, or give the adapter patches(sizes, inputs, processor, config)."
            )

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns the images and then the text, for processors without a chat template."""
        head = "" if system is None else f"{system}\n"
        return head + "<image>" * n_images + f"\n{text}"


def chatml(content: str, system: str | None) -> str:
    """Returns a prompt in ChatML: a system turn if there is a message for it, the user's turn, the answer's beginning.

    Args:
        content: What the user's turn holds: the images' placeholders and the text.
        system: The system message.
    """
    head = "" if system is None else f"<|im_start|>system\n{system}<|im_end|>\n"
    return f"{head}<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n"


def image_reads_prompt(adapter: Any) -> bool:
    """Whether an adapter says that the features of an image depend on the words of the prompt; False by default."""
    return bool(getattr(adapter, "image_reads_prompt", False))


def _token_id(config: Any, kind: str) -> int:
    """Returns the id of a config's image or video token, under either of its names; −1 if the config has none."""
    named = (getattr(config, f"{kind}_token_{ending}", None) for ending in ("id", "index"))
    return next((int(token) for token in named if token is not None), -1)
