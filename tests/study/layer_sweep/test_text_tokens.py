from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from interp.stats import paired_test
from interp.study.layer_sweep.text_tokens import (
    _choice,
    _few,
    _table,
    against_last,
    failures_said,
    own_layer_scores,
)
from tests.golden.parsed import Page

N = 24


def scores(kinds: dict[str, tuple[float, float]], data: str = "scans", n: int = N) -> pd.DataFrame:
    """Each kind's AR on own boxes and on shuffled ones: a constant plus the same small wave, one group a sample."""
    rows = []
    for kind, levels in kinds.items():
        for control, level in zip(("boxes", "shuffled_boxes"), levels, strict=True):
            rows += [
                {"model": "m", "data": data, "indicator": kind, "index": i, "sample": "s", "group": f"g{i}", "layer": 1,
                 "metric": "ar", "control": control, "value": level + 0.01 * (-1) ** i}
                for i in range(n)
            ]  # fmt: skip
    return pd.DataFrame(rows)


def test_differences_are_paired_and_p_is_adjusted() -> None:
    both = scores({"last": (3.0, 1.0), "word": (2.0, 1.5), "answer": (3.0, 3.5)})
    found = against_last(both, "last").set_index("indicator")
    assert found["mean"].tolist() == pytest.approx([3, 2, 3])
    assert [gap.mean for gap in found.shuffled] == pytest.approx([2, 0.5, -0.5])
    assert found["last"]["last"] is None
    assert found["last"]["word"].mean == pytest.approx(-1)
    assert (found["last"]["word"].low, found["last"]["word"].high) == pytest.approx((-1, -1))
    assert np.isnan(found.p["last"])
    signs = paired_test([2.0] * N, [3.0] * N, range(N)).p
    assert found.p["word"] == pytest.approx(2 * signs)  # two tests: the smaller p counts twice
    assert found.p["answer"] == 1


def test_a_sample_one_kind_lacks_is_in_no_difference() -> None:
    whole = scores({"last": (3.0, 1.0), "word": (2.0, 1.0)})
    whole.loc[(whole.indicator == "last") & (whole["index"] == 0), "value"] = 1000.0
    lacking = whole[~((whole.indicator == "word") & (whole["index"] == 0))]
    found = against_last(lacking, "last").set_index("indicator")
    assert found["last"]["word"].mean == pytest.approx(-1)
    assert found.n.to_dict() == {"last": N, "word": N - 1}


def test_rows_are_paired_by_sample_whatever_their_order() -> None:
    rng = np.random.default_rng(0)
    table = scores({"last": (0.0, 1.0), "word": (0.0, 1.0)})
    level = table["index"].map(dict(enumerate(rng.normal(0, 10, N))))
    table = table.assign(value=level + 0.5 * (table.indicator == "word"))
    shuffled = table.sample(frac=1, random_state=1)
    gap = against_last(shuffled, "last").set_index("indicator")["last"]["word"]
    assert (gap.low, gap.mean, gap.high) == pytest.approx((0.5, 0.5, 0.5))


def test_data_sets_are_kept_apart_and_in_order() -> None:
    table = pd.concat(
        [scores({"last": (1, 1), "word": (2, 1)}, "z"), scores({"last": (5, 1), "word": (4, 1)}, "a")]
    )
    found = against_last(table, "last")
    assert list(zip(found.data, found.indicator, strict=True)) == [
        ("z", "last"), ("z", "word"), ("a", "last"), ("a", "word")
    ]  # fmt: skip
    assert found["last"][1].mean == pytest.approx(1)
    assert found["last"][3].mean == pytest.approx(-1)


def test_each_kind_is_scored_at_its_own_layer() -> None:
    frames = [scores({"last": (level, 1), "word": (10 * level, 1)}, n=2).assign(layer=layer) for layer, level in
              ((0, 1.0), (1, 2.0))]  # fmt: skip
    extra = frames[0].assign(metric="js", value=99.0)
    result: Any = SimpleNamespace(values=pd.concat([*frames, extra], ignore_index=True))
    choices: Any = {"last": SimpleNamespace(layers={"m": 1}), "word": SimpleNamespace(layers={"m": 0})}
    own = own_layer_scores(result, choices)
    own = own[own.control == "boxes"].groupby("indicator").value.mean()
    assert own.to_dict() == pytest.approx({"last": 2.0, "word": 10.0})


