from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from interp.data import Samples
from interp.errors import StudyError
from interp.methods import VGRefine
from interp.study import HeadRanking, ModelSpec, Refinement, Result
from interp.study.head_ranking.head_set import (
    CHECKPOINTS,
    PUBLISHED,
    HeadSet,
    published_checkpoint,
    published_heads,
)
from interp.tracing import Site
from tests.study.planted import Model, sample, samples, sweep
from tests.study.planted_heads import PlantedHeads, ranking


def test_a_top_is_a_reference_and_resolving_twice_computes_once(tmp_path: Path) -> None:
    study = ranking(metric="kl")
    heads = study.top(3)
    assert study.indicator.calls == []
    assert heads.resolve(tmp_path, progress=False) == ((1, 1), (0, 1), (2, 0))  # gains 7, 3, 3
    n_calls = len(study.indicator.calls)
    assert n_calls == 6
    assert study.top(1).resolve(tmp_path, progress=False) == ((1, 1),)
    assert heads.resolve(tmp_path, progress=False, mllm=Model()) == ((1, 1), (0, 1), (2, 0))
    assert len(study.indicator.calls) == n_calls
    assert len(list(tmp_path.glob("head-ranking-*"))) == 1


def test_a_ranking_runs_where_and_with_what_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    top = SimpleNamespace(top=lambda k: ((0, k),))
    monkeypatch.setattr(HeadRanking, "run", lambda study, out, **given: asked.append((out, given)) or top)
    model = Model()
    heads = ranking(model=model).top(2)
    options: dict[str, Any] = {"workers": 2, "progress": False, "mllm": model}
    assert heads.resolve("there", **options) == ((0, 2),)
    study = Refinement(data=samples(2), model=model, method=VGRefine(heads=heads, layers=(1,)))
    assert study.resolved("there", **options).method.heads == ((0, 2),)
    assert asked == [("there", options)] * 2


def test_the_pairs_of_a_reference_are_known_only_once_it_ran() -> None:
    with pytest.raises(
        StudyError, match=r'known once the ranking has run: write pairs = heads\.resolve\("runs"\)'
    ):
        _ = ranking().top(2).pairs


def test_sets_are_values(tmp_path: Path) -> None:
    study = ranking(model=ModelSpec("somewhere"))
    heads = study.top(2)
    assert heads == study.replace().top(2)
    assert hash(heads) == hash(study.replace().top(2))
    assert len({heads, study.replace().top(2), study.top(3), study.replace(metric="kl").top(2)}) == 3
    assert pickle.loads(pickle.dumps(heads)) == heads
    stored = json.loads(heads.to_json(Model()))
    assert stored == {"heads": "ranking", "k": 2, "ranking": study.to_dict(Model())}
    assert heads.to_json(Model()) != study.replace(data=samples(6)).top(2).to_json(Model())
    assert len(heads) == 2
    listed = HeadSet.of([(15, 4), (3, 2)], name="mine")
    assert listed == HeadSet.of([(15, 4), (3, 2)], name="another name")
    assert listed != HeadSet.of([(3, 2), (15, 4)])  # the order is the rank
    assert json.loads(listed.to_json()) == {"heads": "listed", "pairs": [[15, 4], [3, 2]]}
    assert listed.resolve(tmp_path) == listed.pairs == ((15, 4), (3, 2))
    assert list(tmp_path.iterdir()) == []
    assert Site(heads=listed.pairs).resolve(16, 8) == {15: (4,), 3: (2,)}


def test_more_heads_than_are_ranked_are_refused(tmp_path: Path) -> None:
    study = ranking(indicator=PlantedHeads(silent=((0, 0),)))
    with pytest.raises(StudyError, match="has 5 ranked heads"):
        study.top(6).resolve(tmp_path, progress=False)


def test_heads_are_not_chosen_on_the_test_split() -> None:
    with pytest.raises(
        StudyError, match=r'chosen on a validation split; got split="test".*too good on the samples'
    ):
        ranking(split="test").top(2)
    with pytest.raises(StudyError, match="chosen on a validation split"):
        HeadSet(ranking=ranking(split="test"), k=2)
    assert ranking(split="train").top(2).k == 2


