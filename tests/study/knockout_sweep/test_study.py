"""Knockout sweeps of a tiny model against eager attention written out, and against numbers worked by hand."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import interp
import tests.tiny as tiny
from interp.data import Samples
from interp.errors import StudyError
from interp.stats import bootstrap, holm, paired_test
from interp.study import Grid, KnockoutResult, KnockoutSweep
from interp.tracing import Mllm, wrap
from tests.tracing.reference_attention import greedy

FLOWS = {
    "image→last": ("image", "last"),
    "question→last": ("question", "last"),
    "box→after_image": ("box", "after_image"),
    "elsewhere→after_image": ("elsewhere", "after_image"),
}
NEVER = "w99"


@pytest.fixture(scope="module")
def mllm() -> Mllm:
    return wrap(tiny.llava(), tiny.processor())


@pytest.fixture(scope="module")
def eager() -> Any:
    return tiny.llava("eager")


@pytest.fixture(scope="module")
def data(mllm: Mllm) -> Samples:
    """Six samples; the model answers the first three rightly."""
    questions = ("is it red?", "where is the nodule in the left lung?", "what is there, in the lung?")
    samples = [
        tiny.sample(questions[i % 3], seed=i, boxes=[(26, 18, 44, 36)], group=f"g{i // 2}", id=f"s{i}")
        for i in range(6)
    ]
    said = [int(np.argmax(mllm.trace(sample).logits.values[0])) for sample in samples]
    words = [mllm.processor.tokenizer.decode([token]) for token in said]
    answers = [words[i] if i < 3 else NEVER for i in range(6)]
    return Samples([s.replace(answer=a) for s, a in zip(samples, answers, strict=True)], "tiny")


@pytest.fixture(scope="module")
def result(mllm: Mllm, data: Samples, tmp_path_factory: pytest.TempPathFactory) -> KnockoutResult:
    out = tmp_path_factory.mktemp("runs")
    return KnockoutSweep(model=mllm, data=data, flows=FLOWS, window=2).run(out, progress=False)


def logits_by_hand(
    mllm: Mllm, eager: Any, sample: Any, layers: list[int], queries: Any, keys: Any, head: int | None = None
) -> np.ndarray:
    def hide(layer: int, n: int) -> torch.Tensor | None:
        hidden = torch.zeros(4, n, n, dtype=torch.bool)
        rows, columns = (torch.tensor(np.array(at)) for at in (queries, keys))
        for one in range(4) if head is None else [head]:
            hidden[one, rows[:, None], columns] = True
        return hidden if layer in layers else None

    return greedy(eager, mllm.encode(sample).singles[0].inputs, 1, hide).logits[0].astype(float)


def logprob(values: np.ndarray, token: int) -> float:
    return float(torch.tensor(values).log_softmax(-1)[token])


def test_each_pass_is_eager_attention_with_the_flow_cut(
    mllm: Mllm, eager: Any, data: Samples, result: KnockoutResult
) -> None:
    windows = {0: [0], 1: [0, 1], 2: [1, 2]}  # width 2: one more below than above
    assert len(result.passes) == 6 * 4 * 3
    for i in (1, 4):
        sample, tokens = data[i], mllm.encode(data[i]).tokens[0]
        places = {
            "image→last": (tokens.positions("last"), tokens.image),
            "question→last": (tokens.positions("last"), tokens.positions("question")),
            "box→after_image": (tokens.positions("after_image"), tokens.image[tokens.mask(sample.boxes)]),
        }
        plain = logits_by_hand(mllm, eager, sample, [], [0], [0])
        token = mllm.processor.tokenizer.encode(str(sample.answer), add_special_tokens=False)[0]
        for (flow, (queries, keys)), (layer, layers) in (
            (f, w) for f in places.items() for w in windows.items()
        ):
            own = result.passes
            row = own[(own["sample"] == sample.id) & (own.flow == flow) & (own.layer == layer)].iloc[0]
            cut = logits_by_hand(mllm, eager, sample, layers, queries, keys)
            before, after = logprob(plain, token), logprob(cut, token)
            assert (row["first"], row["last"]) == (layers[0], layers[-1])
            assert row.delta == pytest.approx(after - before, abs=2e-5)
            assert row.p_before == pytest.approx(np.exp(before), rel=1e-4)
            change = (np.exp(after) - np.exp(before)) / np.exp(before) * 100
            assert row.relative == pytest.approx(change, rel=1e-3, abs=1e-3)
            assert row.flipped == (cut.argmax() != plain.argmax())
            assert row.correct == (cut.argmax() == token)
            assert row.correct_before == (i < 3)
    assert result.passes.flipped.nunique() == 2


def test_means_are_over_samples_answered_rightly(result: KnockoutResult) -> None:
    summary, passes = result.summary(), result.passes
    own = passes[(passes.flow == "image→last") & (passes.layer == 2)].sort_values("sample")
    row = summary[(summary.flow == "image→last") & (summary.layer == 2)].set_index("measure")
    right = own[own["sample"].isin(["s0", "s1", "s2"])]
    expected = bootstrap(right.relative, right.group)
    assert row.loc["relative", ["mean", "low", "high"]].tolist() == [
        expected.mean,
        expected.low,
        expected.high,
    ]
    assert (row.n["relative"], row.n["accuracy"], row.n["flipped"]) == (3, 6, 6)
    gap = own.correct.astype(float) - [1, 1, 1, 0, 0, 0]
    assert row["mean"]["accuracy"] == pytest.approx(100 * gap.mean())
    assert row["mean"]["flipped"] == pytest.approx(100 * own.flipped.mean())
    assert row.note["relative"].startswith("Only 2 groups")


def test_tests_are_paired_and_holm_counts_every_row(result: KnockoutResult) -> None:
    tests, passes = result.tests(), result.passes
    assert len(tests) == (4 + 1) * 3
    np.testing.assert_allclose(tests.p_holm, holm(tests.p))
    counted = passes[passes.counted].set_index(["flow", "layer", "sample"]).sort_index()
    box, other = (counted.loc[f"{name}→after_image", 1] for name in ("box", "elsewhere"))
    row = tests[(tests.against == "elsewhere→after_image") & (tests.layer == 1)].iloc[0]
    assert row.flow == "box→after_image"
    assert row.difference == pytest.approx((box.delta - other.delta).mean())
    assert row.p == paired_test(box.delta, other.delta, box.group).p
    unedited = tests[(tests.flow == "image→last") & (tests.layer == 0)].iloc[0]
    assert unedited.against == "unedited"
    assert unedited.difference == pytest.approx(counted.loc["image→last", 0].delta.mean())


def test_heads_are_blocked_one_by_one(mllm: Mllm, eager: Any, data: Samples, tmp_path: Path) -> None:
    sweep = KnockoutSweep(model=mllm, data=data[:2], flows=["image→last"], by="head", target="greedy")
    found = sweep.run(tmp_path, progress=False)
    assert len(found.passes) == 2 * 3 * 4
    tokens = mllm.encode(data[1]).tokens[0]
    plain = logits_by_hand(mllm, eager, data[1], [], [0], [0])
    for layer, head in ((0, 3), (2, 1)):
        cut = logits_by_hand(mllm, eager, data[1], [layer], tokens.positions("last"), tokens.image, head)
        own = found.passes
        row = own[(own["sample"] == "s1") & (own.layer == layer) & (own["head"] == head)].iloc[0]
        said = int(plain.argmax())
        assert row.delta == pytest.approx(logprob(cut, said) - logprob(plain, said), abs=2e-5)
    assert set(found.summary()["head"]) == {0, 1, 2, 3}
    with pytest.raises(StudyError, match='tests are made of windows or layers; this study has by="head"'):
        found.tests()
    with pytest.raises(StudyError, match="read summary"):
        found.table()


def test_what_cannot_be_blocked_is_a_failure_with_its_flow(mllm: Mllm, data: Samples, tmp_path: Path) -> None:
    flows = {
        "nodule→last": (interp.word("nodule"), "last"),
        "box→last": ("box", "last"),
        "last→question": ("last", "question"),
        "all→last": ("all", "last"),
        "image→last": ("image", "last"),
    }
    samples = [
        data[0].replace(boxes=()),
        data[1],
        data[2].replace(answer=None),
        data[3].replace(question=""),
    ]
    sweep = KnockoutSweep(model=mllm, data=samples, flows=flows, by="layer")
    found = sweep.run(tmp_path / "a", progress=False)
    lost = found.failures.set_index(["sample", "flow"])
    assert "nodule" in lost.reason["s0", "nodule→last"]
    assert lost.reason["s0", "box→last"] == "the sample has no box."
    assert "queries all come before its keys" in lost.reason["s1", "last→question"]
    refused = found.failures[(found.failures["sample"] == "s1") & (found.failures.flow == "all→last")]
    assert refused.layer.tolist() == [0, 1, 2]
    assert refused.reason.str.contains("would have every key hidden").all()
    whole = found.failures[found.failures.flow.isna()].set_index("sample")
    assert "no answer to follow" in whole.reason["s2"]
    assert "has no question" in whole.reason["s3"]
    counts = found.passes.groupby("sample").flow.unique().map(sorted).to_dict()
    assert counts == {"s0": ["image→last"], "s1": ["box→last", "image→last", "nodule→last"]}
    zero = sweep.replace(mode="zero").run(tmp_path / "b", progress=False)
    assert "all→last" in set(zero.passes.flow)
    none = KnockoutSweep(
        model=mllm, data=[data[0], data[1].replace(boxes=())], flows=["box→last"], by="layer"
    )
    last = none.run(tmp_path / "c", progress=False).failures
    assert last["sample"].unique().tolist() == ["s1"]
    assert last[last.flow.isna()].reason.tolist() == [
        "none of the flows can be blocked in this sample; see its other failures."
    ]


def test_a_model_that_is_never_right_has_no_probability(mllm: Mllm, data: Samples, tmp_path: Path) -> None:
    found = KnockoutSweep(model=mllm, data=data[3:], flows=["image→last"]).run(tmp_path, progress=False)
    assert set(found.summary().measure) == {"accuracy", "flipped"}
    assert found.n_counted(found.cells[0]) == (0, 3)
    assert found.sentences() == []
    page = html.unescape(found.report(tmp_path / "page.html").read_text())
    assert 'Use target="greedy"' in " ".join(page.split())


def test_the_prefix_and_the_layers_below_are_shared(
    mllm: Mllm, data: Samples, result: KnockoutResult
) -> None:
    ran, whole = result.work(result.cells[0])
    lengths = [tokens.length for tokens in mllm.encode(list(data)).tokens]
    assert whole == sum(3 * n * (1 + 4 * 3) for n in lengths)
    suffixes = [n - 19 for n in lengths]  # the plain pass, 8 from layer 0 and 4 from layer 1
    assert ran == sum(3 * 19 + n * (3 + 8 * 3 + 4 * 2) for n in suffixes)


def test_a_grid_varies_it(mllm: Mllm, data: Samples, tmp_path: Path) -> None:
    base = KnockoutSweep(model=mllm, data=data[:2], flows=["image→last"], by="layer")
    grid = Grid(base, mode=["renormalise", "zero"])
    found = grid.run(tmp_path, progress=False)
    assert isinstance(found, KnockoutResult)
    assert found.axes == ("model", "data", "mode")
    alone = base.replace(mode="zero").run(tmp_path, progress=False)
    kept = found.passes[found.passes["mode"] == "zero"].drop(columns="mode").reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, alone.passes)
    assert {"renormalise", "zero"} == set(found.tests()["mode"])
    assert found.table().count("image→last") == 2
    with pytest.raises(StudyError, match="the axis window holds a value that does not fit"):
        Grid(base, window=[3])


def test_everything_its_numbers_depend_on_is_in_its_name(mllm: Mllm, data: Samples) -> None:
    base = KnockoutSweep(model=mllm, data=data)
    changes: list[dict[str, Any]] = [
        {"flows": ["image→last"]},
        {"window": 1},
        {"stride": 2},
        {"mode": "zero"},
        {"target": "greedy"},
        {"rule": "center"},
        {"seed": 1},
        {"batch": 4},
        {"by": "layer"},
        {"by": "head"},
        {"prompt": interp.GENERIC_PROMPT},
        {"data": data[:5]},
    ]
    names = {base.to_json(mllm), *(base.replace(**change).to_json(mllm) for change in changes)}
    assert len(names) == len(changes) + 1
    assert base.replace(flows=base.blocked).to_json(mllm) == base.to_json(mllm)
    assert base.replace(window=3).to_json(mllm) == base.to_json(mllm)  # the usual width of three layers


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"by": "window"}, "by is one of layer window, layer, head; got 'window'"),
        ({"mode": "off"}, "mode is one of renormalise, zero; got 'off'"),
        ({"target": "yes"}, "target is one of answer, greedy; got 'yes'"),
        ({"rule": "near"}, "rule is one of touch, center, stretch"),
        ({"by": "layer", "window": 3}, "window= is for by=\"layer window\"; by='layer' blocks one layer"),
        ({"window": 0}, "window is a whole number ≥ 1, or None; got 0"),
        ({"stride": 0}, "stride is a whole number ≥ 1; got 0"),
        ({"batch": 0}, "batch is a whole number ≥ 1; got 0"),
        ({"seed": -1}, "seed is a whole number ≥ 0; got -1"),
        ({"data": []}, "hold no sample"),
        ({"data": 3}, "data is Samples or a list of Sample"),
        ({"prompt": "q"}, "prompt is an interp.Prompt"),
        ({"flows": "image→last"}, "flows= is a mapping such as"),
    ],
)
def test_wrong_studies_say_what_was_expected(data: Samples, change: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        KnockoutSweep(**{"data": data, **change})


def test_too_wide_a_window_is_refused_once_the_model_is_known(mllm: Mllm, data: Samples) -> None:
    with pytest.raises(StudyError, match="window is at most the model's 3 layers; got 4"):
        KnockoutSweep(model=mllm, data=data, window=4).task(mllm)


def test_boxes_or_masks_bring_flows_from_them(data: Samples) -> None:
    bare = [one.replace(boxes=()) for one in data[:2]]
    masked = bare[0].replace(masks=[np.ones(bare[0].sizes[0][::-1], bool)])
    named = {"image→question", "image→last", "question→last"}
    assert set(KnockoutSweep(data=bare).blocked) == named
    boxed = {"box→last", "elsewhere→last", "box→after_image", "elsewhere→after_image"}
    for samples in ([bare[1], masked], [bare[1], data[0]]):
        assert set(KnockoutSweep(data=samples).blocked) == named | boxed
    assert list(KnockoutSweep(data=data, flows=["box→last"]).blocked) == ["box→last"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"by": "layer", "stride": 5}, [(0, 0, 0), (5, 5, 5), (10, 10, 10)]),
        ({"by": "head", "stride": 6}, [(0, 0, 0), (6, 6, 6)]),
        ({"window": 2, "stride": 6}, [(0, 0, 0), (6, 5, 6)]),
        ({"stride": 6}, [(0, 0, 1), (6, 5, 7)]),
    ],
)
def test_windows_are_as_wide_as_asked(
    data: Samples, options: dict[str, Any], expected: list[tuple[int, int, int]]
) -> None:
    found = KnockoutSweep(data=data, **options).windows(12)
    assert [(window.layer, window.first, window.last) for window in found] == expected
