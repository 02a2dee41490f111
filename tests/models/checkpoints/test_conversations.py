"""The original codes' prompts, literally: with and without a system message, and over several turns."""

from __future__ import annotations

from typing import Any

import pytest

import tests.tiny as tiny
from interp.models.checkpoints.conversations import HUATUO, LLAMA3, MISTRAL, VICUNA, Conversation

CURIOUS = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)
USER, ANSWER, SYSTEM = (
    f"<|start_header_id|>{who}<|end_header_id|>\n\n" for who in ("user", "assistant", "system")
)
BEGIN, END = "<|begin_of_text|><|begin_of_text|>", "<|eot_id|>"


def said(conversation: Conversation, *turns: tuple[str, Any], open_end: bool = True) -> str:
    messages = [{"role": role, "content": content} for role, content in turns]
    return tiny.tokenizer().apply_chat_template(
        messages, chat_template=conversation.template, tokenize=False, add_generation_prompt=open_end
    )


def asked(n_images: int = 1) -> tuple[str, Any]:
    return "user", [{"type": "image"}] * n_images + [{"type": "text", "text": "Is it 'x'?"}]


@pytest.mark.parametrize(
    ("conversation", "plain", "system", "described"),
    [
        (
            VICUNA,
            f"{CURIOUS} USER: <image>\nIs it 'x'? ASSISTANT:",
            "Be brief. USER: <image>\nIs it 'x'? ASSISTANT:",
            "{system} USER: <image>\n{question} ASSISTANT:",
        ),
        (
            MISTRAL,
            "[INST] <image>\nIs it 'x'? [/INST]",
            "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n<image>\nIs it 'x'? [/INST]",
            "[INST] <image>\n{question} [/INST]",
        ),
        (
            LLAMA3,
            f"{BEGIN}{SYSTEM}{CURIOUS}{END}{USER}<image>\nIs it 'x'?{END}{ANSWER}",
            f"{BEGIN}{SYSTEM}Be brief.{END}{USER}<image>\nIs it 'x'?{END}{ANSWER}",
            f"{BEGIN}{SYSTEM}{{system}}{END}{USER}<image>\n{{question}}{END}{ANSWER}",
        ),
        (
            HUATUO,
            "<|user|>\n<image>\nIs it 'x'?\n<|assistant|>\n",
            "<|user|>\nBe brief.\n<image>\nIs it 'x'?\n<|assistant|>\n",
            "<|user|>\n<image>\n{question}\n<|assistant|>\n",
        ),
    ],
)
def test_one_question(conversation, plain, system, described):
    assert said(conversation, asked()) == plain
    brief = [{"type": "text", "text": "Be brief."}]
    assert said(conversation, ("system", brief), asked()) == system
    assert said(conversation, ("system", "Be brief."), asked()) == system
    assert conversation.prompt == described
    assert said(conversation, asked(2)) == plain.replace("<image>\n", "<image>\n<image>\n")


def test_text_before_the_image():
    turn = ("user", [{"type": "text", "text": "Is it?"}, {"type": "image"}])
    assert said(HUATUO, turn) == "<|user|>\nIs it?\n<image>\n<|assistant|>\n"


@pytest.mark.parametrize(
    ("conversation", "expected"),
    [
        (VICUNA, f"{CURIOUS} USER: <image>\nIs it 'x'? ASSISTANT: yes</s>USER: why? ASSISTANT:"),
        (MISTRAL, "[INST] <image>\nIs it 'x'? [/INST] yes </s>[INST] why? [/INST]"),
        (HUATUO, "<|user|>\n<image>\nIs it 'x'?\n<|assistant|>\nyes \n<|user|>\nwhy?\n<|assistant|>\n"),
    ],
)
def test_several_turns(conversation, expected):
    turns = (asked(), ("assistant", "yes"), ("user", "why?"))
    assert said(conversation, *turns) == expected
    closed = said(conversation, *turns, open_end=False)
    assert expected.startswith(closed)
    assert len(closed) < len(expected) or conversation is MISTRAL


@pytest.mark.parametrize(
    ("conversation", "first", "second"),
    [
        (
            MISTRAL,
            "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n<image>\nIs it 'x'? [/INST]",
            "[INST] why? [/INST]",
        ),
        (HUATUO, "<|user|>\nBe brief.\n<image>\nIs it 'x'?\n", "<|user|>\nwhy?\n"),
        (VICUNA, "Be brief. USER: <image>\nIs it 'x'? ", "USER: why? "),
    ],
)
def test_a_system_message_is_said_once(conversation, first, second):
    answer = "yes".join(conversation.assistant)
    turns = (("system", "Be brief."), asked(), ("assistant", "yes"), ("user", "why?"))
    assert said(conversation, *turns, open_end=False) == first + answer + second
