"""The study on a tiny LLaVA with random weights, from declaration to report."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interp.data import Samples, bundled
from interp.indicators import Attention
from interp.inputs.prompt import GENERIC_PROMPT
from interp.metrics import attention_ratio
from interp.study import LayerSweep
from interp.tracing import Mllm, wrap
from tests import tiny

SCRIPT = Path(__file__).parents[2] / "studies" / "fig3_layer_sweep.py"


@pytest.fixture(scope="module")
def mllm() -> Mllm:
    return wrap(tiny.llava(), tiny.processor())


def test_each_score_is_the_metric_of_the_indicators_own_map(mllm: Mllm, tmp_path: Path) -> None:
    data = Samples(
        [tiny.sample(f"is it {'very ' * i}red?", i, boxes=[(8, 8, 40, 30)], id=f"{i}") for i in range(5)]
    )
    result = LayerSweep(model=mllm, data=data, batch=2).run(tmp_path, progress=False)
    scores = result.scores.set_index(["sample", "layer", "metric", "control"]).value
    for found in data:
        maps = Attention(relative_to=GENERIC_PROMPT)(mllm, [found])
        expected = attention_ratio(maps[0].values, maps.tokens[0].mask(found.boxes))
        for layer in range(mllm.n_layers):
            assert scores[found.id, layer, "ar", "boxes"] == pytest.approx(expected[layer], rel=1e-4)
    assert result.failures.empty
    assert np.isfinite(result.scores.value).all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint on disk."""
    path = tmp_path_factory.mktemp("model")
    tiny.llava().save_pretrained(path)
    tiny.processor().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def figure() -> Callable[..., Any]:
    """The script's `main`."""
    spec = importlib.util.spec_from_file_location("fig3_layer_sweep", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.mark.slow  # `tests/run/test_kills.py` kills runs anywhere; `test_figure_3…` runs the script
def test_a_killed_figure_3_is_finished_with_the_same_bytes(
    folder: Path, figure: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        sys.executable,
        str(SCRIPT),
        "--model",
        str(folder),
        "--out",
        str(tmp_path / "killed"),
        "--n",
        "4",
    ]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob("killed/*/shards/*.parquet")):
        assert process.poll() is None, "the script ended before its first shard"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() != 0
    options = {"model": str(folder), "n": 4}
    figure(**options, out=tmp_path / "killed")
    printed = capsys.readouterr().out
    figure(**options, out=tmp_path / "whole")
    assert _hashes(tmp_path / "killed") == _hashes(tmp_path / "whole")
    assert "attention ratio (higher is better)" in printed
    assert "on validation samples that share no group with these" in printed
    assert f"Report: {tmp_path / 'killed' / 'fig3.html'}" in printed
    report = (tmp_path / "killed" / "fig3.html").read_text()
    assert "natural" in report
    assert "medical" in report


def _hashes(out: Path) -> dict[str, str]:
    files = sorted(out.glob("*/*/*.parquet"))
    assert len(files) > 20
    return {str(file.relative_to(out)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_bundled_splits_share_no_group() -> None:
    for name in ("natural", "medical"):
        groups = [{found.group for found in bundled(name, split=split)} for split in ("validation", "test")]
        assert not groups[0] & groups[1]
