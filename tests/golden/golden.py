"""Golden files: frames as CSV, studies as JSON, beside this file."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from tests.golden import examples, pages
from tests.tracing.scripted import scripted

FOLDER = Path(__file__).parent
UNSTABLE = ("seconds", "forwards", "tokens", "note")
"""Columns that depend on the machine or on how passes are shared, or that are prose."""
TOLERANCE = 1e-5
"""Relative and absolute, whichever allows more: other processors round float32 otherwise, by 4e-6 at the most."""
TOLERANCES = {
    ("knockout_sweep", "relative"): 1e-4,
}
"""(study, measure) → the same, where float32 rounds more: a relative change is in percent, 1e-6 as a fraction."""
FRAMES = {
    "indicator_comparison-curves": 1e-4,
    "indicator_comparison-scores": 2e-3,
    "indicator_comparison-summary": 2e-3,
    "knockout_sweep-tests": 1e-3,
    "head_roles-heads": 2e-3,
    "logit_lens-scores": 2e-3,
    "logit_lens-summary": 2e-3,
    "probe_sweep-summary": 0.06,
    "reasoning_sweep-summary": 1e-3,
    "stated_boxes-summary": 2e-3,
}
"""Frame → the same, where rounding moves more than values: which of two nearly tied tokens is first, or which of the
resampled groups lies at the edge of an interval or of a p value (1e-3, 2e-4 and 1e-4 from one processor to another);
of probes, what one or two of the 36 samples are called.
"""


def frames(results: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """Name of a golden file → the frame it holds, of each study's result."""
    found: dict[str, pd.DataFrame] = {}
    for name in ("layer_sweep", "logit_lens", "head_attribution"):
        found[f"{name}-scores"] = wide(results[name].scores, "layer")
        found[f"{name}-summary"] = results[name].summary()
    for data, ranking in results["head_ranking"].items():
        found[f"head_ranking-{data}-scores"] = wide(ranking.scores, "layer")
        found[f"head_ranking-{data}-ranked"] = ranking.ranked
    knockout, comparison, refinement = (
        results[name] for name in ("knockout_sweep", "indicator_comparison", "refinement")
    )
    found["knockout_sweep-scores"] = wide(knockout.scores.drop(columns=["first", "last"]), "layer")
    found["knockout_sweep-summary"] = knockout.summary()
    found["knockout_sweep-tests"] = knockout.tests()
    found["indicator_comparison-scores"] = wide(comparison.scores, "indicator")
    found["indicator_comparison-summary"] = comparison.summary()
    found["indicator_comparison-found"] = comparison.found()
    found["indicator_comparison-curves"] = wide(
        comparison.curves.assign(value=comparison.curves.height), "fraction"
    )
    found["refinement-frame"] = refinement.frame
    found["refinement-summary"] = refinement.summary()
    found["refinement-compare"] = refinement.compare()
    benchmark = results["benchmark"]
    found["benchmark-rows"] = benchmark.rows("modality")
    found["benchmark-averages"] = benchmark.averages(measure="recall")
    found["benchmark-summary"] = benchmark.summary()
    found["benchmark-by"] = benchmark.by("modality")
    edges, roles = results["circuit"].edges, results["head_roles"].heads
    found["circuit-edges"] = edges[edges.receiver == "answer"].sort_values("source")
    found["circuit-summary"] = results["circuit"].summary()
    found["head_roles-heads"] = roles
    for name in ("probe_sweep", "reasoning_sweep", "stated_boxes"):
        found[f"{name}-summary"] = results[name].summary()
    return {name: frame.drop(columns=[c for c in UNSTABLE if c in frame]) for name, frame in found.items()}


def wide(scores: pd.DataFrame, column: str) -> pd.DataFrame:
    """The values with one column for each of `column`, so that files stay small."""
    drop = {"index", "height", "value", column}
    keys = [str(name) for name in scores.columns if name not in drop]
    frame = scores.assign(**{column: [f"{column} {value}" for value in scores[column]]})
    return frame.pivot(index=keys, columns=column, values="value").reset_index().rename_axis(columns=None)


def write_frame(name: str, frame: pd.DataFrame) -> None:
    """Writes the golden file of a frame."""
    frame.to_csv(FOLDER / f"{name}.csv", index=False, float_format="%.9g")


def frame_faults(name: str, frame: pd.DataFrame) -> list[str]:
    """Where a frame differs from its golden file by more than the tolerance; columns that are new do not count."""
    golden = pd.read_csv(FOLDER / f"{name}.csv", keep_default_na=True)
    missing = [column for column in golden if column not in frame]
    if missing or len(golden) != len(frame):
        return [f"{name}: expected {len(golden)} rows with {missing}, got {len(frame)} of {list(frame)}"]
    faults = []
    study, measures = name.partition("-")[0], golden.get("measure", [""] * len(golden))
    usual = FRAMES.get(name, TOLERANCE)
    tolerances = [max(TOLERANCES.get((study, measure), 0), usual) for measure in measures]
    for column in golden:
        values = zip(golden[column], frame[column].tolist(), tolerances, strict=True)
        for row, (expected, found, tolerance) in enumerate(values):
            if not _same(expected, found, tolerance):
                faults.append(f"{name}, row {row}, {column}: expected {expected!r}, got {found!r}")
    return faults


def _same(expected: Any, found: Any, tolerance: float) -> bool:
    empty = [
        one is None or one is pd.NA or (isinstance(one, float) and math.isnan(one))
        for one in (expected, found)
    ]
    if any(empty):
        return all(empty) or (empty[0] and found == "")
    if isinstance(expected, str):
        return expected == str(found)
    return math.isclose(float(expected), float(found), rel_tol=tolerance, abs_tol=tolerance)


def write_study(name: str, study: Any) -> None:
    """Writes the golden file of a study's JSON and its digest."""
    content = study.to_dict()
    whole = {"digest": pages.digest(content), "study": content}
    (FOLDER / f"{name}.json").write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")


def read_study(name: str) -> dict[str, Any]:
    """The golden JSON and digest of a study."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def results(run: Any) -> dict[str, Any]:
    """Each study's result; `run` gives that of one."""
    return {
        "layer_sweep": run(examples.sweep()),
        "head_ranking": {data: run(examples.ranking(data)) for data in examples.both()},
        "head_attribution": run(examples.attribution()),
        "logit_lens": run(examples.lens()),
        "knockout_sweep": run(examples.knockout()),
        "indicator_comparison": run(examples.comparison()),
        "refinement": run(examples.methods()),
        "benchmark": run(examples.benchmark()),
        "circuit": run(examples.circuit()),
        "head_roles": run(examples.head_roles()),
        "probe_sweep": run(examples.probes()),
        "reasoning_sweep": run(examples.reasoning(scripted("eager")[0])),
        "stated_boxes": run(examples.stated_boxes()),
    }