def test_each_model_is_scored_at_its_own_layer_and_metric() -> None:
    places = itertools.product("mn", (0, 1), ("ar", "kl"))
    frames = [
        scores({"last": (level, 1)}, n=2).assign(model=model, layer=layer, metric=metric)
        for level, (model, layer, metric) in enumerate(places)
    ]
    result: Any = SimpleNamespace(values=pd.concat(frames, ignore_index=True))
    choices: Any = {"last": SimpleNamespace(layers={"m": 1, "n": 0})}
    for metric, expected in (("ar", {"m": 2, "n": 4}), ("kl", {"m": 3, "n": 5})):
        own = own_layer_scores(result, choices, metric)
        own = own[own.control == "boxes"].groupby("model").value.mean()
        assert own.to_dict() == pytest.approx(expected)


def test_the_seed_decides_intervals_and_permutations() -> None:
    table = scores({"last": (3.0, 1.0), "word": (3.0, 1.0)})
    table["value"] = np.random.default_rng(0).normal(0, 1, len(table))
    one, same, other = (against_last(table, "last", seed=seed).loc[1] for seed in (1, 1, 2))
    assert (one.low, one.shuffled, one["last"], one.p) == (same.low, same.shuffled, same["last"], same.p)
    for name in ("low", "shuffled", "last", "p"):
        assert one[name] != other[name], name


@pytest.mark.usefixtures("unchecked")
def test_a_sample_is_left_out_once_per_kind_and_reason() -> None:
    """Two samples of one id, the second of which failed at two layers."""
    columns = ["model", "data", "indicator", "sample", "index", "error", "reason"]
    first = pd.DataFrame([("m", "d", "word", "s", 3, "MapError", "no map")], columns=columns)
    second = pd.DataFrame([("m", "d", "word", "s", 4, "MapError", "no map")] * 2, columns=columns)
    results: list[Any] = [SimpleNamespace(failures=one) for one in (first, second)]
    assert failures_said(results) == "Left out: word: MapError ×2. The first, s: no map"
    assert failures_said([SimpleNamespace(failures=first[:0])]) == "None: every sample was measured."  # type: ignore[list-item]


def test_the_groups_of_few_are_told_in_the_order_of_the_kinds() -> None:
    two = scores({"word": (2.0, 1.0), "last": (3.0, 1.0)}, "few", n=2)
    said = _few(pd.concat([scores({"last": (1, 1)}, "many"), two]))
    assert "Few. Only 2 groups" in said
    assert "word (g0: 2.01, g1: 1.99); last (g0: 3.01, g1: 2.99)." in said
    assert "Many" not in said


@pytest.mark.parametrize(("held_out", "split", "said"), [
    (True, "validation", "the best on validation samples of other groups. "),
    (True, None, "the best on other samples of other groups. "),
    (False, "test", "the best on samples of the same groups. Beware. "),
])  # fmt: skip
def test_what_the_layers_were_chosen_on_is_said(held_out: bool, split: str | None, said: str) -> None:
    choice = SimpleNamespace(split=split, caution="" if held_out else "Beware.", held_out=lambda _: held_out)
    result: Any = SimpleNamespace()
    choices: Any = {"relative": {"last": choice}}
    assert said in _choice(result, choices)


def test_a_table_names_the_model_where_there_are_several(tmp_path: Path) -> None:
    def rows(*models: str) -> list[dict[str, str]]:
        table = pd.concat(
            [scores({"last": (3.0, 1.0), "word": (2.0, 1.5)}).assign(model=model) for model in models]
        )
        path = tmp_path / "page.html"
        path.write_text(f"<main>{_table(against_last(table, 'last'))}</main>")
        columns = {
            "data": "data",
            "kind": "rows of",
            "ar": "AR",
            "boxes": "minus shuffled",
            "last": "minus last",
        }
        return Page(path).table("rows of").records(**columns)

    assert [row["data"] for row in rows("m", "n")] == ["m · scans"] * 2 + ["n · scans"] * 2
    last, word = rows("m")
    assert (last["data"], last["kind"], last["last"]) == ("scans", "last", "–")
    assert (word["ar"].split(" ")[0], word["boxes"].split(" ")[0], word["last"]) == (
        *("2.00", "+0.50", "−1.00 [−1.00, −1.00]"),
    )
