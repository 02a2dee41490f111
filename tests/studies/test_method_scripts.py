"""The method studies from their command line to their page, on a few samples of the organism."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from interp.data import named
from interp.inputs.answers import accepted
from interp.paper_options import HeadChoice
from interp.tracing import load
from tests.studies.scripts import STUDIES, script

SCRIPTS = ("vgrefine", "table4_ablation", "tableF4_methods")
PAPER = HeadChoice(paper=True)
FEW: dict[str, Any] = {"data": ("medical",), "n": 4, "n_validation": 3, "tokens": 2}


def methods(out: Path) -> dict[str, dict[str, Any]]:
    """What each run under `out` was of, by the folder."""
    found = (json.loads((path / "study.json").read_text()) for path in sorted(out.glob("refinement-*")))
    return {
        path.name: one["method"] for path, one in zip(sorted(out.glob("refinement-*")), found, strict=True)
    }


def test_vgrefine_answers_before_and_after_in_both_variants(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script("vgrefine").main(**FEW, out=tmp_path, k=2, way=HeadChoice(metric="ar"))
    said = capsys.readouterr().out
    layer = int(re.findall(r"the top 2 of 48 heads by ar, and layer (\d) by attention ratio", said)[0])
    ran = list(methods(tmp_path).values())
    assert {(one["variant"], one["percentile"], one["mode"]) for one in ran} == {
        ("code", 80.0, "renormalise"),
        ("paper", 50.0, "zero"),
    }
    assert all(one["layers"] == [layer] and len(one["heads"]) == 2 for one in ran)
    assert ran[0]["heads"] == ran[1]["heads"]
    page = (tmp_path / "vgrefine.html").read_text()
    assert "model organism" in page
    mllm, data = load("organism"), named("medical", n=FEW["n"])
    plain = mllm.trace(list(data), generate=2).answers
    assert plain is not None
    right = sum(
        text == accepted(one, mllm.encode([one]).prompt) for text, one in zip(plain, data, strict=True)
    )
    assert said.count(f" {right / FEW['n']:.3f} ") >= 2  # accuracy before, in both lines


def test_table_4_is_one_grid_and_ranks_heads_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script("table4_ablation").main(**FEW, out=tmp_path, k=(1, 100), p=(30, 90))
    ran = [(len(one["heads"]), one["percentile"]) for one in methods(tmp_path).values()]
    assert sorted(ran) == [
        (k, float(p)) for k in (1, 48) for p in (30, 90)
    ]  # k clipped to the heads there are
    assert len(list(tmp_path.glob("head-ranking-*"))) == 1
    assert len(list(tmp_path.glob("grid-*"))) == 1
    page = (tmp_path / "table4.html").read_text()
    assert '"figure-heat"' in page
    assert "The best cell of a table looks better than it is" in " ".join(page.split())
    assert "k = 48, p = 90" in capsys.readouterr().out
    sweeps = (tmp_path / "table4_sweeps.html").read_text()
    assert "k, at p = 30" in sweeps  # the nearest to the paper's 50
    assert "p, at k = 1" in sweeps  # 1 is nearer to the paper's 20 than 48 is
    assert all(
        f"<td>{number}</td>" in sweeps for number in ("68.62", "76.88", "68.11")
    )  # the paper's, quoted
    for k, p, value in ((1, 30, 1), (48, 30, 48), (1, 90, 90)):
        assert f"<tr><td>{value}</td><td>{accuracy(tmp_path, k, p):.1f} (" in sweeps


def accuracy(out: Path, k: int, percentile: float) -> float:
    """The share of right answers of a cell, in %, from its stored samples."""
    (name,) = (
        n for n, one in methods(out).items() if (len(one["heads"]), one["percentile"]) == (k, percentile)
    )
    rows = pa.concat_tables(pq.read_table(file) for file in (out / name / "shards").glob("*samples*"))
    return 100 * float(np.mean(rows["correct_after"].to_pylist()))


def test_the_papers_sweeps_are_a_cross_in_the_grid(tmp_path: Path) -> None:
    script("table4_ablation").main(**FEW, out=tmp_path, k=(1, 2, 3), p=(40, 50), sweeps=True, way=PAPER)
    ran = methods(tmp_path).values()
    assert sorted((len(one["heads"]), one["percentile"]) for one in ran) == [
        (1, 50),
        (2, 50),
        (3, 40),
        (3, 50),
    ]
    assert {(one["variant"], one["mode"]) for one in ran} == {("paper", "zero")}


def test_before_and_after_at_the_layer_of_lowest_kl(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Heads and layer come from natural scenes, as the paper's from COCO, and are used on medical images."""
    few = {"data": ("medical",), "n": 2, "n_validation": 3, "k": 2}
    script("figJ2_before_after").main(**few, out=tmp_path, way=PAPER, model=("organism", "organism-1"))
    said = capsys.readouterr().out
    layers = [
        int(found)
        for found in re.findall(r"natural: the top 2 of 48 heads by kl, and layer (\d) by KL", said)
    ]
    ran = [json.loads((path / "study.json").read_text()) for path in sorted(tmp_path.glob("refinement-*"))]
    assert sorted(one["read_layer"] for one in ran) == sorted(layers)
    assert all(one["method"]["layers"] == [one["read_layer"]] for one in ran)
    assert {one["method"]["variant"] for one in ran} == {"paper"}
    page = (tmp_path / "figJ2.html").read_text()
    assert page.count("attention, after") == 2 * 4  # caption and alternative text of each picture
    assert all(f"{model} · " in page for model in ("organism", "organism-1"))


@pytest.mark.slow
def test_table_f4_compares_every_pair_of_methods(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script("tableF4_methods").main(**FEW, out=tmp_path)
    said = capsys.readouterr().out
    names = ("Plain", "VGRefine, code", "VGRefine, paper", "PAI", "AdaptVis", "ScalingVis", "HGAI", "ViCrop")
    page = (tmp_path / "tableF4.html").read_text()
    for place, name in enumerate(names):
        assert f"<td>{name}</td>" in page
        for other in names[place + 1 :]:
            assert f"{name} − {other}" in said
    weight = float(re.findall(r"medical: ScalingVis with weight ([\d.]+)", said)[0])
    tried = [one["weight"] for one in methods(tmp_path).values() if one["method"] == "ScalingVis"]
    assert sorted(tried) == sorted(
        [0.5, 0.8, 1.2, 1.5, 2.0, weight]
    )  # on validation, and the chosen one on test
    assert "Only 4 groups" in said or "Only 3 groups" in said or "Only 2 groups" in said
    assert "Failures" not in said


@pytest.mark.parametrize("name", SCRIPTS)
def test_samples_without_answers_are_refused(name: str, tmp_path: Path) -> None:
    rows = tmp_path / "mute.jsonl"
    image = named("natural", n=1)[0].load()
    image.save(tmp_path / "a.png")
    lines = [
        {"image": "a.png", "question": "What?", "bbox": [[1, 1, 9, 9]], "split": split}
        for split in ("test", "validation")
    ]
    rows.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(SystemExit, match="need answers"):
        script(name).main(data=(str(rows),), out=tmp_path)


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_short_and_have_the_same_arguments(name: str) -> None:
    assert len((STUDIES / f"{name}.py").read_text().splitlines()) < 150
    assert {"model", "data", "out", "seed", "workers"} <= set(script(name).main.__annotations__)
    assert f"`{name}.py`" in (STUDIES / "README.md").read_text()
