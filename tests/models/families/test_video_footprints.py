"""Footprints of videos against transformers' video processors and towers: impulses in place and in time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import interp
from interp.conformance.tiny import tiny
from interp.errors import ModelError
from interp.inputs.footprints import Footprints, check_layout
from interp.models.adapter import built_in

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava_onevision", "llava_next_video", "smolvlm")
LIKE_QWEN3_VL = ("qwen3_5", "qwen3_5_moe", "qwen3_vl_moe")
"""Families with Qwen3-VL's video processor and positions."""
SIZES = {"square": (140, 140), "wide": (230, 90), "tall": (60, 190), "tiny": (30, 22)}
DARK, BRIGHT = 60, 200


@pytest.fixture(
    scope="module",
    params=[*FAMILIES, *(pytest.param(one, marks=pytest.mark.slow) for one in LIKE_QWEN3_VL)],
)
def mllm(request):
    return interp.wrap(*tiny(request.param))


def frames(size: tuple[int, int], n: int, box=None, at: tuple[int, int] = (0, 0)) -> np.ndarray:
    """Grey frames, with a bright box in the frames from at[0] to before at[1]."""
    found = np.full((n, size[1], size[0], 3), DARK, np.uint8)
    if box is not None:
        found[at[0] : at[1], box[1] : box[3], box[0] : box[2]] = BRIGHT
    return found


def entering(mllm, shown: np.ndarray) -> torch.Tensor:
    """(token, hidden): the video's tokens as they enter the first decoder layer."""
    batch = mllm.encode(interp.Sample(video=shown, fps=2.0, question="where ?"))
    return mllm.embeddings(batch)[0][torch.from_numpy(batch.tokens[0].image.copy())].float()


def footprints(mllm, size: tuple[int, int], n: int) -> interp.TokenMap:
    return mllm.encode(interp.Sample(video=frames(size, n), fps=2.0, question="where ?")).tokens[0]


