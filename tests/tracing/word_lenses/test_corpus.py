"""Texts that lenses read, filled, packed and searched; layers and image tokens that a lens reads; lenses by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from interp.errors import ModelError, PromptError
from interp.tracing.word_lenses import TEMPLATES, JacobianLens, LatentLens, Patchscope
from interp.tracing.word_lenses.corpus import _alone, as_corpus, corpus_digest, filled, occurrences, packed
from interp.tracing.word_lenses.lens_names import LENSES, as_lens
from interp.tracing.word_lenses.word_lens import _spaced, as_layers


class Words:
    """A tokenizer for which each word is a token."""

    def __call__(self, text: str) -> dict[str, Any]:
        return {"input_ids": text.split()}


def test_a_template_makes_a_text_for_each_word_and_none_repeats() -> None:
    assert filled(["a {word}", "the end", "a red", "the end"], ["red", "lung"]) == [
        "a red",
        "a lung",
        "the end",
    ]
    assert filled(["a {word}", "the end"], []) == ["the end"]


@pytest.mark.parametrize(
    ("n_tokens", "expected"),
    [
        (1, ["a b", "c d", "e", "f g h i"]),
        (3, ["a b", "c d e", "f g h i"]),
        (4, ["a b c d", "e", "f g h i"]),
        (5, ["a b c d e", "f g h i"]),
        (9, ["a b c d e f g h i"]),
    ],
)
def test_texts_are_joined_up_to_the_most_tokens(n_tokens: int, expected: list[str]) -> None:
    assert packed(Words(), ["a b", "c d", "e", "f g h i"], n_tokens) == expected


def test_a_corpus_is_known_by_its_texts_in_order() -> None:
    assert as_corpus(None) == TEMPLATES
    assert as_corpus(iter([" a red circle ", "", "lung"])) == ("a red circle", "lung")
    digests = {corpus_digest(one) for one in (["a", "b"], ["b", "a"], ["a b"], ["a"])}
    assert len(digests) == 4
    for wrong in ({"a": "b"}, {"a"}, b"a", 3, ["a", 3]):
        with pytest.raises(PromptError, match="a list of texts or a text file with one a line"):
            as_corpus(wrong)


@pytest.mark.parametrize(
    ("most", "read"), [(None, range(6)), (6, range(6)), (7, range(6)), (1, [3]), (2, [1, 4]), (3, [1, 3, 5])]
)
def test_tokens_that_are_read_are_evenly_spaced(most: int | None, read: Any) -> None:
    """Of six tokens, the middle of each of `most` equal parts."""
    assert _spaced(6, most) == list(read)


def test_layers_are_sorted_and_named_by_known_words_alone() -> None:
    assert as_layers("layers", iter([2, -1, 2])) == (-1, 2)
    assert as_layers("candidates", "same", ("all", "same")) == "same"
    for wrong in ("same", "12", b"\x01", [], [True], [0.5], [-2], 3):
        with pytest.raises(PromptError, match="layers is 'all', or layers from −1"):
            as_layers("layers", wrong)


def test_lenses_are_made_from_names_and_settings() -> None:
    assert [as_lens(name) for name in LENSES] == [LatentLens(), JacobianLens(), Patchscope()]
    assert as_lens("logit") == "logit"
    assert as_lens({"patchscope": {"position": -2}}) == Patchscope(position=-2)
    kept = LatentLens(candidates="same")
    assert as_lens(kept) is kept
    for wrong in ("latent", {}, {"patchscope": {}, "jacobian": {}}, None, Patchscope):
        with pytest.raises(PromptError, match="lens is one of logit, contextual, jacobian, patchscope"):
            as_lens(wrong)
    for wrong in ({"logit": {}}, {"latent": {}}, {3: {}}, {"patchscope": 3}, {"jacobian": {"digest": "a"}}):
        with pytest.raises(PromptError, match=r"a lens with settings is \{name: \{setting: value\}\}"):
            as_lens(wrong)


class Pieces:
    """A fast tokenizer of a beginning token and pieces of at most four letters."""

    is_fast = True

    def __call__(self, text: str, **_: Any) -> dict[str, Any]:
        spans = [one.span() for one in re.finditer(r"\w{1,4}|[^\w\s]", text)]
        return {"input_ids": list(range(10, 11 + len(spans))), "offset_mapping": [(0, 0), *spans]}


def test_words_are_found_at_their_last_token_not_at_the_first() -> None:
    """<s> Red bloo d vess el , red: the first word has no context."""
    found = list(occurrences(Pieces(), "Red blood vessel, red", ["Blood VESSEL", "lung", "blood red"]))
    assert [(one.word, one.position) for one in found] == [
        ("blood", 3),
        ("vessel", 5),
        ("red", 7),
        ("blood vessel", 5),
    ]
    assert found[0].before == (10, 11, 12, 13)
    assert [one.position for one in occurrences(Pieces(), "vessel is")] == [2, 3]
    with pytest.raises(ModelError, match="Words does not say where in a text its tokens are"):
        list(occurrences(Words(), "a"))


def test_a_corpus_may_be_the_lines_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text(" a red circle \n\nlung é\n", "utf-8")
    assert as_corpus(path) == as_corpus(str(path)) == ("a red circle", "lung é")
    path.write_bytes(b"\xff")
    with pytest.raises(PromptError, match="is no text in UTF-8"):
        as_corpus(path)
    with pytest.raises(PromptError, match=r"corpus is a list of texts or a text file .*none\.txt"):
        as_corpus(tmp_path / "none.txt")
    with pytest.raises(PromptError, match="holds no text but empty lines"):
        as_corpus(["", " "])


def test_marked_positions_count_from_either_end() -> None:
    inputs = {"input_ids": torch.zeros(1, 3, dtype=torch.long)}
    tokens = _alone("a b c", inputs, [0, -1]).tokens
    assert (tokens.image.tolist(), tokens.length) == ([0, 2], 3)
    assert _alone("a b c", inputs, [-3]).tokens.image.tolist() == [0]
    for wrong in (3, -4):
        with pytest.raises(
            PromptError, match=rf"has 3 tokens; got position \[0, {wrong}\]. Name one from -3 to 2"
        ):
            _alone("a b c", inputs, [0, wrong])
