"""Which arguments a figure's script gets, when it is run again, and why it failed: by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from interp.cli import main
from interp.errors import RunError, StudyError
from interp.paper_options import HeadChoice, PaperChoice
from interp.reproduce import DATA, Figure, Request, Session, figures_named, index_page, session
from interp.study import ModelSpec

HUATUO = "FreedomIntelligence/HuatuoGPT-Vision-7B-hf"
PLAIN = Figure("fig0", "Figure 0", "nothing", "fig0_script", "fig0.html", data=("coco", "vgmed"))
CHOOSING = replace(PLAIN, paper_mode=True, chooses=True, n=("n", "n-validation"))
TABLE = replace(CHOOSING, benchmark=True, data=("slake", "vqa_rad"), one_token=True)


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """A folder for every source of data."""
    for name in DATA:
        (tmp_path / name).mkdir()
    return {name: tmp_path / name for name in DATA}


def some(folders: dict[str, Path], *names: str) -> dict[str, Path]:
    return {name: folders[name] for name in names}


def arguments(figure: Figure, *models: str, **more: Any) -> str:
    """The arguments after --out."""
    request = Request(Path("out"), models or ("a/model",), **more)
    first, out, *rest = request.arguments(figure)
    assert (first, out) == ("--out", "out")
    return " ".join(rest)


def test_a_script_of_one_model_gets_the_first() -> None:
    for takes, said in (("none", ""), ("one", "--model a"), ("many", "--model a b")):
        assert arguments(replace(PLAIN, models=takes), "a", "b", paper=False) == said
    options = {"device": "cuda", "dtype": "bfloat16"}
    with_options = arguments(replace(PLAIN, models="one"), "a", options=options)
    assert with_options == "--model a --device cuda --dtype bfloat16"
    assert arguments(replace(PLAIN, models="none"), "a", options=options) == ""
    assert arguments(PLAIN, "organism") == ""  # every script's own default
    assert arguments(PLAIN, "organism-1") == "--model organism-1"
    assert arguments(replace(PLAIN, models="many"), "organism", "b") == "--model organism b"


def test_data_come_in_the_figures_order(folders: dict[str, Path]) -> None:
    given = some(folders, "vgmed", "coco", "slake")
    coco, vgmed = folders["coco"], folders["vgmed"]
    assert arguments(PLAIN, "a", folders=given) == f"--model a --data {coco} {vgmed}"
    assert arguments(replace(PLAIN, one_set=True), "a", folders=given) == f"--model a --data {coco}"
    assert arguments(PLAIN, "a", folders=some(folders, "vgmed")) == f"--model a --data {vgmed}"


def test_benchmarks_have_the_papers_splits(folders: dict[str, Path]) -> None:
    table, rad = replace(TABLE, paper_mode=False, chooses=False, one_token=False), folders["vqa_rad"]
    table = replace(table, data=("path_vqa", "vqa_rad"))
    given = some(folders, "vqa_rad", "path_vqa")
    closed = f"--data path_vqa:{folders['path_vqa']} vqa_rad,closed=answer_type:{rad} --split test all"
    assert arguments(table, "a", folders=given) == f"--model a {closed}"
    asked = (
        f"--data path_vqa,questions=open:{folders['path_vqa']} vqa_rad,questions=open:{rad} --split test test"
    )
    assert arguments(replace(table, open_questions=True), "a", folders=given) == f"--model a {asked}"


@pytest.mark.parametrize(
    ("n", "given", "shows_all", "said"),
    [
        (None, True, False, ""),
        (3, True, False, " --n 3 --n-validation 3"),
        (3, False, False, " --n 3 --n-validation 3"),
        (3, True, True, " --n 3 --n-validation 3"),
        (0, True, False, " --n 1000000000 --n-validation 1000000000"),
        (0, False, False, ""),
        (0, True, True, ""),
    ],
)
def test_how_many_samples(
    folders: dict[str, Path], n: int | None, given: bool, shows_all: bool, said: str
) -> None:
    figure = replace(CHOOSING, shows_all=shows_all, data=("vgmed",))
    data = some(folders, "vgmed") if given else {}
    told = f" --data {folders['vgmed']}" if given else ""
    assert arguments(figure, "a", folders=data, n=n, paper=False) == f"--model a{told}{said}"


@pytest.mark.parametrize(
    ("models", "more", "said"),
    [
        (("a",), {}, "--paper --tokens 1 --choose-on COCO"),
        (("a",), {"paper": False}, ""),
        ((HUATUO,), {}, "--paper --tokens 1"),
        ((HUATUO, "a"), {}, "--paper --tokens 1 --choose-on COCO"),
        (("a",), {"published_heads": "x"}, "--paper --tokens 1 --published-heads x"),
        (("a",), {"published_heads": "x", "paper": False}, "--published-heads x"),
    ],
)
def test_the_papers_way_in_a_script_that_chooses(
    folders: dict[str, Path], models: tuple[str, ...], more: dict[str, Any], said: str
) -> None:
    figure, coco = replace(TABLE, models="many"), some(folders, "coco")
    found = arguments(figure, *models, folders=coco, **more).replace(str(folders["coco"]), "COCO")
    assert found == " ".join(["--model", *models, *said.split()])
    assert "--choose-on" not in arguments(figure, *models, folders=some(folders, "slake"), **more)
    assert (
        arguments(replace(figure, chooses=False, paper_mode=False, one_token=False), "a", folders=coco)
        == "--model a"
    )


@pytest.mark.parametrize(
    ("figure", "models", "data", "more", "said"),
    [
        (TABLE, ("organism",), (), {}, ""),
        (TABLE, ("organism", "a"), (), {}, ""),  # a script of one model gets the first
        (replace(TABLE, models="many"), ("organism", HUATUO), (), {}, "None of its data was given"),
        (TABLE, (HUATUO,), ("slake",), {}, ""),
        (TABLE, (HUATUO,), ("coco",), {}, "None of its data was given"),
        (replace(TABLE, data=()), (HUATUO,), (), {}, ""),
        (TABLE, ("a",), ("slake",), {}, "COCO, which was not given"),
        (TABLE, ("a",), ("slake", "coco"), {}, ""),
        (TABLE, ("a",), ("slake",), {"paper": False}, ""),
        (TABLE, ("a",), ("slake",), {"published_heads": "x"}, ""),
        (replace(CHOOSING, models="many"), (HUATUO, "a"), (), {}, "COCO, which was not given"),
        (replace(CHOOSING, models="none"), ("a",), (), {}, ""),
        (PLAIN, ("a",), (), {}, ""),
    ],
)  # fmt: skip
def test_what_is_missing(
    folders: dict[str, Path], figure: Figure, models: tuple[str, ...], data: Any, more: Any, said: str
) -> None:
    found = Request(Path("out"), models, some(folders, *data), **more).missing(figure)
    assert (said in found) if said else found == ""


def test_a_request_of_any_organism_says_so() -> None:
    found = [
        Request(Path("o"), one).on_organism for one in (("a", "shortcut-organism"), ("organism",), ("a", "b"))
    ]
    assert found == [True, True, False]
    with pytest.raises(RunError, match="0 for all; got -1"):
        Request(Path("o"), n=-1)


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the script; the page is there. What a process would end with is in `code` of the folder."""
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "fig0_script.py").write_text("1")
    (tmp_path / "fig0.html").touch()

    def ended(command: list[str], environment: Any, out: Any) -> int:
        with (folder / "calls").open("a") as calls:
            calls.write("x")
        out.write((folder / "said").read_bytes() if (folder / "said").is_file() else b"")
        return int((folder / "code").read_text()) if (folder / "code").is_file() else 0

    monkeypatch.setattr(session, "_ended", ended)
    return folder


