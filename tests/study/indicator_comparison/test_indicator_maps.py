"""The maps of a comparison: which layer is shown and why, whose question is asked, and what a map is billed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from interp.data import Samples
from interp.errors import ImageTokenMismatch, RunError, StudyError
from interp.indicators import Maps, RandomMap
from interp.inputs.prompt import GENERIC_PROMPT, PAPER_PROMPT, Prompt, Target
from interp.inputs.sample import Sample
from interp.study import LayerSweep
from interp.study.indicator_comparison import indicator_maps
from interp.study.indicator_comparison.indicator_maps import (
    Aimed,
    Found,
    MapMaker,
    asked_otherwise,
    cost_entries,
    costs,
    fixed_targets,
    flops,
    other_questions,
    shuffled,
)
from interp.tracing import Cost
from tests.study.planted import sample, token_map
from tests.study.planted_indicators import GREEDY, Knowing, Truthful, comparison, scenes


def model_of_two_layers(heads: int = 2, hidden: int = 8) -> Any:
    layers = [torch.nn.Linear(3, 4, bias=False) for _ in range(2)]  # 12 weights each
    config = SimpleNamespace(hidden_size=hidden, num_attention_heads=heads)
    config.get_text_config = lambda decoder: config
    hf = SimpleNamespace(config=config)
    return SimpleNamespace(hf=hf, adapter=SimpleNamespace(layers=lambda _: layers))


def test_operations_are_those_of_weights_and_attention() -> None:
    """P = 24, L = 2, d = 8, S = 10: a position takes 2 · 24 + 4 · 2 · 8 · 10 = 688."""
    model = model_of_two_layers()
    assert flops(model, Cost(forwards=1, tokens=5), 10) == 688 * 5
    assert (
        flops(model, Cost(forwards=2, backwards=1, tokens=5), 10) == 688 * 5 * 2
    )  # a backward as two forwards
    assert flops(model, Cost(tokens=5, backwards=3), 10) == 688 * 5  # no forward to compare with
    model.hf.config.head_dim = 6  # heads need not fill the hidden state
    assert flops(model, Cost(forwards=1, tokens=1), 10) == 48 + 4 * 2 * 12 * 10
    assert math.isnan(flops(SimpleNamespace(), Cost(forwards=1, tokens=1), 10))


def test_entries_of_a_model_without_weights_have_no_operations() -> None:
    cost = Cost(1.5, 70, 2, 1, 30)
    assert cost_entries("it", cost, 4, 99.0) == {
        "seconds|it": 1.5, "forwards|it": 2, "backwards|it": 1, "tokens|it": 30, "peak_bytes|it": 70,
        "samples|it": 4, "flops|it": 99,
    }  # fmt: skip
    assert "flops|it" not in cost_entries("it", cost, 4, math.nan)


@pytest.mark.usefixtures("unchecked")
def test_a_map_costs_its_share_of_each_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    total = {
        **cost_entries("plain forward", Cost(2.0, 50, 4, 0, 80), 8, 160.0),
        **cost_entries("a", Cost(6.0, 90, 6, 2, 60), 2, math.nan),
    }
    monkeypatch.setattr(indicator_maps, "cost_of", lambda _: total)
    cell: Any = SimpleNamespace(
        labels={"model": "m"}, folder=None, study=SimpleNamespace(indicators={"a": 1, "never ran": 2})
    )
    plain, own = costs([cell]).to_dict("records")
    assert (plain["indicator"], plain["seconds"], plain["tokens"], plain["samples"]) == (
        "plain forward", 0.25, 10, 8,
    )  # fmt: skip
    assert (plain["seconds_ratio"], plain["tokens_ratio"], plain["flops_ratio"]) == (1, 1, 1)
    assert (own["model"], own["indicator"]) == ("m", "a")
    assert (own["seconds"], own["forwards"], own["backwards"], own["peak_bytes"]) == (3, 3, 1, 90)
    assert (own["seconds_ratio"], own["tokens_ratio"]) == (12, 3)
    assert math.isnan(own["flops_ratio"])
    for name in [name for name in total if name.endswith("plain forward")]:
        del total[name]
    (alone,) = costs([cell]).to_dict("records")
    assert math.isnan(alone["seconds_ratio"])


def answering(*texts: str) -> Any:
    def trace(samples: Any, prompt: Any, generate: int) -> Any:
        return SimpleNamespace(answers=[f"{text} {generate}" if text.strip() else text for text in texts])

    return SimpleNamespace(trace=trace)


@pytest.mark.usefixtures("unchecked")
def test_the_models_own_answer_is_fixed_for_its_copies() -> None:
    data = list(scenes(3))
    given = Target("left", reduce="mean")
    assert fixed_targets(None, data, PAPER_PROMPT, given) == [given] * 3  # no model is asked
    own = Target("greedy", reduce="mean", tokens=3)
    found = fixed_targets(answering("red", " ", "blue"), data, PAPER_PROMPT, own)
    assert found == [Target("red 3", reduce="mean"), own, Target("blue 3", reduce="mean")]


def asking(*questions: str) -> Samples:
    return Samples([sample(i, question=one, group=f"g{i}") for i, one in enumerate(questions)])


def test_each_sample_is_asked_what_it_does_not_ask_itself() -> None:
    data = asking("a?", "a?", "b?", "a?", "c?")
    for seed in range(6):
        found = other_questions(data, [True, True, True, False, True], seed)
        assert found[3] is None
        asked = [None if other is None else data[other].question for other in found]
        assert all(asked[i] not in (None, data[i].question) for i in (0, 1, 2, 4))
        assert 3 not in found
    assert other_questions(data, [False] * 5, 0) == (None,) * 5
    assert other_questions(asking("a?", "a?"), [True] * 2, 0) == (None, None)
    assert other_questions(asking("a?", "b?"), [True] * 2, 0) == (1, 0)
    many = asking(*(f"{i}?" for i in range(9)))
    first, again, other = (other_questions(many, [True] * 9, seed) for seed in (0, 0, 1))
    assert first == again != other
    assert len(set(first)) == 9  # a ring: each lends once


def test_another_question_brings_its_options_and_answer() -> None:
    one, other = sample(0), sample(1, options=["left", "right"])
    found = asked_otherwise(one, other)
    assert (found.question, found.options, found.answer) == (other.question, other.options, "right")
    assert (found.boxes, found.id, found.group) == (one.boxes, "s0", one.group)
    np.testing.assert_array_equal(found.load(), one.load())


def test_a_stage_says_which_weights_are_shuffled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indicator_maps, "randomised", lambda *given, **options: (given, options))
    assert shuffled("model", "all", 3) == (("model",), {"everything": True, "seed": 3})
    assert shuffled("model", 0.25, 4) == (("model", 0.25), {"seed": 4})


@pytest.mark.usefixtures("unchecked")
def test_a_copy_of_each_stage_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indicator_maps, "shuffled", lambda mllm, share, seed: [share, seed])
    maker = MapMaker(SimpleNamespace(seed=7))
    first = maker._copy(None, 0.5)
    assert first == [0.5, 7]
    assert maker._copy(None, 0.5) is first
    assert maker._copy(None, "all") == ["all", 7]


@pytest.mark.usefixtures("unchecked")
def test_a_dear_indicator_is_checked_on_an_eighth() -> None:
    maker = MapMaker(SimpleNamespace(few={"dear": 16, "dearest": 3}))
    checked = {
        label: [rank for rank in range(20) if maker._checks(label, Found(token_map(sample(0)), "", rank))]
        for label in ("dear", "dearest", "cheap")
    }
    assert checked == {"dear": [0, 1], "dearest": [0], "cheap": list(range(20))}


def test_an_aimed_indicator_explains_its_target() -> None:
    given: dict[str, Any] = {}

    class Recording(Knowing):
        def __call__(self, mllm: Any, samples: Any, **options: Any) -> Maps:
            given.update(options)
            return super().__call__(mllm, samples, **options)

    aimed = Aimed(Recording(), Target("left"))
    aimed(Truthful(), list(scenes(1)), prompt=GENERIC_PROMPT)
    assert given == {"prompt": GENERIC_PROMPT, "target": Target("left")}
    assert aimed.to_dict() == {**Recording().to_dict(), "target": Target("left").to_dict()}


@dataclass(frozen=True)
class Adding(Knowing):
    """Its layers add up."""

    layers_add_up: bool = True


def resolved(tmp_path: Path, *, data: Samples | None = None, **changes: Any) -> Any:
    base = comparison(data=scenes(4) if data is None else data, removals=(), n_checked=0)
    return base.replace(**changes).resolved(tmp_path, progress=False)


def test_layers_that_add_up_need_no_validation(tmp_path: Path) -> None:
    given = {"adding": Adding(layers=3), "one layer": Knowing(layers=1, good=0), "named": Knowing(layers=2)}
    found = resolved(tmp_path, indicators=given, layers={"named": 0}, choices={"named": "by hand"})
    assert found.layers == {"adding": "sum", "named": 0}
    assert found.choices == {"adding": "its layers added up", "named": "by hand"}
    assert not list(tmp_path.iterdir())  # nothing was run


def held_out(*groups: str) -> Samples:
    """Validation samples of these groups."""
    rows = scenes(len(groups), split="validation", start=40)
    named = [one.replace(group=group, id=one.id) for one, group in zip(rows, groups, strict=True)]
    return Samples(named, "held out")


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        (("v0", "v1", "v2"), "sharing no group with these. It was chosen on only 3 samples."),
        (("v0", "test-3", "v2"), "SOME OF WHOSE GROUPS ARE AMONG THESE. It was chosen on only 3 samples."),
    ],
)
def test_a_choice_on_shared_groups_is_told(tmp_path: Path, groups: tuple[str, ...], said: str) -> None:
    found = resolved(
        tmp_path, indicators={"layered": Knowing(layers=3, good=2)}, validation=held_out(*groups)
    )
    assert found.layers == {"layered": 2}
    assert found.validation is None
    said = f"the best mean AUROC of all layers on 3 other samples of held out, {said}"
    assert found.choices["layered"].startswith(said)


def test_a_layer_is_chosen_as_the_study_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[LayerSweep, Any]] = []
    run = LayerSweep.run

    def recording(study: LayerSweep, *given: Any, **options: Any) -> Any:
        seen.append((study, options["mllm"]))
        return run(study, *given, **options)

    monkeypatch.setattr(LayerSweep, "run", recording)
    changes = {
        "prompt": GENERIC_PROMPT,
        "rule": "center",
        "batch": 3,
        "choose_by": "ar",
        "target": Target("left"),
    }
    own = Knowing(layers=3, good=2)
    resolved(tmp_path, indicators={"layered": own}, validation=held_out("v0", "v1"), **changes)
    ((sweep, mllm),) = seen
    assert (sweep.prompt, sweep.rule, sweep.batch, sweep.metrics) == (GENERIC_PROMPT, "center", 3, ("ar",))
    assert sweep.indicator == Aimed(own, Target("left"))
    assert mllm is sweep.model


@dataclass(frozen=True)
class Fixed(Knowing):
    """Looks at the marker at layer 0 and at the place of the sample's own box at layer 1, whatever is asked for."""

    def _map(self, one: Sample, inside: np.ndarray) -> xr.DataArray:
        number = int(one.id[1:])
        values = np.zeros((2, len(inside)))
        values[[0, 1], [19, 5 * (number // 4 % 4) + number % 4]] = 1
        return xr.DataArray(values, {"layer": [0, 1]}, dims=("layer", "token"))


def test_the_first_truth_chooses_the_layer(tmp_path: Path) -> None:
    held, fixed = held_out("v0", "v1"), {"fixed": Fixed()}
    for truth, layer in ((("boxes", "marker"), 1), (("marker", "boxes"), 0)):
        found = resolved(tmp_path, indicators=fixed, validation=held, truth=truth, choose_by="pointing")
        assert found.layers == {"fixed": layer}
        assert "AUROC" not in found.choices["fixed"]


@pytest.mark.parametrize(("fails", "layered"), [(2, True), (3, False)])
def test_the_first_samples_show_whether_there_are_layers(tmp_path: Path, fails: int, layered: bool) -> None:
    own = Knowing(layers=3, fails=tuple(f"s{i}" for i in range(fails)))
    if layered:
        with pytest.raises(StudyError, match=r"'it' gives a map per layer.*layers=\{'it': 3\}"):
            resolved(tmp_path, indicators={"it": own})
    else:
        assert resolved(tmp_path, indicators={"it": own}).layers == {}


@dataclass(frozen=True)
class Lost(Knowing):
    """A server that goes away on the samples named."""

    lost: tuple[str, ...] = ()

    def __call__(self, mllm: Any, samples: Sequence[Sample], **options: Any) -> Maps:
        if any(one.id in self.lost for one in samples):
            raise RunError("the server is gone.")
        return super().__call__(mllm, samples, **options)


@pytest.mark.parametrize("lost", ["s0", "s3"])  # when layers are looked for, and later
def test_a_lost_server_stops_the_run(tmp_path: Path, lost: str) -> None:
    study = comparison(data=scenes(4), indicators={"it": Lost(lost=(lost,))}, removals=(), n_checked=0)
    with pytest.raises(RunError, match="the server is gone"):
        study.run(tmp_path, progress=False)


@dataclass(frozen=True)
class Picky(Knowing):
    """Gives NaN for one sample, and nothing for a question that is not the sample's own."""

    broken: str = ""

    def __call__(
        self, mllm: Any, samples: Sequence[Sample], *, prompt: Prompt = PAPER_PROMPT, target: Target = GREEDY
    ) -> Maps:
        if any(f"thing {one.id[1:]} " not in one.question for one in samples):
            raise ImageTokenMismatch("another question.")
        return super().__call__(mllm, samples, prompt=prompt, target=target)

    def _map(self, one: Sample, inside: np.ndarray) -> xr.DataArray:
        return super()._map(one, inside) * (np.nan if one.id == self.broken else 1.0)


def test_a_map_that_is_lost_costs_no_other(tmp_path: Path) -> None:
    indicators = {"picky": Picky(broken="s2"), "random": RandomMap()}
    study = comparison(data=scenes(4), indicators=indicators, removals=(), n_checked=None, batch=4)
    result = study.run(tmp_path, progress=False)
    lost = result.failures.set_index("sample")
    assert set(lost.control) == {"picky"}
    assert "holds NaN or infinity" in lost.reason["s2"]
    assert set(lost.reason.drop("s2")) == {"in a sanity check: another question."}
    assert sorted(lost.index) == ["s0", "s1", "s2", "s3"]  # the broken map is not checked
    scores = result.scores[result.scores.measure.isin(["auroc", "question"])]
    counts = scores.groupby(["indicator", "measure", "against"]).size()
    assert counts["picky", "auroc", "boxes"] == 3
    assert counts["random", "auroc", "boxes"] == counts["random", "question", "spearman"] == 4
    assert ("picky", "question", "spearman") not in counts
