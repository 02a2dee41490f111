"""Which words a lens reads at a sample, and which samples cannot be compared inside and outside their boxes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr

from interp.data import Samples
from interp.errors import MapError, RunError, SampleError
from interp.study.logit_lens.task import LensSweepTask
from interp.tracing.word_lenses import LatentLens
from tests.study.planted import sample, token_map

pytestmark = pytest.mark.usefixtures("unchecked")

DATA = Samples(
    [
        sample(0, answer="right lung", meta={"label": "the left  lung"}),
        sample(1, answer="Nodule", meta={"label": ""}),
        sample(2, answer=None, meta={"label": 7}),
        sample(3, answer="vessel", meta={"label": "mass"}),
    ]
)


def task(**changes: Any) -> Any:
    """A task that was never given a model; it can read every word but "7"."""
    made: Any = object.__new__(LensSweepTask)
    study = {"data": DATA, "words": ("label", "answer"), "lens": "logit", "rule": "touch"}
    made.study = SimpleNamespace(**study | changes)
    made.__dict__["_partners"] = (3, None, 0, 2)

    def find(word: str) -> None:
        if word == "7":
            raise MapError("no such token.")
        if word == "lost":
            raise RunError("the server is gone.")

    made._find = find
    return made


def test_a_label_is_its_last_word_and_an_answer_the_whole() -> None:
    own = task()
    assert [own._word(i, "label") for i in range(4)] == ["lung", None, "7", "mass"]
    assert [own._word(i, "answer") for i in range(4)] == ["right lung", "Nodule", None, "vessel"]


def test_every_word_of_the_data_is_known_once_and_sorted() -> None:
    assert task()._every_word == ["7", "Nodule", "lung", "mass", "right lung", "vessel"]
    assert task(words=("answer",))._every_word == ["Nodule", "right lung", "vessel"]


def test_the_words_of_partners_are_read_too() -> None:
    own = task()
    assert own._vocabulary((0,)) == ["lung", "mass", "right lung", "vessel"]
    assert own._vocabulary((1,)) == ["Nodule"]  # it has no partner
    assert own._vocabulary((2, 3)) == ["lung", "right lung", "mass", "vessel"]  # "7" cannot be read
    lost = task(data=[sample(0, answer="lost")], words=("answer",))
    lost.__dict__["_partners"] = (None,)
    with pytest.raises(RunError, match="the server is gone"):
        lost._vocabulary((0,))


def test_a_lens_says_why_it_cannot_read_a_word() -> None:
    assert task()._unreadable == "is not one token of this vocabulary."
    assert task(lens=LatentLens())._unreadable == "is not in the corpus, after a text's first token."


def read(n_words: int = 1, unread: tuple[int, ...] = ()) -> xr.Dataset:
    """Scores of "lung" at two layers; tokens can have none."""
    score = np.zeros((2, 20, n_words))
    score[:, list(unread)] = np.nan
    dims = ("layer", "token", "word")
    return xr.Dataset(
        {"score": (dims, score), "rank": (dims, np.ones_like(score))},
        {"layer": [0, 1], "token": np.arange(20), "word": ["lung"][:n_words]},
    )


@pytest.mark.parametrize(
    ("boxes", "unread", "said"),
    [
        ([(0, 0, 100, 80)], (), "the boxes cover no image token, or all of them"),
        ([(0, 0, 40, 20)], (0, 1), "the lens read no token inside the boxes, or none outside"),
        ([(0, 0, 40, 20)], tuple(range(2, 20)), "the lens read no token inside the boxes, or none outside"),
    ],
)
def test_inside_and_outside_both_need_a_token(boxes: Any, unread: tuple[int, ...], said: str) -> None:
    one = sample(0, boxes=boxes)
    own = task(data=Samples([one]), words=("label",))
    own._mllm, own._identity = SimpleNamespace(processor=SimpleNamespace(tokenizer=None)), {}
    own._sample_fields = lambda _: {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("interp.study.logit_lens.task.answer_columns", lambda *_: {})
        own.study.prompt = None
        with pytest.raises(SampleError, match=said):
            own._rows(0, read(unread=unread), token_map(one), np.zeros(3))
