"""The one caller of the model."""

from __future__ import annotations

import ast
from pathlib import Path

import interp
import tests.tiny as tiny
from interp.tracing import Mllm, Prefix
from interp.tracing.cost import Meter
from interp.tracing.passes.run import embeddings

ROOT = Path(interp.__file__).parent
APART = ("conformance", "organism")
"""They compare with the model as it is, and train one."""


def calls_a_model(node: ast.AST) -> bool:
    """Whether a node is `hf(…)` or `something.hf(…)`."""
    function = node.func if isinstance(node, ast.Call) else None
    return getattr(function, "id", getattr(function, "attr", None)) == "hf"


def test_one_function_calls_the_model() -> None:
    found = [
        (path.relative_to(ROOT).as_posix(), node.lineno)
        for path in sorted(ROOT.rglob("*.py"))
        if path.relative_to(ROOT).parts[0] not in APART
        for node in ast.walk(ast.parse(path.read_text()))
        if calls_a_model(node)
    ]
    assert [name for name, _ in found] == ["tracing/passes/run.py"]


def test_every_pass_is_counted(mllm: Mllm) -> None:
    batch = mllm.encode(tiny.samples())
    prefix = mllm.prefix(batch)
    assert isinstance(prefix, Prefix)
    n = batch.inputs["input_ids"].numel()
    assert (mllm.trace(batch).cost.forwards, mllm.trace(batch).cost.tokens) == (1, n)
    assert (prefix.cost.forwards, prefix.cost.tokens) == (1, len(batch) * max(prefix.lengths))
    meter = Meter(mllm.device)
    embeddings(mllm, batch, meter)
    assert (meter.forwards, meter.tokens) == (1, 0)
