"""The command line: tables on stdout, exit codes, errors on one line; and the record is of this version."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from interp.cli import COMMANDS, WorkerOptions, main, run_script
from interp.conformance import CHECKS, check_result, family_facts
from interp.conformance.tiny import families
from interp.models import adapter as adapter_room
from interp.models import refusals
from interp.models.adapter import built_in
from interp.organism.places import folder
from interp.run import Workers


def test_a_check_that_passes_prints_its_table_and_returns_0(capsys):
    assert main(["check", "llava", "--checks", "tiling", "image tokens"]) == 0
    shown = capsys.readouterr()
    assert "llava, tiny random weights: 2 of 2 checks passed" in shown.out
    assert "views cover from 38% to 100%" in shown.out


def test_each_result_is_shown_as_it_comes_with_the_time_left(capsys):
    assert main(["check", "llava", "--checks", "tiling", "image tokens", "--break", "count"]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"llava: FAIL  tiling, –, \d+\.\d s: .*the prompt holds .*; about \d+ s left", first)
    assert re.fullmatch(r"llava: FAIL  image tokens, –, \d+\.\d s: .*the prompt holds .*", second)
    assert "left" not in second


def test_a_folders_results_are_shown_as_they_come(capsys):
    assert main(["check", str(folder("organism")), "--checks", "tiling", "batching"]) == 0
    first, second = capsys.readouterr().err.splitlines()
    assert ": pass  tiling, 0 ≤ 0.99, " in first
    assert "; about " in first
    assert ": pass  batching, " in second


def test_a_check_that_fails_returns_1(capsys):
    assert main(["check", "llava", "--checks", "locality", "--break", "shifted", "--probes", "9"]) == 1
    assert "faulty adapter: shifted: 0 of 1 checks passed" in capsys.readouterr().out


def test_all_checks_every_family(capsys, monkeypatch):
    some = ["llava", "mllama", "paligemma"]
    monkeypatch.setattr(
        "interp.conformance.tiny.families", lambda: some
    )  # of 37, whose models take half a minute
    assert main(["check", "--all", "--checks", "attends"]) == 0
    shown = capsys.readouterr().out
    for name in some:
        assert f"{name}, tiny random weights: 1 of 1 checks passed" in shown
    assert shown.count("1/1") == len(some)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "nope"], "error: 'nope' is not an existing folder"),
        (["check"], "error: interp check takes one model (a family, a folder or a hub id), or --all"),
        (["check", "llava", "--all"], "got 'llava' and --all"),
        (["check", "llava", "--checks", "colour"], "error: checks are named image tokens, tiling"),
        (["check", "llava", "--break", "worse"], "error: the fault of an adapter is one of transposed"),
        (["check", "llava", "--dtype", "float99"], "error: dtype is"),
        (["check", "llava", "--record"], "error: --record stores the float32 results of every family"),
    ],
)
def test_errors_are_one_line_and_return_2(capsys, arguments, message):
    assert main(arguments) == 2
    shown = capsys.readouterr().err.strip()
    assert message in shown
    assert "\n" not in shown


def test_models_lists_every_family_and_how_it_was_checked(capsys):
    assert main(["models"]) == 0
    shown = capsys.readouterr().out
    for adapter in built_in():
        assert f" {adapter.name} " in shown
    assert "not exact, not used" in shown  # paligemma
    assert shown.count(f"{len(CHECKS)}/{len(CHECKS)}, ") == len(families())
    assert "google/gemma-3-4b" in shown
    assert "transformers 5." in shown


@pytest.mark.parametrize("width", [60, 180, 196])
def test_models_is_cropped_at_no_width(capsys: Any, monkeypatch: Any, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["models"]) == 0
    framed = [line.rstrip() for line in capsys.readouterr().out.splitlines() if line[:1] in "┏┡│├└"]
    assert {line[-1] for line in framed} <= set("┓┩│┤┘")
    assert len({len(line) for line in framed}) == 1


def test_models_shows_one_family_and_names_the_nearest(capsys: Any) -> None:
    assert main(["models", "paligemma"]) == 0
    assert "maps: self · attends: the prompt" in capsys.readouterr().out.replace("\n", " ")
    assert main(["models", "lava"]) == 2
    assert "no family is called 'lava'. Did you mean 'llava'?" in capsys.readouterr().err


def test_models_names_the_families_that_transformers_lacks(capsys, monkeypatch):
    known = family_facts.known_types() - {"qwen3_vl"}
    monkeypatch.setattr(family_facts, "known_types", lambda: known)
    assert main(["models"]) == 0
    shown = capsys.readouterr().out
    assert " qwen3_vl " not in shown
    assert f"transformers {version('transformers')} lacks qwen3_vl, or has them in a form" in shown


def test_the_facts_of_families_are_those_of_their_adapters(tmp_path):
    advice = "run `python -m interp.conformance.family_facts` again"
    assert family_facts.read_facts() == tuple(map(family_facts.facts_of, built_in())), advice
    assert family_facts.without_maps() == refusals.without_maps(), advice
    named = {kind for one in family_facts.read_facts() for kind in one.model_types} | {"no-such-type"}
    assert family_facts.known_types() & named == set(adapter_room.CONFIG_MAPPING) & named
    available = [one.name for one in built_in() if adapter_room.is_available(one)]
    known = family_facts.known_types()
    assert [one.name for one in family_facts.read_facts() if one.is_available(known)] == available
    family_facts.write_facts(tmp_path / "facts.json")
    assert (tmp_path / "facts.json").read_bytes() == family_facts.PATH.read_bytes(), advice


@pytest.mark.parametrize(
    "given", [["--help"], ["models"], ["runs", "."], ["reproduce", "--help"], ["data", "--help"]]
)
def test_what_needs_no_model_does_not_import_torch(given):
    code = (
        "import sys\nfrom interp.cli import main\n"
        f"try:\n    main({given!r})\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'transformers', 'nnsight'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"


def test_the_record_is_of_the_checks_and_families_there_are():
    found = check_result.read_record()
    assert set(found) == set(families()) == {adapter.name for adapter in built_in()}
    for name, entry in found.items():
        assert entry["checks"] == list(CHECKS), f"{name}: run `interp check --all --record` again"
        assert entry["failed"] == []
        assert entry["passed"] == entry["total"] == len(CHECKS)
        assert set(entry["versions"]) == {"torch", "transformers", "nnsight"}


def test_records_are_written_and_read(tmp_path):
    from interp.conformance import check

    result = check("llava", checks=["locality", "tiling"], break_as="shifted", probes=9)
    check_result.write_record([result], tmp_path / "record.json")
    (entry,) = check_result.read_record(tmp_path / "record.json").values()
    assert (entry["passed"], entry["total"], entry["failed"]) == (1, 2, ["locality"])
    assert check_result.read_record(tmp_path / "none.json") == {}


def test_python_m_interp_shows_help_without_torch():
    code = "import sys, interp.cli, interp.rating_commands; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
    done = subprocess.run([sys.executable, "-m", "interp", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    for name in COMMANDS:
        assert name in done.stdout


def test_a_family_without_a_spatial_map_says_why(capsys):
    assert main(["check", "kosmos-2"]) == 2
    error = capsys.readouterr().err
    assert "error: 'kosmos-2' models have no spatial map here: " in error
    assert "each of which has looked at the whole image" in error
    assert "a map can be composed" in error


def test_a_script_ends_with_one_line_and_keeps_its_own_exit(capsys):
    def failing(how: str = "well") -> None:
        if how == "badly":
            raise FileNotFoundError(2, "No such file", "x.png")
        if how == "early":
            raise SystemExit("enough")
        if how == "by hand":
            raise KeyboardInterrupt
        if how == "a bug":
            raise ZeroDivisionError

    run_script(failing, args=[])
    for how, code in (("badly", 2), ("early", "enough"), ("by hand", 130)):
        with pytest.raises(SystemExit) as end:
            run_script(failing, args=["--how", how])
        assert end.value.code == code
    assert capsys.readouterr().err.splitlines() == [
        "error: [Errno 2] No such file: 'x.png'",
        "error: interrupted. Finished shards are kept: run again to resume.",
    ]
    with pytest.raises(ZeroDivisionError):  # a bug keeps its traceback
        run_script(failing, args=["--how", "a bug"])


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["merge", "x", "--outt", "y"], "--outt, y. Did you mean '--out'? For full helptext, run interp merge --help."),
        (["run", "--modle", "x"], "Missing value for argument 'study'"),
        (["run", "layer-sweep", "--modle", "x"], "--modle, x. Did you mean '--model'? For full"),
        (["run", "layer-sweep", "--dtpye", "a", "--devce", "b"], "--dtpye, a, --devce, b. Did you mean '--dtype'"),
        (["run", "layer-sweep", "--zzzz"], "--zzzz. For full helptext"),
        (["reprduce"], "reprduce. Available commands: adapt, check"),
        (["reprduce"], "runs. Did you mean 'reproduce'? For full helptext, run interp --help."),
    ],
)  # fmt: skip
def test_unknown_arguments_are_one_short_line(args, said, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(args)
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert said in line
    assert line.count("\n") == 1
    assert len(line) < 250


def test_help_is_printed_as_it_is(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["merge", "--help"])
    assert "Join the parts of runs" in capsys.readouterr().out


def test_options_of_workers_reach_a_script_as_one_value() -> None:
    found: list[Workers | int] = []

    def script(out: str = "runs", workers: WorkerOptions = 1) -> None:
        found.append(workers)

    run_script(script, args=[])
    run_script(script, args=["--workers", "3", "--devices", "cuda:0", "cuda:1"])
    run_script(script, args=["--workers", "4", "--address", "ray://head:10001", "--gpus", "0.5"])
    assert found == [
        Workers(1),
        Workers(3, devices=("cuda:0", "cuda:1")),
        Workers(4, address="ray://head:10001", gpus=0.5),
    ]


def test_a_script_may_take_its_options_as_one_value() -> None:
    @dataclass
    class Options:
        n: int = 1

    found: list[Options] = []
    run_script(found.append, Options, args=["--n", "3"])
    assert found == [Options(3)]


def test_contradicting_options_of_workers_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def script(workers: WorkerOptions = 1) -> None:
        raise AssertionError("it must not run")

    with pytest.raises(SystemExit, match="2"):
        run_script(script, args=["--gpus", "1"])
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "gpus only with an address of Ray" in said


def test_an_unknown_option_names_the_help_of_its_command(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main(["data", "check", "x.csv", "--no-open"])
    assert "run interp data check --help" in capsys.readouterr().err


def test_a_reader_of_the_output_that_goes_away_is_no_error() -> None:
    script = "import sys; from interp.cli import main; sys.exit(main(['run', '--help']))"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as ended:
        ended.stdout.close()  # pyright: ignore[reportOptionalMemberAccess]
        assert ended.stderr.read() == b""  # pyright: ignore[reportOptionalMemberAccess]
    assert ended.returncode == 141


def test_the_explorer_asks_for_its_extra_first(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr("interp.explore.local_server.find_spec", lambda name: None)
    monkeypatch.setattr("interp.tracing.load", lambda *_, **__: pytest.fail("the model was loaded"))
    assert main(["explore"]) == 2
    assert (
        "the explorer needs dash. Install it with: pip install 'interp[explore]'" in capsys.readouterr().err
    )


def test_a_warning_is_one_line_without_its_place_in_the_code(tmp_path: Path, capsys: Any) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    (tmp_path / "rows.csv").write_text("image,question,x0,y0,x1,y1\na.png,?,1,2,13,44\n")
    script = "import sys; from interp.cli import main; sys.exit(main(['data', 'check', 'rows.csv']))"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr.startswith(
        "warning: Boxes of 'rows' that end beyond their image: 1 of 1, on 1 sample."
    )
    assert "pass --box-format xywh" in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.returncode == 1
