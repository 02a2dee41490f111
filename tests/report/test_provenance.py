"""What a page says of its runs, its metrics and its failures."""

from __future__ import annotations

import pandas as pd
import pytest
from markupsafe import Markup

from interp.report.provenance import SHOWN_RUNS, as_json, failure_list, metric_terms, opening, provenance


def test_metrics_are_explained_by_the_rule_of_the_run() -> None:
    terms = {str(name): str(text) for name, text in metric_terms(["ar", "kl"], "center").items()}
    assert "“center”" in terms["R, N, B, G"]
    words = list(terms.values())
    assert "Higher is better" in words[1]
    assert "Lower is better" in words[2]
    assert "inside the samples' masks" in metric_terms(["ar"], "masks")["R, N, B, G"]


@pytest.mark.parametrize("folded", [False, True])
def test_runs_that_are_not_shown_are_counted(folded: bool) -> None:
    runs = [(f"run {number}", Markup("x")) for number in range(SHOWN_RUNS + 2)]
    page = provenance(runs, folded=folded)
    assert f"run {SHOWN_RUNS - 1}<" in page
    assert f"run {SHOWN_RUNS}<" not in page
    assert "And 2 more runs." in page
    assert "more runs" not in provenance(runs[:SHOWN_RUNS], folded=folded)


def test_each_distinct_failure_is_listed_with_what_failed() -> None:
    found = pd.DataFrame(
        {
            "sample": ["a", "b", "b", "c"],
            "metric": ["ar", "", None, "<kl>"],
            "error": ["E", "E", "E", "F"],
            "reason": ["one", "one", "one", "two"],
        }
    )
    listed = failure_list(found, ["sample", "metric"])
    assert listed.count("<tr>") == 4
    assert "a · ar" in listed
    assert "c · &lt;kl&gt;" in listed
    assert "b ·" not in listed
    assert failure_list(found, ["sample"], distinct=[]).count("<tr>") == 2
    assert failure_list(found, ["sample", "metric"], shown=1).count("<tr>") == 1
    assert "E: one" in failure_list(found[1:2], ["metric"])
    assert ">b<" in failure_list(found[1:2], ["metric"])  # no name is left: the sample's


def test_a_setting_is_told_as_json() -> None:
    class Setting:
        def to_dict(self) -> dict[str, str]:
            return {"name": "é"}

    assert as_json(Setting()) == '{"name": "é"}'
    assert as_json([1, None, "ü"]) == '[1, null, "ü"]'


def test_the_note_of_an_organism_follows_the_lead() -> None:
    plain, noted = (opening(Markup("<i>w</i>"), organism=True, note=note) for note in ("", "More."))
    assert plain.startswith('<p class="lead"><i>w</i></p><p class="note wide">The model is a model organism')
    assert plain.endswith("clinical\nmodel.</p>")
    assert noted.endswith("clinical\nmodel. More.</p>")
    assert opening(Markup("w"), organism=False) == '<p class="lead">w</p>'


def test_an_organism_is_said_to_be_one() -> None:
    assert "model organism" in opening(Markup("words"), organism=True, note="More.")
    assert "More." not in opening(Markup("words"), organism=False, note="More.")
