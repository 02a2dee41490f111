"""Scores of heads over the tokens that see something, and what rankings take for a head's map."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interp.data import Samples
from interp.indicators import Attention
from interp.inputs.prompt import GENERIC_PROMPT
from interp.study.head_ranking.study import HeadRanking
from tests.study.planted import sample, samples
from tests.study.planted_heads import GAIN, PlantedHeads, ranking


class Gap(PlantedHeads):
    """The first token has no footprint, and shines in every head."""

    def __call__(self, mllm: Any, samples: Any, **options: Any) -> Any:
        maps = super().__call__(mllm, samples, **options)
        tokens = []
        for own, values in zip(maps.tokens, maps, strict=True):
            boxes = own.footprints.copy()
            boxes[0] = np.nan
            tokens.append(replace(own, footprints=boxes))
            values.values[..., 0] = 1000.0
        return replace(maps, tokens=tuple(tokens))


def test_a_token_that_sees_nothing_counts_nowhere(tmp_path: Path) -> None:
    """Sample 0's box is over tokens 0 and 1, so 1 of the 19 tokens that see is inside; sample 5's are 2 of 19."""
    data = Samples([sample(0), sample(5)], "planted")
    result = ranking(data=data, indicator=Gap()).run(tmp_path, progress=False)
    scores = result.scores.set_index(["sample", "layer", "head"]).value
    for name, n in (("s0", 1), ("s5", 2)):
        for layer, row in enumerate(GAIN):
            for head, gain in enumerate(row):
                wanted = (1 + gain) * 19 / (19 + n * gain)
                assert scores[name, layer, head] == pytest.approx(wanted), (name, layer, head)
    rows = result.samples.set_index("sample")
    assert rows.n_tokens.tolist() == [20, 20]
    assert rows.n_box_tokens.to_dict() == {"s0": 1, "s5": 2}
    assert rows.even.tolist() == pytest.approx([1, 1])
    divergence = ranking(data=data, indicator=Gap(), metric="kl").run(tmp_path, progress=False)
    assert divergence.samples.even.tolist() == pytest.approx([np.log(19), np.log(19 / 2)])


def test_a_uniform_maps_score_is_of_each_samples_box(tmp_path: Path) -> None:
    """KL of a uniform map is ln(20 / tokens in the box): 2 tokens or 8."""
    data = Samples([sample(0), sample(1, boxes=[(0, 0, 80, 40)])], "planted")
    result = ranking(data=data, metric="kl").run(tmp_path, progress=False)
    assert result.samples.even.tolist() == pytest.approx([np.log(10), np.log(20 / 8)])
    assert result.even == pytest.approx((np.log(10) + np.log(2.5)) / 2)
    even_head = result.summary().set_index(["layer", "head"]).gain[0, 0]
    assert even_head == pytest.approx(0, abs=1e-9)


def test_masks_stand_for_boxes_where_the_rule_says_so(tmp_path: Path) -> None:
    """A mask over a quarter of token 0 and all of token 1 of a 100 × 80 picture."""
    mask = np.zeros((80, 100), bool)
    mask[:10, :10] = True
    mask[:20, 20:40] = True
    data = Samples([sample(0, boxes=[], masks=[mask])], "masked")
    result = ranking(data=data, rule="masks").run(tmp_path, progress=False)
    assert result.samples.n_box_tokens.tolist() == [2]
    scores = result.scores.set_index(["layer", "head"]).value
    assert scores[0, 0] == pytest.approx(1)


def test_failures_name_each_layers_heads_and_the_metric(tmp_path: Path) -> None:
    silent = PlantedHeads(silent=((0, 0), (0, 1), (2, 1)))
    found = ranking(data=samples(1), indicator=silent).run(tmp_path, progress=False).failures
    assert found[["layer", "metric"]].to_numpy().tolist() == [[0, "ar"], [2, "ar"]]
    assert [reason.split(":")[0] for reason in found.reason] == ["head 0, 1", "head 1"]


def test_an_indicator_by_name_gives_a_map_per_head() -> None:
    assert HeadRanking(data=samples(2), indicator="attention").indicator.per_head is True
    assert HeadRanking(data=samples(2)).indicator == Attention(relative_to=GENERIC_PROMPT, per_head=True)
