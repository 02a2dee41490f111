"""transformers' video processors without torchvision: against Pillow, and against torchvision where it is installed."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from PIL import Image
from transformers.image_utils import SizeDict

from interp.conformance.tiny import tiny
from interp.errors import ImageError, ModelError
from interp.models import without_torchvision as room
from interp.models.processors import number_words
from interp.models.without_torchvision import VIDEO_PROCESSORS, video_processor_class

FRAMES = np.random.default_rng(0).integers(0, 255, (3, 31, 47, 3), dtype=np.uint8)
SETTINGS = {
    "llava_next_video": {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}},
    "llava_onevision": {"size": {"height": 60, "width": 60}},
    "qwen2_vl": {"patch_size": 14, "size": {"shortest_edge": 9 * 784, "longest_edge": 60 * 784}},
    "qwen3_vl": {"patch_size": 16, "size": {"shortest_edge": 9 * 4096, "longest_edge": 60 * 4096}},
    "smolvlm": {"size": {"longest_edge": 288}, "max_image_size": {"longest_edge": 96}},
}


@pytest.fixture
def made():
    return video_processor_class("LlavaOnevisionProcessor")(size={"height": 60, "width": 60})


@pytest.mark.parametrize("size", [(20, 30), (60, 44)], ids=["smaller", "larger"])
@pytest.mark.parametrize(
    "resample", [Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.LANCZOS]
)
def test_frames_are_resized_as_pillow_does(made, size, resample):
    """Both filter whole values in two passes; they round differently by one level."""
    given = torch.from_numpy(FRAMES).permute(0, 3, 1, 2)
    found = made.resize(given, SizeDict(height=size[0], width=size[1]), resample=resample)
    wanted = [np.asarray(Image.fromarray(one).resize(size[::-1], resample)) for one in FRAMES]
    assert_allclose(found.permute(0, 2, 3, 1).to(int), np.stack(wanted).astype(int), atol=1)


def test_frames_are_resized_by_the_filter_asked_for(made):
    """Four pixels become two: the nearest are the second and the fourth; means of two, without a filter."""
    row = torch.tensor([[[[0.0, 0, 0, 8]]]])
    size = SizeDict(height=1, width=2)
    assert made.resize(row, size, resample=Image.Resampling.NEAREST).tolist() == [[[[0, 8]]]]
    assert made.resize(row, size, resample=Image.Resampling.BILINEAR, antialias=False).tolist() == [
        [[[0, 4]]]
    ]
    smooth = made.resize(row, size)
    assert_allclose(smooth.flatten(), [0, 8 * 3 / 7])  # weights of ¼, ¾ and ¾: a filter two pixels wide
    assert torch.equal(smooth, made.resize(row, size, resample=Image.Resampling.BILINEAR))


def test_the_shorter_side_of_frames_is_the_one_named(made):
    frames = torch.zeros(2, 3, 20, 30)
    assert made.resize(frames, SizeDict(shortest_edge=10)).shape == (2, 3, 10, 15)
    assert made.resize(frames.mT, SizeDict(shortest_edge=10)).shape == (2, 3, 15, 10)


def test_frames_are_cropped_in_the_middle(made):
    given = torch.arange(5 * 4).reshape(1, 1, 5, 4)
    assert made.center_crop(given, SizeDict(height=3, width=2)).tolist() == [[[[5, 6], [9, 10], [13, 14]]]]
    padded = made.center_crop(given, SizeDict(height=5, width=7))
    assert padded[0, 0, 1].tolist() == [0, 4, 5, 6, 7, 0, 0]  # 3 missing: 1 before, 2 after


def test_frames_smaller_both_ways_get_a_rim_of_zeros(made):
    given = torch.arange(1, 3).reshape(1, 1, 1, 2)
    found = made.center_crop(given, SizeDict(height=4, width=3))[0, 0]
    assert found.tolist() == [[0, 0, 0], [1, 2, 0], [0, 0, 0], [0, 0, 0]]  # 3 rows and a column are missing


def test_images_are_changed_as_torchvision_does():
    made = room.TorchImages.__new__(room.TorchImages)
    grey = torch.tensor([[[0, 100], [200, 255]]], dtype=torch.uint8)
    assert made.convert_to_rgb(grey).tolist() == grey.tolist() * 3
    with pytest.raises(ImageError, match="expected 1 or 3 channels, got 4"):
        made.convert_to_rgb(grey.expand(4, -1, -1))
    values = made.normalize(torch.tensor([[[1.0]], [[2.0]], [[3.0]]]), [1.0, 1.0, 1.0], [1.0, 2.0, 4.0])
    assert values.flatten().tolist() == [0, 0.5, 0.5]
    picture = torch.from_numpy(FRAMES[0]).permute(2, 0, 1)
    size = SizeDict(height=20, width=30)
    for resample in (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, None):
        found = made.resize(picture, size, resample)
        wanted = Image.fromarray(FRAMES[0]).resize((30, 20), resample or Image.Resampling.BILINEAR)
        assert found.dtype == torch.uint8
        assert_allclose(found.permute(1, 2, 0).to(int), np.asarray(wanted).astype(int), atol=2)
        assert torch.equal(made.resize(picture[None], size, resample)[0], found)


def test_frames_are_normalised(made):
    found = made([FRAMES], do_sample_frames=False, do_resize=False, return_tensors="pt")[
        "pixel_values_videos"
    ]
    mean, std = (np.array(getattr(made, name)).reshape(3, 1, 1) for name in ("image_mean", "image_std"))
    assert_allclose(found[0], (FRAMES.transpose(0, 3, 1, 2) / 255 - mean) / std, atol=1e-5)


def test_settings_that_cannot_be_followed(made):
    with pytest.raises(ModelError, match=r'"height" and "width", or "shortest_edge"'):
        made.resize(torch.zeros(1, 3, 4, 4), SizeDict(longest_edge=5))
    with pytest.raises(ModelError, match=r"resized by one of nearest-exact, lanczos, bilinear, bicubic"):
        made.resize(torch.zeros(1, 3, 4, 4), SizeDict(height=5, width=5), resample=5)
    with pytest.raises(ModelError, match=r"frames have 3 channels"):
        made.convert_to_rgb(torch.zeros(1, 4, 4, 4))
    with pytest.raises(ModelError, match=r'a crop has a "height" and a "width"'):
        made.center_crop(torch.zeros(1, 3, 4, 4), SizeDict(height=3))


def test_every_processor_has_its_own_class():
    for name, where in VIDEO_PROCESSORS.items():
        model, kind = where.split(":")
        found = video_processor_class(name)
        assert found.__name__ == kind
        assert found.__module__.endswith(f"{model}.video_processing_{model}")
    assert video_processor_class("LlavaProcessor") is None


def test_settings_are_saved_and_loaded(tmp_path):
    _, processor = tiny("qwen3_vl")
    processor.save_pretrained(tmp_path)
    again = room.video_processor_class("Qwen3VLProcessor").from_pretrained(tmp_path)
    assert again.size == processor.video_processor.size
    assert again.patch_size == 16


def test_numbers_are_written_as_english_words():
    words = {0: "zero", 21: "twenty-one", 100: "one hundred", 999: "nine hundred and ninety-nine"}
    words |= {1002: "one thousand and two", 1234: "one thousand, two hundred and thirty-four"}
    assert {n: number_words(n) for n in words} == words


@pytest.mark.parametrize("where", sorted(set(VIDEO_PROCESSORS.values())))
def test_pixels_are_those_of_torchvision(where):
    pytest.importorskip("torchvision")
    model, name = where.split(":")
    theirs = getattr(import_module(f"transformers.models.{model}.video_processing_{model}"), name)
    mine = type(name, (theirs, room._TorchFrames), {})
    for settings in (SETTINGS[model], {}):
        one, two = (
            kind(**settings)([FRAMES], do_sample_frames=False, return_tensors="pt") for kind in (theirs, mine)
        )
        assert set(one) == set(two)
        for key in one:
            assert torch.equal(one[key], two[key]), key
