"""`interp reproduce` over tiny stand-in scripts, and over one that is real."""

from __future__ import annotations

import html
import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from interp.cli import main
from interp.errors import RunError
from interp.paper_options import HeadChoice, PaperChoice
from interp.reproduce import DATA, FIGURES, Request, Session, figures_named, scripts_folder
from interp.reproduce.index_page import write_index
from tests.studies.scripts import STUDIES, script

WRITES = """
import argparse, pathlib, sys
parser = argparse.ArgumentParser()
parser.add_argument("--out", type=pathlib.Path)
known, more = parser.parse_known_args()
with (known.out / "calls.txt").open("a") as calls:
    print({name!r}, *more, file=calls)
{rest}
"""
PAGE = '(known.out / "{page}").write_text("a page")'
OPTIONS = {"PaperOptions": fields(PaperChoice), "HeadOptions": fields(HeadChoice)}
ENDINGS = {
    "fig1_attention_maps": PAGE.format(page="fig1.html"),
    "fig3_layer_sweep": 'print("error: no such model, or so.", file=sys.stderr); sys.exit(2)',
    "figD1_head_ranking": 'raise ZeroDivisionError("a bug")',
    "figJ2_before_after": "",
    "figM_failures": PAGE.format(page="figM.html"),
    "table1_vqa": PAGE.format(page="table1_vqa.html"),
}


@pytest.fixture
def stand_ins(tmp_path: Path) -> Path:
    """A folder of scripts, some of which fail, each in its own way."""
    folder = tmp_path / "studies"
    folder.mkdir()
    for name, rest in ENDINGS.items():
        (folder / f"{name}.py").write_text(WRITES.format(name=name, rest=rest))
    return folder


def calls(out: Path) -> list[str]:
    return (out / "calls.txt").read_text().splitlines()


def index(out: Path) -> str:
    page = html.unescape((out / "index.html").read_text())
    return re.sub(r"\s+", " ", page[page.index("<main") : page.index("</main")])


