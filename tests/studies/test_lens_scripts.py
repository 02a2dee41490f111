"""`studies/logit_lens.py` and `studies/head_attribution.py` from command line to page, on samples of the organism."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interp.data import Samples, named
from interp.inputs.sample import Sample
from interp.tracing import Knockout, Site, load
from tests.studies.scripts import STUDIES, script


def test_logit_lens_prints_the_gaps_and_shows_maps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script("logit_lens").main(data=("natural",), out=tmp_path, n=6)
    said = capsys.readouterr().out
    page = (tmp_path / "logit_lens.html").read_text()
    page = page[page.index("<main") :]
    assert re.search(
        r"natural · colour  label +layer +-?\d: −?\d\.\d\d nats \(too few groups for an interval\), \d samples?",
        said,
    )
    for asked in ("colour", "size", "side"):
        assert f"natural · {asked}: the answer" in page
    shown = named("natural", n=6)[0]
    assert f"<code>{shown.id}</code>" in page
    assert f"p(“{shown.answer}”), input" in page
    assert "None: every word of every sample was measured." in page
    assert "model organism" in page


def test_lenses_stand_side_by_side_on_one_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = {"lens": ("contextual, same layer", "patchscope"), "n_tokens": 40, "words": ("label",)}
    script("lenses").main(data=("natural",), out=tmp_path, n=8, about="colour", **chosen)
    said = capsys.readouterr().out
    rows = re.findall(r"natural  label   (\w+)\S* .*layer +(-?\d): (\d\.\d\d) .*; first at (\d+) % of", said)
    assert [row[0] for row in rows] == ["contextual", "patchscope"]
    assert rows[0][1] == "-1"  # where image tokens were drawn to the embeddings of words
    assert float(rows[0][2]) > 0.85 > float(rows[1][2])
    page = (tmp_path / "lenses.html").read_text()
    assert "natural · patchscope: the label" in page
    assert "similarity to(“circle”), input" in page


def test_sets_are_parted_by_what_is_asked() -> None:
    parted: Any = script("logit_lens").by_question
    rows = [Sample("a.png", "?", meta=meta) for meta in ({"about": "size", "kind": "x"}, {"kind": "x"}, {})]
    found = parted({"a": Samples(rows, "a")})
    assert {name: len(samples) for name, samples in found.items()} == {"a · size": 1, "a · x": 1, "a": 1}


def test_head_attribution_prints_what_a_knockout_gives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script("head_attribution").main(data=("natural",), out=tmp_path, n=2, seed=3)
    said = capsys.readouterr().out
    found = re.search(r"natural  layer (\d), head (\d): direct (−?[\d.]+), total (−?[\d.]+), ar [\d.]+", said)
    assert found is not None
    layer, head = int(found[1]), int(found[2])
    direct, total = (float(found[i].replace("−", "-")) for i in (3, 4))
    mllm = load("organism")
    lens, site = mllm.to_lens(), Site(layers=[layer], heads=[head], queries="last", keys="all")
    effects = {"direct": [], "total": []}
    for sample in named("natural", n=2, seed=3):
        one = lens.attribution(sample, relative_to="mean")[0]
        effects["direct"].append(float(one.heads.sel(layer=layer, head=head)))
        plain, cut = (
            mllm.trace(sample, edits=e).logits.values[0].astype(float)
            for e in ([], [Knockout(site, mode="zero")])
        )
        token = plain.argmax()
        effects["total"].append((plain[token] - plain.mean()) - (cut[token] - cut.mean()))
    assert direct == pytest.approx(np.mean(effects["direct"]), abs=0.006)
    assert total == pytest.approx(np.mean(effects["total"]), abs=0.006)
    assert "direct effect, logits – attention ratio: rho" in said
    page = (tmp_path / "head_attribution.html").read_text()
    assert "Where direct and total differ" in page
    assert "None: every sample was measured." in page


def test_reasoning_prints_the_changes_of_a_tiny_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script("reasoning").main(out=tmp_path, n=2)
    said = capsys.readouterr().out
    assert (
        len(
            re.findall(
                r"natural  seen by +\d+% of the sentences: −?\d+\.\d\d \(too few groups for an interval\)",
                said,
            )
        )
        == 11
    )
    page = (tmp_path / "reasoning.html").read_text()
    shown = named("natural", n=2, seed=0)[0]
    assert f"the answer is {shown.answer} ." in page
    assert "None: every sample was measured." in page


@pytest.mark.parametrize("name", ["logit_lens", "lenses", "head_attribution", "reasoning"])
def test_they_are_short_declarations_with_the_same_arguments(name: str) -> None:
    assert len((STUDIES / f"{name}.py").read_text().splitlines()) < 150
    assert {"model", "data", "out", "seed", "workers"} <= set(script(name).main.__annotations__)
