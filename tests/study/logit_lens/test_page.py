"""What the page of a lens sweep says, and which lines it draws, on results whose rows are written by hand."""

from __future__ import annotations

import html
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from interp.study.logit_lens import page
from interp.study.logit_lens.page import _failures, _few, _title, figures, lens_gaps, peaks
from interp.study.logit_lens.task import OTHERS, OWN, WORDS
from interp.study.logit_lens.wording import LENS_WORDING, MIXED, lens_kind, wording_of

pytestmark = pytest.mark.usefixtures("unchecked")


def text(markup: object) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", str(markup))).split())


def gap_rows(values: dict[tuple[str, str, int, str], list[float]], groups: int = 25) -> pd.DataFrame:
    """Rows of gaps: (data, word, layer, whose) → the value of each sample; samples share `groups` groups."""
    return pd.DataFrame(
        [
            {
                "model": "m", "data": data, "index": i, "sample": f"s{i}", "group": f"g{i % groups}", "word": word,
                "layer": layer, "of": of, "measure": "gap", "value": value,
            }
            for (data, word, layer, of), found in values.items()
            for i, value in enumerate(found)
        ]
    )  # fmt: skip


def result(rows: pd.DataFrame, **more: Any) -> Any:
    return SimpleNamespace(
        values=rows, scores=rows.drop(columns="index"), axes=("model", "data"), seed=0, **more
    )


def test_the_seed_decides_the_interval_and_p_of_a_gap() -> None:
    own, other = np.random.default_rng(0).normal(size=(2, 30)).tolist()
    rows = gap_rows({("d", "label", 2, OWN): own, ("d", "label", 2, OTHERS): other}, groups=30)
    one, again, another = (
        lens_gaps(SimpleNamespace(**{**vars(result(rows)), "seed": seed})).iloc[0]  # pyright: ignore[reportArgumentType]
        for seed in (1, 1, 2)
    )
    assert (one["mean"], one.low, one.p) == (again["mean"], again.low, again.p)
    assert one["mean"] == another["mean"]
    assert one.low != another.low
    assert one.p != another.p


def test_the_gap_is_own_minus_anothers_of_the_same_sample() -> None:
    """The second sample has no other's word, so it takes no part; layer 3 has no control at all."""
    rows = gap_rows(
        {
            ("d", "label", 2, OWN): [3.0, 9.0, 5.0],
            ("d", "label", 2, OTHERS): [1.0, np.nan, 2.0],
            ("d", "label", 3, OWN): [1.0, 1.0, 1.0],
            ("d", "answer", 2, OWN): [0.0, 1.0, 2.0],
            ("d", "answer", 2, OTHERS): [1.0, 1.0, 1.0],
        }
    )
    found = lens_gaps(result(rows))
    assert list(found) == [
        "model",
        "data",
        "word",
        "layer",
        "mean",
        "low",
        "high",
        "n",
        "n_groups",
        "p",
        "p_holm",
    ]
    assert found[["word", "layer", "mean", "n"]].to_numpy().tolist() == [
        ["label", 2, 2.5, 2],
        ["answer", 2, 0.0, 3],
    ]
    assert (found.p_holm >= found.p).all()
    assert found.p_holm[0] == pytest.approx(min(1, 2 * found.p.min()))
    nothing = lens_gaps(result(rows[rows.of == OWN]))
    assert len(nothing) == 0
    assert "p_holm" in nothing


def test_each_data_set_and_word_has_its_own_peak() -> None:
    keys = [("a", "label", 0, 0.1), ("a", "label", 1, 0.3), ("a", "answer", 0, 0.2), ("a", "answer", 1, -0.5)]
    keys += [("b", "label", 0, -0.3), ("b", "label", 1, -0.2)]
    gaps = pd.DataFrame(keys, columns=["data", "word", "layer", "mean"])
    found = peaks(gaps)
    assert found.to_numpy().tolist() == [
        ["a", "label", 1, 0.3],
        ["a", "answer", 0, 0.2],
        ["b", "label", 1, -0.2],
    ]


