"""Image prefixes shared between the cells of a grid: each made once, and no byte changed by it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from interp.conformance.tiny import tiny as family
from interp.data import bundled
from interp.indicators import Attention
from interp.inputs.prompt import GENERIC_PROMPT, PAPER_PROMPT, Prompt
from interp.inputs.sample import Sample
from interp.metrics import attention_ratio
from interp.run import ProcessCache, runner
from interp.study import Grid, HeadRanking, LayerSweep
from interp.study.task import edited
from interp.tracing import Knockout, Mllm, Prefixes, Site, execution, wrap
from interp.tracing.passes import prefix_pass
from tests import tiny
from tests.run.run_fingerprints import fingerprints

SHORT = Prompt(template="{question}")
PROMPTS = {"paper": PAPER_PROMPT, "short": SHORT, "generic": GENERIC_PROMPT}
BLIND = Knockout(Site(layers=[1], queries="last", keys="image"))
WORDS = Knockout(Site(layers=[0], queries="after_image", keys="image"), mode="zero")
INSIDE = Knockout(Site(layers=[0], queries="image", keys="image"), mode="zero")


def samples(n: int = 6) -> list[Sample]:
    asked = [f"is it {'very ' * (i % 3)}red?" for i in range(n)]
    return [tiny.sample(asked[i], i, boxes=[(8, 8, 40, 30)], id=f"{i}") for i in range(n)]


def base(mllm: Any, **changes: Any) -> LayerSweep:
    given = {"data": samples(), "indicator": Attention(), "metrics": ("ar",), "batch": 2, **changes}
    return LayerSweep(model=mllm, **given)


@pytest.fixture(scope="module")
def mllm() -> Mllm:
    return wrap(tiny.llava(), tiny.processor())


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The samples of each prefix that is run, in order."""
    found: list[list[str]] = []
    run = prefix_pass.run_prefix

    def counted(hf: Any, batch: Any, *rest: Any) -> Any:
        found.append([sample.id for sample in batch.samples])
        return run(hf, batch, *rest)

    monkeypatch.setattr(prefix_pass, "run_prefix", counted)
    return found


def grid(mllm: Any, **axes: Any) -> Grid:
    return Grid(base(mllm), prompt=PROMPTS, edits={"none": (), "blind": [BLIND]}, **axes)


def test_three_prompts_and_two_edits_make_each_prefix_once(
    mllm: Mllm, tmp_path: Path, made: list[list[str]]
) -> None:
    result = grid(mllm).run(tmp_path, progress=False)
    assert sorted(name for batch in made for name in batch) == [f"{i}" for i in range(6)]
    assert set(result.failures.error) == {"undefined"}  # the hidden layer's maps are zero
    cost = result.cost
    assert cost.forwards.tolist() == [
        6,
        3,
        3,
        3,
        3,
        3,
    ]  # three micro-batches: a prefix and a rest, then rests
    first, *others = cost.tokens
    assert first - others[0] == 6 * 19  # <s> user : and 16 image tokens, once for each image
    assert (others[1], others[3]) == (others[2], others[4])


def test_a_cell_has_the_bytes_it_has_alone(mllm: Mllm, tmp_path: Path, made: list[list[str]]) -> None:
    varied = Grid(
        base(mllm, data=samples(4)),
        prompt={"paper": PAPER_PROMPT, "short": SHORT},
        edits={"none": (), "blind": [BLIND]},
        indicator={"plain": Attention(), "relative": Attention(relative_to=GENERIC_PROMPT)},
    )
    varied.run(tmp_path / "grid", progress=False)
    assert len(made) == 2
    made.clear()
    studies = [study for _, study in varied.studies]
    for place in (0, 3, 5, 6):  # of 2 × 2 × 2 cells, every pair of two axes' values
        studies[place].run(tmp_path / "alone", progress=False)
    assert len(made) == 2 * 4
    together = fingerprints(tmp_path / "grid")
    for file, found in fingerprints(tmp_path / "alone").items():
        assert together[file] == found, file


