from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest

from interp.data import Samples, nifti
from interp.errors import RunError, StudyError
from interp.report.tables import read_csv
from interp.study import Grid, Result, choose_layer, matched
from interp.study.layer_sweep.result import _chance, _number, layer_table, lesion_hits
from tests.study.planted import Model, Planted, sample, samples, sweep
from tests.study.planted_methods import Said, refinement


def many(n: int = 48, start: int = 0) -> Samples:
    """Samples of n / 2 groups, in which the box's row decides how easy it is."""
    return samples(n, start=start)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Two data sets: 24 groups and 3 groups."""
    grid = Grid(sweep(batch=8), data={"large": many(), "small": samples(6, start=100)})
    return grid.run(tmp_path_factory.mktemp("runs"), progress=False)


def test_the_summary_holds_plain_means_and_counts(result: Result) -> None:
    summary = result.summary().set_index(["data", "layer", "metric", "control"])
    assert len(summary) == 2 * 3 * 3 * 3
    row = summary.loc[("large", 1, "ar", "centre_prior")]
    scores = result.scores
    keep = (scores.data == "large") & (scores.layer == 1) & (scores.metric == "ar")
    values = scores[keep & (scores.control == "centre_prior")]
    assert row["mean"] == pytest.approx(values.value.mean())
    assert (row["n"], row["n_groups"], row["n_undefined"]) == (48, 24, 0)
    by_group = values.groupby("group").value.mean()
    error = by_group.std() / np.sqrt(len(by_group))  # the bootstrap's width agrees with a normal one
    assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * error, rel=0.25)


def test_few_groups_carry_a_sentence(result: Result) -> None:
    notes = result.summary().groupby("data").note.first()
    assert notes["large"] == ""
    assert notes["small"].startswith("Only 3 groups")


def test_differences_are_paired_by_sample(result: Result) -> None:
    frame = result.at_layer(1)
    assert set(frame.layer) == {1}
    keys = ["data", "metric", "control"]
    found = frame.set_index(keys)["mean"]
    for null in ("shuffled_boxes", "centre_prior"):
        expected = found["large", "ar", "boxes"] - found["large", "ar", null]
        assert found["large", "ar", f"boxes − {null}"] == pytest.approx(expected)
    # own boxes score the same everywhere, so the difference varies just as its null does
    spread = frame.set_index(keys)
    gap = spread.loc[("large", "ar", "boxes − centre_prior")]
    null = spread.loc[("large", "ar", "centre_prior")]
    assert gap["high"] - gap["low"] == pytest.approx(null["high"] - null["low"], rel=0.02)


def test_the_best_layer_follows_the_metrics_direction(result: Result) -> None:
    assert result.best_layer("ar").layers == {"planted": 1}
    assert result.best_layer("js").layers == {"planted": 1}  # lower is better
    with pytest.raises(StudyError, match="metrics measured, ar, kl_gain, js; got 'iou'"):
        result.best_layer("iou")


def test_a_layer_is_held_out_only_if_no_group_was_seen(result: Result, tmp_path: Path) -> None:
    assert not result.best_layer().held_out(result)
    assert "Descriptive only" in result.best_layer().sentence(result)
    other = sweep(data=many(start=200), indicator=Planted((0.0, 1.0, 5.0)), batch=8)
    choice = choose_layer(other.run(tmp_path, progress=False), "ar")
    assert choice.held_out(result)
    assert "layer 2 of planted" in choice.sentence(result)
    assert "share no group" in choice.sentence(result)
    assert set(result.at_layer(choice).layer) == {2}
    leaking = samples(6, start=200) + Samples([sample(0)])
    leak = choose_layer(sweep(data=leaking).run(tmp_path, progress=False))
    assert not leak.held_out(result)


def test_a_choice_for_another_model_is_refused(result: Result, tmp_path: Path) -> None:
    other = sweep(model=Model(family="other")).run(tmp_path, progress=False)
    with pytest.raises(StudyError, match="for model planted, got None"):
        result.at_layer(choose_layer(other))
    with pytest.raises(StudyError, match=r"a layer of \[0, 1, 2\] for model planted, got 9"):
        result.at_layer(9)


def test_the_table_has_a_line_per_layer_and_marks_the_choice(result: Result) -> None:
    text = result.table("ar", choice=result.best_layer())
    lines = [line for line in text.splitlines() if line.startswith("│")]
    assert [line.split("│")[1].strip() for line in lines] == ["0", "1 *", "2"]
    assert "3.08 [3.08, 3.08]" in lines[1]  # (1 + 3) · 20 / 26
    assert "3.08 (3 groups)" in lines[1]
    assert "higher is better" in text
    with pytest.raises(StudyError, match="got 'kl'"):
        result.table("kl")


def test_there_is_a_figure_for_each_metric(result: Result) -> None:
    figures = result.figures()
    assert list(figures) == ["ar", "kl_gain", "js"]
    lines = {trace.name: trace for trace in figures["ar"].data}
    assert lines["large"].y == pytest.approx([1.0, 4 * 20 / 26, 2 * 20 / 22])
    assert "large · shuffled boxes" in lines
    assert lines["large · centre prior"].line.dash == "dot"
    assert "large 95 %" in lines
    assert "small 95 %" not in lines  # too few groups for a band: a line for each group instead
    assert "small · group patient-50" in lines


def test_a_sample_under_two_models_is_one_sample(tmp_path: Path) -> None:
    models = {"a": Model(fingerprint="a" * 64), "b": Model(fingerprint="b" * 64)}
    grid = Grid(sweep(metrics=("ar",)), model=models, data={"x": samples(4), "y": samples(3, start=50)})
    found = grid.run(tmp_path, progress=False)
    assert len(found.samples) == 14
    assert found.n_samples == 7
    assert "with 7 samples (x, y)" in found.report(tmp_path / "page.html").read_text()


def test_rows_of_one_id_are_compared_with_their_own_baselines(tmp_path: Path) -> None:
    named = Samples([one.replace(id="image") for one in samples(12)], "planted")
    own, one = (sweep(data=data).run(tmp_path, progress=False).at_layer(1) for data in (samples(12), named))
    assert one["mean"].tolist() == own["mean"].tolist()
    assert one.n.tolist() == own.n.tolist() == [12] * len(own)


def test_a_report_is_replaced_by_a_whole_one(result: Result, tmp_path: Path) -> None:
    page = result.report(tmp_path / "new" / "page.html")
    assert page.read_bytes() == (result.folder / "report.html").read_bytes()
    assert result.report(result.folder / "report.html") == result.folder / "report.html"
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(RunError, match="it is a folder, name a file in it"):
        result.report(tmp_path / "folder.html")
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["page.html"]


def test_a_summary_runs_in_no_spreadsheet(tmp_path: Path) -> None:
    found = sweep(data=samples(2, name='=HYPERLINK("http://x")'), metrics=("ar",)).run(
        tmp_path, progress=False
    )
    found.report()
    assert '''"'=HYPERLINK(""http://x"")"''' in (found.folder / "summary.csv").read_text()
    assert read_csv(found.folder / "summary.csv").data.unique().tolist() == ['=HYPERLINK("http://x")']


def test_the_table_says_how_many_samples_and_groups(result: Result) -> None:
    lines = result.table("ar").splitlines()
    assert lines[-2:] == ["large: 48 samples in 24 groups.", "small: 6 samples in 3 groups."]


def test_a_picture_is_not_lost_under_a_page(result: Result, tmp_path: Path) -> None:
    (tmp_path / "scan.png").write_bytes(b"a picture")
    with pytest.raises(RunError, match=r"expected path to end in \.html"):
        result.report(tmp_path / "scan.png")
    assert (tmp_path / "scan.png").read_bytes() == b"a picture"


def test_groups_of_images_are_shown_by_their_files(tmp_path: Path) -> None:
    files = []
    for i in range(2):
        files.append(tmp_path / f"scan_{i}.png")
        sample(i).load().save(files[-1])
    one, other = (
        Samples([sample(i, image=str(file), group=None) for i, file in enumerate(files)], name)
        for name in ("one", "other")
    )
    found = Grid(sweep(), data={"one": one, "other": other}).run(tmp_path, progress=False)
    names = [one.group_names[group] for group in one.groups]
    assert names[0].startswith("scan_0.png (")
    for frame in (found.samples, found.scores, found.failures, found.compare_groups("ar", layer=1)):
        assert set(frame.group) <= {*names}
    assert set(found.samples.group) == {*names}
    assert set(found.values.group) == found.groups == {*one.groups}  # statistics go by content
    pairs = matched(found, metric="ar", layer=1).pairs
    assert set(pairs.group_a) | set(pairs.group_b) <= {*names}
    text = found.report(tmp_path / "page.html").read_text()
    assert f"group {names[0]}" in text
    assert one.groups[0] not in text


METRICS = ("ar", "pointing")


def slices() -> Samples:
    """Lesion "a" in three slices of a volume, "b" in one; and "a" of another volume in two."""
    lesions = [("one", "a"), ("one", "a"), ("one", "a"), ("one", "b"), ("two", "a"), ("two", "a")]
    return Samples(
        [sample(i, group=group, meta={"lesion": lesion}) for i, (group, lesion) in enumerate(lesions)],
        "slices",
    )


def run(folder: Path, **changes: Any) -> Any:
    return sweep(**({"data": slices(), "metrics": METRICS} | changes)).run(folder, progress=False)


def test_a_lesion_counts_once_whatever_its_slices(tmp_path: Path) -> None:
    found = lesion_hits(run(tmp_path)).set_index(["layer", "control"])
    assert found.loc[1, "boxes"].hits == 1.0
    assert found.loc[1, "boxes"].n == 3
    assert found.loc[1, "boxes"].n_groups == 2
    assert found.loc[1, "boxes"].slices == 2.0
    # layer 0 is a uniform map: every slice is hit with the chance 2 / 20
    by_hand = ((1 - 0.9**3) + (1 - 0.9) + (1 - 0.9**2)) / 3
    assert found.loc[0, "boxes"].hits == pytest.approx(by_hand)
    assert found.loc[0, "boxes"].chance == pytest.approx(by_hand)
    assert "shuffled_boxes" in found.loc[1].index


def test_intervals_of_lesions_have_the_level_and_the_seed(tmp_path: Path) -> None:
    """A uniform map hits the more lesions the more slices they have, one to three."""
    groups = [f"g{i}" for i in range(12) for _ in range(1 + i % 3)]
    data = [sample(i, group=group, meta={"lesion": "a"}) for i, group in enumerate(groups)]
    result = run(tmp_path, data=Samples(data, "slices"))
    cells = tuple(replace(cell, study=cell.study.replace(seed=1)) for cell in result.cells)
    other = Result(result.study, cells, result.folder)
    wide, half, seeded = (
        found.set_index(["layer", "control"]).loc[(0, "boxes")]
        for found in (lesion_hits(result), lesion_hits(result, level=0.5), lesion_hits(other))
    )
    assert half.high - half.low < wide.high - wide.low
    assert (seeded.hits, half.hits) == (wide.hits, wide.hits)
    assert (seeded.low, seeded.high) != (wide.low, wide.high)


def test_one_slice_that_is_hit_is_enough(tmp_path: Path) -> None:
    data = list(slices())
    data[0] = data[0].replace(boxes=[(0, 0, 40, 20)])
    misses = [one.replace(boxes=[(60, 60, 100, 80)], id=f"m{i}") for i, one in enumerate(data)]
    indicator = Planted(gain=(0.0, 3.0, 1.0))

    class Fixed(Planted):
        """Looks at the first box whatever the sample's own is."""

        def _map(self, sample_: Any, tokens: Any) -> Any:
            return super()._map(data[0], tokens)

    result = run(
        tmp_path, data=Samples([data[0], *misses[1:]], "slices"), indicator=Fixed(gain=indicator.gain)
    )
    found = lesion_hits(result).set_index(["layer", "control"])
    assert found.loc[1, "boxes"].hits == pytest.approx(1 / 3)  # "a" of volume "one" alone


