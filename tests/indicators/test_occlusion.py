from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pytest

import tests.tiny as small
from interp.errors import MapError
from interp.indicators import HideTokens, Occlusion, PaintPixels, RandomMasks, Removed
from interp.indicators.occlusion import kept_average, random_masks
from interp.inputs.footprints import pad_to_square
from interp.inputs.prompt import Target
from interp.inputs.tokens import TokenMap
from interp.tracing import Cost, Mllm, wrap

TARGET = Target("yes")
SAMPLE = small.Sample(small.picture(64, 64, seed=9), "is it red?")
"""One quarter of its picture opposes the answer, by more than any other quarter supports it."""


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


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("refine", "n"), [(0.01, 1), (0.25, 1), (0.26, 2), (1.0, 4)])
def test_of_blocks_that_lose_as_much_the_first_are_refined(mllm: Mllm, refine: float, n: int) -> None:
    (tokens,) = mllm.encode([SAMPLE]).tokens
    values, refined = Occlusion(coarse=2, refine=refine)._values(tokens, lambda masks: np.ones(len(masks)))
    number = np.kron(np.arange(4).reshape(2, 2), np.ones((2, 2), int)).reshape(-1)
    np.testing.assert_array_equal(refined, number < n)
    np.testing.assert_array_equal(values, np.where(number < n, 1.0, 0.25))


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
        ({"refine": 1.5}, "refine, the share .* at most 1; got 1.5"),
        ({"window": 0}, "window of Occlusion is a whole number of at least 1; got 0"),
        ({"by": "zero"}, "by of PaintPixels is 'grey' or 'blur' or 'mean'"),
    ):
        with pytest.raises(MapError, match=message):
            Occlusion(**wrong)


ALL = np.array(list(product([False, True], repeat=4)))


@dataclass(frozen=True)
class Planted:
    """A removal whose score is known: each token its share, and two of them together some more."""

    shares: tuple[float, ...] = (0.5, -1.0, 2.0, 0.0)
    name: str = "planted"

    def scores(self, mllm: Any, sample: Any, masks: np.ndarray, **_: Any) -> Removed:
        kept = ~masks
        return Removed(
            kept @ np.array(self.shares) + 3.0 * (kept[:, 0] & kept[:, 2]) - 7, -2.5, Cost(forwards=1)
        )

    def to_dict(self) -> dict[str, Any]:
        return {"removal": "planted"}


def by_brute_force() -> np.ndarray:
    """E[s·k] / E[k] over every mask of four tokens, each left with probability one half."""
    scores = {kept: sum(s * k for s, k in zip(Planted().shares, kept, strict=True)) + 3 * (kept[0] and kept[2]) - 7
              for kept in product([0, 1], repeat=4)}  # fmt: skip
    return np.array([np.mean([s for kept, s in scores.items() if kept[j]]) for j in range(4)])


@pytest.fixture(scope="module")
def masked_mllm() -> Mllm:
    return wrap(small.llava(side=28), small.processor(28))


def test_over_all_masks_it_is_the_conditional_mean() -> None:
    average, error = kept_average(Planted().scores(None, None, ~ALL).values, ALL)
    np.testing.assert_allclose(average, by_brute_force())
    own = Planted().scores(None, None, ~ALL).values[ALL[:, 1]]
    assert error[1] == pytest.approx(own.std(ddof=1) / np.sqrt(8))


def test_a_mean_needs_two_masks_that_keep_the_token(unchecked: None) -> None:
    kept = np.array([[True, True], [True, True], [True, False]])
    average, _ = kept_average(np.array([1.0, 2.0, 6.0]), kept)
    np.testing.assert_allclose(average, [3.0, 1.5])
    with pytest.raises(MapError, match="token 1 is kept by 1 of 2"):
        kept_average(np.array([1.0, 2.0]), kept[1:])


def test_random_masks_come_near_it_by_their_standard_error(masked_mllm: Mllm) -> None:
    found = RandomMasks(Planted(), n=4000, cell=1)(masked_mllm, small.sample())[0]
    error = found.attrs["standard_error"]
    away = (found.values + found.attrs["mean"] - by_brute_force()) / error
    assert (np.abs(away) < 4).all()
    values = Planted().scores(None, None, ~ALL).values
    expected = [values[ALL[:, j]].std() / np.sqrt(2000) for j in range(4)]
    np.testing.assert_allclose(error, expected, rtol=0.1)
    assert found.attrs["plain"] == -2.5
    assert int(found.values.argmax()) == 2


