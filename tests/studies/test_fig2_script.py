"""`studies/fig2_dataset.py` from its command line to its page, against counts made by hand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from interp.data.readers.bundled import SPLITS, bundled
from interp.errors import DataError
from interp.report.tables import read_csv
from tests.data import source_files as files
from tests.studies.scripts import script

HOSTILE = "<script>alert(1)</script>"


def test_shares_of_the_bundled_data_and_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files.image(tmp_path / "a.png")
    rows = tmp_path / "mine.jsonl"
    rows.write_text(
        f'{{"image": "a.png", "question": "?", "modality": "{HOSTILE}", "label": "liver"}}\n'
        '{"image": "a.png", "question": "!", "modality": "mri", "region": "skin"}\n'
    )
    script("fig2_dataset").main(data=("medical", str(rows)), out=tmp_path / "out")
    shares = read_csv(tmp_path / "out/fig2.csv").set_index(["data", "of", "value"])
    everything = [sample for split in SPLITS for sample in bundled("medical", split)]
    by_hand = Counter(sample.meta["modality"] for sample in everything)
    assert shares.loc[("medical", "modality", "CT"), "n"] == by_hand["CT"]
    assert shares.loc[("medical", "modality", "CT"), "share"] == pytest.approx(
        by_hand["CT"] / len(everything)
    )
    assert shares.loc[("mine", "modality", "MR"), "share"] == 0.5
    assert shares.loc[("mine", "region", "Skin"), "share"] == 0.5
    paper = shares.loc["VGMED's 44 source sets"]
    assert paper.loc[("modality", "PET"), "share"] == pytest.approx(1 / 44)
    assert paper.groupby(level="of").share.sum().tolist() == pytest.approx([1.0, 1.0])
    assert f"medical: {len(everything)} samples; modality: " in capsys.readouterr().out
    page = (tmp_path / "out/fig2.html").read_text()
    body = page[page.index("<main") : page.index("</main>")]
    assert HOSTILE not in body
    assert all(one in body for one in ("Table B.1", "MLLMs Know", "4,370", "PolypDB", "Table C.2"))


def test_two_sets_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="different labels"):
        script("fig2_dataset").main(data=("medical", "medical"), out=tmp_path)
