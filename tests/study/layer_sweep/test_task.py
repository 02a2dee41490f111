from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from interp.metrics import METRICS, attention_ratio, auroc, kl_gain, named
from interp.study.layer_sweep.task import Scorable, SweepTask, columns_of, scored
from tests.study.planted import Planted, sample, samples, sweep, token_map


def scorable(n_tokens: int, n_masks: int, seed: int) -> Scorable:
    """Three layers' maps and a prior; masks of one to three tokens."""
    random = np.random.default_rng(seed)
    masks = np.zeros((n_masks, n_tokens), bool)
    for line in masks:
        line[random.choice(n_tokens, random.integers(1, 4), replace=False)] = True
    return Scorable(random.random((4, n_tokens)), masks, (2, n_tokens // 2))


def test_samples_of_several_sizes_score_as_each_does_alone() -> None:
    given = [scorable(12, 2, 0), scorable(20, 2, 1), scorable(12, 2, 2), scorable(12, 1, 3)]
    found = scored(named(("ar", "kl_gain", "auroc")), given)
    for one, scores in zip(given, found, strict=True):
        columns = columns_of(named(("ar", "kl_gain", "auroc")), one)
        assert scores.shape == (3, len(columns)) == (3, 9 if len(one.masks) > 1 else 6)
        for at, (name, control) in enumerate(columns):
            metric = {"ar": attention_ratio, "kl_gain": kl_gain, "auroc": auroc}[name]
            mask = one.masks[1 if control == "shuffled_boxes" else 0]
            maps = one.maps[-1:].repeat(3, axis=0) if control == "centre_prior" else one.maps[:3]
            assert scores[:, at].tolist() == [float(metric(line, mask)) for line in maps]


def test_every_metric_takes_several_samples() -> None:
    given = [scorable(12, 2, seed) for seed in range(3)]
    given.append(replace(scorable(12, 2, 3), grid=(3, 4)))  # as many tokens in another grid
    metrics = tuple(METRICS.values())
    together, alone = scored(metrics, given), [scored(metrics, [one])[0] for one in given]
    assert np.array_equal(together, alone, equal_nan=True)


class Gap(Planted):
    """The first token of sample s1 has no footprint, so that its tokens form no grid."""

    def __call__(self, mllm: Any, samples: Any, **options: Any) -> Any:
        maps, tokens = super().__call__(mllm, samples, **options), []
        for one, own in zip(samples, maps.tokens, strict=True):
            boxes = own.footprints.copy()
            boxes[0] = np.nan if one.id == "s1" else boxes[0]
            tokens.append(replace(own, footprints=boxes))
        return replace(maps, tokens=tuple(tokens))


def test_a_sample_that_a_metric_refuses_fails_alone(tmp_path: Path) -> None:
    result = sweep(indicator=Gap(), metrics=("ar", "ar_sliding")).run(tmp_path, progress=False)
    assert result.failures[["sample", "error"]].to_numpy().tolist() == [["s1", "MapError"]]
    assert "needs the token grid (rows, cols); got None" in result.failures.reason[0]
    assert set(result.scores["sample"]) == {f"s{number}" for number in range(12)} - {"s1"}
    own = result.scores.query("layer == 1 and metric == 'ar' and control == 'boxes'").value
    assert own.to_numpy() == pytest.approx(np.full(11, 4 * 20 / 26))


class Deep(Planted):
    """Maps of the layers 4, 9 and 2, in this order."""

    def _map(self, sample: Any, tokens: Any) -> Any:
        return super()._map(sample, tokens).assign_coords(layer=[4, 9, 2])


def test_scores_and_maps_are_of_the_layers_that_the_maps_name(tmp_path: Path) -> None:
    found = sweep(data=samples(3), indicator=Deep(gain=(0.0, 3.0, 1.0)), metrics=("ar",)).run(
        tmp_path, progress=False
    )
    own = found.scores[found.scores.control == "boxes"].groupby("layer").value.mean()
    assert own.to_dict() == pytest.approx({4: 1.0, 9: 4 * 20 / 26, 2: 2 * 20 / 22})
    inside = token_map(sample(1)).mask(sample(1).boxes)
    for layer, gain in ((4, 0.0), (9, 3.0), (2, 1.0)):
        np.testing.assert_array_equal(found.cells[0].maps([1], layer)[1], 1 + gain * inside)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("rule", "row"), [
    ("touch", [1, 1, 1, 0, 0]), ("center", [1, 1, 0, 0, 0]), ("masks", [1, 1, 0.5, 0, 0]),
])  # fmt: skip
def test_a_borrowed_place_is_stretched_and_read_by_the_rule(rule: str, row: list[float]) -> None:
    """The left half of the upper quarter of 56 × 112 pixels is 50 × 20 of 100 × 80, on tokens of 20 × 20."""
    inside = np.zeros((112, 56), bool)
    inside[:28, :28] = True
    image = np.zeros((112, 56, 3), np.uint8)
    data = [sample(0), sample(1, image=image, boxes=[(0, 0, 28, 28)], masks=[inside]), sample(2)]
    task: Any = SimpleNamespace(study=SimpleNamespace(data=data, rule=rule), _partners=[1, None, 1])
    (found,) = SweepTask._borrowed(task, 0, token_map(data[0]))
    np.testing.assert_allclose(found.reshape(4, 5), [row, *np.zeros((3, 5))])
    assert SweepTask._borrowed(task, 1, token_map(data[1])) == []
