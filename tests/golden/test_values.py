"""What each study measures stays what it was, to the tolerances of `golden`."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from tests.golden import golden, pages

NAMES = sorted(path.stem for path in golden.FOLDER.glob("*.csv"))


@pytest.fixture(scope="module")
def results(
    sweep: Any,
    rankings: dict[str, Any],
    attribution: Any,
    lens: Any,
    knockout: Any,
    comparison: Any,
    methods: Any,
    benchmark: Any,
    circuit: Any,
    roles: Any,
    probes: Any,
    reasoning: Any,
    stated: Any,
) -> dict[str, Any]:
    """Each study's result."""
    return {
        "layer_sweep": sweep,
        "head_ranking": rankings,
        "head_attribution": attribution,
        "logit_lens": lens,
        "knockout_sweep": knockout,
        "indicator_comparison": comparison,
        "refinement": methods,
        "benchmark": benchmark,
        "circuit": circuit,
        "head_roles": roles,
        "probe_sweep": probes,
        "reasoning_sweep": reasoning,
        "stated_boxes": stated,
    }


@pytest.fixture(scope="module")
def frames(results: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """Each study's frames."""
    return golden.frames(results)


@pytest.mark.parametrize("name", NAMES)
def test_frame_holds_the_golden_numbers(frames: dict[str, pd.DataFrame], name: str) -> None:
    faults = golden.frame_faults(name, frames[name])
    assert not faults, "\n".join([f"{len(faults)} values differ", *faults[:10]])


def test_every_frame_has_a_golden_file(frames: dict[str, pd.DataFrame]) -> None:
    assert sorted(frames) == NAMES


def test_runs_lie_under_the_hash_of_their_study(results: dict[str, Any]) -> None:
    whole = [result for name, result in results.items() if name != "head_ranking"]
    cells = [cell for result in whole for cell in result.cells]
    for cell in cells:
        name = cell.folder.path.name
        assert name.endswith(pages.digest(cell.folder.read_json("study.json", {}))), name
