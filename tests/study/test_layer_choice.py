from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import xarray as xr

from interp.data import Samples, bundled
from interp.errors import StudyError
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.study import Grid, GridResult, LayerChoice, Result, choose_layer
from interp.study.layer_choice import (
    check_metric,
    check_split,
    is_choice,
    layers_of,
    metrics_of,
    metrics_to_choose_by,
)
from tests.study.planted import Planted, sample, sweep


def of(split: str | None, start: int = 0, name: str = "planted") -> Samples:
    meta = {} if split is None else {"split": split}
    return Samples([sample(number, meta=meta) for number in range(start, start + 6)], name)


def run(data: Samples | dict[str, Samples], out: Path) -> Result:
    if isinstance(data, Samples):
        return sweep(data=data).run(out, progress=False)
    return Grid(sweep(), data=data).run(out, progress=False)


def test_choosing_a_layer_on_test_samples_is_refused(tmp_path: Path) -> None:
    result = run(of("test"), tmp_path)
    for ask in (choose_layer, Result.best_layer):
        with pytest.raises(
            StudyError, match=r"got planted of the test split. A maximum over many candidates"
        ):
            ask(result, "ar")
    with pytest.raises(StudyError, match=r'Choose on split="validation" and report on "test", or pass descr'):
        result.best_layer()


def test_whoever_only_describes_may_and_the_caption_says_so(tmp_path: Path) -> None:
    result, other = run(of("test"), tmp_path), run(of("test", start=40), tmp_path)
    choice = result.best_layer(descriptive=True)
    assert (choice.layers, choice.split) == ({"planted": 1}, "test")
    assert "Descriptive only" in choice.sentence(result)
    assert choice.held_out(other)
    assert "test is not for choosing" in choice.sentence(other)
    assert result.report(tmp_path / "report.html").exists()  # features a layer, as a description


def test_the_paper_takes_the_layer_with_the_lowest_kl(tmp_path: Path) -> None:
    """Maps of 1 with 1 + gain inside the box: KL falls as the gain grows; AR would say the same."""
    data, metrics = of("validation"), metrics_to_choose_by("kl")
    found = sweep(data=data, metrics=metrics, indicator=Planted(gain=(0.5, 2.0, 3.0))).run(
        tmp_path, progress=False
    )
    choice = choose_layer(found, "kl")
    assert (choice.metric, choice.layers, choice.warning) == ("kl", {"planted": 2}, "")
    assert "layer 2 of planted: the best mean KL divergence" in choice.sentence(found)


@dataclass(frozen=True)
class TwoKinds(Planted):
    """Samples below 20 are seen strongly at layer 1, the others weakly at layer 2."""

    def _map(self, sample: Sample, tokens: TokenMap) -> xr.DataArray:
        gain = (0.0, 5.0, 0.0) if int(sample.id[1:]) < 20 else (0.0, 0.0, 1.0)
        return Planted(gain)._map(sample, tokens)


def test_each_data_set_counts_the_same_whatever_its_size(tmp_path: Path) -> None:
    """AR is 6/1.5 = 4 or 2/1.1 = 1.8 and else 1: by sets 2.5 against 1.4, over all samples 1.5 against 1.7."""
    meta = {"split": "validation"}
    few, many = (Samples([sample(i, meta=meta) for i in range(*at)]) for at in ((0, 2), (20, 30)))
    grid = Grid(sweep(indicator=TwoKinds(), metrics=("ar",)), data={"few": few, "many": many})
    assert choose_layer(grid.run(tmp_path, progress=False)).layers == {"planted": 1}


