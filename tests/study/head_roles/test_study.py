"""What heads do: measures worked by hand, ablations by AblateHeads, and a set of heads taken from the table."""

from __future__ import annotations

import html

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import log_softmax

import interp
import tests.tiny as tiny
from interp.data import Samples
from interp.errors import StudyError
from interp.study import HeadRoles, HeadTable
from interp.study.dataframes import where
from interp.study.head_roles.task import _scores, row_measures
from interp.tracing import AblateHeads, Mllm, Rows, Site, wrap


@pytest.fixture(scope="module")
def mllm() -> Mllm:
    return wrap(tiny.llava(), tiny.processor())


@pytest.fixture(scope="module")
def data() -> Samples:
    return Samples([tiny.sample("is it red?", i, id=f"{i}", answer="red") for i in range(4)], "tiny")


@pytest.fixture(scope="module")
def table(mllm: Mllm, data: Samples, tmp_path_factory: pytest.TempPathFactory) -> HeadTable:
    return HeadRoles(model=mllm, data=data, batch=4).run(tmp_path_factory.mktemp("runs"), progress=False)


def test_measures_of_rows_worked_by_hand():
    """One layer, three heads, keys: first token, two of the image, last token."""
    rows = np.array([[[0.5, 0.2, 0.2, 0.1], [0.0, 0.6, 0.0, 0.4], [1.0, 0.0, 0.0, 0.0]]])
    other = np.array([[[0.1, 0.1], [0.0, 0.3], [0.5, 0.5]]])
    found = row_measures(rows, np.array([1, 2]), other)
    assert_allclose(found["image_share"], [[0.4, 0.6, 0.0]])
    assert_allclose(found["sink_share"], [[0.5, 0.0, 1.0]])
    assert_allclose(found["entropy"], [[1.0, 0.0, np.nan]], atol=1e-12)
    assert_allclose(found["position"], [[1.0, 0.0, np.nan]], atol=1e-12)
    half = row_measures(rows, np.array([1, 2]), np.array([[[1.0, 0.0]] * 3]))["position"][0, 0]
    mixture = [0.75, 0.25]  # p = (1/2, 1/2), q = (1, 0)
    bits = 0.5 * (np.log2(0.5 / 0.75) / 2 + np.log2(0.5 / 0.25) / 2) + 0.5 * np.log2(1 / mixture[0])
    assert half == pytest.approx(1 - bits)
    assert np.isnan(row_measures(rows, np.array([1, 2]), other[..., :1])["position"]).all()
    assert np.isnan(row_measures(rows, np.array([1]), None)["entropy"]).all()


def test_scores_carry_the_layers_that_have_attention() -> None:
    values = np.array([[0.1, 0.2], [0.3, 0.4]])
    found = [(one["layer"], one["head"], one["value"]) for one in _scores(7, (1, 3), {"ablation": values})]
    assert found == [(1, 0, 0.1), (1, 1, 0.2), (3, 0, 0.3), (3, 1, 0.4)]


def test_a_samples_scores_are_its_rows_and_its_ablations(mllm, data, table):
    index = 1
    scores = where(table.values, table.values["index"] == index)
    wide = scores.pivot(index=["layer", "head"], columns="measure", values="value")
    trace = mllm.trace(data[index], reads=[Rows(Site(queries="last", keys="all"))])
    rows, image = trace[0].rows.values[:, :, 0], trace.tokens[0].image
    assert_allclose(wide.image_share.unstack(), rows[..., image].sum(-1), atol=1e-6)
    assert_allclose(wide.sink_share.unstack(), rows[..., 0], atol=1e-6)
    lender = int(np.flatnonzero([s.id == table.samples.set_index("index").other[index] for s in data])[0])
    swapped = interp.Sample(image=data[lender].images[0], question=data[index].question)
    borrowed = mllm.trace(swapped, reads=[Rows(Site(queries="last"))])[0].rows.values[:, :, 0]
    wanted = row_measures(rows, image, borrowed)
    assert_allclose(wide.position.unstack(), wanted["position"], atol=1e-5)
    token = int(trace.logits.values[0].argmax())
    for layer, head in ((0, 0), (1, 2), (2, 3)):
        cut = mllm.trace(data[index], edits=[AblateHeads(Site(heads=[(layer, head)]))])
        plain, without = (log_softmax(one.logits.values[0].astype(float))[token] for one in (trace, cut))
        assert wide.ablation[layer, head] == pytest.approx(plain - without, abs=1e-5)


