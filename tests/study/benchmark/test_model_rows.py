"""Rows of a paper's table: baselines, models that only answer, and one model under VGRefine."""

from __future__ import annotations

from pathlib import Path

import pytest

from interp.conformance.tiny import tiny
from interp.data import bundled
from interp.errors import StudyError
from interp.methods import Plain
from interp.study import ModelSpec
from interp.study.benchmark.model_rows import ModelRow, baselines, run_rows, show


def test_a_model_that_only_answers_is_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part in tiny("llava"):
        part.save_pretrained(tmp_path / "other")
    data = bundled("medical", n=2)
    own = ModelRow(ModelSpec("organism"), {"Plain": Plain()})
    rows = [*baselines([], [str(tmp_path / "other")]), own]
    result = run_rows(rows, {"medical": data}, out=tmp_path / "runs", max_new_tokens=1, batch=2)
    lines = result.rows()["model"].tolist()
    assert lines == ["N", f"{tmp_path / 'other'}, adapter answers_only, as it is", "organism, as it is"]
    show(result, tmp_path / "page.html", note="A note.")
    said = capsys.readouterr().out
    assert "they say nothing about the paper's models" in said
    assert "A note." in said
    with pytest.raises(StudyError, match="at least one row"):
        run_rows([], {"medical": data})
