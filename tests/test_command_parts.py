"""Parts of `interp models`, `adapt`, `look`, `explore` and `doctor`: exit codes, words and options, without a model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from interp import doctor_command, look_commands, model_commands
from interp.cli import main
from interp.conformance.family_facts import FamilyFacts
from interp.doctor_command import _checked, _parts, _room
from interp.errors import DataError
from interp.inputs.footprints import Footprints
from interp.model_commands import _facts, _overlay, _prefix
from interp.models.measured.patterns import texture
from interp.terminal import WIDTH, console, in_options, naming_options

LLAVA = FamilyFacts("llava", "a grid", ("org/one",), "self", "causal", True, False, False, ("llava",), "")
CHECKS = ["image prefix", "several images", "executors"]


def record(*failed: str, checks: list[str] = CHECKS) -> dict[str, Any]:
    passed = len(checks) - len(failed)
    return {
        "passed": passed,
        "total": len(checks),
        "failed": list(failed),
        "checks": checks,
        "date": "2026-01-02",
    }


@pytest.mark.parametrize(
    ("attends", "maps", "words"),
    [
        ("causal", "self", "exact"),
        ("images", "self", "exact"),
        ("prefix", "self", "not exact, not used"),
        ("causal", "cross", "none, not used"),
        ("prefix", "cross", "none, not used"),
    ],
)
def test_whether_a_prefix_is_exact(attends: str, maps: str, words: str) -> None:
    assert _prefix(attends, maps) == words


@pytest.mark.parametrize(
    ("found", "prefix", "images", "executors", "checked"),
    [
        (record(), "exact", "one", "tap, source", "3/3, 2026-01-02"),
        (record("image prefix"), "FAILS", "one", "tap, source", "2/3, 2026-01-02"),
        (record("several images"), "exact", "FAILS", "tap, source", "2/3, 2026-01-02"),
        (record("executors"), "exact", "one", "FAILS", "2/3, 2026-01-02"),
        (
            record(checks=["image prefix"]),
            "exact",
            "FAILS",
            "FAILS",
            "1/1, 2026-01-02",
        ),  # not run is not passed
        (None, "?", "?", "?", "never recorded"),
    ],
)
def test_facts_are_of_the_record(found: Any, prefix: str, images: str, executors: str, checked: str) -> None:
    assert _facts(LLAVA, found) == {
        "maps": "self", "attends": "none", "video": "yes", "tower": "no", "prefix": prefix, "images": images,
        "executors": executors, "checked": checked,
    }  # fmt: skip


def test_a_family_is_available_by_its_types_and_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    known = frozenset({"llava", "other"})
    monkeypatch.setattr("interp.conformance.family_facts.version", lambda _: "5.20.1")
    for types, needs, here in (
        (("llava",), "", True), (("absent", "llava"), "5.20", True), (("absent",), "", False), ((), "5.20.1", True),
        (("llava",), "5.21", False), ((), "5.100", False),
    ):  # fmt: skip
        assert (
            FamilyFacts(**{**vars(LLAVA), "model_types": types, "needs": needs}).is_available(known) is here
        )


class Size(SimpleNamespace):
    """What was measured of one size."""

    def __init__(self, sure: bool) -> None:
        boxes = np.array([[0.0, 0, 4, 4], [np.nan] * 4])
        super().__init__(
            size=(8, 6), sure=sure, positions=[1, 2], layout="", trust=0.5, stray=0.25, n_images=3,
            doubts=() if sure else ("a doubt",), footprints=SimpleNamespace(boxes=boxes),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("sure", "fits", "out", "code"),
    [
        ((True, True), True, False, 0), ((True, True), True, True, 0), ((True, True), False, False, 0),
        ((True, True), False, True, 1), ((False, True), True, False, 1), ((True, False), True, True, 1),
    ],
)  # fmt: skip
def test_adapt_ends_with_0_if_every_size_is_sure(
    sure: tuple[bool, ...],
    fits: bool,
    out: bool,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    for name, size in (("a.png", (8, 6)), ("b.png", (9, 7))):
        Image.new("RGB", size).save(tmp_path / name)
    left, asked = [Size(one) for one in sure], []
    adapter = SimpleNamespace(
        measured=lambda size, _: asked.append(size) or left.pop(0),
        inputs=lambda size, _: {},
        behaviour=SimpleNamespace(ids=(5,), attends="causal", first_position=0),
    )
    mllm = SimpleNamespace(adapter=adapter, processor=None, hf=SimpleNamespace(config=None))
    monkeypatch.setattr(model_commands, "_opened", lambda *_: mllm)
    layout = SimpleNamespace(words="a grid", source=lambda *_: "the source") if fits else None
    monkeypatch.setattr("interp.models.measured.layout_of", lambda *_: layout)
    monkeypatch.setenv("COLUMNS", "200")
    words = ["--picture", "None", "--image", str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    words += ["--out", str(tmp_path / "mine.py")] if out else []
    assert main(["adapt", "m", *words]) == code
    said = capsys.readouterr().out
    assert asked == [(8, 6), (9, 7)]
    assert "2, 1 without area" in said
    assert ("50% (not sure)" in said) is ("8×6 is not sure: a doubt" in said) is not all(sure)
    assert (tmp_path / "mine.py").exists() is (fits and out)
    assert ("the source" in said) is (fits and not out)


def test_an_overlay_shows_each_view_beside_the_other(tmp_path: Path) -> None:
    """Twice as large as 200 × 120: the boxes of each view on its own copy, green where it is sure, else red."""
    boxes = np.array([[0, 0, 100, 60], [100, 60, 200, 120], [np.nan] * 4, [0, 60, 100, 120]], float)
    seen = Footprints(boxes, None, np.array(["a", "a", "a", "b"]), np.zeros(4, int))
    one = SimpleNamespace(size=(200, 120), footprints=seen, confidence=np.array([1.0, 0.0, 1.0, 2.0]))
    picture = np.asarray(Image.open(_overlay(one, tmp_path / "a.png")).convert("RGB"))
    assert picture.shape == (240, 808, 3)
    assert picture[100, 0].tolist() == picture[239, 508].tolist() == [0, 255, 0]
    assert picture[239, 300].tolist() == [255, 0, 0]
    plain = np.asarray(Image.fromarray(texture((200, 120), 0)).resize((400, 240)))
    assert np.array_equal(picture[:120, 408:], plain[:120])  # no box of the first view


def test_an_overlay_is_as_large_as_fits_480_pixels(tmp_path: Path) -> None:
    boxes = np.array([[0, 0, 10, 10]], float)
    for size, scale in (((240, 100), 2), ((241, 100), 1), ((100, 500), 1)):
        seen = Footprints(boxes, None, np.array(["a"]), np.zeros(1, int))
        one = SimpleNamespace(size=size, footprints=seen, confidence=np.array([0.5]))
        with Image.open(_overlay(one, tmp_path / "a.png")) as picture:
            assert picture.size == (scale * size[0], scale * size[1])
            assert picture.getpixel((0, 5)) == (128, 127, 0)  # half sure


def test_sizes_are_those_of_the_images_or_three(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    assert model_commands._sizes([tmp_path / "a.png"]) == [(8, 6)]
    assert model_commands._sizes([]) == [(336, 336), (448, 252), (224, 420)]


def test_a_look_takes_every_option(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []

    def load(*given: Any, **options: Any) -> str:
        asked.append((given, options))
        return "the model"

    def looked(*given: Any, **options: Any) -> Any:
        asked.append((given, options))
        return SimpleNamespace(save=lambda out: Path(out))

    monkeypatch.setattr("interp.tracing.load", load)
    monkeypatch.setattr("interp.study.look", looked)
    monkeypatch.setattr(look_commands, "_show", lambda _, path, opened: asked.append((path, opened)))
    words = (
        "look a.png what? --model m --box 1 2 3 4 --box 5 6 7 8 --box-format xywh --more b.png --indicator x y "
        "--layer 3 --trust full --generate 5 "
        "--device meta --dtype bfloat16 --revision r --processor p --adapter z --no-open"
    )
    assert main([*words.split(), "--out", str(tmp_path / "o.html")]) == 0
    names = {"device": "meta", "dtype": "bfloat16", "revision": "r", "processor": "p", "adapter": "z"}
    rest = {
        "boxes": ((1, 2, 3, 4), (5, 6, 7, 8)), "box_format": "xywh", "indicator": ["x", "y"], "layer": 3,
        "trust": "full", "generate": 5,
    }  # fmt: skip
    pictures = [Path("a.png"), Path("b.png")]
    shown = ((tmp_path / "o.html").resolve(), False)
    assert asked == [(("m",), names), (("the model", pictures, "what?"), rest), shown]
    assert main(["look", "a.png", "what?", "--layer", "-1"]) == 0
    (_, images, _), options = asked[4]
    assert images == Path("a.png")
    assert (options["boxes"], options["indicator"], options["layer"]) == (None, None, "-1")


@pytest.mark.parametrize(
    ("terminal", "display", "opened", "shown"),
    [(True, "DISPLAY", True, True), (True, "WAYLAND_DISPLAY", True, True), (True, "", True, False),
     (False, "DISPLAY", True, False), (True, "DISPLAY", False, False)],
)  # fmt: skip
def test_a_page_opens_on_a_display_alone(
    terminal: bool, display: str, opened: bool, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[str] = []
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    if display:
        monkeypatch.setenv(display, ":0")
    monkeypatch.setattr(look_commands.sys, "platform", "linux")
    monkeypatch.setattr(look_commands.sys.stdout, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(look_commands, "_say", lambda *_: None)
    monkeypatch.setattr(look_commands.webbrowser, "open", pages.append)
    look_commands._show(None, Path("/a.html"), opened)  # pyright: ignore[reportArgumentType]
    assert pages == (["file:///a.html"] if shown else [])


@pytest.mark.parametrize(
    ("text", "name", "wanted"),
    [
        ("torch<3,>=2.4", "torch", "<3,>=2.4"),
        ("ray[client,default]>=2; extra == 'ray'", "ray", ">=2"),
        ("numpy", "numpy", ""),
        ("a-b.c (>=1)", "a-b.c", ">=1"),
    ],
)
def test_a_requirement_is_a_name_and_a_range(text: str, name: str, wanted: str) -> None:
    assert _parts(text) == (name, wanted)


@pytest.mark.parametrize(
    ("wanted", "wrong"),
    [("", False), (">=1,<3", False), (">=1,<2", True), (">=3,<4", True), ("==2.0", False)],
)
def test_every_part_of_a_range_counts(wanted: str, wrong: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_command.importlib.metadata, "version", lambda _: "2.0")
    assert _checked("numpy", wanted) == ("2.0", wrong)


def test_weights_may_take_four_fifths_of_what_is_free() -> None:
    """0.8 · 10 GB in 2 bytes are 4 billion parameters, in 4 bytes 2."""
    assert _room(10e9, 20e9, 2) == "10.0 of 20.0 GB free: weights of about 4 billion parameters in bfloat16"
    assert _room(10e9, 20e9, 4) == "10.0 of 20.0 GB free: weights of about 2 billion parameters in float32"


@pytest.mark.parametrize(
    ("answer", "total", "wrong"),
    [
        ("red", [1.0, 1.0], False),
        ("blue", [1.0, 1.0], True),
        ("red", [1.0, 0.99], True),
        ("red", [1.01, 1.0], True),
    ],
)
def test_the_bundled_model_has_to_answer_and_to_add_up(
    answer: str, total: list[float], wrong: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import xarray as xr

    rows = xr.DataArray(np.array(total)[None, :, None] * [0.25, 0.75], dims=("step", "head", "key"))

    class Trace(list[Any]):
        answers = (answer,)

    mllm = SimpleNamespace(trace=lambda *_, **__: Trace([SimpleNamespace(rows=rows)]))
    monkeypatch.setattr("interp.load", lambda _: mllm)
    monkeypatch.setattr("interp.data.bundled", lambda *_, **__: [SimpleNamespace(answer="red")])
    problems: list[str] = []
    ((name, said),) = doctor_command._at_work(problems)
    assert (name, said.partition(" after")[0]) == ("organism", f"answers {answer!r} (expected 'red')")
    assert [one.partition(":")[0] for one in problems] == [
        "the bundled model answers wrongly, or its attention does not add up to 1"
    ] * wrong


def test_a_console_is_as_wide_as_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for columns, width in (("77", 77), ("", WIDTH), ("wide", WIDTH)):
        monkeypatch.setenv("COLUMNS", columns)
        assert console().width == width


def test_messages_name_options_and_keep_their_kind() -> None:
    said = 'columns={"image": "scan"} and box_format="xywh"; columns= or box_format=.'
    assert in_options(said) == "--columns image=scan and --box-format xywh; --columns or --box-format."
    with pytest.raises(DataError, match=r"^pass --columns image=scan$"), naming_options():
        raise DataError('pass columns={"image": "scan"}')