def test_few_groups_are_told_one_by_one_after_the_last_layer() -> None:
    few = gap_rows(
        {("d", "label", layer, OWN): [layer + 0.0, 4.0, layer + 2.0] for layer in (0, 3)}, groups=2
    )
    (said,) = map(text, _few(result(few)))
    assert said == (
        "d, label: too few groups for a claim about a population. Gap after the last layer by group: g0: 4.00, g1: "
        "4.00."
    )
    many = gap_rows({("d", "label", 0, OWN): [0.0] * 20})
    assert list(_few(result(many))) == []
    others = gap_rows({("d", "label", 0, OTHERS): [0.0] * 3})
    assert list(_few(result(others))) == []


def test_the_five_most_frequent_failures_are_counted() -> None:
    reasons = [f"reason {i}." for i in range(6) for _ in range(i + 1)]
    said = _failures(SimpleNamespace(failures=pd.DataFrame({"reason": reasons})))  # pyright: ignore
    assert said.startswith("Words or samples left out: 21. Reasons: reason 5. ×6, reason 4. ×5")
    assert "reason 0." not in said
    none = _failures(SimpleNamespace(failures=pd.DataFrame({"reason": []})))  # pyright: ignore
    assert none == "None: every word of every sample was measured."


def test_a_panel_is_named_by_its_data_and_lens() -> None:
    cell: Any = SimpleNamespace(
        labels={"data": "scenes", "lens": "nearest"}, study=SimpleNamespace(lens="logit")
    )
    plain: Any = SimpleNamespace(axes=("model", "data"))
    assert _title(cell, plain) == "scenes"
    assert _title(cell, SimpleNamespace(axes=("model", "data", "lens"))) == "scenes\nnearest\nlog p"  # pyright: ignore


def drawn(*lenses: str) -> Any:
    """The figures of runs under these lenses, of two words and two layers."""
    measures = [("gap", OWN, 1.0), ("gap", OTHERS, 0.5), ("first inside", OWN, 0.8), ("first outside", OWN, 0.1),
                ("first inside", OTHERS, 0.2)]  # fmt: skip
    rows = pd.DataFrame(
        [
            {"model": "m", "data": f"d{place}", "word": word, "layer": layer, "of": of, "measure": measure,
             "mean": mean + 10 * place + layer / 100 + (word == "answer")}
            for place, _ in enumerate(lenses) for word in WORDS for layer in (-1, 0) for measure, of, mean in measures
        ]
    )  # fmt: skip
    summary = rows.assign(
        low=rows["mean"] - 1, high=rows["mean"] + 1, n=30, n_groups=30, n_undefined=0, note=""
    )
    cells = [
        SimpleNamespace(
            labels={"model": "m", "data": f"d{i}"}, measured=True, study=SimpleNamespace(lens=lens)
        )
        for i, lens in enumerate(lenses)
    ]
    scores = rows.assign(value=rows["mean"], group="g", sample="s")
    found: Any = SimpleNamespace(cells=cells, axes=("model", "data"), summary=lambda: summary, scores=scores)
    return figures(found)


def test_a_row_of_panels_is_a_word_and_a_column_a_run() -> None:
    found = drawn("logit", "logit")
    lines = {
        (trace.xaxis, html.unescape(trace.name)): trace
        for trace in found["first"].data
        if trace.name and len(trace.x) == 2 and trace.line.width
    }
    assert list(lines["x", f"first inside, {OWN}"].y) == pytest.approx([0.79, 0.8])
    assert list(lines["x2", f"first outside, {OWN}"].y) == pytest.approx([10.09, 10.1])
    assert list(lines["x3", f"first inside, {OTHERS}"].y) == pytest.approx([1.19, 1.2])
    assert [note.text for note in found["gap"].layout.annotations] == ["d0", "d1"]
    first, second = (getattr(found["gap"].layout, name).title.text for name in ("yaxis", "yaxis3"))
    assert first.startswith("label<br>log p inside − outside,<br>nats")
    assert second.startswith("answer<br>")
    assert sum(bool(trace.showlegend) for trace in found["first"].data) == 3  # each kind of line once


def test_lenses_of_other_units_share_no_axis() -> None:
    one, mixed = drawn("logit", "logit"), drawn("logit", "contextual")
    assert [figure["gap"].layout.yaxis2.matches for figure in (one, mixed)] == ["y", None]
    assert [figure["first"].layout.yaxis2.matches for figure in (one, mixed)] == ["y", "y"]
    assert "the lens's unit" in html.unescape(mixed["gap"].layout.yaxis.title.text)


