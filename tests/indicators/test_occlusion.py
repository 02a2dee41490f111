from __future__ import annotations

import numpy as np
import pytest

import tests.tiny as small
from interp.errors import MapError
from interp.indicators import Occlusion, PaintPixels
from interp.inputs.prompt import Target
from interp.tracing import Mllm, wrap

TARGET = Target("yes")
SAMPLE = small.Sample(small.picture(64, 64, seed=5), "is it red?")


@pytest.fixture(scope="module")
def mllm() -> Mllm:
    return wrap(small.llava(), small.processor())


@pytest.fixture(scope="module")
def full(mllm: Mllm) -> np.ndarray:
    return Occlusion("mean", window=3)(mllm, SAMPLE, target=TARGET)[0].values


def painted(mllm: Mllm, rows: slice, cols: slice) -> float:
    """What the target loses with some of the 4×4 cells of 16 px painted in the mean colour."""
    picture = np.array(SAMPLE.image)
    picture[rows, cols] = np.round(picture.mean(axis=(0, 1)))
    plain, value = (mllm.score(one, TARGET).values[0] for one in (SAMPLE, SAMPLE.replace(image=picture)))
    return float(plain - value)


def test_a_token_holds_the_loss_of_the_window_around_it(mllm: Mllm, full: np.ndarray) -> None:
    assert full[0] == pytest.approx(painted(mllm, slice(0, 32), slice(0, 32)), abs=1e-5)
    assert full[6] == pytest.approx(painted(mllm, slice(0, 48), slice(16, 64)), abs=1e-5)
    assert np.ptp(full) > 1e-3


def test_coarse_to_fine_equals_the_full_map_where_refined(mllm: Mllm, full: np.ndarray) -> None:
    maps = Occlusion("mean", window=3, coarse=2, refine=0.3)(mllm, SAMPLE, target=TARGET)
    found = maps[0]
    by_block = np.array(
        [[painted(mllm, slice(y, y + 32), slice(x, x + 32)) for x in (0, 32)] for y in (0, 32)]
    )
    best = np.argsort(-by_block.reshape(-1))[:2]  # three tenths of four blocks, rounded up
    number = np.kron(np.arange(4).reshape(2, 2), np.ones((2, 2), int)).reshape(-1)
    refined = np.isin(number, best)
    np.testing.assert_array_equal(found.refined, refined)
    np.testing.assert_allclose(found.values[refined], full[refined], atol=1e-5)
    np.testing.assert_allclose(
        found.values[~refined], (by_block.reshape(-1) / 4)[number[~refined]], atol=1e-5
    )
    assert maps.cost.forwards == 2 + 2  # twice the plain pass, four blocks, eight windows


def test_it_describes_itself_and_refuses_what_makes_no_sense(unchecked: None) -> None:
    assert Occlusion("blur", 3, coarse=4).to_dict() == {
        "indicator": "occlusion", "removal": PaintPixels("blur").to_dict(), "window": 3, "coarse": 4, "refine": 0.25,
    }  # fmt: skip
    assert Occlusion(batch=1) == Occlusion()
    for wrong, message in (
        ({"window": 2}, "window of Occlusion is an odd number of tokens; got 2"),
        ({"coarse": 1}, "coarse of Occlusion, where it is not None, is a whole number of at least 2; got 1"),
        (
            {"refine": 0.0},
            "refine, the share of blocks that is refined, is a finite number above 0 and at most 1; got 0",
        ),
        ({"by": "zero"}, "by of PaintPixels is 'grey' or 'blur' or 'mean'"),
    ):
        with pytest.raises(MapError, match=message):
            Occlusion(**wrong)