def test_samples_without_a_lesion_are_left_out(tmp_path: Path) -> None:
    data = list(slices())
    data[3] = data[3].replace(meta={})
    assert set(lesion_hits(run(tmp_path, data=data)).n) == {2}


def test_the_page_shows_lesions(tmp_path: Path) -> None:
    page = run(tmp_path).report(tmp_path / "page.html").read_text()
    assert "Lesion by lesion" in page
    assert "3 lesions in 2 volumes, 2.0 slices per lesion on average" in page
    assert "Lesion by lesion" not in run(tmp_path, metrics=("ar",)).report(tmp_path / "b.html").read_text()


def test_what_hit_rates_need_is_said(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"the sweep measured ar. Run it with metrics=\["):
        lesion_hits(run(tmp_path, metrics=("ar",)))
    with pytest.raises(StudyError, match=r"no sample names its lesion. Give the samples of each lesion"):
        lesion_hits(run(tmp_path, data=[sample(0), sample(1)]))


def test_lesions_of_a_volume_count_once(tmp_path: Path) -> None:
    marks = np.zeros((100, 80, 4), np.int16)
    marks[0:20, 60:80, 0:3] = 1  # one lesion in three slices
    marks[60:80, 0:20, 2] = 1
    scan = np.random.default_rng(0).integers(0, 99, marks.shape).astype(np.int16)
    for name, values in (("scan", scan), ("marks", marks)):
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / f"{name}.nii.gz")
    data = nifti(tmp_path / "scan.nii.gz", tmp_path / "marks.nii.gz", {1: "tumor"}, lesions=True)
    found = lesion_hits(run(tmp_path / "runs", data=data)).set_index(["layer", "control"])
    assert (found.loc[1, "boxes"].n, found.loc[1, "boxes"].n_groups) == (2, 1)
    assert (found.loc[1, "boxes"].slices, found.loc[1, "boxes"].hits) == (2.0, 1.0)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("rule", "chance"), [("touch", 2 / 3), ("masks", 0.75 / 3)])
