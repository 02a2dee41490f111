"""`interp data check`: what it prints and writes, and its exit code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from interp.cli import main
from interp.data import Samples, bundled
from interp.data_check.check_commands import _drawn
from tests.data import source_files as files
from tests.data.benchmarks import layouts

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def table(tmp_path: Path) -> Any:
    files.image(tmp_path / "a.png")
    files.image(tmp_path / "b.png", level=3)

    def write(*rows: str) -> str:
        path = tmp_path / "rows.csv"
        path.write_text("\n".join(["image,question,answer,modality,bbox", *rows]) + "\n")
        return str(path)

    return write


def test_good_data_give_counts_a_page_and_0(table: Any, tmp_path: Path, capsys: Any) -> None:
    path = table('a.png,?,yes,CT,"[1,2,13,14]"', 'b.png,?,no,MR,"[1,2,13,14]"')
    assert main(["data", "check", path, "--out", str(tmp_path / "page.html")]) == 0
    shown = capsys.readouterr().out
    assert "rows: 2 samples, read by csv" in shown
    assert "CT ×1, MR ×1" in shown
    assert "0 problems to mend" in shown
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/webp") == 2
    assert "No problem was found." in page


def test_problems_are_listed_and_give_1(table: Any, tmp_path: Path, capsys: Any) -> None:
    path = table('a.png,?,yes,CT,"[1,2,13,44]"', *(f'b.png,?{i},yes,CT,"[1,2,3,4]"' for i in range(25)))
    assert main(["data", "check", path, "--out", str(tmp_path / "page.html")]) == 1
    shown = capsys.readouterr().out
    assert "PROBLEM: box outside (1)\n  rows:2: box (1.0, 2.0, 13.0, 44.0) reaches outside" in shown
    assert "note: tiny box (25)" in shown
    assert "and 22 more, on the page" in shown
    assert "\n1 problem to mend, 26 to know of" in shown
    assert "'yes' answers 26 of 26 questions (100%)" in shown
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/webp") == 12
    assert "1 problem to mend" in page


def test_a_benchmark_is_read_whole(tmp_path: Path, capsys: Any) -> None:
    rows = [
        layouts.vqa_rad_row(1, "Is it?", "yes", "para"),
        layouts.vqa_rad_row(2, "Which?", "liver", "para"),
    ]
    rows.append(layouts.vqa_rad_row(3, "Is it, too?", "no"))
    path = f"vqa_rad:{layouts.vqa_rad_folder(tmp_path, *rows)}"
    out = ["--out", str(tmp_path / "page.html")]
    assert main(["data", "check", path, *out]) in (0, 1)
    said = capsys.readouterr().out
    assert "vqa_rad: 2 samples, read by vqa_rad" in said  # the closed ones
    assert re.search(r"splits +train ×1, test ×1\n", said)
    assert main(["data", "check", path, *out, "--images", "x"]) == 2
    assert "Leave --images out" in capsys.readouterr().err
    assert main(["data", "check", "medical", *out, "--reader", "jsonl"]) == 2  # then it is a path
    assert "medical" in capsys.readouterr().err


def test_the_draw_keeps_order_and_takes_all_where_it_can() -> None:
    samples = bundled("natural", n=8)
    assert _drawn(samples, 8, 0) is _drawn(samples, None, 0) is samples
    places = [list(samples).index(one) for one in _drawn(samples, 5, 0)]
    assert places == sorted(set(places))
    assert len(places) == 5
    assert [one.id for one in _drawn(samples, 5, 0)] != [one.id for one in _drawn(samples, 5, 1)]
    assert isinstance(_drawn(samples, 5, 0), Samples)


def test_no_sample_and_the_seed_are_told(table: Any, tmp_path: Path, capsys: Any) -> None:
    crowd = files.coco_file(tmp_path, [{**files.thing(1, [1, 1, 9, 9]), "iscrowd": 1}])
    out = ["--out", str(tmp_path / "page.html")]
    assert main(["data", "check", str(crowd), *out]) == 2
    assert "gave no samples. What was left out: {'crowd regions': 1}" in capsys.readouterr().err
    path = table('a.png,?,yes,CT,"[1,2,13,14]"')
    assert main(["data", "check", path, *out, "--n", "1", "--seed", "7"]) == 0
    assert "looked at" not in capsys.readouterr().out
    assert "drawn with seed 7" in (tmp_path / "page.html").read_text()
    assert main(["data", "check", path, *out, "--columns", "=image"]) == 2
    assert "--columns takes FIELD=COLUMN" in capsys.readouterr().err


def test_what_came_from_data_is_escaped(table: Any, tmp_path: Path, capsys: Any) -> None:
    path = table(f'a.png,{HOSTILE},{HOSTILE},{HOSTILE},"[1,2,13,14]"')
    assert main(["data", "check", path, "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert HOSTILE not in page
    assert page.count("&lt;script&gt;alert(1)") >= 3


def test_reader_images_and_draws(tmp_path: Path, capsys: Any) -> None:
    path = files.coco_file(tmp_path, [files.thing(i, [1, 1, 9, 9], image_id=1 + i % 2) for i in range(4)])
    (tmp_path / "val2017").rename(tmp_path / "elsewhere")
    arguments = [
        "data",
        "check",
        str(path),
        "--reader",
        "coco_instances",
        "--out",
        str(tmp_path / "page.html"),
    ]
    assert main(arguments) == 1
    assert "no file '000000000001.jpg'" in capsys.readouterr().out
    assert main([*arguments, "--images", str(tmp_path / "elsewhere"), "--n", "1"]) == 0
    assert "looked at 1 of them" in capsys.readouterr().out
    assert main([*arguments, "--reader", "excel"]) == 2
    assert "there is no reader 'excel'" in capsys.readouterr().err


def test_every_bad_row_is_listed_and_options_are_named(table: Any, tmp_path: Path, capsys: Any) -> None:
    path = table('a.png,?,yes,CT,"[0.1,0.2,0.5,0.6]"', 'none.png,?,no,MR,"[1,2,13,14]"')
    out = ["--out", str(tmp_path / "page.html")]
    assert main(["data", "check", path, *out]) == 1
    shown = capsys.readouterr().out
    assert "PROBLEM: bad row (2)" in shown
    assert "pass --box-format fraction" in shown
    assert f"no file 'none.png' in the folder '{tmp_path}': it does not exist" in shown
    assert main(["data", "check", path, *out, "--box-format", "fraction"]) == 1
    assert "PROBLEM: bad row (1)" in capsys.readouterr().out
    assert main(["data", "check", "medical", "--box-format", "xywh", *out]) == 2
    assert "Leave --box-format out" in capsys.readouterr().err
    assert main(["data", "check", path, *out, "--reader", "yolo", "--columns", "image=scan"]) == 2
    assert "the reader yolo takes no --columns; these do: csv, hub" in capsys.readouterr().err


def test_a_column_that_is_not_read_is_named(tmp_path: Path, capsys: Any) -> None:
    files.image(tmp_path / "a.png")
    (tmp_path / "rows.jsonl").write_text('{"image": "a.png", "question": "?", "bxoes": [1, 2, 13, 14]}')
    out = ["--out", str(tmp_path / "page.html")]
    assert main(["data", "check", str(tmp_path / "rows.jsonl"), *out]) == 0
    shown = capsys.readouterr().out
    assert "  kept as meta           bxoes\n" in shown
    assert "note: column not read (1)\n  bxoes: no sample has what 'boxes' would hold" in shown
    assert "note: no box (1)" in shown
    (tmp_path / "rows.csv").write_text("image,question,xmim,ymin,xmax,ymax\na.png,?,1,2,13,14\n")
    assert main(["data", "check", str(tmp_path / "rows.csv"), *out]) == 2
    assert "Did you mean 'xmim'? Rename it, or pass --columns x0=xmim." in capsys.readouterr().err
    assert main(["data", "check", str(tmp_path / "rows.csv"), *out, "--columns", "x0=xmim"]) == 0
    assert "0 problems to mend, 0 to know of" in capsys.readouterr().out
    assert main(["data", "check", str(tmp_path / "rows.csv"), *out, "--columns", "xmim"]) == 2
    assert "--columns takes FIELD=COLUMN" in capsys.readouterr().err


def test_help_lists_the_command(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main(["data", "--help"])
    assert "check" in capsys.readouterr().out


def test_a_corner_and_a_size_are_read_as_advised(tmp_path: Path, capsys: Any) -> None:
    Image.new("RGB", (64, 48), "white").save(tmp_path / "a.png")
    rows = tmp_path / "rows.csv"
    rows.write_text("image,question,x,y,w,h\na.png,Is it?,5,6,20,30\n")
    given = ["data", "check", str(rows), "--out", str(tmp_path / "page.html")]
    assert main(given) == 0
    advice = "--columns x0=x y0=y x1=w y1=h --box-format xywh"
    assert (
        f"column not read (1)\n  x, y, w, h: they look like a corner and the size of a box. If so: {advice}"
        in (capsys.readouterr().out)
    )
    assert main([*given, *advice.split()]) == 0
    said = capsys.readouterr().out
    assert "note" not in said
    assert "boxes a sample         1" in said


def test_a_folder_of_pictures_alone_needs_a_table(tmp_path: Path, capsys: Any) -> None:
    Image.new("RGB", (64, 48), "white").save(tmp_path / "a.png")
    assert main(["data", "check", str(tmp_path)]) == 2
    assert "It holds pictures, and data need questions too" in capsys.readouterr().err
