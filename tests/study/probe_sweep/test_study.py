"""On the organism a probe reads the colour at the last token from the layer on at which patching moves it."""

from __future__ import annotations

import html

import numpy as np
import pytest
from numpy.testing import assert_allclose

import interp
from interp.data import Samples
from interp.errors import StudyError
from interp.study import ProbeResult, ProbeSweep
from interp.study.dataframes import where
from interp.study.probe_sweep.task import property_of
from interp.tracing import Mllm, PatchResidual, Residual

LAYERS = 6


@pytest.fixture(scope="module")
def mllm() -> Mllm:
    return interp.load("organism")


@pytest.fixture(scope="module")
def data() -> Samples:
    """72 questions about a colour, six colours."""
    scenes = interp.data.bundled("natural", n=230, seed=5)
    return scenes.filter(lambda sample: sample.meta["about"] == "colour")[:72]


@pytest.fixture(scope="module")
def result(mllm: Mllm, data: Samples, tmp_path_factory: pytest.TempPathFactory) -> ProbeResult:
    study = ProbeSweep(model=mllm, data=data, positions=("last", "question", "box"), folds=4, batch=24)
    return study.run(tmp_path_factory.mktemp("runs"), progress=False)


def mean(result: ProbeResult, position: str, measure: str) -> np.ndarray:
    found = result.summary()
    own = where(found, (found.position == position) & (found.measure == measure))
    return own.sort_values("layer")["mean"].to_numpy()


def test_colour_is_read_where_patching_moves_it(mllm, data, result):
    """The stream of another sample at the last token, layer by layer: from where on does its answer come along?"""
    pairs = [
        (one, other)
        for i, one in enumerate(data[:12])
        for other in [
            next((o for o in data[i + 1 :] if o.question == one.question and o.answer != one.answer), None)
        ]
        if other is not None
    ]
    own, others = ([pair[k] for pair in pairs] for k in (0, 1))
    trace = mllm.trace(others, reads=[Residual("all", "last")], progress=False)
    moved = []
    for layer in range(LAYERS):
        edit = PatchResidual([layer], "last", [one.residual.values[[layer]] for one in trace])
        said = mllm.answers(own, edits=[edit], generate=1, progress=False)
        moved.append(np.mean([a == b.answer for a, b in zip(said, others, strict=True)]))
    used = np.array(moved) > 0.9
    assert list(used) == [False, True, True, True, True, True]
    accuracy, control = mean(result, "last", "accuracy"), mean(result, "last", "control")
    assert (accuracy[used] > 0.9).all()
    assert (accuracy[~used] < 0.4).all()  # six colours
    assert (control < 0.4).all()
    assert_allclose(mean(result, "last", "selectivity"), accuracy - control, atol=1e-12)
    assert (
        mean(result, "box", "accuracy") > 0.8
    ).all()  # it can be read at the object in every layer, used or not
    assert (mean(result, "question", "accuracy") < 0.7).all()


def test_features_are_mean_streams(mllm, data, result):
    features = result.cells[0].folder.read_table("features").to_pandas()
    reads = [Residual([2], "question"), Residual([2], "image"), Residual([2], "last")]
    one = mllm.trace(data[3], reads=reads)[0]
    tokens = mllm.encode(data[3]).tokens[0]
    inside = tokens.mask(data[3].boxes)
    for position, wanted in (
        ("question", one.reads[0].values[0].mean(0)),
        ("box", one.reads[1].values[0][inside].mean(0)),
        ("last", one.reads[2].values[0][0]),
    ):
        row = features[(features["index"] == 3) & (features.position == position) & (features.layer == 2)]
        assert_allclose(np.array(row["values"].iloc[0]), wanted, atol=2e-4)


def test_it_has_a_page_a_curve_and_what_each_probe_said(result, tmp_path):
    assert list(result.figures()) == ["accuracy"]
    page = html.unescape(result.report(tmp_path / "page.html").read_text())
    assert "From which layer on, and where, can the answer be read linearly?" in page
    said = result.said
    right = (said.target == said.said).groupby([said.position, said.layer]).mean()
    assert_allclose(right["last"].to_numpy(), mean(result, "last", "accuracy"))
    assert set(result.scores.measure) == {"accuracy", "control", "selectivity", "majority"}


