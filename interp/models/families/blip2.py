"""BLIP-2 and InstructBLIP: queries of a Q-Former stand before the prompt; its attention says what they have seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from interp.errors import ModelError
from interp.inputs.footprints import Footprints, Size, concatenate, lay, select
from interp.inputs.patch_map import Patches
from interp.models.base import Family, Resampler
from interp.models.resizing import check_views, one_image, squashed_size, whole, without_area
from interp.models.vision_patches import leading_tokens, patches_of_latents

__all__ = ["Blip2", "InstructBlip"]


class Blip2(Family):
    """The `blip-2` family with a decoder as its language model (OPT): 32 queries, which stand for no place.

    The processor puts them in front of the prompt, before its first token. Models with an encoder-decoder (Flan-T5) do
    not belong to the family.
    """

    name = "blip-2"
    model_types = ("blip-2",)
    maps = "composed"
    leading_images = True
    several_images = False
    layout = (
        "queries of a Q-Former, no places, before the prompt; their patches: the image squashed to a square (224 px), "
        "a class token, then one row-major grid"
    )
    examples = ("Salesforce/blip2-opt-2.7b", "Salesforce/blip2-opt-6.7b")

    def matches(self, config: Any) -> bool:
        """Whether the config is of the family and its language model is a decoder."""
        return super().matches(config) and getattr(config, "use_decoder_only_language_model", True)

    def layers(self, model: nn.Module) -> list[nn.Module]:
        """Returns the language model's layers."""
        language: Any = model.get_submodule("language_model")
        return list(language.get_decoder().layers)

    def footprints(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns a token without area for each query; `latent_patches` has the places.

        Raises:
            ModelError: There are several images; the model takes one.
        """
        self._check_one(sizes)
        return without_area(int(config.num_query_tokens) * len(sizes), "latent")

    def latent_patches(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns the class token, which has no area, and the patches that the queries attend to.

        Raises:
            ModelError: There are several images, settings are not supported, or the pixel values do not follow from
                them.
        """
        self._check_one(sizes)
        if not sizes:
            return concatenate([])
        pixels = [squashed_size(size, processor, self.name) for size in sizes]
        check_views(inputs, pixels, sizes, processor)
        patch = int(config.vision_config.patch_size)
        (across, down), (size,) = pixels[0], sizes
        return one_image([without_area(1), lay(size, (down // patch, across // patch), whole(size))])

    def patches(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Patches:
        """Returns a class token and the patches of the image; no query has patches of its own."""
        found = self.latent_patches(sizes, inputs, processor, config)
        grids = [select(found, slice(1, None))] if sizes else []
        return patches_of_latents(grids, int(config.num_query_tokens) * len(sizes), leading_tokens(config))

    def resampler(self, model: nn.Module) -> Resampler:
        """Returns the Q-Former; every second of its layers attends to the patches, and to nothing else."""
        found: Any = model.get_submodule("qformer")
        layers = [one for one in found.encoder.layer if one.has_cross_attention]
        own = [one.crossattention.attention for one in layers]
        return Resampler(found, "encoder_hidden_states", own, attends_to_latents=False)

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns the family's question and answer, without the image, which the processor puts in front."""
        head = "" if system is None else f"{system} "
        return f"{head}Question: {text} Answer:"

    def _check_one(self, sizes: Sequence[Size]) -> None:
        if len(sizes) > 1:
            raise ModelError(
                f"{self.name} takes one image a sample: it has queries for one alone; got {len(sizes)}. Ask about each "
                "image in a sample of its own."
            )


class InstructBlip(Blip2):
    """The `instructblip` family with a decoder (Vicuna). The Q-Former also reads the prompt, in its self-attention.

    So the queries, and where they look, depend on the words, and an image prefix serves no other prompt.
    """

    name = "instructblip"
    model_types = ("instructblip",)
    image_reads_prompt = True
    examples = ("Salesforce/instructblip-vicuna-7b", "Salesforce/instructblip-vicuna-13b")

    def joined(self, name: str, samples: Sequence[Mapping[str, Any]]) -> Tensor | None:
        """Returns what the Q-Former reads, padded on the right, as its positions are counted from the left."""
        if name not in ("qformer_input_ids", "qformer_attention_mask"):
            return None
        lines: list[torch.Tensor] = [one[name][0] for one in samples]
        return pad_sequence(lines, batch_first=True)

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns the text alone."""
        return text if system is None else f"{system} {text}"
