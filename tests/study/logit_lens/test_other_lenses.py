"""`LensSweep(lens=…)`: every lens has the same scores and page, and reads what `read_words` gives by the boxes."""

from __future__ import annotations

import html
import pickle
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

import interp
from interp.data import Samples
from interp.errors import ModelError, RunError, StudyError
from interp.study import Grid, GridResult, LensSweep
from interp.study.dataframes import where
from interp.study.logit_lens.page import lens_gaps, peaks
from interp.study.logit_lens.task import LensSweepTask
from interp.tracing import Mllm, wrap
from interp.tracing.word_lenses import JacobianLens, LatentLens, Patchscope, read_words
from tests import tiny

TARGET = "red - red , left - left , lung - lung , ?"
RUNNING = (
    "what is in the image ? there is a red circle in the left lung , or a nodule in the right lung . yes",
)
LENSES: dict[str, Any] = {
    "contextual": LatentLens(("there is a {word}", "where is the {word} in the image")),
    "jacobian": JacobianLens(corpus=RUNNING),
    "patchscope": Patchscope(TARGET, n_tokens=9),
}
LABELS = ("circle", "the left lung", "nodule", "blood vessel")


@pytest.fixture(scope="module")
def mllm() -> Mllm:
    return wrap(tiny.llava(), tiny.processor())


@cache
def data() -> Samples:
    return Samples(
        tiny.sample(
            f"is it {'very ' * i}red?",
            i,
            boxes=[(8, 8, 40, 30)],
            id=f"{i}",
            answer="red",
            meta={"label": word},
        )
        for i, word in enumerate(LABELS)
    )


@pytest.fixture(scope="module")
def result(mllm: Mllm, tmp_path_factory: pytest.TempPathFactory) -> GridResult:
    base = LensSweep(model=mllm, data=data(), batch=3, words="label")
    axes: Any = {"lens": {"logit": "logit", **LENSES}}
    return Grid(base, **axes).run(tmp_path_factory.mktemp("runs"))


def line(result: GridResult, **place: Any) -> Any:
    rows = result.scores
    for name, wanted in place.items():
        rows = where(rows, rows[name] == wanted)
    return rows.set_index("layer").value.sort_index()


@pytest.mark.parametrize("kind", LENSES)
def test_scores_are_the_lenss_by_the_boxes(mllm: Mllm, result: GridResult, kind: str) -> None:
    vocabulary = ["circle", "lung", "nodule", "vessel"]  # templates are filled with the words of all samples
    words = vocabulary if kind == "contextual" else vocabulary[:3]
    found = read_words(mllm, data()[:3], words, LENSES[kind])
    for i, word in enumerate(words[:3]):
        one, mask = found[i].sel(word=word), found.tokens[i].mask(data()[i].boxes)[found[i].token.values]
        place = {"lens": kind, "sample": str(i), "of": "own word"}
        scores = one.score.values.astype(float)
        gap = scores[:, mask].mean(axis=1) - scores[:, ~mask].mean(axis=1)
        assert_allclose(line(result, measure="gap", **place), gap, atol=1e-5)
        assert_allclose(line(result, measure="outside", **place), scores[:, ~mask].mean(axis=1), atol=1e-5)
        first = (one["rank"].values == 0)[:, mask].mean(axis=1)
        assert_allclose(line(result, measure="first inside", **place), first)
        assert line(result, measure="gap", **place).index.tolist() == one.layer.values.tolist()


def test_maps_know_which_tokens_were_read(result: GridResult) -> None:
    (cell,) = [cell for cell in result.cells if cell.labels["lens"] == "patchscope"]
    stored = cell.folder.find("maps", index=[0]).to_pylist()
    assert {sum(not np.isnan(value) for value in row["map"]) for row in stored} == {9}
    assert {len(row["map"]) for row in stored} == {16}


def test_words_that_a_lens_cannot_read_are_failures(result: GridResult) -> None:
    said = result.failures.set_index("lens").reason.to_dict()
    assert said["logit"] == said["jacobian"] == "'vessel' is not one token of this vocabulary."
    assert "contextual" not in said  # it takes words of any number of tokens


def test_a_box_without_a_token_that_was_read_is_a_failure(mllm: Mllm, tmp_path: Path) -> None:
    footprint = mllm.encode(data()[0]).tokens[0].footprints[0]  # token 0, which is none of 1, 3, 5, …
    middle = footprint.reshape(2, 2).mean(axis=0)
    small = Samples([data()[0].replace(boxes=[(*(middle - 1), *(middle + 1))]), data()[1]])
    study = LensSweep(model=mllm, data=small, words="label", lens=Patchscope(TARGET, n_tokens=8))
    found = study.run(tmp_path / "few", progress=False)
    assert found.failures.reason.tolist() == [
        "the lens read no token inside the boxes, or none outside, of those that n_tokens leaves. Raise n_tokens."
    ]
    more = study.replace(lens=Patchscope(TARGET, n_tokens=16)).run(tmp_path / "more", progress=False)
    assert more.failures.empty


