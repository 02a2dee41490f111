"""Measures of faithfulness of curves worked by hand, and on which side of a measure the better maps lie."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from interp.errors import MapError
from interp.inputs.prompt import Target, diff
from interp.study.indicator_comparison.indicator_maps import stage_name
from interp.study.indicator_comparison.paired_tests import better
from interp.study.indicator_comparison.removal_curves import Curves, measured, run_removal

STEPS = (0.25, 0.5)
WITHOUT, ONLY = np.array([0.9, 0.5, 0.3, 0.1]), np.array([0.1, 0.4, 0.8, 0.9])


def test_areas_and_falls_worked_by_hand() -> None:
    """p at 0, ¼, ½ and all of the tokens; normalised to 1, ½, ¼, 0 without and 0, ⅜, ⅞, 1 with these tokens alone."""
    found = measured(Curves(np.log(WITHOUT), np.log(ONLY)), STEPS, (0.5,), Target(), 0.1)
    assert found == pytest.approx(
        {
            "deletion": 0.25 * 0.75 + 0.25 * 0.375 + 0.5 * 0.125,
            "insertion": 0.25 * 0.1875 + 0.25 * 0.625 + 0.5 * 0.9375,
            "comprehensiveness": 0.6,
            "sufficiency": 0.1,
        }
    )
    both = measured(Curves(np.log(WITHOUT), np.log(ONLY)), STEPS, STEPS, Target(), 0.1)
    assert both["comprehensiveness"] == pytest.approx((0.4 + 0.6) / 2)
    assert both["sufficiency"] == pytest.approx((0.5 + 0.1) / 2)


class Weighing:
    """The value is the weight of the tokens that are left, 8, 4, 2 and 1; the model as it is gives `plain`."""

    name = "weighing"

    def __init__(self, plain: float = 15.5, all_gone: float = 0.0) -> None:
        self.plain, self.all_gone = plain, all_gone

    def scores(self, mllm: Any, sample: Any, masks: np.ndarray, **options: Any) -> Any:
        values = (~masks) @ np.array([8.0, 4.0, 2.0, 1.0]) + np.where(masks.all(axis=1), self.all_gone, 0.0)
        return SimpleNamespace(values=values, plain=self.plain, cost=len(masks))


def test_curves_go_from_the_whole_image_to_none_and_back() -> None:
    maps = {"falling": np.array([4.0, 3, 2, 1]), "rising": np.array([1.0, 2, 3, 4])}
    found, n_masks = run_removal(Weighing(), None, None, maps, STEPS, seed=0, options={})
    assert n_masks == 1 + 2 * 2 * 2
    assert found["falling"].deletion.tolist() == [15.5, 7, 3, 0]
    assert found["falling"].insertion.tolist() == [0, 8, 12, 15.5]
    assert found["rising"].deletion.tolist() == [15.5, 14, 12, 0]
    assert found["rising"].insertion.tolist() == [0, 1, 3, 15.5]


def test_ties_of_a_map_fall_by_the_seed() -> None:
    first = [
        run_removal(Weighing(), None, None, {"flat": np.ones(4)}, STEPS, seed=seed, options={})[0]["flat"]
        for seed in range(8)
    ]
    assert len({one.insertion[1] for one in first}) > 1


@pytest.mark.parametrize("broken", [{"plain": np.inf}, {"plain": np.nan}, {"all_gone": np.nan}])
def test_a_value_that_is_not_finite_is_an_error(broken: dict[str, float]) -> None:
    with pytest.raises(MapError, match="NaN or infinite with tokens taken away by weighing"):
        run_removal(Weighing(**broken), None, None, {"one": np.arange(4.0)}, STEPS, seed=0, options={})


def test_a_target_that_hardly_falls_has_no_area() -> None:
    flat = Curves(np.log([0.9, 0.88, 0.87, 0.85]), np.log([0.85, 0.87, 0.88, 0.9]))
    found = measured(flat, STEPS, STEPS, Target(), 0.1)
    assert np.isnan([found["deletion"], found["insertion"]]).all()
    assert found["comprehensiveness"] == pytest.approx(0.025)
    assert measured(flat, STEPS, STEPS, Target(), 0.01)["deletion"] > 0
    nats = measured(Curves(WITHOUT, ONLY), STEPS, (0.5,), Target(diff("left", "right")), 0.1)
    assert nats["comprehensiveness"] == pytest.approx(0.6)  # a difference of answers stays in nats


def test_each_measure_has_its_better_side() -> None:
    sides = {
        "deletion": "lower", "insertion": "higher", "comprehensiveness": "higher", "sufficiency": "lower",
        "auroc": "higher", "kl": "lower", "spearman": "", "weights": "",
    }  # fmt: skip
    assert {name: better(name) for name in sides} == sides


def test_stages_are_named_by_their_share() -> None:
    assert [stage_name(one) for one in (0.25, "all", 1.0)] == [
        "top 25 % of layers", "all weights", "top 100 % of layers",
    ]  # fmt: skip
