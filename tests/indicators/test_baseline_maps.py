"""Maps that know nothing: the same alone as in a batch, and what their formulas say."""

from __future__ import annotations

import numpy as np
import pytest

from interp.errors import MapError
from interp.indicators import CentrePrior, RandomMap
from interp.inputs.sample import Sample
from tests.study.planted import sample
from tests.study.planted_indicators import Truthful


def test_a_random_map_is_the_samples_own_whatever_its_batch() -> None:
    model, data = Truthful(), [sample(0), sample(1), sample(2)]
    together, alone = RandomMap(3)(model, data), RandomMap(3)(model, data[1])
    np.testing.assert_array_equal(together[1], alone[0])
    maps = np.stack([one.values for one in (*together, RandomMap(4)(model, data[0])[0])])
    assert (np.abs(np.corrcoef(maps)[~np.eye(4, dtype=bool)]) < 0.75).all()
    assert ((maps >= 0) & (maps < 1)).all()
    assert together.cost.forwards == 0


def test_the_centre_prior_is_a_gaussian_in_shares_of_the_image() -> None:
    """4 × 5 tokens of 20 × 20 px on 100 × 80 px: token 0's centre is (10, 10), 0.4 and 0.375 from the middle."""
    values = CentrePrior(sigma=0.5)(Truthful(), [sample(0)])[0].values
    assert values[0] == pytest.approx(np.exp(-0.5 * (0.4**2 + 0.375**2) / 0.25))
    np.testing.assert_allclose(values, values[::-1])
    assert values.reshape(4, 5)[1].argmax() == 2


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: RandomMap(-1), "seed is a whole number of at least 0; got -1"),
        (lambda: CentrePrior(0.0), "sigma, a share of the image's side, is a finite number above 0; got 0"),
    ],
)
def test_what_makes_no_sense_is_refused(make: object, said: str, unchecked: None) -> None:
    with pytest.raises(MapError, match=said):
        make()  # type: ignore[operator]


def test_several_images_have_a_middle_each() -> None:
    image = np.zeros((80, 100, 3), np.uint8)
    from interp.indicators.baseline_maps import centre_prior

    found = centre_prior(
        np.array([[40.0, 30, 60, 50], [0.0, 0, 10, 10], [np.nan] * 4]),
        np.array([0, 1, 1]),
        [(100, 80), (10, 10)],
    )
    assert found.tolist() == [1.0, 1.0, 0.0]
    assert Sample(image).sizes == ((100, 80),)


def test_another_question_draws_another_random_map() -> None:
    model, asked = Truthful(), sample(0)
    maps = [RandomMap()(model, one)[0] for one in (asked, asked.replace(question="Another?"))]
    assert not np.allclose(*maps)
    np.testing.assert_array_equal(maps[0], RandomMap(0)(model, asked.replace(id="renamed"))[0])
    assert [one.name for one in maps] == ["random", "random"]


def test_they_describe_themselves() -> None:
    assert RandomMap(7).to_dict() == {"indicator": "random", "seed": 7}
    assert CentrePrior().to_dict() == {"indicator": "centre prior", "sigma": 0.25}
    model = Truthful()
    np.testing.assert_array_equal(
        CentrePrior()(model, [sample(0)])[0], CentrePrior(0.25)(model, [sample(0)])[0]
    )