def n_calls(scripts: Path) -> int:
    return len((scripts / "calls").read_text())


def test_a_script_runs_again_where_anything_changed(scripts: Path, tmp_path: Path, monkeypatch: Any) -> None:
    def run(**more: Any) -> str:
        return Session(Request(tmp_path, **more), scripts).run(PLAIN).outcome

    assert [run(), run()] == ["done", "done"]
    assert n_calls(scripts) == 1
    run(n=3)
    run(options={"device": "cuda"})
    (scripts / "fig0_script.py").write_text("2")
    run(options={"device": "cuda"})
    monkeypatch.setattr("interp.__version__", "99")
    run(options={"device": "cuda"})
    run(options={"device": "cuda"})
    assert n_calls(scripts) == 5
    (scripts / "code").write_text("1")
    (tmp_path / "fig0.html").unlink()
    assert [run(options={"device": "cuda"})] * 2 == ["failed", "failed"]
    run(options={"device": "cuda"})  # what failed is tried again
    assert n_calls(scripts) == 7


@pytest.mark.parametrize(
    ("code", "text", "reason"),
    [
        (2, "error: first\nmore\nerror: last\n\n", "last"),
        (0, "fine\n", "The script ended without an error but wrote no fig0.html."),
        (3, "", "The script ended with code 3: it printed nothing"),
        (1, "\n".join("abcdefgh") + "\n\n", "The script ended with code 1: c / d / e / f / g / h"),
        (1, "no error: here", "The script ended with code 1: no error: here"),
    ],
)
def test_why_a_script_failed(scripts: Path, tmp_path: Path, code: int, text: str, reason: str) -> None:
    (tmp_path / "fig0.html").unlink()
    (scripts / "code").write_text(str(code))
    (scripts / "said").write_text(text)
    own = Session(Request(tmp_path), scripts)
    state = own.run(PLAIN)
    assert (state.outcome, state.reason) == ("failed", reason)
    assert own.log(PLAIN).read_text() == text
    assert Session(Request(tmp_path), scripts).state(PLAIN) == state
    assert json.loads((tmp_path / "reproduce.json").read_text())["fig0"]["reason"] == reason


