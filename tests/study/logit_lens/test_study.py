"""The two studies through TransformerLens on a tiny LLaVA, against the lens itself and against knockouts by name."""

from __future__ import annotations

import html
import pickle
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from numpy.testing import assert_allclose
from scipy.stats import rankdata

import interp
from interp.data import Samples
from interp.errors import StudyError
from interp.report.figures import GREY, SERIES
from interp.study import GridResult, HeadAttribution, HeadRanking, LensSweep, ModelSpec
from interp.study.dataframes import where
from interp.study.head_attribution.page import agreements, head_table
from interp.study.logit_lens.page import _card, lens_gaps, peaks
from interp.study.logit_lens.task import LensSweepTask, measures
from interp.study.logit_lens.wording import LENS_WORDING, MIXED, wording_of
from interp.tracing import Knockout, Mllm, Site, wrap
from tests import tiny

LABELS, ANSWERS = ("circle", "the left lung", "nodule"), ("red", "left", None)


@pytest.fixture(scope="module")
def mllm() -> Mllm:
    return wrap(tiny.llava(), tiny.processor())


@pytest.fixture(scope="module")
def data() -> Samples:
    found = [
        tiny.sample(
            f"is it {'very ' * i}red?", i, boxes=[(8, 8, 40, 30)], id=f"{i}", answer=a, meta={"label": w}
        )
        for i, (w, a) in enumerate(zip(LABELS, ANSWERS, strict=True))
    ]
    return Samples([*found, tiny.sample(seed=3, boxes=[(8, 8, 40, 30)], id="3", answer="blood vessel")])


@pytest.fixture(scope="module")
def sweep(mllm: Mllm, data: Samples, tmp_path_factory: pytest.TempPathFactory) -> GridResult:
    return LensSweep(model=mllm, data=data, batch=2).run(tmp_path_factory.mktemp("runs"), progress=False)


def value(result: GridResult, **place: object) -> pd.Series:
    rows = result.scores
    for name, wanted in place.items():
        rows = where(rows, rows[name] == wanted)
    return rows.set_index("layer").value.sort_index()


def test_scores_are_of_the_lenss_maps_by_the_boxes(mllm, data, sweep):
    lens = mllm.to_lens()
    for i, (name, word, said) in enumerate(
        (("0", "label", "circle"), ("1", "label", "lung"), ("1", "answer", "left"))
    ):
        sample = data[int(name)]
        found = lens.logit_lens(sample, [said], top=1)
        line, inside = found[0].logprob.sel(word=said).values, found.tokens[0].mask(sample.boxes)
        first = found[0].top_word.values[..., 0] == said
        place = {"sample": name, "word": word, "of": "own word"}
        gap = line[:, inside].mean(1) - line[:, ~inside].mean(1)
        assert_allclose(value(sweep, measure="gap", **place), gap, atol=1e-4, err_msg=str(i))
        assert_allclose(value(sweep, measure="inside", **place), line[:, inside].mean(1), atol=1e-4)
        assert_allclose(value(sweep, measure="first outside", **place), first[:, ~inside].mean(1))
        ranks = np.apply_along_axis(rankdata, 1, line)[:, inside].sum(1)
        n, m = inside.sum(), (~inside).sum()
        assert_allclose(
            value(sweep, measure="auroc", **place), (ranks - n * (n + 1) / 2) / (n * m), atol=1e-6
        )
    stored = sweep.cells[0].folder.find("maps", index=[1]).to_pylist()
    assert [row["layer"] for row in stored if row["word"] == "answer"] == [-1, 0, 1, 2]
    row = next(row for row in stored if (row["word"], row["layer"]) == ("answer", 2))
    assert_allclose(row["map"], line[-1], atol=1e-4)
    assert row["said"] == "left"


