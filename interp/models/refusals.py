"""Models without a spatial map of the image: why each family has none, and the adapter of models that only answer.

A map needs image tokens that are positions of the decoder's sequence and stand for places in the image. Each reason
describes what transformers' own code does. An adapter that composes a map itself (for example through a resampler's
attention) may be installed or passed; it has precedence. Without one such a model can still answer: `AnswersOnly`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from interp.errors import ModelError

__all__ = ["ANSWERS_ONLY", "AnswersOnly", "answers", "refusal", "without_maps"]


_CROSS = (
    "its decoder reads the image through cross-attention layers of their own: the image is no part of the sequence "
    "whose self-attention is read here"
)
_CROSS_WAY = (
    "its attention over the image's features is a map of another kind: read it in transformers, under eager "
    "attention, with a hook on the modules that attend to them"
)
_QUERIES = (
    "its image tokens are learned queries, each of which has looked at the whole image or tile: no token is "
    "a place"
)
_QUERIES_WAY = (
    "a map can be composed: rows over the queries times the queries' attention over the patches; "
    "pass adapter= with one that does that and say that the map is composed"
)
_ENCODER = (
    "it is an encoder-decoder: an image goes into the encoder and is no part of the decoder's own sequence"
)
_VIDEO = "it takes clips of frames, not images"

_REASONS: dict[str, tuple[str, str]] = {
    # cross-attention
    "idefics": (_CROSS, _CROSS_WAY),
    "blip": (_CROSS, _CROSS_WAY),
    "flamingo": (_CROSS, _CROSS_WAY),
    # queries
    "kosmos-2": (f"{_QUERIES} (latent queries)", _QUERIES_WAY),
    "kosmos-2.5": (f"{_QUERIES} (latent queries)", _QUERIES_WAY),
    "deepseek_ocr2": (f"{_QUERIES} (queries behind the patches in its vision encoder)", _QUERIES_WAY),
    "qwen": (f"{_QUERIES} (Qwen-VL's resampler)", _QUERIES_WAY),
    "minicpmv": (f"{_QUERIES} (MiniCPM-V's resampler)", _QUERIES_WAY),
    # encoder-decoders
    "florence2": (_ENCODER, _CROSS_WAY),
    "pix2struct": (_ENCODER, _CROSS_WAY),
    "pp_formulanet": (_ENCODER, _CROSS_WAY),
    "t5gemma2": (_ENCODER, _CROSS_WAY),
    "udop": (_ENCODER, _CROSS_WAY),
    "vision-encoder-decoder": (_ENCODER, _CROSS_WAY),
    # other forms
    "git": (
        "it puts the image's features in front of the sequence inside the model: the prompt's ids hold no image tokens",
        "read its attention in transformers: its first columns are the image's",
    ),
    "diffusion_gemma": (
        "it writes by refining a whole canvas of tokens over many passes: there is no row that predicts the next token",
        "read its attention in transformers, pass by pass",
    ),
    "pi0": (
        "it predicts a robot's actions from noise: there is no row that predicts the next token",
        "load the PaliGemma that it is built on, if you want to study what it says about an image",
    ),
    "evolla": ("it reads proteins, not images", "take a model that sees images"),
    "instructblipvideo": (_VIDEO, "take a model of images, such as one of the built-in families"),
}


_SILENT = {"diffusion_gemma", "evolla", "instructblipvideo", "pi0"}
"""Model types that cannot answer a question about an image either."""


ANSWERS_ONLY = "answers_only"
"""The value of `adapter=` for a model that only answers."""


def without_maps() -> list[str]:
    """Returns the model types that have no map here but can answer, in alphabetical order."""
    return sorted(set(_REASONS) - _SILENT)


def answers(config: Any) -> bool:
    """Whether a model predicts one token after another from an image and a text, so that it can answer."""
    return getattr(config, "model_type", None) not in _SILENT


def refusal(config: Any) -> str | None:
    """Returns why there is no map for a model and what to do instead; None if a map is possible.

    Args:
        config: An object with a `model_type`; `is_encoder_decoder`, `use_decoder_only_language_model` and `visual` are
            also read.
    """
    kind = getattr(config, "model_type", None)
    if kind == "qwen" and not getattr(config, "visual", None):
        return None  # the language model of the same name
    why, way = _REASONS.get(str(kind), (None, None))
    decodes = getattr(config, "use_decoder_only_language_model", True)  # of InstructBLIP's config
    if why is None and (getattr(config, "is_encoder_decoder", False) or not decodes):
        why, way = _ENCODER, _CROSS_WAY
    return None if why is None else f"{kind!r} models have no spatial map here: {why}. Instead: {way}."


class AnswersOnly:
    """The adapter of a model without a map: `Mllm.answers` and `Mllm.score` work, nothing else does.

    Attributes:
        why: Why there is no map, in a sentence.
    """

    name = ANSWERS_ONLY
    layout = "no image tokens that are places: answers and scores only"

    def __init__(self, why: str) -> None:
        self.why = why

    def matches(self, config: Any) -> bool:
        """Returns False: this adapter is chosen by its name alone."""
        return False

    def refuse(self, what: str = "reads, edits, footprints and studies of maps") -> NoReturn:
        """Raises `ModelError` with the reason.

        Args:
            what: What was asked for.
        """
        raise ModelError(
            f"this model was opened with adapter={ANSWERS_ONLY!r}: it serves mllm.answers and mllm.score alone, "
            f"without edits; {what} need image tokens that are places. {self.why}"
        )

    def layers(self, model: Any) -> NoReturn:
        """Refused."""
        self.refuse("decoder layers")

    def image_positions(self, input_ids: Any, config: Any) -> NoReturn:
        """Refused."""
        self.refuse("image positions")

    def footprints(
        self, sizes: Sequence[tuple[int, int]], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> NoReturn:
        """Refused."""
        self.refuse("footprints")

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns the text alone: processors without a chat template place the image themselves."""
        return text if system is None else f"{system}\n{text}"