def test_chance_is_of_the_tokens_that_see_something(rule: str, chance: float) -> None:
    """Four tokens, one without a footprint: two are in the box, and of the mask's fractions the sum is ¾."""
    masks = ("a mask",)
    tokens = SimpleNamespace(coverage=lambda given: np.array([0.5, 0.25, 0, 0]) if given == masks else None)
    cell: Any = SimpleNamespace(
        sweep=SimpleNamespace(rule=rule, data=[None, SimpleNamespace(masks=masks)]),
        tokens=lambda index: {1: tokens}[index],
    )
    row = {"index": 1, "n_box_tokens": 2, "footprints": [0.0, 0, 1, 1] * 3 + [np.nan] * 4}
    assert _chance(cell, row) == pytest.approx(chance)


@pytest.mark.usefixtures("unchecked")
def test_each_model_is_shown_at_its_own_layer() -> None:
    rows = [
        (model, layer, control, index, value)
        for (model, layer), own in {("a", 0): 1, ("a", 1): 99, ("b", 0): 99, ("b", 1): 5}.items()
        for control, value in (("boxes", own), ("shuffled_boxes", own - 0.5))
        for index in range(2)
    ]
    values = pd.DataFrame(rows, columns=["model", "layer", "control", "index", "value"])
    values = values.assign(metric="ar", group=values["index"].map("g{}".format))
    made: Any = SimpleNamespace(values=values, axes=("model",), seed=0, layers=lambda _: {"a": 0, "b": 1})
    found = Result.at_layer(made, 0).set_index(["model", "control"])["mean"]
    assert found.to_dict() == {
        ("a", "boxes"): 1, ("a", "shuffled_boxes"): 0.5, ("a", "boxes − shuffled_boxes"): 0.5,
        ("b", "boxes"): 5, ("b", "shuffled_boxes"): 4.5, ("b", "boxes − shuffled_boxes"): 0.5,
    }  # fmt: skip


