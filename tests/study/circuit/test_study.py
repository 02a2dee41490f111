"""A circuit on the organism: it holds the heads that the answer needs, and its shares are those of its graph."""

from __future__ import annotations

import html
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from PIL import ImageColor

import interp
from interp.data import Samples
from interp.errors import ModelError, RunError, StudyError
from interp.study import Circuit, CircuitResult
from interp.study.circuit import task
from interp.study.dataframes import where
from interp.tracing import AblateHeads, Mllm, Site
from tests.golden.parsed import Page

NEEDED = {(0, 0): 1, (0, 5): 0, (0, 6): 3, (0, 7): 3}
"""Heads whose ablation flips the answer of one of the samples, by its place."""


@pytest.fixture(scope="module")
def mllm() -> Mllm:
    return interp.load("organism")


@pytest.fixture(scope="module")
def data() -> Samples:
    natural = interp.data.bundled("natural")
    return Samples([natural[i] for i in (2, 9, 11, 13)], "flipped")


@pytest.fixture(scope="module")
def found(mllm: Mllm, data: Samples, tmp_path_factory: Any) -> CircuitResult:
    study = Circuit(model=mllm, data=data, against="zero", sizes=[20, 640, 5000], exact=3)
    return study.run(tmp_path_factory.mktemp("runs"), progress=False)


def test_the_graph_holds_heads_whose_ablation_flips_answers(mllm, data, found):
    said = mllm.trace(data).logits.values.argmax(axis=-1)
    for head, place in NEEDED.items():
        edit = AblateHeads(Site(heads=[head], queries="all"))
        assert mllm.trace(data[place], edits=[edit]).logits.values[0].argmax() != said[place]
    heads = found.heads(40)
    assert set(NEEDED) <= set(heads)
    assert len(heads) < 20
    names = {name for edge in found.graph(40) for name in edge}
    assert {"image", "answer"} <= names | {"image"}


@pytest.mark.usefixtures("unchecked")
def test_edges_and_heads_worked_by_hand() -> None:
    rows = [
        ("b", "L1H10", "answer", 1.0, np.nan),
        ("b", "L1H10", "answer", -5.0, -3.0),
        ("b", "image", "L1H10", 1.0, np.nan),
        ("a", "image", "L0H2", 0.5, 0.25),
        ("a", "image", "L0H2", 0.0, 0.75),
        ("a", "L10H0", "answer", 0.25, np.nan),
        ("a", "L0H2", "L10H0", -0.5, np.nan),
    ]
    frame = pd.DataFrame(rows, columns=["model", "source", "receiver", "effect", "exact"])
    made: Any = SimpleNamespace(axes=("model",), cells=(), _frames=lambda _: frame)
    edges = CircuitResult.edges.func(made)
    assert list(zip(edges.model, edges.source, edges.receiver, edges.effect, strict=True)) == [
        ("a", "L0H2", "L10H0", -0.5),
        ("a", "image", "L0H2", 0.25),
        ("a", "L10H0", "answer", 0.25),
        ("b", "L1H10", "answer", -2.0),
        ("b", "image", "L1H10", 1.0),
    ]
    assert (edges.n.tolist(), edges.n_exact.tolist()) == ([1, 2, 1, 2, 1], [0, 2, 0, 1, 0])
    assert edges.positive.tolist() == [0, 0.5, 1, 0.5, 1]
    assert_allclose(edges.exact, [np.nan, 0.5, np.nan, -3, np.nan])
    made.edges = edges
    made.graph = lambda n: CircuitResult.graph(made, n)
    assert made.graph(2) == (("L0H2", "L10H0"), ("image", "L0H2"))
    assert CircuitResult.heads(made, 4) == ((0, 2), (1, 10), (10, 0))


def test_layers_that_cannot_be_had_stop_the_run(mllm, data, tmp_path, monkeypatch):
    def refuse(*_):
        raise ModelError("no room")

    study = Circuit(model=mllm, data=data[:2], against="zero", sizes=[20], executor="transformer_lens")
    with monkeypatch.context() as patch:
        patch.setattr(task, "lens_layers", refuse)
        with pytest.raises(RunError, match="no circuit can be run through TransformerLens: no room"):
            study.run(tmp_path, progress=False)
    found = study.run(tmp_path, progress=False)
    assert found.n_samples == 1
    assert "the same answer on both images" in found.failures.reason[0]  # the other's own fault


