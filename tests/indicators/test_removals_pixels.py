from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import tests.tiny as small
from interp.errors import MapError
from interp.indicators import PaintPixels
from interp.indicators.removals import _repainted, paint_tokens
from interp.inputs.footprints import concatenate, in_frames, squash
from interp.inputs.prompt import Target, diff
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.tracing import Mllm, wrap
from tests.indicators.family_models import SAMPLE, family, masks


@pytest.fixture(scope="module")
def padded() -> Mllm:
    """56 px in 4×4 tokens; an image of 80×40 px is padded to a square, so the outer rows show padding alone."""
    return wrap(small.llava(), small.processor(pad=True))


WIDE = Sample(small.picture(80, 40, seed=3), "is it red?")


def by_hand(picture: np.ndarray, by: str) -> np.ndarray:
    """Tokens 5 and 6 of a 4×4 grid over a square of side 80 whose image starts at row 20: rows 20–40, columns 20–60."""
    fill = np.full_like(picture, 128)
    if by == "mean":
        fill[:] = np.round(picture.reshape(-1, 3).mean(axis=0))
    if by == "blur":
        channels = [gaussian_filter(picture[..., c].astype(float), 4.0, mode="nearest") for c in range(3)]
        fill = np.round(np.stack(channels, -1)).astype(np.uint8)
    painted = picture.copy()
    painted[0:20, 20:60] = fill[0:20, 20:60]
    return painted


@pytest.mark.parametrize("by", ["grey", "mean", "blur"])
def test_it_equals_the_score_of_an_image_painted_by_hand(padded: Mllm, by: str) -> None:
    mask = np.zeros((1, 16), bool)
    mask[0, [5, 6]] = True
    painted = WIDE.replace(image=by_hand(np.asarray(WIDE.image), by))
    for target in (Target(diff("yes", "no")), Target(diff("left lung", "no"))):
        found = PaintPixels(by).scores(padded, WIDE, mask, target=target)  # pyright: ignore[reportArgumentType]
        assert found.values[0] == pytest.approx(padded.score(painted, target).values[0], abs=1e-5)
        assert abs(found.values[0] - found.plain) > 1e-4


def test_pixels_are_painted_whose_centres_a_token_holds() -> None:
    """4 × 3 cells over 11 × 7 pixels, so that edges fall between pixels."""
    cells = squash((11, 7), (3, 4))
    tokens = TokenMap(np.arange(12), cells.boxes, cells.grid, cells.views, cells.image, ((11, 7),), 13)
    plain, paint = np.zeros((7, 11, 3), np.uint8), np.full((7, 11, 3), 9, np.uint8)
    x, y = np.arange(11) + 0.5, np.arange(7) + 0.5
    for token, (x0, y0, x1, y1) in enumerate(tokens.footprints):
        (found,) = paint_tokens([plain], [paint], tokens, np.arange(12) == token)
        wanted = np.outer((y >= y0) & (y < y1), (x >= x0) & (x < x1))
        np.testing.assert_array_equal(found == 9, np.broadcast_to(wanted[..., None], found.shape))


def test_tokens_without_footprint_cost_nothing(padded: Mllm) -> None:
    tokens = padded.encode([WIDE]).tokens[0]
    hollow = np.isnan(tokens.footprints).any(axis=1)
    assert hollow.sum() == 8
    found = PaintPixels().scores(padded, WIDE, np.stack([hollow, ~hollow]))
    assert found.values[0] == found.plain
    assert found.cost.forwards == 2
    everything = WIDE.replace(image=np.full((40, 80, 3), 128, np.uint8))
    own = padded.score(WIDE).aims[0].answers[0]
    logits = padded.trace(everything).logits.values[0].astype(float)
    expected = logits[own[0]] - np.log(np.exp(logits).sum())
    assert found.values[1] == pytest.approx(expected, abs=1e-5)


def test_several_images_are_painted_each_at_its_own_footprints() -> None:
    mllm = family("qwen2_5_vl")
    pictures = [small.picture(96, 80, seed=1), small.picture(64, 64, seed=2)]
    pair = Sample(images=pictures, question="is it red?")
    tokens = mllm.encode([pair]).tokens[0]
    second = tokens.image_index == 1
    painted = pair.replace(images=[pictures[0], np.full_like(pictures[1], 128)])
    found = PaintPixels().scores(mllm, pair, second[None], target=Target("yes"))
    assert found.values[0] == pytest.approx(mllm.score(painted, Target("yes")).values[0], abs=1e-5)
    assert abs(found.values[0] - found.plain) > 1e-4


