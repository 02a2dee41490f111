"""The figure and the page of a knockout sweep say what its frames say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tests.tiny as tiny
from interp.data import Samples
from interp.study import Grid, KnockoutResult, KnockoutSweep
from interp.study.knockout_sweep.page import figures
from interp.tracing import wrap

FLOWS = ("image→last", "question→last", "box→last", "elsewhere→last")


def sweep(n_groups: int, **changes: object) -> KnockoutSweep:
    """24 samples of so many groups, none with an answer but all with one box; the first has none."""
    samples = [
        tiny.sample("is it red?", seed=i, boxes=[(26, 18, 44, 36)], group=f"g{i % n_groups}", id=f"<b>{i}")
        for i in range(24)
    ]
    samples[0] = samples[0].replace(boxes=())
    base = KnockoutSweep(
        model=wrap(tiny.llava(), tiny.processor()),
        data=Samples(samples, "tiny"),
        flows=FLOWS,
        target="greedy",
    )
    return base.replace(**changes)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> KnockoutResult:
    return sweep(24).run(tmp_path_factory.mktemp("many"), progress=False)


def test_lines_are_the_summary_and_the_control_is_dashed(many: KnockoutResult) -> None:
    figure = figures(many)["flow"]
    summary = many.summary()
    lines = {trace.name: trace for trace in figure.data if "lines" in trace.mode and trace.fill is None}
    assert list(lines) == list(FLOWS)  # no accuracy without answers, so one panel
    for name, trace in lines.items():
        own = summary[(summary.flow == name) & (summary.measure == "relative")].sort_values("layer")
        np.testing.assert_array_equal(trace.x, own.layer)
        np.testing.assert_allclose(trace.y, own["mean"])
        assert trace.line.dash == ("dash" if name == "elsewhere→last" else "solid")
    assert lines["box→last"].line.color == lines["elsewhere→last"].line.color
    assert len({trace.line.color for trace in lines.values()}) == 3
    bands = {trace.legendgroup: trace for trace in figure.data if trace.fill == "toself"}
    own = summary[(summary.flow == "image→last") & (summary.measure == "relative")].sort_values("layer")
    np.testing.assert_allclose(bands["image→last"].y, [*own.high, *own.low[::-1]])


def test_few_groups_are_drawn_one_by_one(tmp_path: Path) -> None:
    found = sweep(3).run(tmp_path, progress=False)
    figure = found.figures()["flow"]
    assert not [trace for trace in figure.data if trace.fill == "toself"]
    thin = [t for t in figure.data if t.legendgroup == "image→last" and t.line.width == 1]
    scores = found.scores
    own = scores[(scores.flow == "image→last") & (scores.measure == "relative") & (scores.layer == 1)]
    expected = own.groupby("group").value.mean().tolist()
    assert [trace.y[list(trace.x).index(1)] for trace in thin] == pytest.approx(expected)
    page = found.report(tmp_path / "page.html").read_text()
    assert "Only 3 groups: fewer than 20" in page


def test_the_page_says_what_was_measured_and_what_was_lost(many: KnockoutResult, tmp_path: Path) -> None:
    page = many.report(tmp_path / "deep" / "page.html").read_text()
    page = page[page.index("<main") :]
    assert "24 samples of <b>llava · tiny</b>" in page
    assert "the first token of the unedited model" in page
    assert "model organism" not in page
    assert "15 tests" in page  # 4 flows and one against its control, 3 windows
    assert "box→last: 1 sample; elsewhere→last: 1 sample" in page
    assert "SampleError: the sample has no box." in page
    assert "&lt;b&gt;0 · box→last" in page
    assert "<b>0" not in page
    ran, whole = many.work(many.cells[0])
    assert f"{ran:,} token positions × layers; whole passes: {whole:,}" in page
    for row in many.strongest(many.cells[0]):
        assert f"{row['mean']:.1f}".replace("-", "−").removeprefix("−0.0") in page


def test_heads_are_a_map_per_flow_on_one_scale(tmp_path: Path) -> None:
    base = sweep(24, by="head", data=Samples(sweep(24).data[:3], "tiny"), flows=FLOWS[:2])
    found = Grid(base, mode=["renormalise", "zero"]).run(tmp_path, progress=False)
    figures = found.figures()
    assert list(figures) == ["heads", "heads-2"]
    summary = found.summary()
    summary = summary[(summary["mode"] == "zero") & (summary.measure == "relative")]
    heat = {
        note.text: trace
        for note, trace in zip(figures["heads-2"].layout.annotations, figures["heads-2"].data, strict=True)
    }
    for name in FLOWS[:2]:
        row = summary[(summary.flow == name) & (summary.layer == 2) & (summary["head"] == 3)].iloc[0]
        assert heat[name].z[3][2] == pytest.approx(row["mean"])
    end = summary["mean"].abs().max()
    scale = figures["heads-2"].layout.coloraxis
    assert (scale.cmin, scale.cmax) == pytest.approx((-end, end))
    page = found.report(tmp_path / "page.html").read_text()
    assert "were not tested" in page
    assert "Holm" not in page[page.index("<main") :]
