"""What a page says of its runs, its metrics and its failures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from markupsafe import Markup, escape

from interp.metrics import METRICS
from interp.report.provenance import (
    SHOWN_RUNS,
    as_json,
    failure_list,
    meanings,
    metric_terms,
    opening,
    origin,
    provenance,
)
from interp.run import RunFolder


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
    assert "And 1 more run." in provenance(runs[:-1], folded=folded)
    assert "more run" not in provenance(runs[:SHOWN_RUNS], folded=folded)
    assert (f"<summary>{SHOWN_RUNS + 2} runs</summary>" in page) == folded
    assert "<h3>run 0</h3>x" in page


def test_a_page_says_how_to_cite_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", {"interp": "7.8.9"}.__getitem__)
    said = provenance([("run", Markup("x"))])
    assert said.index("Provenance and cost") < said.index("How to cite")
    assert "<code>@software{interp, title = {{interp}: where a multimodal LLM looks" in said
    assert "version = {7.8.9}}</code>" in said


def test_each_list_of_terms_is_a_card() -> None:
    shown = meanings({"a": "one"}, {"b<": "two", "c": Markup("<b>3</b>")})
    assert shown.count('<div class="card"><dl>') == 2
    assert "<dt>b&lt;</dt><dd>two</dd><dt>c</dt><dd><b>3</b></dd>" in shown
    assert shown.startswith("<h2>What the words mean</h2>")


def test_a_metric_is_told_with_its_formula_and_its_chance() -> None:
    known = METRICS["kl"]
    (_, (name, words)) = metric_terms(["kl"], "any").items()
    assert str(name) == f"{known.label[0].upper()}{known.label[1:]} <code>kl</code>"
    assert str(words).startswith(f"<code>{escape(known.formula)}</code><br>")
    assert str(words).endswith(f"Lower is better; a uniform map scores {escape(known.chance)}.")


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
    assert ">3 · 0<" in failure_list(found[:1].assign(layer=3, head=0), ["layer", "head"])


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


def rows(shown: Markup) -> dict[str, str]:
    """The table of one run: first column → second."""
    return dict(re.findall(r"<tr><td[^>]*>(.*?)</td><td[^>]*>(.*?)</td></tr>", shown))


def run_of(tmp_path: Path, manifest: dict[str, Any], total: dict[str, float]) -> RunFolder:
    folder = RunFolder.create(tmp_path, "sweep", {"study": "sweep"})
    folder.write_json("manifest.json", manifest)
    folder.write_json("cost.json", {"total": total})
    return folder


def test_a_run_is_told_by_its_last_session_and_its_cost(tmp_path: Path) -> None:
    last = {"started": "2031", "machine": "M2", "versions": {"torch": "2", "numpy": "1"}, "commit": "abc",
            "command": "python a <b>"}  # fmt: skip
    manifest = {
        "model": {"id": "org/m", "family": "llava", "fingerprint": "0123456789abcdefg", "footprints": "own"},
        "data": {"name": "d", "n": 1, "fingerprint": "f"},
        "device": "cuda:0",
        "sessions": [{"started": "2030", "machine": "M1"}, last],
    }
    total = {"wall_seconds": 12.345, "seconds": 5.0, "forwards": 7.0, "peak_bytes": 2e9}
    folder = run_of(tmp_path, manifest, total)
    assert list(rows(origin(folder, [("rule", "any")])).items()) == [
        ("run", folder.path.name),
        ("model", "org/m, fingerprint 0123456789abcdef"),
        ("data", "d, 1 sample, fingerprint f"),
        ("footprints", "own"),
        ("rule", "any"),
        ("device", "cuda:0; M2"),
        ("computed", "2031, 2 sessions"),
        ("versions", "numpy 1, torch 2"),
        ("commit", "abc"),
        ("command", "<code>python a &lt;b&gt;</code>"),
        ("time", "12.3 s, 7 forward passes"),
        ("peak memory", "2.0 GB"),
    ]


def test_what_a_run_does_not_say_is_a_dash(tmp_path: Path) -> None:
    manifest = {"model": {"family": "llava"}, "sessions": [{}]}
    found = rows(origin(run_of(tmp_path, manifest, {})))
    assert found["model"].startswith("llava, ")
    assert "footprints" not in found
    assert [found[name] for name in ("commit", "command", "peak memory")] == ["–"] * 3
    assert found["time"] == "0.0 s, 0 forward passes"
    assert origin(run_of(tmp_path, manifest, {})).startswith('<div class="scroll"><table class="text">')