def test_the_table_has_a_row_a_head_and_gives_sets_of_heads(mllm, data, table, tmp_path):
    heads = table.heads
    assert heads.name.tolist()[:5] == ["L00H00", "L00H01", "L00H02", "L00H03", "L01H00"]
    assert len(heads) == 12
    own = where(table.values, table.values.measure == "ablation").groupby(["layer", "head"]).value.mean()
    assert_allclose(heads.ablation, own)
    best = table.top("ablation", 2)
    assert best.pairs == tuple(own.sort_values(ascending=False, kind="stable").index[:2])
    assert table.top("ablation", 1, lowest=True).pairs == (own.idxmin(),)
    assert best.name == "2 heads of highest ablation"
    assert len(table.top("entropy", 12)) == 12
    mllm.trace(data[0], edits=[AblateHeads(Site(heads=best.pairs))])
    page = html.unescape(table.report(tmp_path / "page.html").read_text())
    assert table.study.question in page
    assert heads.name[heads.ablation.argmax()] in page
    assert list(table.figures()) == ["heads", "roles"]
    for wrong, said in (
        (lambda: table.top("size", 2), r"measure is one of image_share, .*, copying; got 'size'"),
        (lambda: table.top("entropy", 13), r"12 heads have a mean of entropy; got k=13"),
        (lambda: table.top("entropy", 0), r"k is a whole number ≥ 1"),
        (lambda: HeadRoles(data=data, ablate="no"), r"ablate is True or False; got 'no'"),
        (lambda: HeadRoles(data=data, target="best"), r"target is one of greedy, answer"),
    ):
        with pytest.raises(StudyError, match=said):
            wrong()


def test_without_ablations_a_sample_takes_two_forwards(mllm, data, table, tmp_path):
    found = HeadRoles(model=mllm, data=data, ablate=False, batch=4).run(tmp_path, progress=False)
    assert found.measures == ("image_share", "entropy", "sink_share", "position", "copying")
    assert float(found.cost.forwards.sum()) < float(table.cost.forwards.sum()) / 2
    assert_allclose(found.heads.position, table.heads.position)
    assert list(found.figures()) == ["heads"]


def test_the_token_that_is_followed_is_the_answers(mllm, data, tmp_path):
    two = [data[0], data[1].replace(answer=None)]
    study = HeadRoles(model=mllm, data=two, ablate=False, target="answer", batch=2)
    found = study.run(tmp_path, progress=False)
    assert found.samples.token.tolist() == ["red"]
    assert found.failures["sample"].tolist() == ["1"]
    logits = mllm.trace(data[0]).logits.values[0].astype(float)
    red = mllm.processor.tokenizer.convert_tokens_to_ids("red")
    assert found.samples.logprob[0] == pytest.approx(log_softmax(logits)[red], abs=1e-4)


def test_an_image_is_borrowed_by_and_from_one_image_alone(mllm, data):
    two = data[1].replace(image=None, images=[data[1].images[0], data[2].images[0]], id="two")
    task = HeadRoles(model=mllm, data=[data[0], two]).task(mllm)
    assert [task._lender(index) for index in (0, 1)] == [None, None]
    assert [HeadRoles(model=mllm, data=data[:2]).task(mllm)._lender(i) for i in (0, 1)] == [1, 0]