def test_a_number_has_no_negative_zero() -> None:
    assert [_number(one) for one in (-0.001, 0.25, -0.5)] == ["0.00", "0.25", "-0.50"]


@pytest.mark.usefixtures("unchecked")
def test_a_table_has_baselines_and_a_dash_for_what_it_lacks() -> None:
    means = {
        ("a", 0, "boxes"): 3.0, ("a", 0, "shuffled_boxes"): 2.0, ("a", 0, "centre_prior"): 1.5,
        ("b", 0, "boxes"): 9.0, ("b", 1, "boxes"): 4.0, ("b", 1, "centre_prior"): 0.5,
    }  # fmt: skip
    rows = [(data, layer, "ar", control, mean) for (data, layer, control), mean in means.items()]
    summary = pd.DataFrame(rows, columns=["data", "layer", "metric", "control", "mean"])
    summary = summary.assign(low=summary["mean"] - 0.25, high=summary["mean"] + 0.5, n_groups=24, note="")
    summary.loc[summary.data == "b", ["note", "n_groups"]] = ["Only 3 groups", 3]
    cells = [SimpleNamespace(labels={"data": name}, key=(name,)) for name in "ab"]
    made: Any = SimpleNamespace(
        summary=lambda: summary, axes=("data",), varied=("data",), cells=cells, metrics=("ar",)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("interp.study.layer_sweep.result.counted", lambda _: ["a line"])
        patch.setattr("interp.study.layer_sweep.result.is_choice", lambda _: None)
        patch.setattr("interp.study.layer_sweep.result.check_metric", lambda *_: None)
        text = layer_table(made, "ar", SimpleNamespace(layers={"m": 1}))
    lines = [line for line in text.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines] == [
        ["0", "3.00 [2.75, 3.50]", "2.00", "1.50", "9.00 (3 groups)", "–", "–"],
        ["1 *", "–", "–", "–", "4.00 (3 groups)", "–", "0.50"],
    ]
    assert text.endswith("a line")


@pytest.mark.usefixtures("unchecked")
def test_lesion_hits_are_of_a_sweep_and_have_a_level(tmp_path: Path) -> None:
    found = run(tmp_path)
    with pytest.raises(StudyError, match="level is between 0 and 1"):
        lesion_hits(found, level=95)
    wide, narrow = (lesion_hits(found, level=level).set_index(["layer", "control"]) for level in (0.95, 0.2))
    at = (0, "shuffled_boxes")
    assert wide.high[at] - wide.low[at] >= narrow.high[at] - narrow.low[at]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("interp.study.refinement.task.PLAIN", Said())
        other: Any = refinement(data=samples(2)).run(tmp_path, progress=False)
    with pytest.raises(StudyError, match="takes the result of a LayerSweep; got that of 'Refinement'"):
        lesion_hits(other)


def test_a_lower_level_gives_narrower_intervals(result: Result) -> None:
    def widths(frame: pd.DataFrame, control: str = "centre_prior") -> Any:
        own = frame[(frame.metric == "ar") & (frame.control == control)]
        return (own.high - own.low).dropna().to_numpy()

    for wide, narrow in (
        (result.at_layer(1), result.at_layer(1, 0.5)),
        (result.summary(), result.summary(0.5)),
    ):
        assert (widths(narrow) < widths(wide)).any()
        assert (widths(narrow) <= widths(wide)).all()
    gap = "boxes − centre_prior"
    assert (widths(result.at_layer(1, 0.5), gap) < widths(result.at_layer(1), gap)).any()


def test_the_studys_seed_decides_the_resamplings(result: Result) -> None:
    drawn = result.values.assign(value=np.random.default_rng(0).normal(size=len(result.values)))
    found = []
    for seed in (0, 1):
        cells = tuple(replace(cell, study=cell.study.replace(seed=seed)) for cell in result.cells)
        seeded = Result(result.study, cells, result.folder)
        vars(seeded)["values"] = drawn
        found.append(seeded.at_layer(1))
    assert found[0]["mean"].equals(found[1]["mean"])
    assert (found[0].low != found[1].low)[found[0].data == "large"].all()


def test_maps_that_were_not_stored_are_refused(result: Result) -> None:
    cell = result.cells[0]
    assert set(cell.maps([0, 3], 1)) == {0, 3}
    with pytest.raises(StudyError, match=r"samples \[999\] of planted · large have no map at layer 1"):
        cell.maps([0, 999], 1)
    with pytest.raises(StudyError, match="have no map at layer 7"):
        cell.maps([0], 7)


def test_a_comparison_has_the_level_and_axis_asked_for(tmp_path: Path) -> None:
    """Half the samples of the second data set have boxes in two rows, so their scores differ."""
    wide = [sample(n, boxes=[(0, 0, 40 + 20 * (n % 3), 20)], group=f"w{n}") for n in range(24)]
    data = {"one": samples(48), "other": Samples(wide, "other")}
    found = Grid(sweep(metrics=("kl_gain",), batch=8), data=data, rule=["touch", "center"]).run(
        tmp_path, progress=False
    )
    rows = [found.compare("kl_gain", layer=1, over="data", level=level) for level in (0.95, 0.5)]
    assert rows[0][["where", "a", "b"]].to_numpy().tolist() == [
        ["touch", "one", "other"],
        ["center", "one", "other"],
    ]
    assert (rows[1].high - rows[1].low < rows[0].high - rows[0].low).all()
