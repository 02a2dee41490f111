"""The tables that a comparison of indicators stores."""

from __future__ import annotations

import pyarrow as pa

__all__ = ["CURVE", "MAPS", "SAMPLES", "SCORES"]

NAME = pa.dictionary(pa.int32(), pa.string())
SCORES = pa.schema(
    [
        ("index", pa.int64()),
        ("indicator", NAME),
        ("measure", NAME),
        ("against", NAME),
        ("value", pa.float64()),
    ]
)
"""`against`: the truth of a metric, the other indicator of an agreement, the removal of a faithfulness, the stage of
shuffled weights; of "question" the metric, or "spearman"."""
CURVE = pa.schema(
    [
        ("index", pa.int64()),
        ("indicator", NAME),
        ("removal", NAME),
        ("curve", NAME),
        ("fraction", pa.float64()),
        ("value", pa.float64()),
    ]
)
"""`value`: the target in nats."""
SAMPLES = pa.schema(
    [
        ("index", pa.int64()),
        ("sample", pa.string()),
        ("group", pa.string()),
        ("question", pa.string()),
        ("answer", pa.string()),
        ("predicted", pa.string()),
        ("other_question", pa.string()),
        ("n_tokens", pa.int32()),
        ("n_prompt", pa.int32()),
        ("n_truth_tokens", pa.list_(pa.int32())),
        ("faithful", pa.bool_()),
        ("checked", pa.bool_()),
        ("image_index", pa.list_(pa.int32())),
        ("footprints", pa.list_(pa.float32())),
    ]
)
MAPS = pa.schema([("index", pa.int64()), ("indicator", NAME), ("values", pa.list_(pa.float32()))])