def test_what_touches_the_image_runs_whole(mllm: Mllm, tmp_path: Path, made: list[list[str]]) -> None:
    last = Prompt(image_first=False)
    prompts = {"paper": PAPER_PROMPT, "question first": last}
    edits = {"none": (), "inside": [INSIDE], "after": [WORDS]}
    result = Grid(base(mllm), prompt=prompts, edits=edits).run(tmp_path, progress=False)
    assert len(made) == 3  # once, for "none" and "after" of the paper's prompt
    assert result.cost.forwards.tolist() == [6, 3, 3, 3, 3, 3]
    scores = result.scores.set_index(["prompt", "edits", "sample", "layer", "control"]).value
    maps = Attention()(edited(mllm, [INSIDE]), samples())
    for place, sample in enumerate(samples()):
        expected = attention_ratio(maps[place].values, maps.tokens[place].mask(sample.boxes))
        for layer in range(mllm.n_layers):
            found = scores["paper", "inside", sample.id, layer, "boxes"]
            assert found == pytest.approx(expected[layer], rel=1e-4)


def test_heads_and_layers_of_one_model_share_too(mllm: Mllm, tmp_path: Path, made: list[list[str]]) -> None:
    ranking = HeadRanking(
        model=mllm, data=samples(), indicator=Attention(per_head=True), metric="ar", batch=2
    )
    result = Grid(ranking, prompt=PROMPTS, metric=["ar", "kl"]).run(tmp_path, progress=False)
    assert len(made) == 3
    assert result.cost.forwards.fillna(0).tolist() == [6, 0, 3, 0, 3, 0]


def test_a_model_whose_image_sees_the_question_runs_whole(tmp_path: Path, made: list[list[str]]) -> None:
    mllm = wrap(*family("paligemma"))
    study = base(mllm, data=samples(2))
    assert mllm.visibility.attends == "prefix"
    result = Grid(study, edits={"none": (), "blind": [BLIND]}).run(tmp_path, progress=False)
    assert made == []
    assert result.cost.forwards.tolist() == [1, 1]


@pytest.mark.by_default(name=["gemma3"])
@pytest.mark.parametrize(("name", "n"), [("qwen2_5_vl", 1), ("internvl", 1), ("gemma3", 0)])
def test_left_padded_samples_of_other_families(
    name: str, n: int, tmp_path: Path, made: list[list[str]]
) -> None:
    mllm = wrap(*family(name))
    study = base(mllm, data=samples(4), batch=4)
    prompts = {"paper": PAPER_PROMPT, "short": SHORT}
    shared = Grid(study, prompt=prompts, edits={"none": (), "after": [WORDS]})
    shared.run(tmp_path / "grid", progress=False)
    assert made == [["0", "1", "3", "2"]] * n  # padding would lie in gemma3's windows: it runs whole
    for _, alone in shared.studies:
        alone.run(tmp_path / "alone", progress=False)
    together = fingerprints(tmp_path / "grid")
    assert all(together[file] == found for file, found in fingerprints(tmp_path / "alone").items())
    whole = mllm.trace(samples(4), SHORT, edits=[WORDS]).logits.values
    on = mllm.sharing(_prefixes(ProcessCache())).trace(samples(4), SHORT, edits=[WORDS]).logits.values
    assert abs(on - whole).max() < 1e-4 * max(abs(whole).max(), 1)


def _prefixes(shelf: ProcessCache) -> Prefixes:
    return Prefixes(shelf.once, "a model")


def test_other_pixels_heads_or_batches_are_other_prefixes(mllm: Mllm, made: list[list[str]]) -> None:
    shelf = ProcessCache()
    sharing = mllm.sharing(_prefixes(shelf))
    a, b, c = samples(3)
    trace = partial(sharing.trace, prompt=SHORT)
    trace([a, b])
    trace([a, b], prompt=PAPER_PROMPT)  # the same head
    trace([a.replace(question="where?"), b.replace(id="another name")])  # the same images
    assert len(made) == 1
    trace([b, a])
    trace([a])
    trace([a, c])
    assert len(made) == 4
    trace([a, b.replace(image=c.load())])  # the pixels of the last but one
    assert len(made) == 4
    mllm.sharing(Prefixes(shelf.once, "another model")).trace([a, b], prompt=SHORT)
    assert len(made) == 5


