"""How VILA 1.5's checkpoints are spoken to: conversations, tokenizer, processor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor, AutoTokenizer

from interp.errors import ModelError
from interp.models.own.vila import VilaConfig, VilaProcessor

__all__ = ["DIALOGUES", "Dialogue", "dialogue", "make_processor", "placed_tokenizer"]

_RESERVED = tuple(f"<|reserved_special_token_{i}|>" for i in reversed(range(251)))
"""Llama 3's unused tokens."""


@dataclass(frozen=True)
class Dialogue:
    """One of VILA's conversations.

    Attributes:
        name: VILA's name for it (`conv_mode`).
        sign: a token by which a vocabulary is known to speak it; "" for the one of all others.
        prompt: the whole prompt; `{system}`, `<image>` and `{question}` where they go.
        system: its own system message.
        end: what ends an answer.
    """

    name: str
    sign: str
    prompt: str
    system: str
    end: str

    def template(self, image_token: str) -> str:
        """The chat template, in Jinja: the system message, and the user's parts in the order they have."""
        before, rest = self.prompt.split("{system}")
        after, turn = rest.split("<image>")
        after_image, tail = turn.split("{question}")
        return (
            f"{{%- set ns = namespace(system={self.system!r}) -%}}"
            "{%- for m in messages if m['role'] == 'system' -%}"
            "{%- set ns.system = m['content'] if m['content'] is string else m['content'][0]['text'] -%}"
            "{%- endfor -%}"
            f"{{{{- {before!r} + ns.system + {after!r} -}}}}"
            "{%- for m in messages if m['role'] == 'user' -%}{%- for part in m['content'] -%}"
            f"{{{{- {image_token + after_image!r} if part['type'] == 'image' else part['text'] -}}}}"
            "{%- endfor -%}{%- endfor -%}"
            f"{{{{- {tail!r} -}}}}"
        )

    def stops(self, tokenizer: Any, stored: int | Sequence[int] | None) -> list[int]:
        """Ids that end an answer: the conversation's own, then those of the language model's config."""
        more = [stored] if isinstance(stored, int) else list(stored or ())
        return list(dict.fromkeys([tokenizer.convert_tokens_to_ids(self.end), *more]))


DIALOGUES: tuple[Dialogue, ...] = (
    Dialogue(
        "llama_3",
        "<|start_header_id|>",
        # The original writes the first token and its tokenizer puts another in front: the model was tuned on two.
        "<|begin_of_text|><|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n{system}<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n<image>\n{question}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
        "provides, and assist the user with a variety of tasks using natural language.",
        "<|eot_id|>",
    ),
    Dialogue(
        "v1",
        "",
        # The original tokenises what follows an image by itself, and a Llama tokenizer puts a blank in front of it.
        "{system} USER: <image> \n{question} ASSISTANT:",
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions.",
        "</s>",
    ),
)
"""The conversations VILA-M3's repository runs its models with: `llama_3` the 8B, `v1` the 3B and 13B.

Source: github.com/NVlabs/VILA at 355fda9, llava/conversation.py and llava/mm_utils.py.
"""


def dialogue(tokenizer: Any, folder: Path) -> Dialogue:
    """The conversation a checkpoint speaks, by its vocabulary.

    Raises:
        ModelError: A vocabulary of ChatML (VILA's `hermes-2`), which no VILA-M3 on the hub has.
    """
    known = tokenizer.get_vocab()
    if "<|im_start|>" in known:
        raise ModelError(
            f"{folder} has a vocabulary of ChatML; known are VILA-M3's 3B, 8B and 13B, which speak "
            f"{' or '.join(d.name for d in DIALOGUES)}. Pass processor= with a processor whose chat template is the "
            "right one."
        )
    return next(one for one in DIALOGUES if not one.sign or one.sign in known)


def placed_tokenizer(folder: Path, rows: int) -> tuple[Any, str]:
    """The language model's tokenizer, and the token that stands for an image.

    `<image>` where the vocabulary has it or an unused row of the embedding is left; else one of Llama 3's reserved
    tokens; else the unknown token, which tokenizers that fall back to bytes never write. So no weights change.

    Args:
        folder: the tokenizer's.
        rows: of the embedding.

    Raises:
        ModelError: No tokenizer, or no token to spare.
    """
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, legacy=False
        )
    except Exception as error:  # whatever reading foreign files raises
        raise ModelError(
            f"no tokenizer can be loaded from {folder} ({type(error).__name__}: {error}). Is the download complete?"
        ) from error
    known = tokenizer.get_vocab()
    free = "<image>" in known or max(known.values()) + 1 < rows
    token = "<image>" if free else next((t for t in _RESERVED if t in known), tokenizer.unk_token)
    if token is None:
        raise ModelError(
            f"the tokenizer of {folder} has {len(known)} tokens for {rows} rows of the embedding, and none to stand "
            "for an image: expected an unused row, a reserved or an unknown token. Pass processor= with one."
        )
    tokenizer.add_special_tokens({"additional_special_tokens": [token]})
    if token == tokenizer.pad_token:  # padding must not read as images
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, token


def make_processor(
    folder: Path, config: VilaConfig, tokenizer: Any, image_token: str, spoken: Dialogue
) -> VilaProcessor:
    """The processor: images squashed to the tower's square, bicubic."""
    vision: Any = config.vision_config
    images = AutoImageProcessor.from_pretrained(str(folder / "vision_tower"), local_files_only=True)
    images.size = {"height": vision.image_size, "width": vision.image_size}
    return VilaProcessor(
        images,
        tokenizer,
        patch_size=vision.patch_size,
        vision_feature_select_strategy="full",
        image_token=image_token,
        chat_template=spoken.template(image_token),
    )
