"""The contextual-embedding lens against cosine similarities of streams that plain hooks took, word by word."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import interp
from interp.conformance.tiny import tiny
from interp.errors import ModelError, PromptError
from interp.metrics import auroc
from interp.tracing import wrap
from interp.tracing.word_lenses import LatentLens, read_words
from interp.tracing.word_lenses.corpus import occurrences
from interp.tracing.word_lenses.latent_lens import _OpenedLatentLens
from tests.tiny import tokenizer
from tests.tiny import uneven_samples as samples
from tests.tracing.word_lenses.hooked import Hooked

CORPUS = ("where is the left lung", "is the nodule red or is the lung ?", "a red circle")
PLACES = {
    "is": [(0, 1), (1, 5)], "the": [(0, 2), (1, 1), (1, 6)], "left": [(0, 3)], "lung": [(0, 4), (1, 7)],
    "nodule": [(1, 2)], "red": [(1, 3), (2, 1)], "or": [(1, 4)], "circle": [(2, 2)],
}  # fmt: skip
"""Word → (text, place among its words), by hand; a text's first word is left out."""
BY_DEFAULT = ("llava", "qwen2_5_vl")


@cache
def model(family: str) -> Any:
    return wrap(*tiny(family), family)


@cache
def by_hand(family: str) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Each sample's stream at its image tokens, and (layer, entry, hidden) of each word of the corpus."""
    hooked, mllm = Hooked(family), model(family)
    texts = []
    for text in CORPUS:
        ids = mllm.processor.tokenizer(text)["input_ids"]
        own = hooked.streams(input_ids=torch.tensor([ids]))[0]
        texts.append(own[:, -len(text.split()) :].double().numpy())
    bank = {
        word: np.stack([texts[text][:, place] for text, place in places], axis=1)
        for word, places in PLACES.items()
        if places
    }
    image = []
    for sample in samples():
        batch = mllm.encode(sample)
        image.append(hooked.streams(**batch.inputs)[0][:, batch.tokens[0].image].double().numpy())
    return image, bank


def cosine(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return one @ other.T / np.linalg.norm(one, axis=1, keepdims=True) / np.linalg.norm(other, axis=1)


@pytest.mark.covering
@pytest.mark.parametrize("candidates", ["all", "same", (0, 2)])
@pytest.mark.parametrize("family", [*BY_DEFAULT, pytest.param("gemma3", marks=pytest.mark.slow)])
def test_scores_are_the_nearest_cosines_by_hand(family: str, candidates: Any) -> None:
    found = read_words(
        model(family), samples(), ["Lung", "red", "circle"], LatentLens(CORPUS, candidates), top=2
    )
    image, bank = by_hand(family)
    assert found.unit == "cosine similarity"
    for one, streams in zip(found, image, strict=True):
        assert one.layer.values.tolist() == list(range(-1, len(streams) - 1))
        for layer in one.layer.values.tolist():
            layers = {"all": range(-1, len(streams) - 1), "same": [layer]}.get(str(candidates), candidates)
            every = {
                word: np.max([cosine(streams[layer + 1], own[i + 1]) for i in layers], axis=0).max(axis=1)
                for word, own in bank.items()
            }
            scores = np.stack(list(every.values()), axis=1)
            for word in ("Lung", "red", "circle"):
                here = one.sel(layer=layer, word=word)
                expected = every[word.lower()]
                assert_allclose(here.score, expected, atol=2e-6)
                clear = (
                    np.abs(scores - expected[:, None])[:, [w != word.lower() for w in every]].min(1) > 1e-5
                )
                assert clear.any()
                ranks = (scores > expected[:, None]).sum(axis=1)
                assert (here["rank"].values[clear] == ranks[clear]).all()
            order = np.sort(scores, axis=1)[:, ::-1]
            assert_allclose(one.sel(layer=layer).top_score, order[:, :2], atol=2e-6)
            clear = order[:, 0] - order[:, 1] > 1e-5
            named = np.array(list(every))[scores.argmax(axis=1)]
            assert (one.sel(layer=layer).top_word.values[clear, 0] == named[clear]).all()


def test_words_are_found_at_their_last_token() -> None:
    listed = list(
        occurrences(tokenizer(), "the x - ray of the left lung , left lung", ["left lung", "x - ray"])
    )
    ids = tokenizer()("the x - ray of the left lung , left lung")["input_ids"]
    at = {(one.word, one.position) for one in listed}
    assert {("left lung", 8), ("left lung", 11), ("lung", 8), ("x - ray", 4), ("the", 6)} <= at
    assert ("the", 1) not in at  # the text's first token
    assert all(list(one.before) == ids[: one.position + 1] for one in listed)


def test_templates_stand_for_a_text_for_each_word() -> None:
    mllm, spec = model("llava"), LatentLens(["there is a {word} in the image"])
    found = read_words(mllm, samples()[:1], ["red", "left lung"], spec)
    plain = LatentLens(["there is a red in the image", "there is a left lung in the image"])
    for name in ("score", "rank"):
        assert_allclose(found[0][name], read_words(mllm, samples()[:1], ["red", "left lung"], plain)[0][name])


def test_a_corpus_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join([*CORPUS, "", " "]))
    assert LatentLens(path) == LatentLens(CORPUS)
    assert LatentLens(path).to_dict() != LatentLens(CORPUS[:2]).to_dict()
    assert LatentLens(CORPUS, [2, -1]).to_dict()["contextual"]["candidates"] == [-1, 2]


def test_corpora_that_differ_in_where_texts_end_differ() -> None:
    one, other = LatentLens(["a red circle\nthe left lung"]), LatentLens(["a red circle", "the left lung"])
    assert one.to_dict() != other.to_dict()