@pytest.mark.parametrize("k", [0, -1, 2.0, True, None])
def test_k_is_a_number_of_heads(k: Any, unchecked: None) -> None:
    with pytest.raises(StudyError, match=r"top\(k\) takes a whole number of heads ≥ 1; got"):
        ranking().top(k)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], r"a list of heads. Write .* HeadSet.of\(\[\(15, 4\), …\]\)"),
        (None, r"heads are \(layer, head\) pairs"),
        ("all", r"heads are \(layer, head\) pairs .*got 'all'"),
        ([3, 4], r"pairs such as \[\(15, 4\), \(16, 5\)\]; got \[3, 4\]"),
        ([(3, 4), 5], "not a mixture"),
        ([(3, -1)], "a head is an integer, counted from 0; got -1"),
        ([(3, 4, 5)], "pairs"),
        ([(3, 4), (1, 1), (3, 4)], r"each head is named once; got \[\(3, 4\)\] more than once"),
    ],
)
def test_a_list_that_is_none_is_refused(pairs: Any, message: str, unchecked: None) -> None:
    with pytest.raises(StudyError, match=message):
        HeadSet.of(pairs)


@pytest.mark.parametrize("other", [sweep(), "kl", ModelSpec("somewhere")])
@pytest.mark.usefixtures("unchecked")
def test_the_top_is_of_a_head_ranking_alone(other: Any) -> None:
    with pytest.raises(StudyError, match=r"ranking is an interp\.HeadRanking; got"):
        HeadSet(ranking=other, k=2)


def test_a_set_is_a_ranking_or_a_list_and_not_both() -> None:
    for changes in ({}, {"ranking": ranking(), "k": 2, "listed": ((1, 1),)}):
        with pytest.raises(StudyError, match="either the top of a ranking or a list of heads"):
            HeadSet(**changes)


def test_the_published_heads_are_those_of_the_official_code() -> None:
    heads = published_heads("huatuogpt-vision-7b")
    text = (
        "(15,4)(16,5)(15,1)(10,6)(4,0)(15,24)(19,6)(8,3)(19,18)(18,10)(4,17)(16,2)(16,17)(16,1)(14,23)(6,18)"
        "(18,19)(6,11)(0,2)(17,26)"
    )
    assert "".join(f"({layer},{head})" for layer, head in heads.pairs) == text
    assert len(heads) == 20
    assert heads.masked_layer == 16
    assert "2603.14323" in heads.source
    found = Site(heads=heads.pairs).resolve(28, 28)  # the model has 28 layers of 28 heads
    assert sum(len(own) for own in found.values()) == 20
    assert all(name == own.name for name, own in PUBLISHED.items())
    with pytest.raises(StudyError, match=r"published for huatuogpt-vision-7b; got 'gpt-2'"):
        published_heads("gpt-2")


def test_heads_are_held_out_only_if_no_group_was_seen(tmp_path: Path) -> None:
    heads = ranking(data=samples(6)).top(2)
    apart: Result = sweep(data=samples(6, start=100)).run(tmp_path, progress=False)
    leaking = sweep(data=samples(4, start=200) + Samples([sample(0)])).run(tmp_path, progress=False)
    assert heads.held_out(apart)
    assert (
        "the top 2 heads by mean attention ratio on samples of planted that share no group"
        in heads.sentence(apart)
    )
    assert not heads.held_out(leaking)
    assert "Descriptive only" in heads.sentence(leaking)
    own = ranking(data=samples(6)).run(tmp_path, progress=False)
    assert not heads.held_out(own)
    published = published_heads("huatuogpt-vision-7b")
    assert not published.held_out(apart)  # what they were chosen on is not known
    assert published.sentence(apart).endswith("what they were chosen on is not known here.")


HUB = "FreedomIntelligence/HuatuoGPT-Vision-7B"


