"""What indicators cost: counted as if each ran alone, and as estimated floating-point operations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from interp.study.runs import GridCell
from interp.tracing import Cost

__all__ = ["FLOPS", "PLAIN", "SPENT", "cost_entries", "costs", "flops"]

PLAIN = "plain forward"
SPENT = ("seconds", "forwards", "backwards", "tokens")
FLOPS = """Estimated floating-point operations of the language model's decoder layers: 2 · P · T for the weights, with P
their parameters and T the token positions that went through, plus 4 · L · d · S · T for attention, with L layers, d the
width of all heads and S the mean length of a prompt, as if every position attended to a whole prompt. A backward pass
counts as twice an average forward. Left out: vision tower and projector (which indicators on pixels run again for
every variant), output head, softmax, norms, and the arithmetic on maps."""


def flops(mllm: Any, cost: Cost, length: float) -> float:
    """The estimate of `FLOPS`; NaN for a model without weights to count.

    Args:
        mllm: the model.
        cost: what was spent.
        length: S, mean positions of a prompt.
    """
    if not hasattr(mllm, "hf"):
        return math.nan
    layers = mllm.adapter.layers(mllm.hf)
    weights = sum(weight.numel() for layer in layers for weight in layer.parameters())
    config = mllm.hf.config.get_text_config(decoder=True)
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    each = 2 * weights + 4 * len(layers) * size * config.num_attention_heads * length
    backward = 2 * cost.backwards / cost.forwards if cost.forwards else 0.0
    return float(each * cost.tokens * (1 + backward))


def cost_entries(label: str, cost: Cost, n: int, operations: float) -> dict[str, float]:
    """A micro-batch's cost of one indicator, under names that `costs` finds again. Entries add up; peaks do not."""
    found = {f"{name}|{label}": float(getattr(cost, name)) for name in SPENT}
    counted = {} if math.isnan(operations) else {f"flops|{label}": operations}
    return {
        **found,
        f"peak_bytes|{label}": float(cost.peak_bytes),
        f"samples|{label}": float(n),
        **counted,
    }


def costs(cells: Sequence[GridCell]) -> pd.DataFrame:
    """One row per (axes…, indicator), the plain forward first: what a map of one sample takes.

    Columns `seconds`, `forwards`, `backwards`, `tokens`, `flops` per sample, `peak_bytes`, `samples` (how many it ran
    on), and `seconds_ratio`, `tokens_ratio`, `flops_ratio`: over the plain forward of the same samples.
    """
    rows = []
    for cell in cells:
        total = cell.folder.read_json("cost.json", {}).get("total", {})
        plain = _each(total, PLAIN)
        for label in (PLAIN, *cell.study.indicators):
            own = _each(total, label)
            if own is None:
                continue
            ratios = {
                f"{name}_ratio": own[name] / plain[name] if plain and plain[name] else math.nan
                for name in ("seconds", "tokens", "flops")
            }
            rows.append({**cell.labels, "indicator": label, **own, **ratios})
    return pd.DataFrame(rows)


def _each(total: dict[str, float], label: str) -> dict[str, float] | None:
    n = total.get(f"samples|{label}", 0.0)
    if not n:
        return None
    found = {name: total.get(f"{name}|{label}", math.nan) / n for name in (*SPENT, "flops")}
    return {**found, "peak_bytes": total.get(f"peak_bytes|{label}", math.nan), "samples": n}
