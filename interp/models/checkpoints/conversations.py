"""The prompts of the original codes as chat templates, and tokenizers that split them in the same way."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers
from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from interp.errors import ModelError
from interp.models.checkpoints.checkpoint import check_vocabulary

__all__ = [
    "HUATUO",
    "IMAGE",
    "LLAMA3",
    "MISTRAL",
    "VICUNA",
    "Conversation",
    "image_tokenizer",
    "pieces",
    "system_message",
]

IMAGE = "<image>"
_SAID = (
    "{%- macro said(content) -%}{%- if content is string -%}{{ content }}{%- else -%}{%- for part in content -%}"
    "{%- if part['type'] == 'image' -%}{{ '<image>' }}{%- else -%}{{ part['text'] }}{%- endif -%}"
    "{%- if not loop.last -%}{{ '\\n' }}{%- endif -%}{%- endfor -%}{%- endif -%}{%- endmacro -%}"
)
"""Jinja macro: the images and texts of a message, one per line."""


def system_message(default: str) -> str:
    """Returns Jinja that sets `ns.system` to the system message of `messages`, or to the default."""
    return (
        f"{{%- set ns = namespace(system={default!r}) -%}}"
        "{%- for m in messages if m['role'] == 'system' -%}"
        "{%- set ns.system = m['content'] if m['content'] is string else m['content'][0]['text'] -%}"
        "{%- endfor -%}"
    )


@dataclass(frozen=True)
class Conversation:
    """The prompt format of one original code.

    Attributes:
        user: The texts before and after the user's words.
        assistant: The texts before and after an answer.
        system: The texts before and after a system message.
        default: The system message that is used if none is given.
        inside: Whether the system message is part of the first user turn.
        opening: The text before everything else.
        bos: Whether the tokenizer puts its beginning-of-sequence token in front.
        stop: The token that ends an answer, besides the tokenizer's end of sequence.
    """

    user: tuple[str, str]
    assistant: tuple[str, str]
    system: tuple[str, str] = ("", "")
    default: str = ""
    inside: bool = False
    opening: str = ""
    bos: bool = True
    stop: str | None = None

    @property
    def prompt(self) -> str:
        """The prompt for one image and one question, as text."""
        system = "".join((self.system[0], "{system}", self.system[1])) if self.default else ""
        user, asked = self.user
        first = user + system if self.inside else system + user
        return f"{self.opening}{first}{IMAGE}\n{{question}}{asked}{self.assistant[0].rstrip(' ')}"

    @property
    def template(self) -> str:
        """Returns the chat template for messages whose content is a text or a list of images and texts."""
        quoted = json.dumps
        system = f"{{{{ {quoted(self.system[0])} + system + {quoted(self.system[1])} }}}}"
        within = "{%- if loop.first and system -%}" + system + "{%- endif -%}" if self.inside else ""
        before = "" if self.inside else "{%- if system -%}" + system + "{%- endif -%}"
        return (
            f"{_SAID}{{%- if messages[0]['role'] == 'system' -%}}"
            "{%- set system = said(messages[0]['content']) -%}{%- set turns = messages[1:] -%}{%- else -%}"
            f"{{%- set system = {quoted(self.default)} -%}}{{%- set turns = messages -%}}{{%- endif -%}}"
            f"{{{{ {quoted(self.opening)} }}}}{before}{{%- for turn in turns -%}}"
            f"{{%- if turn['role'] == 'user' -%}}{{{{ {quoted(self.user[0])} }}}}{within}"
            f"{{{{ said(turn['content']) + {quoted(self.user[1])} }}}}{{%- else -%}}"
            f"{{{{ {quoted(self.assistant[0])} + said(turn['content']) + {quoted(self.assistant[1])} }}}}"
            "{%- endif -%}{%- endfor -%}"
            f"{{%- if add_generation_prompt -%}}{{{{ {quoted(self.assistant[0].rstrip(' '))} }}}}{{%- endif -%}}"
        )


_CURIOUS = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)
VICUNA = Conversation(
    user=("USER: ", " "), assistant=("ASSISTANT: ", "</s>"), system=("", " "), default=_CURIOUS
)
"""LLaVA-1.5 ("v1"). Source: haotian-liu/LLaVA, conversation.py."""

MISTRAL = Conversation(
    user=("[INST] ", " [/INST]"),
    assistant=(" ", " </s>"),
    system=("<<SYS>>\n", "\n<</SYS>>\n\n"),
    inside=True,
)
"""LLaVA-Med 1.5 ("mistral_instruct"). Source: microsoft/LLaVA-Med, conversation.py."""

LLAMA3 = Conversation(
    user=("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
    assistant=("<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"),
    system=("<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"),
    default=_CURIOUS,
    opening="<|begin_of_text|><|begin_of_text|>",
    stop="<|eot_id|>",
)
"""LLaVA-Tri ("llama3"): its prompt contains the beginning-of-text token, and its tokenizer adds another one.
Source: UCSC-VLAA/MedTrinity-25M, conversation.py and mm_utils.py."""

HUATUO = Conversation(
    user=("<|user|>\n", "\n"),
    assistant=("<|assistant|>\n", " \n"),
    system=("", "\n"),
    inside=True,
    bos=False,
)
"""HuatuoGPT-Vision. It has no system message; a given one starts the user's turn.
Source: FreedomIntelligence/HuatuoGPT-Vision, cli.py."""


_NOTHING_ADDED = {
    "type": "TemplateProcessing",
    "single": [{"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {},
}


def image_tokenizer(folder: Path, config: PreTrainedConfig, conversation: Conversation) -> Any:
    """Returns the tokenizer in a folder with `<image>` as a token; it gives the same ids as the original code.

    Args:
        folder: The folder with the tokenizer's files.
        config: The language model's config; it decides if the files name no class.
        conversation: The prompt format. It decides whether there is a beginning-of-sequence token, and its prompt is
            used to compare the ids.

    Raises:
        ModelError: The tokenizer cannot be read, has no fast form, or splits the prompt differently from the original
            code.
    """
    original = _loaded(folder, config)
    backend = getattr(original, "backend_tokenizer", None)
    if backend is None:
        raise ModelError(
            f"the tokenizer in {folder} ({type(original).__name__}) has no fast form, which is needed to say where "
            "its tokens are in the text. Replace its files by those of one that has (a tokenizer.json)."
        )
    made = _made(original, _prepared(backend, conversation.bos))
    probe = conversation.prompt.replace("{system}", conversation.default).replace("{question}", "Is it?")
    bos = conversation.bos and not conversation.opening
    whole, apart = (
        made.encode(probe, add_special_tokens=bos),
        pieces(original, probe, made.image_token_id, bos=bos),
    )
    if whole != apart:
        raise ModelError(
            f"the tokenizer in {folder} cuts the prompt {probe!r} into {whole}; the original code, piece by piece, "
            f"into {apart}. Replace its files by those of one that does the same."
        )
    return made


def pieces(tokenizer: Any, prompt: str, image_id: int, *, bos: bool) -> list[int]:
    """Returns the ids of the original codes: each piece between images is tokenised alone; the first keeps its BOS."""
    parts = [list(tokenizer(piece, add_special_tokens=bos).input_ids) for piece in prompt.split(IMAGE)]
    first = tokenizer.bos_token_id
    opened = bos and first is not None and parts[0][:1] == [first]
    ids = parts[0][: int(opened)]
    for i, part in enumerate(parts):
        ids += [image_id] * (i > 0) + part[int(opened) :]
    return ids


def _loaded(folder: Path, config: PreTrainedConfig) -> Any:
    check_vocabulary(folder)
    try:
        kind = _named(folder)
        if kind is not None:
            return kind.from_pretrained(folder, local_files_only=True)
        return AutoTokenizer.from_pretrained(
            folder, config=config, trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # whatever reading foreign files raises
        line = (str(error).strip().splitlines() or ["no message"])[0]
        raise ModelError(
            f"no tokenizer can be loaded from {folder} ({type(error).__name__}: {line}). "
            "A tokenizer.model needs the packages sentencepiece and protobuf. "
            "Else copy the files of its tokenizer again."
        ) from error


def _named(folder: Path) -> Any:
    """Returns transformers' class that tokenizer_config.json names; None if it names none.

    `AutoTokenizer` uses the model type instead: for a Mistral's SentencePiece model it makes a tokenizer that puts no
    space in front.
    """
    told = folder / "tokenizer_config.json"
    name = json.loads(told.read_text("utf-8")).get("tokenizer_class") if told.is_file() else None
    found = getattr(transformers, str(name), None) or getattr(
        transformers, str(name).removesuffix("Fast"), None
    )
    return found if isinstance(found, type) and issubclass(found, PreTrainedTokenizerBase) else None


def _prepared(backend: Tokenizer, bos: bool) -> Tokenizer:
    """Returns a copy with the token `<image>` that treats all pieces alike and adds a BOS only if wanted."""
    told = json.loads(backend.to_str())
    for part in _parts(told.get("pre_tokenizer")):
        if part.get("type") == "Metaspace" and part.get("prepend_scheme") == "first":
            part["prepend_scheme"] = "always"
    if not bos and told.get("post_processor") is not None:
        told["post_processor"] = _NOTHING_ADDED
    copied = Tokenizer.from_str(json.dumps(told))
    copied.add_special_tokens([AddedToken(IMAGE, normalized=False, special=True)])
    return copied


def _parts(pre_tokenizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    if pre_tokenizer is None:
        return []
    return pre_tokenizer.get("pretokenizers", [pre_tokenizer])


def _made(original: Any, backend: Tokenizer) -> Any:
    names = ("bos_token", "eos_token", "unk_token")
    named = {name: getattr(original, name, None) for name in names}
    pad = getattr(original, "pad_token", None) or named["unk_token"] or named["eos_token"]
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **{name: str(token) for name, token in named.items() if token is not None},
        pad_token=None if pad is None else str(pad),
        extra_special_tokens={"image_token": IMAGE},
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )
    longest = getattr(original, "model_max_length", None)
    made.model_max_length = longest if longest else made.model_max_length
    return made