def test_a_painted_video_keeps_its_times() -> None:
    frames = [small.picture(20, 20, seed=i) for i in range(3)]
    video = Sample(video=frames, times=[0.0, 0.5, 2.0], question="is it red?")
    grey = [np.full_like(one, 128) for one in frames]
    found = _repainted(video, grey)
    assert found.video is not None
    assert list(found.video.times) == [0.0, 0.5, 2.0]
    assert found.id != video.id
    np.testing.assert_array_equal(np.asarray(found.load(1)), grey[1])


def test_batches_change_no_number_and_it_describes_itself(unchecked: None) -> None:
    mllm = family("gemma3")
    variants = masks(mllm.encode([SAMPLE]).tokens[0].n, 5)
    together = PaintPixels("blur").scores(mllm, SAMPLE, variants).values
    np.testing.assert_allclose(
        PaintPixels("blur").scores(mllm, SAMPLE, variants, batch=2).values, together, atol=1e-5
    )
    assert PaintPixels("blur").to_dict() == {"removal": "paint_pixels", "by": "blur", "sigma": 0.1}
    assert PaintPixels().to_dict() == {"removal": "paint_pixels", "by": "grey"}
    assert PaintPixels("mean").name == "mean pixels"
    with pytest.raises(MapError, match="by of PaintPixels is 'grey' or 'blur' or 'mean'; got 'zero'"):
        PaintPixels("zero")  # pyright: ignore[reportArgumentType]


def test_each_image_takes_its_own_paint() -> None:
    """Two images of one token each, and a third of none: what is removed in one leaves the others."""
    cells = concatenate([squash((6, 4), (1, 1)), squash((4, 6), (1, 1)), squash((2, 2), (1, 1))])
    sizes = ((6, 4), (4, 6), (2, 2))
    tokens = TokenMap(np.arange(3), cells.boxes, None, cells.views, cells.image, sizes, 4)
    plain = [np.zeros((height, width, 3), np.uint8) for width, height in sizes]
    paints = [np.full_like(one, 10 * (i + 1)) for i, one in enumerate(plain)]
    found = paint_tokens(plain, paints, tokens, np.array([True, True, False]))
    assert [np.unique(one).tolist() for one in found] == [[10], [20], [0]]
    assert not any(one.any() for one in plain)  # the sample's own pixels stay


def test_a_token_of_several_frames_is_painted_in_each() -> None:
    cells = in_frames(squash((4, 2), (1, 2)), 3, together=2)
    tokens = TokenMap(
        np.arange(4), cells.boxes, cells.grid, cells.views, cells.image, ((4, 2),) * 3, 5,
        frames=cells.frames, frame_times=np.arange(3.0),
    )  # fmt: skip
    plain = [np.zeros((2, 4, 3), np.uint8)] * 3
    paints = [np.full((2, 4, 3), i + 1, np.uint8) for i in range(3)]
    found = paint_tokens(plain, paints, tokens, np.array([False, True, True, False]))
    assert [one[0, :, 0].tolist() for one in found] == [[0, 0, 1, 1], [0, 0, 2, 2], [3, 3, 0, 0]]


def test_paint_is_of_the_whole_image() -> None:
    picture = np.zeros((10, 30, 3), np.uint8)
    picture[:, :15], picture[..., 2] = (200, 41, 0), 7
    assert np.unique(PaintPixels("mean").fill(picture).reshape(-1, 3), axis=0).tolist() == [[100, 20, 7]]
    assert np.unique(PaintPixels().fill(picture)).tolist() == [128]
    blurred = PaintPixels("blur").fill(picture)  # σ is a tenth of the shorter side: 1 pixel
    np.testing.assert_array_equal(
        blurred[3, :, 0], np.rint(gaussian_filter(picture[3, :, 0].astype(float), 1.0))
    )
    assert np.ptp(blurred[..., 2]) == 0  # no channel runs into another
