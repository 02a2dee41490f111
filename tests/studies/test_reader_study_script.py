"""The script of the reader study: page and key first, the report from readers' files later, without the model."""

from __future__ import annotations

from pathlib import Path

import pytest

from interp.reader_study import read_key
from interp.study import LayerSweep
from tests.reader_study.cases import answer_file, prefers
from tests.studies.scripts import script


@pytest.mark.slow
def test_a_study_from_page_to_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main = script("reader_study").main
    main(out=tmp_path, n_cases=6, n_duplicates=2, n_validation=2, simulate=2)
    said = capsys.readouterr().out
    assert "Maps of layer " in said
    assert "(8 items)" in said
    assert "SIMULATED: No person answered." in said
    assert "No person answered." in (tmp_path / "reader_study.html").read_text()
    key = read_key(tmp_path / "reader_study_key.json", page=tmp_path / "reader_study" / "page.html")
    assert key.conditions == ("attention", "relative attention")
    assert not list((tmp_path / "reader_study").glob("*key*"))  # the folder for readers has the page alone
    monkeypatch.setattr(LayerSweep, "run", None)  # no model is run for a report
    files = [
        answer_file(tmp_path / f"{name}.json", key, name, prefers(key, "relative attention"))
        for name in ("Ana", "Ben")
    ]
    main(out=tmp_path, answers=tuple(files))
    said = capsys.readouterr().out
    assert "SIMULATED" not in said
    assert "relative attention        readers and cases    1.0" in said
    assert "No person answered." not in (tmp_path / "reader_study.html").read_text()
