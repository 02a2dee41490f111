"""`interp data rate` writes the page; `interp data ratings` reads the files, in the same terms."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from interp.cli import main
from interp.curation.ratings import form_id
from interp.data import jsonl, named
from tests.curation.rated import rating_file, to_rate


@pytest.fixture
def rows(tmp_path: Path) -> str:
    """A file of four samples of the test split."""
    lines = []
    for place, sample in enumerate(to_rate()):
        sample.load().save(tmp_path / f"{place}.png")
        row = {
            "image": f"{place}.png",
            "question": sample.question,
            "meta": {"split": "test"},
            "bbox": [4, 4, 20, 20],
        }
        lines.append(json.dumps(row))
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    return str(tmp_path / "rows.jsonl")


def test_from_a_page_to_kept_samples(rows: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = ["--n", "3", "--seed", "2"]
    assert main(["data", "rate", rows, "--out", str(tmp_path / "rate.html"), *drawn]) == 0
    said = capsys.readouterr().out
    assert "3 samples" in said
    assert f"interp data ratings FILES --data {rows} --split all --seed 2 --n 3" in said
    samples = named(rows, n=3, seed=2)
    assert form_id(samples) in (tmp_path / "rate.html").read_text()
    assert form_id(samples) != form_id(named(rows, n=3))
    plain = tmp_path / "plain.html"
    assert main(["data", "rate", rows, "--out", str(plain), "--title", "Of Monday"]) == 0
    assert capsys.readouterr().out.endswith(f"--data {rows} --split all --seed 0\n")
    assert all(said in plain.read_text() for said in (form_id(named(rows, split="all")), "Of Monday"))
    files = [
        rating_file(
            tmp_path / "a.json", samples, "Ana", {0: (5, 5, 5), 1: (5, 4, 2), 2: (4, 4, 4)}, {2: "Edited?"}
        ),
        rating_file(tmp_path / "b.json", samples, "Ben", {0: (5, 5, 4), 1: (5, 5, 5)}),
    ]
    out = tmp_path / "out"
    assert main(["data", "ratings", *map(str, files), "--data", rows, "--out", str(out), *drawn]) == 0
    assert capsys.readouterr().out.startswith("kept: 2, dropped: 1\n")
    assert [one.question for one in jsonl(out / "kept.jsonl")] == [samples[0].question, "Edited?"]
    assert pd.read_csv(out / "decisions.csv").decision.tolist() == ["kept", "dropped", "kept"]
    assert "rated by Ana, Ben" in (out / "report.html").read_text()


def test_the_rule_and_the_split_are_as_given(
    rows: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = named(rows, split="test")
    files = [
        rating_file(tmp_path / "a.json", samples, "Ana", {0: (5, 5, 5), 1: (5, 4, 2), 2: (4, 4, 4)}),
        rating_file(tmp_path / "b.json", samples, "Ben", {0: (4, 5, 5), 1: (5, 5, 4)}),
    ]
    out = tmp_path / "out"
    given = ["data", "ratings", *map(str, files), "--data", rows, "--out", str(out), "--split", "test"]
    assert main([*given, "--several", "median", "--n-raters", "2", "--lowest", "4"]) == 0
    said = capsys.readouterr().out
    assert "kept samples" in said
    assert pd.read_csv(out / "decisions.csv").decision.tolist() == ["kept", "dropped", "unrated", "unrated"]
    assert main([*given, "--lowest", "5", "--out", str(tmp_path / "none")]) == 0  # any score below 5
    assert capsys.readouterr().out.startswith("dropped: 3, unrated: 1\n")
    assert not (tmp_path / "none" / "kept.jsonl").exists()
    assert main(["data", "rate", rows, "--split", "validation", "--out", str(tmp_path / "p.html")]) == 2
    assert "rating needs at least one sample" in capsys.readouterr().err


def test_errors_are_one_line(rows: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = rating_file(tmp_path / "a.json", named(rows, n=2), "Ana", {0: (5, 5, 5)})
    assert main(["data", "ratings", str(file), "--data", rows, "--n", "3"]) == 2
    said = capsys.readouterr().err
    assert "but these samples need" in said
    assert said.count("\n") == 1
    with pytest.raises(SystemExit, match="2"):
        main(["data", "rating"])
    assert capsys.readouterr().err.startswith("error: ")