@pytest.mark.parametrize("hub_id", CHECKPOINTS)
def test_the_hub_id_is_the_checkpoint(hub_id: str) -> None:
    assert published_checkpoint(ModelSpec(hub_id)) == hub_id
    assert published_checkpoint(ModelSpec(hub_id, revision="main", dtype="bfloat16")) == hub_id


@pytest.mark.parametrize(
    "spec",
    [
        ModelSpec("someone/HuatuoGPT-Vision-7B"),
        ModelSpec(HUB + "-Qwen2.5VL"),
        ModelSpec(HUB, lora="adapters/radiology"),
        ModelSpec(HUB, vision_tower="another/tower"),
        ModelSpec("organism"),
    ],
)
def test_others_are_not(spec: ModelSpec) -> None:
    assert published_checkpoint(spec) is None


def test_a_folder_of_its_name_is_not_known_to_be_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / HUB
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(f"---\nbase_model: {HUB}\n---\nA fine-tuned copy of `{HUB}`.")
    assert published_checkpoint(ModelSpec(str(folder))) is None
    monkeypatch.chdir(tmp_path)
    assert published_checkpoint(ModelSpec(HUB)) is None  # a local folder, whatever the id looks like


def test_a_snapshot_of_the_cache_and_a_converted_copy_are(tmp_path: Path) -> None:
    snapshot = tmp_path / f"models--{HUB.replace('/', '--')}-hf" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    assert published_checkpoint(ModelSpec(str(snapshot))) == f"{HUB}-hf"
    other = tmp_path / "models--someone--HuatuoGPT-Vision-7B" / "snapshots" / "0123"
    other.mkdir(parents=True)
    assert published_checkpoint(ModelSpec(str(other))) is None
    copy = tmp_path / "my-copy"
    copy.mkdir()
    card = "# HuatuoGPT\n\nConverted from `{}` (LLaVA layout) by interp 0.1.0 for transformers 5.23."
    (copy / "README.md").write_text(card.format(HUB))
    assert published_checkpoint(ModelSpec(str(copy))) == HUB
    (copy / "README.md").write_text(card.format("HuatuoGPT-Vision-7B"))  # of a folder, which proves nothing
    assert published_checkpoint(ModelSpec(str(copy))) is None


def test_a_set_says_what_it_holds() -> None:
    assert repr(HeadSet.of([(15, 4)], name="mine")) == "HeadSet('mine', 1 head as (layer, head): (15, 4))"
    many = repr(HeadSet.of([(layer, 0) for layer in range(40)]))
    shown = many.count("(") - 2
    assert f", and {40 - shown} more)" in many
    assert repr(ranking(metric="kl").top(3)) == "HeadSet(top 3 of 'Head ranking', planted · planted, by kl)"


def test_a_notebook_lists_heads_by_layer_in_order() -> None:
    heads = HeadSet.of([(16, 5), (2, 1), (16, 0)], name="mine", source="a paper", masked_layer=7)
    words = re.sub(r"<[^>]*>|\s+", " ", heads._repr_html_())
    words = " ".join(words.split())
    assert words.index("layer 2 head 1") < words.index("layer 16 head 5, head 0")
    assert "source a paper" in words
    assert "masked layer 7" in words


def test_a_sentence_names_the_split_and_the_source(tmp_path: Path) -> None:
    own = Samples([sample(number, meta={"split": "validation"}) for number in range(4)], "held out")
    apart: Result = sweep(data=samples(4, start=100)).run(tmp_path, progress=False)
    assert ranking(data=own, metric="kl").top(2).sentence(apart) == (
        "the top 2 heads by mean KL divergence (nats) on validation samples of held out that share no group with these."
    )
    assert HeadSet.of([(1, 2), (3, 4)]).sentence(apart).startswith("2 heads of a list; what")
    assert (
        HeadSet.of([(1, 2)], name="mine", source="a paper")
        .sentence(apart)
        .startswith("1 heads of mine (a paper); what")
    )
