"""The benchmark for GPUs runs on a CPU with a tiny model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.mark.slow
def test_the_gpu_benchmark_runs_on_a_cpu(tmp_path):
    small = ["--rounds", "2", "--samples", "4", "--tokens", "3", "--json", str(tmp_path / "found.json")]
    options = ["--device", "cpu", "--tiny", "--dtype", "float32", *small]
    done = subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True, check=True)
    found = json.loads((tmp_path / "found.json").read_text())["tiny"]
    assert "| rows, all layers × heads |" in done.stdout
    assert not found["skipped"]
    assert all(
        one["ms"] > 0 and one["low"] <= one["ratio"] <= one["high"] for one in found["figures"].values()
    )
    assert found["figures"]["generation, no edit"]["to"] == "plain generation"
    assert all(value > 0 for value in found["sweep"].values())