def test_other_folds_and_another_control_need_no_forward(mllm, data, result):
    base = result.study
    again = base.replace(folds=3, penalty=0.1).task(mllm).to_dict()
    assert again == base.task(mllm).to_dict()
    assert base.replace(control="question").task(mllm).to_dict() != again
    other = Samples([one.replace(meta={**one.meta, "about": "x"}) for one in data], data.name)
    assert (
        base.replace(data=other, target="about").task(mllm).to_dict()
        != base.replace(target="about").task(mllm).to_dict()
    )


def test_a_property_is_a_field_the_group_or_of_the_meta(mllm, data):
    one = data[0].replace(answer="dark  red", question="which one?", meta={"about": 3, "group": "no"})
    found = [property_of(one, name, "g7") for name in ("answer", "question", "group", "about", "shade")]
    assert found == ["dark red", "which one?", "g7", "3", None]
    needs = [
        ProbeSweep(data=data, positions=at).task(mllm).needs_boxes for at in (("last",), ("last", "box"))
    ]
    assert needs == [False, True]


@pytest.mark.filterwarnings("error:The least populated class")
def test_classes_that_no_probe_has_seen_are_said(mllm, data, result, tmp_path):
    assert result.unseen.empty
    assert "one fold alone" not in result.report(tmp_path / "plain.html").read_text()
    some = [*data[:38], data[38].replace(answer="mauve"), data[39].replace(answer="puce")]
    found = ProbeSweep(model=mllm, data=some, positions=("last",), folds=4, batch=20).run(
        tmp_path, progress=False
    )
    assert found.unseen[["target", "n", "share"]].to_numpy().tolist() == [
        ["mauve", 1, 1 / 40],
        ["puce", 1, 1 / 40],
    ]
    said = found.said[found.said.target.isin(["mauve", "puce"])]
    assert len(said) == 2 * LAYERS
    assert (said.said != said.target).all()
    assert 0.9 < mean(found, "last", "accuracy").max() <= 0.95  # the other colours are read from layer 1 on
    page = html.unescape(found.report(tmp_path / "page.html").read_text())
    assert (
        "classes that lie in one fold alone: mauve ×1, puce ×1. The probe that scores their 2 samples" in page
    )
    assert "accuracy is at most 0.95." in page


def test_what_cannot_be_probed_fails_or_is_refused(mllm, data, tmp_path):
    some = [*data[:11], data[11].replace(answer=None)]
    found = ProbeSweep(model=mllm, data=some, positions=("last",), folds=2).run(tmp_path, progress=False)
    assert found.failures.reason.tolist() == [
        "the sample has no answer, so a probe cannot learn from it or be scored on it."
    ]
    one = ProbeSweep(model=mllm, data=data[:3], folds=5, positions=("last",)).run(tmp_path, progress=False)
    with pytest.raises(
        StudyError, match=r"a probe in 5 folds needs at least two classes and 5 groups; got .* 3 groups"
    ):
        one.summary()
    for make, said in (
        (
            lambda: ProbeSweep(data=data, positions=("first",)),
            r"positions takes at least one of last, question",
        ),
        (lambda: ProbeSweep(data=data, penalty=0), r"penalty is a finite number above 0; got 0"),
        (lambda: ProbeSweep(data=data, penalty=True), r"penalty is a finite number above 0; got True"),
        (lambda: ProbeSweep(data=data, penalty=float("inf")), r"penalty is a finite number above 0; got inf"),
        (lambda: ProbeSweep(data=data, control=""), r'control is "answer", "question", "group" or a key'),
        (lambda: ProbeSweep(data=data, folds=1), r"folds is a whole number ≥ 2; got 1"),
        (lambda: ProbeSweep(data=data, target=""), r'target is "answer", "question", "group" or a key'),
    ):
        with pytest.raises(StudyError, match=said):
            make()
