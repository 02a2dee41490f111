"""The scripts of steering, head roles and probes from command line to files, on few samples of the organism."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

import interp
from interp.errors import InterpError
from tests.studies.scripts import script


def test_a_direction_moves_answers_and_a_random_one_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script("steering").main(out=tmp_path, n=160, alphas=(1.0,), tokens=1)
    table = pd.read_csv(tmp_path / "steering.csv")
    assert table["vector 1"].iloc[-1] > 0.9
    assert (table["random 1"] < 0.2).all()
    vector = interp.load_steering_vector(tmp_path / "blue_to_red.safetensors")
    assert vector.layers == tuple(table.layer)
    assert "share of answers 'red'" in capsys.readouterr().out
    with pytest.raises(InterpError, match="at least 4 groups with the answer 'mauve'; natural has 0"):
        script("steering").main(out=tmp_path, n=20, positive="mauve")


def test_head_roles_and_probes_print_and_write_pages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script("head_roles").main(data=("natural",), out=tmp_path, n=2)
    script("probes").main(out=tmp_path, n=60, positions=("last",), folds=2)
    said = capsys.readouterr().out
    assert re.search(r"natural  L\d\dH\d\d: image_share \d\.\d\d, .*copying", said)
    assert re.search(r"natural +last, accuracy by layer  0: \d\.\d\d, 1: ", said)
    assert "What does each head do?" in (tmp_path / "head_roles.html").read_text()
    assert "can the answer be read linearly?" in (tmp_path / "probes.html").read_text()