def test_edges_are_means_and_exact_where_patched(found):
    edges = found.edges
    assert len(edges) == 1427
    assert edges.effect.abs().is_monotonic_decreasing
    assert edges.n_exact.sum() == 3 * found.n_samples
    known = edges[edges.n_exact > 0]
    assert np.isfinite(known.exact).all()
    assert edges[edges.n_exact == 0].exact.isna().all()


def test_lines_have_the_colour_of_their_sign_in_the_legend(found):
    """A line's colour is the legend's, more or less transparent."""
    effects = {f"{row.source} → {row.receiver}": row.effect for row in found.edges.itertuples()}
    traces = found.figures()["graph"].data
    legend = {one.name: ImageColor.getrgb(one.line.color) for one in traces if one.name}
    lines = [one for one in traces if one.mode == "lines" and one.text is not None]
    assert len(lines) == 40
    seen = set()
    for one in lines:
        name, _, said = one.text[0].partition(": ")
        assert float(said.removesuffix(" nats")) == pytest.approx(effects[name], abs=6e-4)
        side = "for the answer" if effects[name] > 0 else "against it"
        red, green, blue = (float(part) for part in one.line.color[5:].split(",")[:3])
        assert (red, green, blue) == legend[side], name
        seen.add(side)
    assert seen == set(legend)


def test_the_table_of_edges_shows_means_of_effects(found, tmp_path):
    """Means of effects and of exact ones are of other samples, and so are apart."""
    table = Page(found.report(tmp_path / "page.html")).table("effect", "exact")
    shown = table.records(
        source=" from$", receiver=" to$", effect="effect", above="above", exact="exact", patched="patched"
    )
    parts = found.cells[0].frame("edges").astype({"source": str, "receiver": str})
    for row in shown:
        own = where(parts, (parts.source == row["source"]) & (parts.receiver == row["receiver"]))
        exact = own.exact.dropna()
        assert row["effect"] == f"{own.effect.mean():.3f}".replace("-", "−")
        assert row["exact"] == (f"{exact.mean():.3f}".replace("-", "−") if len(exact) else "–")
        assert row["above"] == f"{100 * (own.effect > 0).mean():.0f} %"
        assert row["patched"] == f"{len(exact)} of {len(own)}"
    assert len(shown) == 20
    assert any(row["effect"] != row["exact"] != "–" for row in shown)


def test_a_given_graph_keeps_its_share(mllm, data, found, tmp_path):
    graph = found.graph(640)
    study = Circuit(model=mllm, data=data, against="zero", sizes=[20, 640], exact=0, graph=graph)
    again = study.run(tmp_path, progress=False)
    own, given = (where(one.scores, one.scores.measure == "share") for one in (found, again))
    assert sorted(set(own.n_edges)) == sorted(set(given.n_edges)) == [20, 640]
    assert_allclose(own[own.n_edges == 640].value, 1, atol=0.15)
    assert_allclose(given[given.n_edges == 640].value, 1, atol=0.3)
    whole = found.samples.set_index("sample")
    values = where(found.scores, found.scores.measure == "value").set_index(["sample", "n_edges"]).value
    shares = own.set_index(["sample", "n_edges"]).value
    for sample, row in whole.iterrows():
        wanted = (values[sample, 20] - row.value_none) / (row.value_all - row.value_none)
        assert shares[sample, 20] == pytest.approx(wanted)
    page = html.unescape(again.report(tmp_path / "page.html").read_text("utf-8"))
    assert "The share is a fair test only where they were chosen on other data." in page
    assert "model organism" in page
    assert list(again.figures()) == ["graph", "faithfulness"]


def test_images_of_the_same_question_are_tried_first(mllm):
    first, *others = interp.data.bundled("natural", n=6)
    fields = (("q", "a"), ("r", "b"), ("q", "a"), ("q", "b"), ("r", "a"))
    listed = [one.replace(question=q, answer=a) for one, (q, a) in zip(others, fields, strict=True)]
    data = Samples(
        [first.replace(question="q", answer="a"), *listed, listed[2].replace(image=first.images[0])]
    )
    tried = Circuit(model=mllm, data=data).task(mllm)._lenders(0)
    assert tried[:2] == [4, 3] or tried[:2] == [4, 1]  # question and another answer, then the question alone
    assert set(tried[1:3]) == {1, 3}
    assert tried[3:] == [2, 5]  # another question; the last sample has the same picture