def test_the_page_and_the_table_tell_the_lenses_apart(result: GridResult, tmp_path: Path) -> None:
    gaps = lens_gaps(result)
    assert set(gaps.lens) == {"logit", *LENSES}
    assert len(peaks(gaps)) == 4
    page = html.unescape(result.report(tmp_path / "page.html").read_text())
    for said in ("Word lenses", "Several lenses read at each image token", "similarity to(“circle”)", TARGET):
        assert said in page
    titles = [note.text for note in result.figures()["gap"].layout.annotations]
    assert any("contextual cosine similarity" in title.replace("<br>", " ") for title in titles)


@pytest.mark.parametrize(("kind", "unit"), [("contextual", "from −2 to 2"), ("patchscope", "nats")])
def test_a_page_of_one_lens_states_its_unit(mllm: Mllm, tmp_path: Path, kind: str, unit: str) -> None:
    one = LensSweep(model=mllm, data=data()[:2], words="label", lens=LENSES[kind]).run(
        tmp_path, progress=False
    )
    axis = one.figures()["gap"].layout.yaxis.title.text.replace("<br>", " ")
    assert unit in axis
    page = html.unescape(one.report(tmp_path / "page.html").read_text())
    assert f"own − another's gap, {unit}" in page
    assert one.study.title in page
    assert one.study.title != "Logit lens"


def test_settings_decide_the_run_and_logit_is_as_it_was(mllm: Mllm, tmp_path: Path) -> None:
    study = LensSweep(model=mllm, data=data())
    assert study == LensSweep(model=mllm, data=data(), lens="logit")
    plain = study.to_dict(mllm)
    assert "lens" not in plain
    assert plain["through"] == "transformer_lens"
    others = [
        study.replace(lens=lens).to_json(mllm)
        for lens in (
            *LENSES.values(),
            "contextual",
            LatentLens(candidates="same"),
            LatentLens(["there is a {word}"]),
            JacobianLens(corpus=RUNNING, max_tokens=64),
            Patchscope(),
            Patchscope(layers=[0]),
            Patchscope(position=-2),
            Patchscope(target_layer=1),
        )
    ]
    assert len({study.to_json(mllm), *others}) == len(others) + 1
    assert study.replace(lens="contextual") == study.replace(lens={"contextual": {}})
    task = study.replace(lens="contextual", model="organism").task(mllm)
    assert task.opened is task.opened
    assert pickle.loads(pickle.dumps(task))._ready is None


@pytest.mark.parametrize(
    ("lens", "owner", "opens", "said"),
    [
        (LENSES["contextual"], LatentLens, "open", "the contextual lens cannot be opened: no room"),
        ("logit", Mllm, "to_lens", "cannot be read through TransformerLens: no room"),
    ],
)
def test_a_lens_that_cannot_be_opened_stops_the_run(
    mllm: Mllm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lens: Any, owner: type, opens: str, said: str
) -> None:
    """No sample is to blame, so none is stored as failed, and the next run measures all."""

    def refuse(*_: Any) -> Any:
        raise ModelError("no room")

    study = LensSweep(model=mllm, data=data()[:2], words="label", lens=lens)
    with monkeypatch.context() as patch:
        patch.setattr(owner, opens, refuse)
        with pytest.raises(RunError, match=said):
            study.run(tmp_path, progress=False)
    found = study.run(tmp_path, progress=False)
    assert found.failures.empty
    assert len(found.samples) == 2


@pytest.mark.by_default(kind=["contextual"])
@pytest.mark.parametrize("kind", LENSES)
def test_a_killed_run_goes_on_to_the_same_bytes(
    mllm: Mllm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    twice = Samples([*data(), *data()])
    study = LensSweep(model=mllm, data=twice, words="label", lens=LENSES[kind], batch=1)
    whole = study.run(tmp_path / "whole", progress=False).folder
    measure, calls = LensSweepTask.measure, []

    def killed(task: LensSweepTask, indices: tuple[int, ...]) -> Any:
        calls.append(indices)
        if len(calls) > 5:  # in the second shard
            raise KeyboardInterrupt
        return measure(task, indices)

    with monkeypatch.context() as patch:
        patch.setattr(LensSweepTask, "measure", killed)
        with pytest.raises(KeyboardInterrupt):
            study.run(tmp_path / "killed", progress=False)
    again = study.run(tmp_path / "killed", progress=False).folder
    stored = list(whole.rglob("*.parquet"))
    assert stored
    for path in stored:
        assert (again / path.relative_to(whole)).read_bytes() == path.read_bytes()


def test_lenses_that_make_no_sense(unchecked: None) -> None:
    one = [tiny.sample()]
    for lens, said in (
        ("tuned", r"lens is one of logit, contextual, jacobian, patchscope, or .*; got 'tuned'"),
        (interp.Site(), "lens is one of logit"),
        ({"patchscope": {"prompts": "x"}}, r"settings some of \['prompt', 'position'.*'prompts'"),
        ({"tuned": {}}, "the name one of contextual, jacobian, patchscope"),
        ({"patchscope": {"n_tokens": 0}}, "n_tokens is a whole number of at least 1; got 0"),
    ):
        with pytest.raises(StudyError, match=said):
            LensSweep(data=one, lens=lens)
