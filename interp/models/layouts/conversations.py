"""The prompts the original codes write, as chat templates."""

from __future__ import annotations

import json
from dataclasses import dataclass

__all__ = ["HUATUO", "IMAGE", "LLAMA3", "MISTRAL", "VICUNA", "Conversation"]

IMAGE = "<image>"
_SAID = (
    "{%- macro said(content) -%}{%- if content is string -%}{{ content }}{%- else -%}{%- for part in content -%}"
    "{%- if part['type'] == 'image' -%}{{ '<image>' }}{%- else -%}{{ part['text'] }}{%- endif -%}"
    "{%- if not loop.last -%}{{ '\\n' }}{%- endif -%}{%- endfor -%}{%- endif -%}{%- endmacro -%}"
)
"""Images and texts of a message, a line each."""


@dataclass(frozen=True)
class Conversation:
    """How one original code writes its prompts.

    Attributes:
        user: before and after what the user says.
        assistant: before and after an answer.
        system: before and after a system message.
        default: the system message when none is given.
        inside: whether the system message is part of the first user turn.
        opening: written before everything else.
        bos: whether the tokenizer puts its beginning-of-sequence token in front.
        stop: the token that ends an answer, beside the tokenizer's end of sequence.
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
        """The prompt for one image and one question, in words."""
        system = "".join((self.system[0], "{system}", self.system[1])) if self.default else ""
        user, asked = self.user
        first = user + system if self.inside else system + user
        return f"{self.opening}{first}{IMAGE}\n{{question}}{asked}{self.assistant[0].rstrip(' ')}"

    @property
    def template(self) -> str:
        """The chat template, for messages whose content is a text or a list of images and texts."""
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
"""LLaVA-Tri ("llama3"): its prompt writes the beginning of text, and its tokenizer puts another in front.
Source: UCSC-VLAA/MedTrinity-25M, conversation.py and mm_utils.py."""

HUATUO = Conversation(
    user=("<|user|>\n", "\n"),
    assistant=("<|assistant|>\n", " \n"),
    system=("", "\n"),
    inside=True,
    bos=False,
)
"""HuatuoGPT-Vision. It knows no system message; one that is given opens the user's turn.
Source: FreedomIntelligence/HuatuoGPT-Vision, cli.py."""
