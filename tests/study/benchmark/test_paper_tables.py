"""Published tables: their digits as printed, and a text that says whose they are."""

from __future__ import annotations

import pandas as pd
import pytest

from interp.errors import StudyError
from interp.study.benchmark.paper_tables import SOURCE, PaperTable, paper_table


def test_every_printed_digit_is_kept() -> None:
    assert paper_table("F.4").cells[1][:3] == ["PAI", "43.7", "24.48"]
    frame = pd.DataFrame({"Model": ["a"], "x": [1.50], "y": [float("nan")]})
    own = PaperTable("9", "A title", "", frame)
    assert own.cells == [["a", "1.5", "–"]]
    assert own.text().endswith(f"Quoted from {SOURCE}.")
    assert " ".join(own.text().split()).startswith("Published, table 9: A title")
    noted = PaperTable("9", "A title", "65.3 fits neither", frame, source="elsewhere").text().splitlines()
    assert noted[-2:] == ["Quoted from elsewhere.", "Does not add up, or is weighted: 65.3 fits neither."]


def test_a_table_is_read_anew_each_time() -> None:
    first = paper_table("1")
    first.frame.iloc[0, 0] = "changed"
    assert paper_table("1").frame.iloc[0, 0] != "changed"
    assert first.frame.dtypes.iloc[first.n_labels :].eq("float64").all()
    assert paper_table("G.5").n_labels > 1


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_table_lists_those_there_are() -> None:
    for wrong in ("9", 1, None):
        with pytest.raises(StudyError, match=rf"are 1, 2, 3, 4k, 4p, E\.3, F\.4, G\.5; got {wrong!r}"):
            paper_table(wrong)  # pyright: ignore[reportArgumentType]