def test_the_control_is_another_samples_word_at_the_same_tokens(mllm, data, sweep):
    lens, others = mllm.to_lens(), {"circle", "lung", "nodule"}
    for i, own in enumerate(("circle", "lung", "nodule")):
        found = value(sweep, sample=str(i), word="label", of="another's word", measure="inside")
        if len(found):
            inside = lens.logit_lens(data[i], sorted(others - {own}), top=1)
            mask = inside.tokens[0].mask(data[i].boxes)
            candidates = inside[0].logprob.values[:, mask].mean(1).T
            assert any(np.allclose(found, one, atol=1e-4) for one in candidates)
    assert (sweep.scores.of == "another's word").sum() > 0
    gaps = lens_gaps(sweep)
    own, other = (
        where(
            sweep.scores,
            (sweep.scores.measure == "gap") & (sweep.scores.word == "label") & (sweep.scores.of == of),
        )
        for of in ("own word", "another's word")
    )
    both = own.merge(other, on=["sample", "layer"])
    expected = (both.value_x - both.value_y).groupby(both.layer).mean()
    assert_allclose(
        where(gaps, gaps.word == "label").set_index("layer")["mean"].sort_index(), expected, atol=1e-9
    )
    best = where(peaks(gaps), peaks(gaps).word == "label")
    assert best.layer.tolist() == [expected.idxmax()]


def test_the_own_words_line_is_solid_and_anothers_dashed(sweep):
    """As the page says: blue is the own word, dashed the other's; each line is the mean over samples by layer."""
    drawn = [
        one for one in sweep.figures()["gap"].data if one.name.startswith("gap, ") and one.line.width > 1.5
    ]
    styles = {"own word": ("solid", SERIES[0]), "another's word": ("dash", GREY)}
    gaps = where(sweep.scores, sweep.scores.measure == "gap")
    seen = set()
    for trace in drawn:
        of = html.unescape(trace.name).removeprefix("gap, ")
        assert (trace.line.dash, trace.line.color) == styles[of]
        means = [
            where(gaps, (gaps.of == of) & (gaps.word == word)).groupby("layer").value.mean()
            for word in ("label", "answer")
        ]
        assert any(len(one) == len(trace.y) and np.allclose(one, trace.y) for one in means)
        seen.add(of)
    assert seen == set(styles)


def test_the_test_of_a_gap_flips_whole_groups():
    """Six samples of one sign in three groups: of eight flips two are as far out, where samples would have 2 of 64."""
    rows = [
        {"data": "d", "index": i, "group": f"g{i % 3}", "word": "label", "layer": 0, "of": of, "measure": "gap",
         "value": gap}
        for i in range(6)
        for of, gap in (("own word", 1.0 + i), ("another's word", 0.5))
    ]  # fmt: skip
    result: Any = SimpleNamespace(values=pd.DataFrame(rows), axes=("data",), seed=0)
    (row,) = lens_gaps(result).to_dict("records")
    assert (row["mean"], row["n"], row["n_groups"]) == (3.0, 6, 3)
    assert (row["p"], row["p_holm"]) == (2 / 8, 2 / 8)


def test_measures_of_a_map_worked_by_hand() -> None:
    """Five tokens: two in the box, two outside, and one that was not read."""
    inside, seen = (np.array(one, bool) for one in ([1, 1, 0, 0, 0], [1, 1, 1, 1, 0]))
    line, first = np.array([4.0, 1.0, 2.0, 0.0, 99.0]), np.array([1, 1, 1, 0, 1], bool)
    found = measures(line, first, inside, seen)
    assert found == {
        "inside": 2.5, "outside": 1.0, "gap": 1.5, "auroc": 3 / 4, "first inside": 1.0, "first outside": 0.5
    }  # fmt: skip


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("other", "of"),
    [
        ("Circle", {"own word"}),
        ("nodule", {"own word", "another's word"}),
        ("unread", {"own word"}),
        (None, {"own word"}),
    ],
)
def test_the_same_word_in_capitals_is_no_control(other: str | None, of: set[str]) -> None:
    words = ["circle", "Circle", "nodule"]
    found = xr.Dataset(
        {name: (("layer", "token", "word"), np.zeros((2, 2, 3))) for name in ("score", "rank")},
        {"word": words, "layer": [0, 1]},
    )
    task: Any = SimpleNamespace(_word=lambda index, _: ("circle", other)[index], _partners={0: 1})
    out: dict[str, list[Any]] = {"scores": [], "maps": []}
    masks = np.array([True, False]), np.array([True, True])
    LensSweepTask._add_word(task, out, 0, "label", found, masks)
    assert {row["of"] for row in out["scores"]} == of
    assert [(row["said"], row["layer"]) for row in out["maps"]] == [("circle", 0), ("circle", 1)]


