"""What is accepted as samples, and how the rest is told to make a `Sample`."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import interp
from interp.data import Samples
from interp.errors import InterpError, PromptError, SampleError, StudyError
from interp.inputs.sample import Sample
from interp.inputs.sample_list import as_samples, image_key, pack, question_length
from interp.study.study import as_samples as as_study_samples
from tests.identifiers import without_address
from tests.tiny import sample

ONE, TWO = sample("is it red?"), sample("where is it?")


def test_one_or_several_samples_are_accepted():
    given = (ONE, [ONE], (ONE,), Samples([ONE]), iter([ONE]), np.array([ONE], object), pd.Series([ONE]))
    assert all(as_samples(one) == (ONE,) for one in given)
    assert as_samples(one for one in (ONE, TWO)) == (ONE, TWO)


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        ("picture.jpg", r"got 'picture\.jpg'\. .*Sample\('picture\.jpg', \"What"),
        (Path("a.png"), r"Sample\('a\.png', "),
        (None, r"expected samples; got None\. Write interp\.Sample\(\"image\.png\""),
        (7, "expected samples; got 7"),
        ({"image": "a.png"}, r"Sample\.from_dict\(record\)"),
        ({"a": ONE}, r"list\(samples\.values\(\)\)"),
        ({"a": ONE, "b": 3}, r"from_dict\(record\)"),
        ({}, r"from_dict\(record\)"),
        ([[ONE, 3]], r"Write \[interp\.Sample\(image, question\) for image, question in pairs\]"),
        ([[]], r"Write \[interp\.Sample\(image, question\) for image, question in pairs\]"),
        (Image.new("RGB", (2, 2)), r"got a Image\. For an image in memory write interp\.Sample\(image"),
        (np.zeros((2, 2, 3), np.uint8), r"got a ndarray\. For an image in memory"),
        (torch.zeros(3, 2, 2), r"got a Tensor\. For an image in memory"),
        (pd.DataFrame({"image": ["a.png"]}), r'table\.to_dict\("records"\)'),
        (pd.Series({"image": "a.png"}), r"from_dict\(row\.to_dict\(\)\)"),
        ({ONE}, r"results come in their order; got a set. Write list\(samples\)"),
        ([], "expected at least one sample; got none"),
        (iter([]), "expected at least one sample; got none"),
        ([ONE, "b.png"], r"got 'b\.png' at place 1\. .*Sample\('b\.png'"),
        ([("a.png", "is it?")], r"Write interp\.Sample\('a\.png', 'is it\?'\)"),
        ([[ONE, TWO]], "Give one flat list of samples"),
        ([{"image": "a.png"}], r"Sample\.from_dict\(record\)"),
        (range(10**13), "got 0 at place 0"),
        ([interp.Prompt()], "got a Prompt at place 0"),
    ],
    ids=without_address,
)
def test_what_are_no_samples_is_told_how_to_make_one(given, advice):
    with pytest.raises(SampleError, match=advice):
        as_samples(given)


@pytest.mark.parametrize("given", ["a.png", ("a.png", "is it?"), [("a.png", "is it?")]])
def test_the_sample_that_is_advised_can_be_made(given):
    with pytest.raises(SampleError) as raised:
        as_samples(given)
    (advised,) = re.findall(r"interp\.Sample\(.*?\"\)|interp\.Sample\(.*?'\)", str(raised.value))
    assert eval(advised).images == ("a.png",)


def test_micro_batches_by_hand():
    assert pack([1, 1, 1, 1], 2) == [(0, 1), (2, 3)]  # full to the last place
    assert pack([1] * 5, 3, kinds="aabbb") == [(0, 1), (2, 3, 4)]  # a kind is not cut
    assert pack([1] * 5, 2, kinds="abbba") == [(0, 4), (1, 2), (3,)]  # but for one that is larger
    assert pack([20, 15, 16, 0], 2) == [(1, 3), (0, 2)]  # lengths below 16, then below 32
    assert pack([9, 3, 8], 2, bucket=4) == [(1, 0), (2,)]
    assert pack([], 2) == []


def test_lengths_grow_with_words_options_and_images():
    one = Sample(np.zeros((2, 2), np.uint8), "Is it?", options=["yes", "no"])
    assert question_length(one) == 6 + (3 + 4) + (2 + 4) + 10_000
    assert question_length(one.replace(options=None, images=[*one.images] * 2)) == 6 + 20_000


def test_a_study_takes_samples_and_says_how_to_make_them():
    assert as_study_samples([ONE]) == Samples([ONE])
    with pytest.raises(StudyError, match=r"data is Samples or a list of Sample.*got str: .*Sample\('a\.png'"):
        as_study_samples("a.png")


def test_everything_that_takes_samples_says_the_same(unchecked):
    mllm = interp.load("organism")
    takers = [
        mllm.trace,
        mllm.score,
        mllm.encode,
        mllm.prefix,
        lambda given: interp.indicators.Attention()(mllm, given),
        lambda given: interp.indicators.AttentionGradient()(mllm, given),
        lambda given: interp.indicators.RandomMap()(mllm, given),
        lambda given: interp.methods.Plain().answer(mllm, given),
    ]
    for take in takers:
        with pytest.raises(
            InterpError, match=r"For an image at that path write interp\.Sample\('picture\.jpg'"
        ):
            take("picture.jpg")


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("what?", r"got the text 'what\?'.*belongs to its sample: interp\.Sample\(image, question\)"),
        (TWO, r"got a Sample\. Give several samples as one list"),
        (3, r"prompt= is an interp\.Prompt, such as .*; got 3"),
    ],
)
def test_what_is_no_prompt_is_refused(prompt, message, unchecked):
    with pytest.raises(PromptError, match=message):
        interp.load("organism").trace([Sample(np.zeros((9, 9, 3), np.uint8), "is it?")], prompt)


def test_samples_of_the_same_images_share_a_key():
    pixels, other = np.zeros((2, 2), np.uint8), np.ones((2, 2), np.uint8)
    one, two = Sample(pixels, "a"), Sample(images=[pixels, other], question="a")
    assert image_key(one) == image_key(one.replace(question="b", answer="c"))
    assert len({image_key(each) for each in (one, two, two.replace(images=[other, pixels]))}) == 3
    missing = Sample("absent.png", "a")
    assert image_key(missing) != image_key(missing.replace(question="b"))