def test_one_failure_does_not_stop_the_others(
    stand_ins: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert main(["reproduce", "--studies", str(stand_ins), "--out", str(out), "--n", "3"]) == 1
    assert [line.split()[0] for line in calls(out)] == list(ENDINGS)
    page = index(out)
    assert '<a href="fig1.html">' in page
    assert "no such model, or so." in page
    assert "ZeroDivisionError: a bug" in page
    assert "The script ended without an error but wrote no figJ2.html." in page
    assert f"The script table2_mmmu.py is not in {stand_ins}." in page
    assert "These are not the paper's numbers." in page
    assert "3 of 18 pages made" in page
    assert "VGMED_attribute.jsonl and VGMED_localization.jsonl beside the images" in page
    assert f"Index: {out / 'index.html'}" in capsys.readouterr().out
    assert "ZeroDivisionError" in (out / "logs" / "figD1.txt").read_text()


def test_the_same_command_goes_on_where_it_stopped(stand_ins: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    command = ["reproduce", "--studies", str(stand_ins), "--out", str(out), "--only", "fig1", "figD1"]
    assert main(command) == 1
    (stand_ins / "figD1_head_ranking.py").write_text(
        WRITES.format(name="mended", rest=PAGE.format(page="figD1.html"))
    )
    assert main(command) == 0
    assert [line.split()[0] for line in calls(out)] == ["fig1_attention_maps", "figD1_head_ranking", "mended"]
    (out / "fig1.html").unlink()
    assert main(command) == 0
    assert main([*command, "--n", "2"]) == 0
    assert [line.split()[0] for line in calls(out)][3:] == [
        "fig1_attention_maps",
        "fig1_attention_maps",
        "mended",
    ]


def test_list_says_what_is_there_and_runs_nothing(
    stand_ins: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")  # paths of tests are long
    out = tmp_path / "out"
    assert main(["reproduce", "--list", "--studies", str(stand_ins), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert not out.exists()
    assert re.search(r"fig1 .*not run .*fig1.html \(without COCO, VGMED\)", said)
    assert "The script table2_mmmu.py is not in" in said


def test_models_and_data_go_to_the_scripts_that_take_them(tmp_path: Path) -> None:
    for name in ("vgmed", "coco", "rad"):
        (tmp_path / name).mkdir()
    folders = {"vgmed": tmp_path / "vgmed", "coco": tmp_path / "coco", "vqa_rad": tmp_path / "rad"}
    request = Request(tmp_path / "out", ("a/model", "b/model"), folders, options={"device": "cuda"})
    given = {figure.name: " ".join(request.arguments(figure)) for figure in FIGURES}
    both = f"--data {folders['coco']} {folders['vgmed']}"
    out = f"--out {tmp_path / 'out'}"
    assert given["fig3"] == f"{out} --model a/model b/model {both} --paper --device cuda"
    assert given["fig2"] == f"{out} --data {folders['vgmed']}"
    assert given["figJ2"].endswith(f"--paper --choose-on {folders['coco']} --device cuda")
    rad = f"vqa_rad,closed=answer_type:{folders['vqa_rad']}"
    assert (
        f"--model a/model --data {rad} --split all --paper --tokens 1 --choose-on {folders['coco']}"
        in given["table1"]
    )
    assert f"--data vqa_rad,questions=open:{folders['vqa_rad']} --split test" in given["tableE3"]
    assert "--data" not in given["table2"]
    whole = Request(tmp_path / "out", ("a/model",), folders, n=0)
    assert "--n 1000000000" in " ".join(whole.arguments(figures_named(["table1"])[0]))
    assert not any("--n" in whole.arguments(figure) for figure in figures_named(["fig1", "table2"]))
    ours = Request(tmp_path / "out", ("a/model",), folders, paper=False)
    assert not any("--paper" in ours.arguments(figure) for figure in FIGURES)
    assert not any("--choose-on" in ours.arguments(figure) for figure in FIGURES)


def test_what_the_paper_needs_and_was_not_given_is_named(tmp_path: Path) -> None:
    request = Request(tmp_path, ("a/model",))
    missing = {figure.name: request.missing(figure) for figure in FIGURES}
    assert "COCO, which was not given: --coco FOLDER. Or choose on the data themselves" in missing["figJ2"]
    assert "--benchmarks slake=FOLDER" in missing["table1"]
    assert not missing["fig3"]
    huatuo = Request(tmp_path, ("FreedomIntelligence/HuatuoGPT-Vision-7B-hf",))
    assert not any(huatuo.missing(figure) for figure in FIGURES if not figure.benchmark)
    assert not any(
        Request(tmp_path).missing(figure) for figure in FIGURES
    )  # the organism has data of its own


def test_a_real_script_leaves_its_page_beside_the_papers_tables(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["reproduce", "--only", "fig2", "--out", str(out)]) == 0
    page = index(out)
    assert (out / "fig2.html").is_file()
    assert '<a href="fig2.html">' in page
    assert "<td>68.62</td>" in page  # of table 4, quoted


def test_every_script_of_the_registry_takes_what_it_is_given() -> None:
    """Each option of a figure is a parameter of its script's main; its page is the one the script names."""
    for figure in (one for one in FIGURES if (STUDIES / f"{one.script}.py").is_file()):
        annotations = script(figure.script).main.__annotations__
        taken = set(annotations) | {one.name for one in OPTIONS.get(annotations.get("way", ""), ())}
        wanted = {"out", "data"} | {option.replace("-", "_") for option in figure.n}
        wanted |= {"paper"} if figure.paper_mode else set()
        wanted |= {"choose_on", "published_heads"} if figure.chooses else set()
        wanted |= {"model", "device", "dtype", "batch_size", "workers"} if figure.models != "none" else set()
        wanted |= {"split"} if figure.benchmark else set()
        assert wanted <= taken, figure.name
        text = (STUDIES / f"{figure.script}.py").read_text()
        assert Path(figure.page).name in text.replace('"reader_study" / "page.html"', "page.html"), (
            figure.name
        )


def test_no_two_scripts_write_one_page() -> None:
    pages = [figure.page for figure in FIGURES]
    assert len(set(pages)) == len(pages)
    assert not any(re.search(r"""/ ["']report.html""", file.read_text()) for file in STUDIES.glob("*.py"))


def test_wrong_requests_say_what_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match=r"expected names of figures and tables: fig1, .*; got fig9"):
        figures_named(["fig9"])
    with pytest.raises(
        RunError, match=r"no SLAKE at .*: the folder does not exist. How to get it: huggingface"
    ):
        Request(tmp_path, folders={"slake": tmp_path / "none"})
    with pytest.raises(RunError, match=r"expected data named vgmed, coco, .*; got 'imagenet'"):
        Request(tmp_path, folders={"imagenet": tmp_path})
    with pytest.raises(RunError, match=r"at least one model"):
        Request(tmp_path, models=())
    with pytest.raises(RunError, match=r"holds no script. Pass --studies FOLDER"):
        scripts_folder(tmp_path)
    monkeypatch.setattr("interp.reproduce.registry.MARK", "nowhere.py")
    with pytest.raises(
        RunError, match=r"not part of the installed package at .*interp reproduce --studies FOLDER"
    ):
        scripts_folder()


def test_a_benchmark_needs_a_name_and_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "--benchmarks", "slake", "--out", str(tmp_path)]) == 2
    assert "--benchmarks takes NAME=FOLDER, such as slake=/data/SLAKE; got 'slake'" in capsys.readouterr().err


def test_an_old_or_damaged_record_is_not_trusted(stand_ins: Path, tmp_path: Path) -> None:
    (tmp_path / "reproduce.json").write_text(json.dumps({"fig1": {"outcome": "done"}, "figM": 3}))
    session = Session(Request(tmp_path), stand_ins)
    assert {session.state(figure).outcome for figure in figures_named(["fig1", "figM"])} == {"not run"}
    page = write_index(session, FIGURES).read_text()
    assert all(one.how.split(":")[0] in html.unescape(page) for one in DATA.values())
