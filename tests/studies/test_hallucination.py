"""The script of hallucination from command line to page, on few scenes of the organism."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.studies.scripts import script


def test_every_decoding_has_marks_by_kind_of_absent_label(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = script("hallucination")
    asked = module.questions(module.scenes(2, 0), module.VISIBLE, 1, 0)
    shown = {one.id: one.answer for one in asked}
    assert set(shown.values()) == {"yes", "no"}
    there = {one.id for one in asked if one.answer == "yes"}
    findings = {name: {("no" if name in there else "yes"): 1.0} for name in shown}
    (tmp_path / "findings.json").write_text(json.dumps(findings))
    module.main(
        data=("natural",), out=tmp_path, n=2, per_picture=1, findings=tmp_path / "findings.json", tokens=1
    )
    table = pd.read_csv(tmp_path / "hallucination.csv")
    assert set(table.method) == {"Plain", "VCD", "PAI", "CCD"}
    assert set(table.negatives) == {"all", "random", "popular", "adversarial"}
    plain = table[(table.method == "Plain") & (table.negatives == "all")].set_index("measure").value
    assert plain["yes_ratio"] == 0.5
    assert plain["accuracy"] == 1
    own = table[(table.method == "CCD") & (table.negatives == "popular")].set_index("measure")
    assert own.loc["f1", "n"] == len(shown) / 3
    assert "natural · Plain · adversarial: accuracy" in capsys.readouterr().out
    assert "Yes or no" in (tmp_path / "hallucination.html").read_text("utf-8")


def test_absent_shapes_are_in_no_scene() -> None:
    """By the renderer's own list of what it drew."""
    module = script("hallucination")
    from interp.data.scenes import natural_scenes

    drawn = [{thing.shape for thing in scene.things} for scene, _ in natural_scenes("test", 12, 3)]
    asked = module.questions(module.scenes(12, 3), module.VISIBLE, 2, 0)
    assert len(asked) > 60
    for one in asked:
        place = int(one.group.rpartition("-")[2])
        assert (one.meta["label"] in drawn[place]) == (one.answer == "yes")
        assert one.question == f"Is the {one.meta['label']} visible?"