@pytest.mark.parametrize("metric", ["kl", "ar"])
def test_it_says_where_no_layer_beats_a_uniform_map(metric: str, tmp_path: Path) -> None:
    darker = Planted(gain=(-0.6, -0.2, -0.9))  # each layer's map is darker inside the box than outside
    data = of("validation")
    found = sweep(data=data, metrics=metrics_to_choose_by(metric), indicator=darker).run(
        tmp_path, progress=False
    )
    choice = choose_layer(found, metric)
    assert choice.layers == {"planted": 1}
    assert "planted: by " in choice.warning
    assert "no layer is better than a uniform map, so the chosen layer is the least bad" in choice.sentence(
        found
    )
    alone = sweep(data=data, metrics=("kl",), indicator=darker).run(tmp_path, progress=False)
    assert choose_layer(alone, "kl").warning == ""  # without the gain nobody knows


def test_by_a_metric_without_a_chance_value_nothing_is_warned(tmp_path: Path) -> None:
    """A map with more inside the box is nearer to it; of JS nobody knows what a uniform map scores."""
    found = sweep(data=of("validation"), metrics=("js",)).run(tmp_path, progress=False)
    choice = choose_layer(found, "js")
    assert (choice.layers, choice.warning) == ({"planted": 1}, "")


@pytest.mark.parametrize("split", ["validation", "train", None])
def test_other_samples_may_be_chosen_on(split: str | None, tmp_path: Path) -> None:
    choice = choose_layer(run(of(split), tmp_path))
    assert (choice.layers, choice.split) == ({"planted": 1}, split)
    sentence = choice.sentence(run(of("test", start=40), tmp_path))
    which = (
        f"on {split} samples that share" if split else "on other samples, which share"
    )  # no split: none is said
    assert (
        f"{which} no group with these. It was chosen on only 6 samples in 3 groups. On other samples"
        in sentence
    )


@pytest.mark.parametrize(
    ("n", "n_groups", "said"),
    [
        (4, 4, "It was chosen on only 4 samples. On other samples another layer may well be the best."),
        (1, 1, "It was chosen on only 1 sample. On other samples another layer may well be the best."),
        (
            40,
            1,
            "It was chosen on only 40 samples in 1 group. On other samples another layer may well be the best.",
        ),
        (20, 20, ""),
        (0, 3, ""),  # how many is not known
    ],
)
def test_a_choice_on_few_samples_says_so(n: int, n_groups: int, said: str) -> None:
    choice = LayerChoice("ar", {"m": 1}, frozenset(map(str, range(n_groups))), "validation", n)
    assert choice.caution == said


def test_one_test_sample_among_others_is_enough_to_refuse(tmp_path: Path) -> None:
    mixed = of("validation") + of("test", start=40)[:1]
    assert mixed.split == "test + validation"
    with pytest.raises(StudyError, match="of the test split"):
        choose_layer(run(mixed, tmp_path))
    grid = run({"good": of("validation"), "bad": of("test", start=40, name="leak")}, tmp_path)
    with pytest.raises(StudyError, match="got leak of the test split"):
        choose_layer(grid)


def test_the_message_names_what_would_be_chosen() -> None:
    with pytest.raises(StudyError, match="to choose the top heads on; got planted of the test"):
        check_split([of("test")], "the top heads")
    check_split([of("test")], "the top heads", descriptive=True)
    check_split([of("latest"), of(None)], "the top heads")  # a name that only contains the word


@pytest.mark.parametrize("name", ["natural", "medical"])
def test_bundled_samples_know_their_split(name: str) -> None:
    for split in ("validation", "test"):
        data = bundled(name, split=split, n=3)
        assert data.split == split
        assert data[:1].split == data.filter(lambda found: True).split == split
    assert Samples([sample(0)]).split is None


def test_one_shared_group_is_enough_to_be_no_other_sample(unchecked: None) -> None:
    choice = LayerChoice("ar", {"m": 1}, frozenset({"a", "b"}))
    held_out = [choice.held_out(SimpleNamespace(groups=frozenset(found))) for found in ("bc", "cd")]  # type: ignore[arg-type]
    assert held_out == [False, True]


