"""What `interp run` makes of its arguments, how they are kept, and how runs are named by them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from interp import study as studies
from interp import study_commands
from interp.cli import main
from interp.data import Samples, bundled
from interp.errors import RunError, StudyError
from interp.inputs.prompt import Prompt
from interp.methods import PAI, Plain, VGRefine
from interp.study import ModelSpec
from interp.study_commands import COMMAND, Asked, _cells, _run_names, _said, _setting

ASKED = Asked("layer-sweep", ("natural",), ("organism",), 40, "test", 0, {"device": "cpu"}, {})


@dataclass(frozen=True)
class Kind:
    """A study of every field that `interp run` fills by itself, apart from `split`."""

    data: Any
    model: Any
    seed: int = 0
    metrics: tuple[str, ...] = ("ar", "js")
    rule: str = "touch"
    method: Any = None
    prompt: Any = None
    validation: Any = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Splitting:
    """A study that chooses something, and so reads a split of its own."""

    data: Any
    model: Any
    seed: int = 0
    split: str = "validation"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was read of the data; each set is its name and split."""
    found: list[Any] = []

    def sets(names: Any, *, split: str, needed: bool = False, **options: Any) -> dict[str, Any]:
        found.append((tuple(names), split, needed, options))
        return {} if "none" in names and not needed else {name: [f"{name} {split}"] for name in names}

    monkeypatch.setattr("interp.data.open.sets", sets)
    monkeypatch.setattr(studies, "LayerSweep", Kind)
    monkeypatch.setattr(studies, "HeadRanking", Splitting)
    monkeypatch.setattr(studies, "Grid", lambda base, **axes: (base, axes))
    return found


def made(**more: Any) -> Any:
    return Asked(**{**vars(ASKED), **more}).made(Path("out"))


@pytest.mark.parametrize(("n", "most"), [(0, None), (7, 7)])
def test_a_study_gets_its_data_model_and_settings(read: list[Any], n: int, most: int | None) -> None:
    settings = {"metrics": ["ar"], "prompt": "{question}!", "method": "PAI"}
    found = made(n=n, seed=3, split="train", options={"device": "cuda"}, settings=settings)
    assert found == Kind(
        data=["natural train"],
        model=ModelSpec("organism", device="cuda"),
        seed=3,
        metrics=["ar"],  # pyright: ignore[reportArgumentType]
        method=PAI(),
        prompt=Prompt(template="{question}!"),
        validation=["natural validation"],
    )
    some = {"n": most, "seed": 3}
    assert read == [(("natural",), "train", True, some), (("natural",), "validation", False, some)]
    assert made(settings={"seed": 9}).seed == 9  # a setting is more than the option


def test_models_data_and_methods_make_a_grid(read: list[Any]) -> None:
    assert isinstance(made(), Kind)
    one, two = ModelSpec("organism", device="cpu"), ModelSpec("organism-1", device="cpu")
    both = {"natural": ["natural test"], "medical": ["medical test"]}
    base, axes = made(model=("organism", "organism-1"))
    assert (base.model, axes) == (one, {"model": [one, two], "data": {"natural": ["natural test"]}})
    base, axes = made(data=("natural", "medical"))
    assert (base.data, axes) == (["natural test"], {"model": [one], "data": both})
    assert base.validation == ["natural validation", "medical validation"]
    base, axes = made(settings={"method": ["plain", "PAI"]})
    assert (base.method, axes) == (Plain(), {"method": [Plain(), PAI()]})
    assert made(data=("none",)).validation is None


def test_a_study_that_chooses_reads_a_split_of_its_own(read: list[Any]) -> None:
    assert made(study="head-ranking", split="test").data == ["natural validation"]
    assert made(study="head-ranking", settings={"split": "all"}).data == ["natural all"]
    assert [one[1] for one in read] == ["validation", "all"]


@pytest.mark.parametrize("name", ["data", "model", "colour"])
def test_a_setting_is_a_field_that_is_no_option(read: list[Any], name: str) -> None:
    with pytest.raises(StudyError, match=f"layer-sweep has no setting {name}; it has method, metrics, notes"):
        made(settings={"rule": "touch", name: 1})


