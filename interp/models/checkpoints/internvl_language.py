"""InternVL-Chat's language models: their tensors and configs in transformers' classes, and how they are spoken to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tokenizers import pre_tokenizers
from torch import Tensor
from transformers import CONFIG_MAPPING, LlamaTokenizer, PreTrainedConfig

from interp.models.checkpoints.tensors import Rule

__all__ = [
    "CONTEXT",
    "END",
    "INTERNLM2",
    "LANGUAGES",
    "Chat",
    "chat_of",
    "internlm2_tokenizer",
    "language_config",
    "language_rules",
]

CONTEXT, END, INTERNLM2 = "<IMG_CONTEXT>", "<|im_end|>", "InternLM2ForCausalLM"

LANGUAGES = {
    "LlamaForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    INTERNLM2: "llama",
}
"""The architecture that `llm_config` names → the type in transformers. InternLM2 is a Llama with packed weights."""


@dataclass(frozen=True)
class Chat:
    """A conversation in ChatML.

    Attributes:
        system: The system message that is used if none is given.
        end: What ends a turn.
    """

    system: str
    end: str

    @property
    def prompt(self) -> str:
        """The prompt for one image and one question, as text."""
        turn = f"<|im_start|>user\n<image>\n{{question}}{self.end}"
        return f"<|im_start|>system\n{{system}}{self.end}{turn}<|im_start|>assistant\n"

    @property
    def template(self) -> str:
        """The chat template for messages whose content is a text or a list of images and texts."""
        return (
            f"{{%- set ns = namespace(system={self.system!r}) -%}}"
            "{%- for m in messages if m['role'] == 'system' -%}"
            "{%- set ns.system = m['content'] if m['content'] is string else m['content'][0]['text'] -%}"
            "{%- endfor -%}"
            f"{{{{- '<|im_start|>system\\n' + ns.system + {self.end!r} -}}}}"
            "{%- for m in messages if m['role'] != 'system' -%}"
            "{{- '<|im_start|>' + m['role'] + '\\n' -}}"
            "{%- if m['content'] is string -%}{{- m['content'] -}}{%- else -%}{%- for part in m['content'] -%}"
            f"{{{{- {CONTEXT + chr(10)!r} if part['type'] == 'image' else part['text'] -}}}}"
            f"{{%- endfor -%}}{{%- endif -%}}{{{{- {self.end!r} -}}}}{{%- endfor -%}}"
            "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
        )


_V1_5 = "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。"
_V2_5 = "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
_CHATS = {
    "Hermes-2": Chat(_V1_5, END),
    "internlm2-chat": Chat(_V1_5, END),
    "internvl2_5": Chat(_V2_5, f"{END}\n"),
}
_MEDREGA = Chat("Answer the questions.", END)


def chat_of(template: str | None, dynamic: bool) -> Chat | None:
    """Returns the conversation of a checkpoint; None if it is not known.

    Args:
        template: The name of the conversation in config.json.
        dynamic: Whether images are cut into tiles. Without them, "Hermes-2" means MedRegA, which has a system message
            of its own.

    Source: conversation.py of github.com/OpenGVLab/InternVL and github.com/xmed-lab/MedRegA (src/internvl).
    """
    if template == "Hermes-2" and not dynamic:
        return _MEDREGA
    return _CHATS.get(str(template))


_FOREIGN = ("architectures", "auto_map", "attn_implementation", "_attn_implementation_autoset", "model_type")
"""Entries of `llm_config` that speak of the original's own class."""


def language_config(raw: Mapping[str, Any], tied: bool, stop: int) -> PreTrainedConfig:
    """Returns the config of the language model; its answers end as in the original's `chat`.

    Args:
        raw: `llm_config`.
        tied: Whether the answer head is the embedding.
        stop: The id of the token that ends a turn.
    """
    kind = raw["architectures"][0]
    stored = raw.get("eos_token_id")
    ends = [stop, *([] if stored in (None, stop) else [stored])]
    kept = {name: value for name, value in raw.items() if name not in _FOREIGN}
    if kind == INTERNLM2:
        kept["attention_bias"] = bool(kept.pop("bias", True))  # absent: as in InternLM2Config
    return CONFIG_MAPPING[LANGUAGES[kind]].from_dict(
        {**kept, "tie_word_embeddings": tied, "eos_token_id": ends}
    )


def language_rules(raw: Mapping[str, Any]) -> tuple[Rule, ...]:
    """Returns the rules for the names under `language_model.`.

    InternLM2 packs query, key and value into one matrix: for each key-value head, the rows of its query heads, then
    those of the key, then those of the value.

    Args:
        raw: `llm_config`.
    """
    if raw["architectures"][0] != INTERNLM2:
        return (
            Rule(r"language_model\.model\.(.+)", r"model.language_model.\1"),
            Rule(r"language_model\.lm_head\.weight", "lm_head.weight"),
        )
    heads = int(raw["num_attention_heads"])
    groups = int(raw.get("num_key_value_heads") or heads)
    layer, new = r"language_model\.model\.layers\.(\d+)\.", r"model.language_model.layers.\1."
    qkv = tuple(rf"{new}self_attn.{name}_proj.\2" for name in "qkv")
    renamed = (
        (r"attention\.wo\.(.+)", r"self_attn.o_proj.\2"),
        (r"feed_forward\.w1\.weight", "mlp.gate_proj.weight"),
        (r"feed_forward\.w2\.weight", "mlp.down_proj.weight"),
        (r"feed_forward\.w3\.weight", "mlp.up_proj.weight"),
        (r"attention_norm\.weight", "input_layernorm.weight"),
        (r"ffn_norm\.weight", "post_attention_layernorm.weight"),
    )
    return (
        Rule(layer + r"attention\.wqkv\.(.+)", qkv, partial(_unpacked, groups=groups, each=heads // groups)),
        *(Rule(layer + old, new + to) for old, to in renamed),
        Rule(r"language_model\.model\.tok_embeddings\.weight", "model.language_model.embed_tokens.weight"),
        Rule(r"language_model\.model\.norm\.weight", "model.language_model.norm.weight"),
        Rule(r"language_model\.output\.weight", "lm_head.weight"),
    )


def _unpacked(tensor: Tensor, groups: int, each: int) -> Sequence[Tensor]:
    """Splits InternLM2's `wqkv` into query, key and value."""
    rows = tensor.unflatten(0, (groups, each + 2, -1))
    return [part.flatten(0, 2) for part in (rows[:, :each], rows[:, each : each + 1], rows[:, each + 1 :])]


def internlm2_tokenizer(folder: str, **options: Any) -> Any:
    """Returns InternLM2's tokenizer, whose own class comes as code, in Llama's class.

    The original gives each piece between special tokens to SentencePiece by itself, which puts a space in front if the
    model says so. Llama's class does so only at the start of a text.

    Args:
        folder: The folder with `tokenizer.model`.
        **options: As for `from_pretrained`.
    """
    from sentencepiece import SentencePieceProcessor

    pieces: Any = SentencePieceProcessor(model_file=f"{folder}/tokenizer.model")
    spaced = pieces.encode("a", out_type=str)[0].startswith("\u2581")
    made: Any = LlamaTokenizer.from_pretrained(folder, **options, legacy=False)
    made.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
        prepend_scheme="always" if spaced else "never", split=False
    )
    return made
