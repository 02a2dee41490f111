"""The page of the small study in `fake_study`: a line of text, and one figure."""

from __future__ import annotations

from pathlib import Path

import plotly.graph_objects as go

from interp.study import GridResult


def write_page(result: GridResult, path: str | Path) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(f"{result.study.title}: {len(result.samples)} samples")
    return Path(path)


def figures(result: GridResult) -> dict[str, go.Figure]:
    return {"lengths": go.Figure(go.Bar(y=result.scores.value.tolist()))}
