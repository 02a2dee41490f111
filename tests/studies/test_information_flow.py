"""`studies/information_flow.py` from its command line to its page, on a few samples of the organism."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from interp.data import named
from interp.tracing import Knockout, Site, load
from tests.studies.scripts import script


def test_it_prints_what_knockouts_give_and_leaves_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script("information_flow").main(out=tmp_path, n=2, seed=3)
    said = capsys.readouterr().out
    mllm, changes = load("organism"), []
    for sample in named("natural", n=2, seed=3):
        site = Site(layers=[0, 1], queries="last", keys="question")
        plain, cut = (
            mllm.trace(sample, edits=e).logits.values[0].astype(float) for e in ([], [Knockout(site)])
        )
        token = plain.argmax()
        before, after = (np.exp(v - np.log(np.exp(v).sum()))[token] for v in (plain, cut))
        assert mllm.processor.tokenizer.decode([token]).strip() == sample.answer
        changes.append((after - before) / before * 100)
    table = said[said.index("organism · natural: change of the answer's probability") :]
    row = next(line for line in table.splitlines() if re.match(r"│ +0–1 │", line))
    assert row.split("│")[4].strip() == f"{np.mean(changes):.1f}".replace("-", "−")
    assert "organism · medical: change of accuracy" in said
    page = (tmp_path / "information_flow.html").read_text()
    assert "model organism" in page
    assert "elsewhere→after_image" in page
    assert "Does it depend on the data?" in page


def test_one_data_set_heads_and_flows_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script("information_flow").main(
        data=("natural",), out=tmp_path, n=2, by="head", flows=("question->last",), target="greedy"
    )
    said = capsys.readouterr().out
    assert re.search(r"question→last: lowest at layer 0, head \d, p −", said)
    assert "Does it depend" not in (tmp_path / "information_flow.html").read_text()