def test_a_page_of_a_script_that_failed_is_not_done(scripts: Path, tmp_path: Path) -> None:
    (scripts / "code").write_text("1")
    assert Session(Request(tmp_path), scripts).run(PLAIN).outcome == "failed"


def test_figures_are_in_the_papers_order() -> None:
    assert [one.name for one in figures_named(["table1", "fig1"])] == ["fig1", "table1"]
    with pytest.raises(RunError, match=r"got nope, fig9\."):
        figures_named(["nope", "fig1", "fig9"])


def test_every_option_of_the_command_is_in_the_request(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("interp.reproduce.scripts_folder", lambda given: given)
    monkeypatch.setattr("interp.reproduce_command._show", lambda own, chosen: asked.append((own, chosen)))
    words = f"reproduce --list --model a b --vgmed {folders['vgmed']} --coco {folders['coco']} --out there --no-paper"
    more = f"--benchmarks slake={folders['slake']} pmc_vqa={folders['pmc_vqa']} --only fig3 --n 4 --published-heads h"
    last = f"--studies {tmp_path} --device cuda --dtype float16 --batch-size 2 --workers 3"
    assert main(f"{words} {more} {last}".split()) == 0
    ((own, chosen),) = asked
    options = {"device": "cuda", "dtype": "float16", "batch-size": "2", "workers": "3"}
    data = some(folders, "vgmed", "coco", "slake", "pmc_vqa")
    assert own.request == Request(Path("there"), ("a", "b"), data, False, 4, "h", options)
    assert own.scripts == tmp_path
    assert [one.name for one in chosen] == ["fig3"]


def test_a_choice_of_heads_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(
        "interp.study.refinement.method_choice.grounding", lambda *a, **k: given.append((a, k))
    )
    model = ModelSpec("organism")
    HeadChoice(choose_by="kl", rule="center", metric="js").grounding(model, None, out="o")
    way = {"metric": "js", "layer_by": "kl", "rule": "center", "rank": False, "published": ""}
    assert given == [((model, None), {**way, "out": "o"})]
    own = HeadChoice(paper=True, choose_on=("x",), published_heads="h").choosing(model)
    assert own == {
        "choose_on": ("x",), "metric": "kl", "layer_by": "kl", "rule": "stretch", "rank": True, "published": "h"
    }  # fmt: skip
    monkeypatch.setattr("interp.paper_options.held_out_sets", lambda *a, **k: given.append((a, k)) or {})
    for choice, reference in (
        (HeadChoice(choose_on=("x",)), None), (HeadChoice(paper=True, choose_on=("x",)), model),
        (HeadChoice(paper=True, choose_on=("x",), published_heads="h"), None),
    ):  # fmt: skip
        assert choice.held_out(["y", "z"], model, n=3, seed=4) == {}
        assert given.pop() == ((["y", "z"], ("x",)), {"n": 3, "seed": 4, "paper_model": reference})
    assert HeadChoice().choosing(model, "medical")["choose_on"] == ("medical",)
    assert HeadChoice(paper=True).choosing(model, "medical")["choose_on"] == ("natural",)
    assert HeadChoice(paper=True, published_heads="h").choosing(model, "medical")["choose_on"] == ("medical",)
    with pytest.raises(StudyError, match="the paper chooses heads and layer on COCO"):
        HeadChoice(paper=True).choosing(ModelSpec("a/model"))


def test_a_script_of_one_model_takes_one_size() -> None:
    spec = PaperChoice(pixels=(50176,)).model("a", dtype="bfloat16")
    assert spec == ModelSpec("a", dtype="bfloat16", processor={"max_pixels": 50176, "min_pixels": 784})
    several = PaperChoice(pixels=(1000, 2000)).models(["a", "b"], device="cuda")
    sizes = [(one.id, one.device, dict(one.processor)["max_pixels"]) for one in several]  # type: ignore[arg-type]
    assert sizes == [("a", "cuda", 1000), ("a", "cuda", 2000), ("b", "cuda", 1000), ("b", "cuda", 2000)]
    assert PaperChoice().model("a", device="cuda") == ModelSpec("a", device="cuda")
    with pytest.raises(StudyError, match=r"--pixels takes one number; got \(1, 2\)"):
        PaperChoice(pixels=(1, 2)).model("a")


@pytest.mark.parametrize(
    ("paper", "n", "way", "few"),
    [
        (True, None, "as the paper does.", " As many samples as each script draws by itself."),
        (False, 1, "by this toolkit's own conventions.", " At most 1 sample of each data set."),
        (True, 0, "as the paper does.", ""),
    ],
)
def test_the_index_says_what_was_asked(
    folders: dict[str, Path], paper: bool, n: int | None, way: str, few: str
) -> None:
    request = Request(Path("o"), ("a", "b"), some(folders, "coco", "slake"), paper, n)
    named = "Layers, boxes, metrics and the length of closed answers"
    assert index_page._asked(request) == f"Models: a, b. Data: COCO, SLAKE. {named} {way}{few}"
    assert "Data: none of the paper's." in index_page._asked(Request(Path("o"), ("a",)))


def test_the_index_names_each_missing_set_once(folders: dict[str, Path]) -> None:
    figures = [PLAIN, TABLE, replace(PLAIN, data=("vgmed",))]
    shown = str(index_page._missing(Request(Path("o"), ("a",), some(folders, "coco", "slake")), figures))
    assert [shown.count(f">{DATA[name].label}<") for name in ("vgmed", "vqa_rad", "coco")] == [1, 1, 0]
    assert index_page._missing(Request(Path("o"), ("a",), folders), figures) == ""


@pytest.mark.parametrize(
    ("outcome", "here", "made"),
    [
        ("done", '<a href="fig0.html">page</a>', True),
        ("failed", '<b>failed</b> · <a href="logs/fig0.txt">what it printed</a>', True),
        ("missing", '<b>missing</b> · <a href="logs/fig0.txt">what it printed</a>', False),
        ("not run", 'not run · <a href="logs/fig0.txt">what it printed</a>', False),
    ],
)
def test_a_line_of_the_index(
    folders: dict[str, Path], tmp_path: Path, scripts: Path, outcome: Any, here: str, made: bool
) -> None:
    own = Session(Request(tmp_path, ("a", "b"), some(folders, "coco")), scripts)
    own.log(PLAIN).parent.mkdir()
    own.log(PLAIN).touch()
    state = session.State(outcome, reason="why", command="python <x>")
    paper, shows, link, on, known = index_page._line(own, PLAIN, state)
    assert (paper, shows, link) == ("<b>Figure 0</b>", "nothing", here)
    assert on == ("a; COCO" if made else "–")
    folded = "<details><summary>command</summary><code>python &lt;x&gt;</code></details>"
    several = "<p>Only for a: the script takes one model.</p>"
    assert known == f"<p>why</p>{several}<p>Not given: VGMED.</p>{folded}"
    of_all = replace(PLAIN, models="many", note="a note")
    assert index_page._line(own, of_all, state)[3] == ("a, b; COCO" if made else "–")
    assert index_page._to_know(own.request, of_all, session.State("done")) == (
        "<p>a note</p><p>Not given: VGMED.</p>"
    )
    own.log(PLAIN).unlink()
    bare = {"failed": "<b>failed</b>", "missing": "<b>missing</b>", "not run": "not run"}
    assert index_page._line(own, PLAIN, state)[2] == bare.get(outcome, here)