class Characters:
    """A tokenizer for which each character is a token."""

    is_fast = True

    def __call__(self, text: str, **_: Any) -> dict[str, Any]:
        return {"input_ids": list(map(ord, text)), "offset_mapping": [(i, i + 1) for i in range(len(text))]}


@pytest.mark.parametrize(
    ("text", "word", "last"),
    [("图中左肺有结节。", "结节", 6), ("यह बायाँ फेफड़ा है", "फेफड़ा", 14), ("a left-lung", "left-lung", 10)],
)
def test_words_of_other_scripts_are_found(text: str, word: str, last: int) -> None:
    (found,) = [one for one in occurrences(Characters(), text, [word]) if one.word == word]
    assert found.position == last


def test_it_finds_words_that_the_logit_lens_misses() -> None:
    """Image tokens were drawn towards the input embeddings of the words for what they show."""
    mllm, data = interp.load("organism"), list(interp.data.bundled("natural", n=24))
    words = sorted({sample.meta["label"] for sample in data})
    means = {}
    for name, lens in {"contextual": LatentLens(candidates="same"), "logit": "logit"}.items():
        found = read_words(mllm, data, words, lens)
        each = [
            auroc(one.score.sel(layer=-1, word=s.meta["label"]).values.astype(float), at.mask(s.boxes))
            for one, at, s in zip(found, found.tokens, data, strict=True)
        ]
        means[name] = np.mean(each)
    assert means["contextual"] > 0.85
    assert means["logit"] < means["contextual"] - 0.15


def test_what_it_cannot_read_is_refused(tmp_path: Path, unchecked: None) -> None:
    mllm, one = model("llava"), samples()[:1]
    for make, kind, said in (
        (lambda: LatentLens([]), PromptError, r"a list of texts or a text file with one a line; got \[\]"),
        (lambda: LatentLens([" "]), PromptError, "holds no text but empty lines"),
        (lambda: LatentLens(tmp_path / "none.txt"), PromptError, "does not exist.*or a list: corpus="),
        (lambda: LatentLens(CORPUS, "some"), PromptError, r"'same', or layers from −1 .*got 'some'"),
        (lambda: LatentLens(CORPUS, [-2]), PromptError, r"such as \[-1, 8\]; got \[-2\]"),
        (
            lambda: read_words(mllm, one, [], LatentLens(CORPUS, [7])),
            PromptError,
            r"from −1 to 2 .*got \[7\]",
        ),
        (
            lambda: read_words(mllm, one, ["where"], LatentLens(CORPUS)),
            PromptError,
            "has no 'where' after a t",
        ),
        (
            lambda: read_words(mllm, one, ["red"], LatentLens(["red"])),
            PromptError,
            "holds no word after a text",
        ),
        (
            lambda: read_words(mllm, one, ["red"], LatentLens(["a <image> red"])),
            PromptError,
            "no image place",
        ),
        (lambda: read_words(mllm, one, ["red", "red"]), PromptError, "a list of different words"),
        (
            lambda: read_words(mllm, one, ["red"], "latent"),
            PromptError,
            "lens is one of logit, contextual, jac",
        ),
        (
            lambda: read_words(mllm, one, ["red"], LatentLens(CORPUS), top=99),
            PromptError,
            "from 0 to 8; got 99",
        ),
    ):
        with pytest.raises(kind, match=said):
            make()


def test_a_slow_tokenizer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    mllm = wrap(*tiny("llava"), "llava")
    monkeypatch.setattr(type(mllm.processor.tokenizer), "is_fast", False)
    with pytest.raises(ModelError, match=r"does not say where in a text .*tokenizer is fast"):
        list(occurrences(mllm.processor.tokenizer, "a red", []))


def test_texts_and_places_are_read_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    words, lens = ["Lung", "red", "circle"], LatentLens(CORPUS)
    whole = read_words(model("llava"), samples()[:1], words, lens, top=2)[0]
    monkeypatch.setattr("interp.tracing.word_lenses.latent_lens.TEXTS", 2)
    monkeypatch.setattr("interp.tracing.word_lenses.latent_lens.PLACES", 5)
    some = read_words(model("llava"), samples()[:1], words, lens, top=2)[0]
    assert_allclose(some.score, whole.score, atol=1e-5)
    assert_allclose(some.top_score, whole.top_score, atol=1e-5)
    assert (some.position == whole.position).all()


def test_similarities_by_hand() -> None:
    """Two entries of one word and one of another, in two layers; a vector of zeros is like nothing."""
    x, y = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    vectors = {0: torch.stack([x, y, -x]), 1: torch.stack([y, y, x + y])}
    found, places = torch.stack([3 * x, 0 * x]), [torch.tensor(1), torch.tensor(0)]
    same = _OpenedLatentLens((0, 1), vectors, ["a", "a", "b"], True)
    every = _OpenedLatentLens((0, 1), vectors, ["a", "a", "b"], False)
    scores, ranks, ids, best = same.at(0, found, places, 1)
    assert (scores.tolist(), ranks.tolist()) == ([[-1, 1], [0, 0]], [[1, 0], [0, 0]])
    assert (ids[0].tolist(), best[0].tolist(), same.text(0)) == ([0], [1], "a")
    assert_allclose(same.at(1, found, places, 0)[0], [[1 / 5**0.5, 0], [0, 0]], atol=1e-6)
    assert_allclose(every.at(1, found, places, 0)[0], [[1 / 5**0.5, 1], [0, 0]], atol=1e-6)