def test_each_lens_has_words_of_its_own() -> None:
    assert lens_kind("logit") == "logit"
    assert lens_kind(SimpleNamespace(kind="jacobian")) == "jacobian"
    kinds = list(LENS_WORDING)
    assert [wording_of([kind, kind]) for kind in kinds] == list(LENS_WORDING.values())
    assert wording_of(kinds[:2]) is wording_of([]) is MIXED
    assert len({one.title for one in (*LENS_WORDING.values(), MIXED)}) == len(kinds) + 1
    for one in (*LENS_WORDING.values(), MIXED):
        assert one.lead.startswith(one.does)
        assert all(field in one.lead for field in ("{models}", "{samples}", "{data}"))
    whole = np.log([0.5, 0.25])
    np.testing.assert_allclose(LENS_WORDING["jacobian"].map_values(whole), [0.5, 0.25])


def examples(
    monkeypatch: pytest.MonkeyPatch, scores: pd.DataFrame, found: pd.DataFrame, *measured: bool
) -> list[str]:
    """What the examples show of each run: the samples, the word and the layer."""
    samples = pd.DataFrame({"index": range(4)})
    cells = [
        SimpleNamespace(
            labels={"model": "m", "data": f"d{i}"}, key=("m", f"d{i}"), measured=one, frame=lambda _: samples
        )
        for i, one in enumerate(measured)
    ]
    monkeypatch.setattr(page, "_card", lambda cell, row, word, layer: f"{row['index']} at {layer}; ")
    given: Any = SimpleNamespace(cells=cells, scores=scores)
    return [text(part) for part in page._examples(given, found)]


def test_examples_are_shown_at_the_peak_of_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first set has both words, the second a label alone, without a control; the third was not measured."""
    keys = ["model", "data", "word", "layer"]
    scores = pd.DataFrame(
        [("m", "d0", "label", 5), ("m", "d0", "answer", 5), ("m", "d1", "label", 2), ("m", "d1", "label", 7)],
        columns=keys,
    )
    found = pd.DataFrame([("m", "d0", "label", 1), ("m", "d0", "answer", 3)], columns=keys)
    said = examples(monkeypatch, scores, found, True, True, False)
    assert said == ["d0: the answer", "0 at 3; 1 at 3;", "d1: the label", "0 at 7; 1 at 7;"]


def test_the_table_shows_each_words_best_layer() -> None:
    gaps = pd.DataFrame(
        [
            ("m", "d", "label", 1, 0.5, 0.25, 0.75, 30, 25, 0.01, 0.02),
            ("m", "d", "label", 2, 0.9, 0.8, 1.0, 30, 25, 0.0001, 0.0002),
            ("m", "d", "answer", -1, -0.5, -0.75, -0.25, 8, 4, 0.5, 1.0),
        ],
        columns=["model", "data", "word", "layer", "mean", "low", "high", "n", "n_groups", "p", "p_holm"],
    )
    said = text(page._table(SimpleNamespace(axes=("model", "data")), gaps, LENS_WORDING["contextual"]))  # pyright: ignore
    assert "own − another's gap, from −2 to 2" in said
    assert "m · d label 2 0.90 [0.80, 1.00] < 0.001 30 in 25 groups" in said
    assert "m · d answer −1 −0.50 1.000 8 in 4 groups" in said
    assert "0.50 [0.25" not in said


def test_the_origin_names_a_lens_that_is_not_the_logit_lens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "origin", lambda _, lines: dict(lines))
    monkeypatch.setattr(page, "as_json", str)
    study = SimpleNamespace(prompt="p", rule="center", seed=3, batch=5, lens="logit")
    own: Any = SimpleNamespace(study=study, folder=None)
    assert page._origin(own) == {"prompt": "p", "rule, seed, batch": "center, 3, 5"}
    study.lens = SimpleNamespace(to_dict=lambda: {"kind": "ähnlich"})
    assert page._origin(own)["lens"] == '{"kind": "ähnlich"}'  # pyright: ignore[reportCallIssue, reportArgumentType]