def test_a_card_names_its_layers(sweep):
    (cell,) = sweep.cells
    row = cell.frame("samples").set_index("sample", drop=False).loc["1"]
    card = html.unescape(str(_card(cell, row.to_dict(), "answer", 0)))
    for place in ("input", "layer 0", "layer 2"):
        assert card.count(f"(“left”), {place}") > 0
    assert _card(cell, row.to_dict(), "answer", 9) is None
    label = html.unescape(str(_card(cell, row.to_dict(), "label", 0)))
    assert "(“lung”), layer 0" in label
    assert "left”)" not in label


def test_a_page_speaks_of_its_lens_or_of_several() -> None:
    assert wording_of(["logit", "logit"]) == LENS_WORDING["logit"]
    assert wording_of(["logit", SimpleNamespace(kind="patchscope")]) == MIXED
    unread = np.array([np.log(0.5), np.nan, np.log(0.25)])
    assert_allclose(LENS_WORDING["logit"].map_values(unread), [0.5, 0.25, 0.25])
    assert_allclose(LENS_WORDING["contextual"].map_values(np.array([0.5, np.nan, -1])), [0.5, -1, -1])


def test_words_without_a_token_are_failures_with_a_reason(mllm, data, sweep):
    said = {(row["sample"], row["metric"]): row["reason"] for _, row in sweep.failures.iterrows()}
    assert set(said) == {("2", "answer"), ("3", "label"), ("3", "answer")}
    assert said["2", "answer"] == "the sample has no answer."
    assert said["3", "answer"] == "'blood vessel' is not one token of this vocabulary."
    assert len(sweep.samples) == 4
    own = sweep.samples.sort_values("index")
    assert own.label.tolist()[:3] == list(LABELS)
    assert own.n_box_tokens.tolist() == [
        int(mllm.encode(one).tokens[0].mask(one.boxes).sum()) for one in data
    ]


@pytest.fixture(scope="module")
def attributed(
    mllm: Mllm, data: Samples, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], GridResult]:
    """Runs by target."""
    out = tmp_path_factory.mktemp("runs")
    return cache(
        lambda target: HeadAttribution(model=mllm, data=data, target=target, batch=6).run(out, progress=False)
    )


@pytest.mark.parametrize("target", ["greedy", "answer"])
def test_effects_are_the_lenss_and_those_of_a_knockout_by_name(mllm, data, attributed, target):
    result = attributed(target)
    assert len(result.samples) == (4 if target == "greedy" else 2)
    if target == "answer":
        told = dict(zip(result.failures["sample"], result.failures.reason, strict=True))
        assert told["2"] == 'the sample has no answer to follow. Give it one, or use target="greedy".'
        assert "no token for a part of the answer 'blood vessel'" in told["3"]
    lens, scores = mllm.to_lens(), where(result.scores, result.scores["sample"] == "1")
    heads = scores.pivot_table(index=["layer", "head"], columns="measure", values="value")
    aim = interp.Target("greedy" if target == "greedy" else "left")
    one = lens.attribution(data[1], aim, relative_to="mean")[0]
    assert_allclose(heads.direct.drop(-1, level="head").unstack(), one.heads, atol=1e-5)
    assert_allclose(scores[scores.part == "mlp"].value, one.mlp, atol=1e-5)
    token = one.attrs["answers"][0]
    for layer, head in ((0, 0), (2, 3)):
        edit = Knockout(Site(layers=[layer], heads=[head], queries="last", keys="all"), mode="zero")
        plain, cut = (
            mllm.trace(data[1], edits=edits).logits.values[0].astype(float) for edits in ([], [edit])
        )
        expected = (plain[token] - plain.mean()) - (cut[token] - cut.mean())
        assert heads.total[layer, head] == pytest.approx(expected, abs=1e-4)
    last = heads.loc[2].drop(
        -1
    )  # after the last layer nobody can make up for a head, but the MLP and the norm see it
    assert np.sign(last.direct).eq(np.sign(last.total)).sum() >= 3


