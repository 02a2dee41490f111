"""A study of several questions an image: they share its prefix, and no number depends on that or on a kill."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from interp.data import Samples
from interp.indicators import Attention
from interp.inputs.prompt import GENERIC_PROMPT
from interp.inputs.sample import Sample
from interp.study import LayerSweep
from interp.tracing import Mllm, wrap
from tests import tiny
from tests.run.run_fingerprints import fingerprints

QUESTIONS = ("is it red?", "is it very red?", "is it very very red?")


@pytest.fixture(scope="module")
def mllm() -> Mllm:
    """A tiny LLaVA."""
    return wrap(tiny.llava(), tiny.processor())


def samples(n_images: int = 3) -> list[Sample]:
    """Every question on every image, question by question."""
    return [
        tiny.sample(question, image, boxes=[(8, 8, 40, 30)], id=f"{image} {number}")
        for number, question in enumerate(QUESTIONS)
        for image in range(n_images)
    ]


def sweep(mllm: Mllm, given: list[Sample]) -> LayerSweep:
    """A sweep of relative attention whose micro-batches hold one image's questions."""
    indicator = Attention(relative_to=GENERIC_PROMPT)
    return LayerSweep(model=mllm, data=Samples(given), indicator=indicator, metrics=("ar",), batch=4)


def scores(result: object) -> dict[tuple[str, int], float]:
    """The attention ratios under the boxes by (sample, layer)."""
    frame = result.scores  # type: ignore[attr-defined]
    own = frame[frame["control"] == "boxes"]
    return {(a, b): c for a, b, c in zip(own["sample"], own["layer"], own["value"], strict=True)}


def test_questions_on_an_image_share_its_prefix_and_numbers(mllm: Mllm, tmp_path: Path) -> None:
    given = samples()
    together = sweep(mllm, given).run(tmp_path / "all", progress=False)
    alone: dict[tuple[str, int], float] = {}
    tokens = 0.0
    for sample in given:
        one = sweep(mllm, [sample]).run(tmp_path / sample.id, progress=False)
        alone |= scores(one)
        tokens += float(np.sum(one.cost["tokens"]))
    found = scores(together)
    assert found.keys() == alone.keys()
    np.testing.assert_allclose([found[key] for key in alone], list(alone.values()), rtol=1e-5)
    assert float(np.sum(together.cost["tokens"])) < 0.6 * tokens


def test_a_shard_computed_again_has_the_same_bytes(mllm: Mllm, tmp_path: Path) -> None:
    study = sweep(mllm, samples(6))
    folder = study.run(tmp_path, progress=False).folder
    before = fingerprints(folder)
    removed = sorted((folder / "shards").glob("00001*"))
    assert removed
    for file in removed:
        file.unlink()
    study.run(tmp_path, progress=False)
    assert fingerprints(folder) == before


def test_a_micro_batch_holds_the_questions_of_one_image(mllm: Mllm) -> None:
    given = samples()  # question by question, so that neighbours show other images
    plan = sweep(mllm, given).replace(batch=len(QUESTIONS)).task(mllm).plan()
    shown = [{given[i].id.split()[0] for i in batch} for shard in plan.shards for batch in shard]
    assert sorted(map(sorted, shown)) == [["0"], ["1"], ["2"]]