def test_heads_are_chosen_once_for_one_model(read: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def grounding(model: ModelSpec, samples: Any, *, out: Path, seed: int) -> Any:
        assert (model.id, samples, out, seed) == (
            "organism",
            ("chosen on", ("natural",), None, 2),
            Path("out"),
            2,
        )
        return SimpleNamespace(heads=((1, 2),), layer=3, said="chosen")

    monkeypatch.setattr("interp.study.refinement.method_choice.grounding", grounding)
    monkeypatch.setattr(
        "interp.study.conventions.choice_samples", lambda data, n, seed: ("chosen on", data, n, seed)
    )
    refine = VGRefine(heads=((1, 2),), layers=(3,))
    _, axes = made(n=0, seed=2, settings={"method": ["plain", "VGRefine"]})
    assert axes == {"method": [Plain(), refine]}
    assert made(n=0, seed=2, settings={"method": "VGRefine"}).method == refine
    with pytest.raises(StudyError, match="belong to one model"):
        made(model=("organism", "organism-1"), settings={"method": ["plain", "VGRefine"]})


def test_what_was_asked_is_read_as_it_was_written(tmp_path: Path) -> None:
    asked = Asked("benchmark", ("a", "b"), ("m",), 3, "train", 5, {"dtype": "bfloat16"}, {"rule": "x"})
    (tmp_path / COMMAND).write_text(asked.to_json())
    assert Asked.read(tmp_path) == asked
    stored = json.loads(asked.to_json())
    for name in vars(asked):
        (tmp_path / COMMAND).write_text(json.dumps({key: one for key, one in stored.items() if key != name}))
        with pytest.raises(RunError, match=r"does not say what the run was asked for"):
            Asked.read(tmp_path)
    (tmp_path / COMMAND).write_text(json.dumps({**stored, "of a newer version": 1}))
    assert Asked.read(tmp_path) == asked


def test_each_option_is_kept_and_what_is_none_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.csv").touch()
    monkeypatch.chdir(tmp_path)
    seen: list[Any] = []

    def stop(asked: Asked, out: Path) -> None:
        seen.extend([asked, out])
        raise StudyError("enough")

    monkeypatch.setattr(Asked, "made", stop)
    words = "run benchmark --data rows.csv natural --model a b --out there --n 0 --split all --seed 4 --device meta"
    more = "--dtype bfloat16 --revision r --processor p --adapter x --set scorer=strict batch=2"
    assert main([*words.split(), *more.split()]) == 2
    options = {"device": "meta", "dtype": "bfloat16", "revision": "r", "processor": "p", "adapter": "x"}
    data = (str(tmp_path.resolve() / "rows.csv"), "natural")
    assert seen == [
        Asked("benchmark", data, ("a", "b"), 0, "all", 4, options, {"scorer": "strict", "batch": 2}),
        Path("there"),
    ]
    assert main(["run", "benchmark"]) == 2
    assert seen[2].options == {"device": "cpu", "dtype": "float32"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1", 1),
        ("a=x", "x"),
        ("a=", ""),
        ("a=b=c", "b=c"),
        ('a=["x"]', ["x"]),
        ("a=null", None),
        ("a=true", True),
    ],
)
def test_a_setting_is_json_or_a_text(text: str, value: object) -> None:
    assert _setting(text) == ("a", value)


@pytest.mark.parametrize("text", ["a", "=1", "a-b=1", "1a=1"])
def test_a_setting_has_a_name(text: str) -> None:
    with pytest.raises(StudyError, match=r"--set takes NAME=JSON"):
        _setting(text)


def named(tmp_path: Path, *asked: Asked | None) -> list[str]:
    folders = [tmp_path / f"run-{i}" for i in range(len(asked))]
    for folder, one in zip(folders, asked, strict=True):
        folder.mkdir(exist_ok=True)
        (folder / COMMAND).unlink(missing_ok=True)
        if one is not None:
            (folder / COMMAND).write_text(one.to_json())
    return _run_names(folders)


def test_runs_are_named_by_what_differs(tmp_path: Path, read: list[Any]) -> None:
    def of(**more: Any) -> Asked:
        return Asked(**{**vars(ASKED), **more})

    assert named(tmp_path, of(seed=1), of(seed=2)) == ["seed 1", "seed 2"]
    assert named(tmp_path, of(options={"device": "cuda"}), of()) == ["device cuda", "device cpu"]
    assert named(tmp_path, of(settings={"rule": "center"}), of()) == ["rule center", "rule touch"]
    assert named(tmp_path, of(settings={"metrics": ["kl"]}), of()) == ["metrics kl", "metrics ar + js"]
    assert named(tmp_path, of(n=3, model=("/x/a", "b")), of(n=4)) == [
        "model a + b, n 3",
        "model organism, n 4",
    ]
    assert named(tmp_path, of(), of(), of(seed=1)) == ["run-0", "run-1", "run-2"]  # two would have one name
    assert named(tmp_path, of(seed=1), None) == ["run-0", "run-1"]
    assert named(tmp_path, None, of(seed=1)) == ["run-0", "run-1"]


def test_a_value_is_said_in_short() -> None:
    assert _said(["/a/b.csv", 3, None, True]) == "b.csv + 3 + null + true"


def test_a_run_is_reported_once_however_it_is_named(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "a").mkdir()
    assert main(["report", str(tmp_path / "a"), str(tmp_path / "a" / ".." / "a")]) == 2
    assert "each once" in capsys.readouterr().err


def test_runs_of_two_studies_are_not_compared(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stored(folder: Path) -> Any:
        return type(f"Result{folder.name}", (), {"study": SimpleNamespace(title=f"study {folder.name}")})()

    monkeypatch.setattr(study_commands, "_stored", stored)
    assert main(["report", str(tmp_path / "b"), str(tmp_path / "a")]) == 2
    assert "compares runs of one study; got study a, study b" in capsys.readouterr().err


def test_what_a_run_does_not_say_is_blank() -> None:
    row = {
        "study": "s",
        "model": "m",
        "data": "d",
        "n": None,
        "state": "finished",
        "started": None,
        "folder": "f",
    }
    assert [one.plain for one in _cells(row, False)] == ["m", "d", "", "finished", "", "f"]
    given = {**row, "n": 0, "started": datetime(2026, 3, 4, 5, 6).astimezone()}
    assert [one.plain for one in _cells(given, True)] == ["s", "m", "d", "0", "finished", "03-04 05:06", "f"]


def test_rows_left_out_are_told_once_a_data_set(capsys: Any) -> None:
    from interp.data.open import OTHER

    sample = bundled("natural", n=1)[0]
    data = Samples([sample], "rows", skipped={f"{OTHER}validation": 2, f"{OTHER}train": 3, "no image": 4})
    cell = SimpleNamespace(data=data)
    study_commands._say_left_out(SimpleNamespace(studies=[({}, cell), ({}, cell)]))
    line = "rows: 2 of 6 rows are of the split validation, 3 of 6 rows are of the split train and not used; --split"
    assert capsys.readouterr().out == f"{line} validation takes those, --split all every row.\n"
    study_commands._say_left_out(SimpleNamespace(data=Samples([sample], "all")))
    assert capsys.readouterr().out == ""