def test_both_results_have_a_table_figures_and_a_page(sweep, attributed, tmp_path):
    for result, names in (
        (sweep, ["gap", "first"]),
        (attributed("greedy"), ["heads", "parts", "scatter"]),
    ):
        assert list(result.figures()) == names
        page = result.report(tmp_path / f"{names[0]}.html")
        assert result.study.question in html.unescape(page.read_text())
        assert result.table().splitlines()[0].strip() == f"{result.study.title}: means over samples"


def test_agreements_rank_heads_by_their_means(mllm, data, attributed, tmp_path):
    result = attributed("greedy")
    ranking = HeadRanking(model=mllm, data=data, metric="ar", split="test").run(tmp_path, progress=False)
    found = agreements(result, {data.name: ranking}).set_index(["first", "second"])
    table = head_table(result, {data.name: ranking})
    assert len(table) == 12
    for first, second in (("direct", "total"), ("direct", "ar"), ("total", "ar")):
        a, b = rankdata(table[first]), rankdata(table[second])
        assert found.rho[first, second] == pytest.approx(np.corrcoef(a, b)[0, 1])
        assert found.low[first, second] <= found.rho[first, second] + 0.5
    assert (found.n_groups == 4).all()
    assert "ar" not in head_table(result, {})


def test_runs_resume_and_hash_by_what_counts(mllm, data, tmp_path):
    study = LensSweep(model=mllm, data=data, words="label")
    assert study.words == ("label",)
    first = study.run(tmp_path, progress=False)
    stamps = {path: path.stat().st_mtime_ns for path in first.folder.rglob("*.parquet")}
    again = study.run(tmp_path, progress=False)
    assert {path: path.stat().st_mtime_ns for path in again.folder.rglob("*.parquet")} == stamps
    hashes = [
        study.replace(**change).task(mllm).to_dict()
        for change in ({}, {"words": ("answer",)}, {"seed": 1}, {"batch": 3}, {"rule": "center"})
    ]
    assert all(hashes[0] != other for other in hashes[1:])


def test_tasks_travel_without_their_lens(mllm, data):
    opened = HeadAttribution(model=mllm, data=data).task(mllm)
    assert opened.lens is opened.lens
    task = HeadAttribution(model=ModelSpec("organism"), data=interp.data.bundled("natural", n=1)).task(mllm)
    assert task.lens is not None
    assert pickle.loads(pickle.dumps(task))._made is None


def test_studies_that_make_no_sense():
    one = [tiny.sample()]
    for make, said in (
        (
            lambda: LensSweep(data=one, words=("colour",)),
            r"words takes at least one of label, answer, each once; got \('colour',\)",
        ),
        (lambda: LensSweep(data=one, rule="any"), "rule is one of touch, center, stretch, masks; got 'any'"),
        (lambda: LensSweep(data=[]), "hold no sample"),
        (lambda: LensSweep(data=3), "data is Samples or a list of Sample, .*; got int"),
        (lambda: HeadAttribution(data=one, target="best"), "target is one of greedy, answer; got 'best'"),
        (lambda: HeadAttribution(data=one, batch=0), "batch is a whole number ≥ 1; got 0"),
        (lambda: HeadAttribution(data=one, seed=-1), "seed is a whole number ≥ 0; got -1"),
        (lambda: HeadAttribution(data=one, prompt="{question}"), "prompt is an interp.Prompt"),
    ):
        with pytest.raises(StudyError, match=said):
            make()
