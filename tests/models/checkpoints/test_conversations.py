"""The original codes' prompts, literally: with and without a system message, and over several turns."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

import tests.tiny as tiny
from interp.models.checkpoints.conversations import (
    HUATUO,
    LLAMA3,
    MISTRAL,
    VICUNA,
    Conversation,
    _made,
    _named,
    _prepared,
    pieces,
)

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


class Letters:
    """A tokenizer of letters that puts a token of its own in front."""

    def __init__(self, first: int | None) -> None:
        self.bos_token_id = first

    def __call__(self, text: str, add_special_tokens: bool) -> Any:
        first = [1] if add_special_tokens and self.bos_token_id is not None else []
        return SimpleNamespace(input_ids=first + [ord(c) for c in text])


@pytest.mark.parametrize(
    ("first", "bos", "opened"), [(1, True, [1]), (1, False, []), (None, True, []), (97, True, [1])]
)
def test_pieces_between_images_are_cut_alone(first: int | None, bos: bool, opened: list[int]) -> None:
    """The first keeps its BOS, later ones lose theirs, where there is one."""
    rest = [1] if first == 97 else []  # what is put in front is not the BOS: it stays
    found = pieces(Letters(first), "a<image>b<image>c", 7, bos=bos)
    assert found == [*opened, 97, 7, *rest, 98, 7, *rest, 99]


def words(*pre: Any) -> Tokenizer:
    made = Tokenizer(models.WordLevel({"<unk>": 0, "▁a": 1, "a": 2, "<s>": 3}, unk_token="<unk>"))
    made.pre_tokenizer = pre[0] if len(pre) == 1 else pre_tokenizers.Sequence(list(pre))
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 3)])
    return made


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize(("bos", "opened"), [(True, ["<s>"]), (False, [])])
def test_each_piece_is_cut_like_the_first(n: int, bos: bool, opened: list[str]) -> None:
    """The space that a SentencePiece model puts in front of a text comes in front of every piece."""
    parts = [pre_tokenizers.Metaspace(prepend_scheme="first"), pre_tokenizers.Digits()][:n]
    own = words(*parts)
    found = _prepared(own, bos)
    assert found.encode("a<image>a").tokens == [*opened, "▁a", "<image>", "▁a"]
    assert own.encode("a").tokens == ["<s>", "▁a"]  # the original stays as it was
    assert own.token_to_id("<image>") is None


@pytest.mark.parametrize(
    ("tokens", "pad"),
    [
        ({"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "<p>"}, "<p>"),
        ({"unk_token": "<unk>", "eos_token": "</s>"}, "<unk>"),
        ({"eos_token": "</s>", "unk_token": None}, "</s>"),
        ({}, None),
    ],
)
def test_a_made_tokenizer_pads_at_the_left(tokens: dict[str, Any], pad: str | None) -> None:
    made = _made(SimpleNamespace(**tokens, model_max_length=77), words(pre_tokenizers.Whitespace()))
    assert (made.pad_token, made.padding_side, made.model_max_length) == (pad, "left", 77)
    assert (made.eos_token, made.unk_token) == (tokens.get("eos_token"), tokens.get("unk_token"))
    assert made.image_token == "<image>"
    assert set(made("a")) == {"input_ids", "attention_mask"}
    assert _made(SimpleNamespace(), words(pre_tokenizers.Whitespace())).model_max_length > 10**6


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("BertTokenizer", "BertTokenizer"),
        ("NowhereTokenizer", None),
        ("AutoConfig", None),  # in transformers, but no tokenizer
        (None, None),
    ],
)
def test_a_folders_tokenizer_class_is_the_one_it_names(
    tmp_path: Path, name: str | None, found: str | None
) -> None:
    assert _named(tmp_path) is None
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}))
    assert _named(tmp_path) is (None if found is None else getattr(transformers, found))