def test_the_seed_decides_whose_image_is_borrowed(mllm):
    data = [one.replace(question="q", answer="a") for one in interp.data.bundled("natural", n=8)]
    orders = [Circuit(model=mllm, data=data, seed=seed).task(mllm)._lenders(0) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]) == list(range(1, 8))


def test_numbers_of_edges_are_sorted_and_each_counts_once(data):
    assert Circuit(data=data, sizes=[20, 5, 20]).sizes == (5, 20)


def test_a_mean_is_over_other_images_of_one_question(mllm, tmp_path):
    """With no edge, the answer reads the mean of the final streams of the other images, which hooks read too."""
    natural = interp.data.bundled("natural")
    asked = [one for one in natural if one.question == natural[0].question]
    data = Samples([asked[0], *(one for one in asked if one.answer != asked[0].answer)][:3], "one question")
    study = Circuit(model=mllm, data=data, against="mean", n_images=2, sizes=[0], exact=0)
    found = study.run(tmp_path, progress=False)
    assert len(found.failures) == 0
    first = found.samples[found.samples["sample"] == data[0].id].iloc[0]
    streams: list[Any] = []
    norm, unembedding = mllm.hf.get_decoder().norm, mllm.hf.get_output_embeddings()
    handle = norm.register_forward_pre_hook(lambda _, given: streams.append(given[0][0, -1]))
    with torch.no_grad():
        for other in data[1:]:
            swapped = data[0].replace(image=other.images[0], boxes=(), masks=(), id=None, group=None)
            mllm.hf(**mllm.encode([swapped]).inputs)
        handle.remove()
        scores = unembedding(norm(torch.stack(streams).mean(dim=0))).log_softmax(-1)
    ids = [mllm.processor.tokenizer.convert_tokens_to_ids(first[name]) for name in ("token", "other_token")]
    assert first.value_none == pytest.approx(float(scores[ids[0]] - scores[ids[1]]), abs=2e-3)
    assert_allclose(where(found.scores, found.scores.measure == "share").value, 0, atol=1e-4)
    page = html.unescape(found.report(tmp_path / "page.html").read_text("utf-8"))
    assert "on average over 2 other images" in page
    with pytest.raises(StudyError, match=r"a mean over 3 other images needs as many.*; got 2\. Give more"):
        study.replace(n_images=3).run(tmp_path, progress=False)


@pytest.mark.slow
def test_a_run_through_the_lens_finds_the_same_edges(mllm, data, found, tmp_path):
    study = Circuit(
        model=mllm, data=data, against="zero", sizes=[20, 640, 5000], exact=3, executor="transformer_lens"
    )
    again = study.run(tmp_path, progress=False)
    keys = ["source", "receiver"]
    own, other = (one.edges.set_index(keys).sort_index() for one in (found, again))
    assert_allclose(other.effect, own.effect, atol=1e-4)
    assert_allclose(again.scores.value, found.scores.value, atol=2e-3)
    assert again.cells[0].folder.path != found.cells[0].folder.path


def test_values_of_no_sense_are_refused(mllm, data, tmp_path):
    refused: list[tuple[dict[str, Any], str]] = [
        ({"against": "noise"}, r"against is one of image, mean, zero"),
        ({"executor": "source"}, r"executor is one of transformers, transformer_lens"),
        ({"n_images": 1}, r"n_images is a whole number ≥ 2"),
        ({"sizes": []}, r"sizes are numbers of edges, one or more; got \[\]"),
        ({"sizes": [-1]}, r"a size is a whole number of at least 0"),
        ({"sizes": [True]}, r"a size is a whole number"),
        ({"exact": -1}, r"exact is a whole number ≥ 0"),
        ({"graph": [("image",)]}, r"graph is a list of edges such as"),
        ({"graph": []}, r"graph is a list of edges such as"),
        ({"graph": [("image", 3)]}, r"graph is a list of edges such as"),
    ]
    for wrong, said in refused:
        with pytest.raises(StudyError, match=said):
            Circuit(data=data, **wrong)
    study = Circuit(model=mllm, data=data[:2], graph=[("answer", "L00H00")], exact=0)
    with pytest.raises(StudyError, match=r"no edge from 'answer' to 'L00H00'; it has 6 layers of 8 heads"):
        study.run(tmp_path, progress=False)
