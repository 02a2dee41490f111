"""`interp adapt`: what it prints, and that the adapter it writes passes the checks on the same model."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import interp
from interp.cli import main
from interp.conformance import check
from interp.conformance.tiny import tiny
from interp.errors import ModelError
from interp.inputs.footprints import center_crop, pad_to_square, squash
from interp.model_commands import _opened
from interp.models.measured import Layout, overlap
from interp.models.measured.behaviour import Behaviour


def test_the_printed_adapter_gives_the_footprints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is printed is a file; its footprints are the family's at a size that was not measured."""
    monkeypatch.chdir(tmp_path)
    for name, size in (("a.png", (112, 84)), ("b.png", (84, 98))):
        Image.new("RGB", size).save(name)
    assert main(["adapt", "llava", "--image", "a.png", "b.png"]) == 0
    printed = capsys.readouterr().out
    Path("printed.py").write_text(printed[printed.index('"""An adapter for interp') :], encoding="utf-8")
    sample = interp.Sample(np.zeros((150, 90, 3), np.uint8), "where is it?")
    own, known = (
        interp.wrap(*tiny("llava"), adapter=adapter).encode(sample).tokens[0]
        for adapter in (runpy.run_path("printed.py")["Adapter"](), "llava")
    )
    np.testing.assert_array_equal(own.image, known.image)
    assert overlap(own.footprints, known.footprints).min() > 0.9


def test_a_family_is_measured_where_and_as_it_is_asked() -> None:
    opened = _opened("llava", "cpu", "bfloat16", None, None)
    assert (opened.dtype, opened.device.type, opened.adapter.name) == (torch.bfloat16, "cpu", "measured")
    with pytest.raises(ModelError, match="device is a name such as"):
        _opened("llava", "nowhere", "float32", None, None)


def test_every_option_of_a_checkpoint_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class AskedError(Exception):
        """Ends the command."""

    def load(*given: Any, **options: Any) -> Any:
        asked.append((given, options))
        raise AskedError

    monkeypatch.setattr("interp.tracing.load", load)
    words = "--device meta --dtype float16 --revision r --processor p"
    with pytest.raises(AskedError):
        main(["adapt", "org/m", *words.split()])
    options = {"device": "meta", "dtype": "float16", "revision": "r", "processor": "p"}
    assert asked == [(("org/m",), {"adapter": "measured", **options})]


def test_a_model_without_a_map_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["adapt", "mllama"]) != 0
    said = capsys.readouterr()
    assert "the decoder's input does not change with the image" in said.out + said.err


def test_a_size_that_is_not_sure_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (300, 200)).save("a.png")
    assert main(["adapt", "deepseek_vl_hybrid", "--image", "a.png"]) == 1
    said = capsys.readouterr().out
    assert "300×200 is not sure: beside its cell a token sees" in said
    assert "than on the other (less than 12% is needed)" in said
    assert "two ways of placing a grid agree to" in said


@pytest.mark.slow
@pytest.mark.parametrize(("family", "window"), [("llava", "center_crop"), ("qwen2_vl", "squash")])
def test_the_written_adapter_passes_every_check(
    family: str,
    window: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["adapt", family, "--out", "my_adapter.py"]) == 0
    printed = capsys.readouterr().out
    assert "336×336" in printed
    assert (tmp_path / "adapt.png").stat().st_size > 1000
    written = Path("my_adapter.py").read_text("utf-8")
    assert f"{window}(size, grid)" in written
    result = check(interp.wrap(*tiny(family), adapter=runpy.run_path("my_adapter.py")["Adapter"]()))
    assert result.passed, result.failures


@pytest.mark.slow
def test_tiles_are_shown_and_no_adapter_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["adapt", "internvl", "--out", "my_adapter.py"]) == 1
    assert "no regular layout fits all sizes" in capsys.readouterr().out
    assert not Path("my_adapter.py").exists()


@pytest.mark.parametrize("order", ["rows", "columns"])
def test_the_source_of_a_layout_states_it(order: str) -> None:
    layout = Layout("pad_to_square", (2, 3), order, 0.9)
    made: dict[str, Any] = {}
    exec(layout.source(Behaviour((7, 9), "prefix", 1), type("Config", (), {"model_type": "novel"})()), made)
    adapter = made["Adapter"]()
    assert (adapter.name, adapter.attends, adapter.first_position) == ("novel_measured", "prefix", 1)
    assert adapter.image_positions([[1, 7, 9, 2, 7]], None).tolist() == [1, 2, 4]
    boxes = adapter.footprints([(60, 30)], {}, None, None).boxes
    second = (
        boxes[2] if order == "columns" else boxes[1]
    )  # of 20×30 pixels, the upper half of each in the padding
    np.testing.assert_allclose(second, [20, 0, 40, 15])


def test_overlaps_by_hand() -> None:
    boxes = np.array([[0, 0, 2, 2], [0, 0, 2, 2], [np.nan] * 4, [np.nan] * 4], float)
    others = np.array([[1, 0, 3, 2], [0, 0, 2, 2], [0, 0, 1, 1], [np.nan] * 4], float)
    np.testing.assert_allclose(overlap(boxes, others), [1 / 3, 1, 0, 1])
    size, grid = (90, 60), (3, 3)
    assert overlap(squash(size, grid).boxes, squash(size, grid).boxes).min() == 1
    assert overlap(center_crop(size, grid).boxes, pad_to_square(size, grid).boxes).max() < 1