@pytest.mark.covering
@pytest.mark.parametrize("shape", SIZES)
def test_an_impulse_moves_the_token_of_its_place_and_time(mllm, shape):
    size, n = SIZES[shape], 5
    tokens = footprints(mllm, size, n)
    before = entering(mllm, frames(size, n))
    area = np.prod(tokens.footprints[:, 2:] - tokens.footprints[:, :2], axis=1)
    chosen = np.flatnonzero(area > 0.5 * np.nanmax(area))[:: max(1, tokens.n // 6)]
    assert len(chosen) > 3
    for token in chosen:
        low = np.ceil(tokens.footprints[token, :2]).astype(int)
        high = np.maximum(np.floor(tokens.footprints[token, 2:]).astype(int), low + 1)
        for frame in range(*tokens.frames[token]):
            bright = frames(size, n, (*low, *high), (frame, frame + 1))
            change = (entering(mllm, bright) - before).norm(dim=-1).numpy()
            assert change.argmax() == token, (token, frame)
            assert not change[~tokens.shows(frame)].any(), "another frame's tokens changed"


@pytest.mark.by_default(mllm=["llava_next_video"], shape=["wide"], n=[5])
@pytest.mark.parametrize("n", [2, 5])
@pytest.mark.parametrize("shape", SIZES)
def test_every_frame_is_tiled_once(mllm, shape, n):
    tokens = footprints(mllm, SIZES[shape], n)
    for frame in range(n):
        mine = tokens.shows(frame)
        one = Footprints(tokens.footprints[mine], None, tokens.views[mine], np.zeros(int(mine.sum()), int))
        check_layout(one, [SIZES[shape]])
        assert (
            np.isfinite(tokens.to_pixels(np.ones(tokens.n), frame=frame)).mean() > 0.3
        )  # a tall frame is cropped


def test_two_frames_a_token_by_hand():
    """84×56 is 3×2 blocks of 28, which grow to at least 9: smart_resize gives 4×3. Five frames are three pairs."""
    tokens = footprints(interp.wrap(*tiny("qwen2_vl")), (84, 56), 5)
    assert tokens.grid == (3, 4)
    assert tokens.frames[::12].tolist() == [[0, 2], [2, 4], [4, 5]]
    assert_allclose(tokens.times[::12], [[0.0, 0.5], [1.0, 1.5], [2.0, 2.0]])
    assert_allclose(tokens.footprints[12 + 5], [21, 56 / 3, 42, 112 / 3])
    # half of one frame of the two that the token merges
    assert_allclose(tokens.coverage([interp.Box(21, 56 / 3, 42, 112 / 3, frame=3)])[12 + 5], 0.5)
    assert tokens.mask([interp.Box(22, 20, 41, 36, frame=3)]).nonzero()[0].tolist() == [12 + 5]


def test_frames_share_a_budget_of_pixels_where_there_is_one():
    """0.9 × 120 tokens for 12 frames, two a token, are 18 blocks each; of 3:2 they are 5×3."""
    mllm = interp.wrap(*tiny("qwen2_vl"))
    settings = mllm.processor.video_processor
    assert footprints(mllm, (300, 200), 12).grid == (6, 9)
    settings.cap_pixels_per_frame, settings.max_video_tokens = True, 120
    assert footprints(mllm, (300, 200), 12).grid == (3, 5)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl"])
@pytest.mark.parametrize("most", [30, 120])
def test_a_budget_of_pixels_is_the_processors_own(family, most):
    """The encoding compares the grid with the processor's; a budget changes it."""
    mllm = interp.wrap(*tiny(family))
    settings, size = mllm.processor.video_processor, (300, 200)
    free = footprints(mllm, size, 8).n
    settings.cap_pixels_per_frame, settings.max_video_tokens = True, most
    assert footprints(mllm, size, 8).n != free


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl"])
def test_frames_that_are_not_resized_keep_their_patches(family):
    mllm = interp.wrap(*tiny(family))
    settings = mllm.processor.video_processor
    settings.do_resize = False
    side = settings.patch_size * settings.merge_size
    assert footprints(mllm, (3 * side, 2 * side), 4).grid == (2, 3)


def test_pooled_frames_and_a_newline_by_hand():
    """OneVision: 4 patches of 14 of 60 px, pooled to 2: each stands for 28/60 of a frame's side."""
    tokens = footprints(interp.wrap(*tiny("llava_onevision")), (120, 60), 2)
    assert tokens.n == 2 * 4 + 1
    assert_allclose(tokens.footprints[4], [0, 0, 56, 28])
    assert_allclose(tokens.footprints[7], [56, 28, 112, 56])
    assert np.isnan(tokens.footprints[8]).all()
    assert tokens.frames[[0, 4, 8]].tolist() == [[0, 1], [1, 2], [1, 2]]


def test_cropped_frames_by_hand():
    """LLaVA-NeXT-Video: 112×56 is cropped to its central 56; 4×4 patches pooled to 2×2 of 28 px."""
    tokens = footprints(interp.wrap(*tiny("llava_next_video")), (112, 56), 2)
    assert_allclose(
        tokens.footprints[:4], [[28, 0, 56, 28], [56, 0, 84, 28], [28, 28, 56, 56], [56, 28, 84, 56]]
    )


def test_the_times_reach_the_prompt_and_the_positions():
    video = {"video": frames((60, 60), 4), "times": [0.0, 1.0, 4.0, 7.0], "question": "where ?"}
    smol = interp.wrap(*tiny("smolvlm"))
    words = smol.encode(interp.Sample(**video)).singles[0].expansions[0]
    assert "series of four frames from a 0:00:09" in words
    assert "Frame from 00:07:" in words
    qwen = interp.wrap(*tiny("qwen3_vl"))
    words = qwen.encode(interp.Sample(**video)).singles[0].expansions[0]
    assert words.startswith("<0.5 seconds>")
    assert "<5.5 seconds>" in words
    spaced = interp.wrap(*tiny("qwen2_5_vl"))
    inputs = spaced.encode(interp.Sample(**video)).inputs
    assert_allclose(inputs["second_per_grid_ts"], [2 * 7 / 3])  # two frames, 7/3 s apart on average


def test_who_takes_videos():
    assert {one.name for one in built_in() if getattr(one, "video", False)} == {*FAMILIES, *LIKE_QWEN3_VL}


def test_a_family_without_videos_says_so():
    llava = interp.wrap(*tiny("llava"))
    with pytest.raises(ModelError, match=r"llava takes images and no video. Pass the frames as images"):
        llava.encode(interp.Sample(video=frames((60, 60), 2), fps=1, question="where ?"))


@pytest.mark.parametrize(
    ("family", "name", "value"),
    [
        ("qwen2_vl", "merge_size", 1),
        ("qwen3_vl", "size", {"height": 56, "width": 56}),
        ("llava_onevision", "do_center_crop", True),
        ("llava_next_video", "do_center_crop", False),
        ("smolvlm", "do_resize", False),
    ],
)
def test_settings_that_do_not_fit_are_refused(family, name, value):
    mllm = interp.wrap(*tiny(family))
    setattr(mllm.processor.video_processor, name, value)
    with pytest.raises(interp.errors.InterpError, match=r"settings|size|shape|do_resize|merge|refuses"):
        footprints(mllm, (90, 60), 4)