def test_samples_and_seeds_draw_different_masks(masked_mllm: Mllm) -> None:
    indicator = RandomMasks(HideTokens(queries="last"), n=40, cell=1, keep=0.7)
    samples = small.samples()[:2]
    maps = indicator(masked_mllm, samples)
    np.testing.assert_array_equal(maps[1], indicator(masked_mllm, samples[1])[0])
    assert maps.cost.forwards == 4
    again = small.samples()[0].replace(id="another")
    assert not np.allclose(maps[0], indicator(masked_mllm, again)[0])
    assert not np.allclose(
        maps[0], RandomMasks(indicator.removal, 40, 1, 0.7, seed=1)(masked_mllm, samples[0])[0]
    )


def test_masks_take_whole_cells_at_any_offset() -> None:
    wide = wrap(small.llava(side=84), small.processor(84, pad=True))
    tokens = wide.encode([small.Sample(small.picture(84, 56), "is it red?")]).tokens[0]
    found = random_masks(tokens, 300, 2, 0.4, np.random.default_rng(0))
    assert not found[:, np.isnan(tokens.footprints).any(axis=1)].any()
    inner = found.reshape(300, 6, 6)[:, 1:5]
    assert inner.mean() == pytest.approx(0.6, abs=0.03)
    pairs = [
        (inner[:, 0, x] == inner[:, 0, x + 1]).mean() for x in range(5)
    ]  # one cell in half of the offsets
    np.testing.assert_allclose(pairs, 0.5 + 0.5 * (0.6**2 + 0.4**2), atol=0.1)
    far = [(inner[:, 0, x] == inner[:, 0, x + 2]).mean() for x in range(4)]
    np.testing.assert_allclose(far, 0.6**2 + 0.4**2, atol=0.1)


def test_random_masks_describe_themselves_and_refuse_nonsense(masked_mllm: Mllm, unchecked: None) -> None:
    assert RandomMasks(n=9, seed=4).to_dict() == {
        "indicator": "random masks", "removal": HideTokens().to_dict(), "n": 9, "cell": 3, "keep": 0.5, "seed": 4,
    }  # fmt: skip
    assert hash(RandomMasks(batch=3)) == hash(RandomMasks())
    with pytest.raises(MapError, match=r"is kept by \d of 3\. Raise n= or keep="):
        RandomMasks(Planted(), n=3, cell=1, keep=0.1)(masked_mllm, small.sample())
    for wrong, message in (
        ({"removal": "blur"}, r"removal is a way to remove tokens, such as HideTokens\(\)"),
        ({"n": 1}, "n of RandomMasks is a whole number of at least 2; got 1"),
        ({"cell": 0}, "cell of RandomMasks is a whole number of at least 1; got 0"),
        ({"seed": -1}, "seed of RandomMasks is a whole number of at least 0; got -1"),
        ({"keep": 0.0}, "keep, a probability, is a finite number above 0 and below 1; got 0"),
        ({"keep": 1.0}, "keep, a probability, is a finite number above 0 and below 1; got 1"),
    ):
        with pytest.raises(MapError, match=message):
            RandomMasks(**wrong)


@pytest.mark.usefixtures("unchecked")
def test_tokens_without_a_footprint_have_no_block() -> None:
    """An 80×40 image in a padded square of 4×4 tokens: the outer rows are padding, blocks are of the inner two."""
    cells = pad_to_square((80, 40), (4, 4))
    tokens = TokenMap(np.arange(16), cells.boxes, (4, 4), cells.views, cells.image, ((80, 40),), 17)
    painted: list[np.ndarray] = []

    def lost(masks: np.ndarray) -> np.ndarray:
        painted.append(masks)
        return np.arange(len(masks)) + 1.0

    values, refined = Occlusion(coarse=2, refine=0.5)._values(tokens, lost)
    number = np.full(16, -1)
    number[4:12] = [0, 0, 1, 1, 2, 2, 3, 3]  # the lattice starts at the square, so a block has two tokens
    np.testing.assert_array_equal(painted[0], number == np.arange(4)[:, None])
    np.testing.assert_array_equal(refined, number >= 2)  # the two blocks that lose most
    np.testing.assert_array_equal(values, [*[0.0] * 4, 0.5, 0.5, 1, 1, 1, 2, 3, 4, *[0.0] * 4])
    assert painted[1].sum(axis=1).tolist() == [1] * 4