def test_a_shared_prefix_costs_nothing_and_gives_the_same_bits(mllm: Mllm) -> None:
    sharing = mllm.sharing(_prefixes(ProcessCache()))
    first, again = (sharing.trace(samples(2), PAPER_PROMPT, generate=2) for _ in range(2))
    fresh = mllm.sharing(_prefixes(ProcessCache())).trace(samples(2), PAPER_PROMPT, generate=2)
    assert (first.cost.forwards, again.cost.forwards) == (3, 2)
    for other in (again, fresh):
        assert (other.logits.values == first.logits.values).all()
        assert other.answers == first.answers
    nothing = mllm.sharing(_prefixes(ProcessCache(budget=0)))
    lone = [nothing.trace(samples(2), PAPER_PROMPT, generate=2) for _ in range(2)]
    assert [trace.cost.forwards for trace in lone] == [3, 3]  # too large to be kept: made again, the same
    assert (lone[1].logits.values == first.logits.values).all()


def test_without_sharing_a_model_runs_whole_as_it_always_did(mllm: Mllm, made: list[list[str]]) -> None:
    mllm.trace(samples(2), PAPER_PROMPT)
    assert made == []
    assert mllm.sharing(None).prefixes is None


def test_a_kill_changes_no_byte(mllm: Mllm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    varied = Grid(base(mllm, data=samples(10)), edits={"none": (), "blind": [BLIND]})
    varied.run(tmp_path / "one", progress=False)
    monkeypatch.setattr(runner, "compute_shard", _dies_after(1, runner.compute_shard))
    with pytest.raises(KeyboardInterrupt):
        varied.run(tmp_path / "killed", progress=False)
    monkeypatch.undo()
    varied.run(tmp_path / "killed", progress=False)
    assert fingerprints(tmp_path / "killed") == fingerprints(tmp_path / "one")


@pytest.mark.ci
def test_two_processes_change_no_byte_and_share_prefixes(tmp_path: Path, made: list[list[str]]) -> None:
    prompts = {"paper": PAPER_PROMPT, "short": SHORT}
    varied = Grid(
        base("organism", data=bundled("natural", n=10)), prompt=prompts, edits={"none": (), "blind": [BLIND]}
    )
    whole = varied.run(tmp_path / "one", progress=False)
    assert [len(batch) for batch in made] == [2] * 5
    two = varied.run(tmp_path / "two", workers=2, progress=False)
    assert fingerprints(tmp_path / "two") == fingerprints(tmp_path / "one")
    assert two.cost.tokens.sum() == whole.cost.tokens.sum()  # no worker made a prefix that another had made
    assert two.cost.forwards.tolist() == whole.cost.forwards.tolist()


def _dies_after(n: int, compute: Callable[..., None]) -> Callable[..., None]:
    done = []

    def dying(*arguments: Any) -> None:
        if len(done) == n:
            raise KeyboardInterrupt
        compute(*arguments)
        done.append(1)

    return dying


def test_when_memory_runs_out_shared_prefixes_go_first(
    mllm: Mllm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    varied = grid(mllm)
    varied.run(tmp_path / "whole", progress=False)
    trace, met = execution._run, []

    def short_of_memory(*arguments: Any) -> Any:
        met.append(1)
        if len(met) == 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return trace(*arguments)

    monkeypatch.setattr(execution, "_run", short_of_memory)
    result = varied.run(tmp_path / "short", progress=False)
    assert fingerprints(tmp_path / "short") == fingerprints(tmp_path / "whole")
    assert all("splits" not in cell.folder.read_json("manifest.json", {}) for cell in result.cells)