def test_of_equal_layers_the_first_is_chosen(tmp_path: Path) -> None:
    found = sweep(data=of("validation"), indicator=Planted(gain=(0.0, 3.0, 3.0)))
    assert choose_layer(found.run(tmp_path, progress=False)).layers == {"planted": 1}


def test_maps_as_good_as_a_uniform_one_do_not_beat_it(tmp_path: Path) -> None:
    flat = sweep(data=of("validation"), indicator=Planted(gain=(0.0, 0.0, 0.0)), metrics=("ar",))
    result = flat.run(tmp_path, progress=False)
    assert "no layer is better than a uniform map" in choose_layer(result).warning
    assert layers_of(result, 2) == {"planted": 2}
    for layer in (3, -1, LayerChoice("ar", {"other": 1}, frozenset())):
        with pytest.raises(StudyError, match=r"expected a layer of \[0, 1, 2\] for model planted"):
            layers_of(result, layer)
    with pytest.raises(StudyError, match="layer is a layer 0, 1, …, or what"):
        layers_of(result, True)


def test_a_choice_names_what_it_was_made_on(tmp_path: Path) -> None:
    """Of two sets with different splits both are named; groups and samples are those of both."""
    parts = {"one": of("validation"), "two": of("train", start=20, name="two")}
    choice = choose_layer(run(parts, tmp_path))
    assert (choice.metric, choice.split, choice.n) == ("ar", "train + validation", 12)
    assert choice.groups == {f"patient-{i}" for i in (0, 1, 2, 10, 11, 12)}


def test_of_many_samples_in_enough_groups_nothing_is_cautioned() -> None:
    for n, n_groups, cautious in ((19, 19, True), (20, 19, True), (21, 20, False)):
        choice = LayerChoice("ar", {"m": 1}, frozenset(map(str, range(n_groups))), None, n)
        assert bool(choice.caution) == cautious


def test_layers_are_given_for_models_that_measured_something(unchecked: None) -> None:
    """One layer stands for every model; a choice may name models that are not there, but must name those that are."""
    frame = pd.DataFrame({"model": ["a", "a", "b"], "layer": [0, 1, 1]})
    cells = [
        SimpleNamespace(
            labels={"model": model}, measured=model != "c", study=SimpleNamespace(metrics=metrics)
        )
        for model, metrics in (("a", ("kl", "ar")), ("b", ("ar", "js")), ("c", ("ar",)))
    ]
    result = object.__new__(GridResult)
    object.__setattr__(result, "cells", cells)
    result.__dict__["scores"] = frame
    assert layers_of(result, 1) == {"a": 1, "b": 1}
    assert layers_of(result, LayerChoice("ar", {"b": 1, "a": 0, "z": 9}, frozenset())) == {"a": 0, "b": 1}
    with pytest.raises(StudyError, match=r"expected a layer of \[1\] for model b, got 0"):
        layers_of(result, 0)
    with pytest.raises(StudyError, match=r"for model a, got None"):
        layers_of(result, LayerChoice("ar", {"b": 1}, frozenset()))
    assert metrics_of(result) == ("kl", "ar", "js")
    check_metric(result, "js")
    for wrong in ("iou", None, ["ar"]):
        with pytest.raises(StudyError, match="one of the metrics measured, kl, ar, js; got"):
            check_metric(result, wrong)
    with pytest.raises(StudyError, match=r"expected the result of a study, as study\.run"):
        check_metric(frame, "ar")


def test_a_choice_is_what_choose_layer_returns(unchecked: None) -> None:
    is_choice(None)
    is_choice(LayerChoice("ar", {}, frozenset()))
    for wrong in (3, {"m": 1}):
        with pytest.raises(StudyError, match=r"choice is what interp\.choose_layer returns, or None; got"):
            is_choice(wrong)
    with pytest.raises(StudyError, match="descriptive is True or False; got 1"):
        choose_layer(object.__new__(GridResult), descriptive=1)
