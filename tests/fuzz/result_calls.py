"""What studies' results offer, with arguments that they take, for `trials`."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import interp
from interp import data, indicators, study
from interp.conformance.tiny.one_grid import tiny_thinking
from tests.fuzz.trials import Call, given
from tests.fuzz.value_calls import STUDIES

__all__ = ["folder", "layer_calls", "result", "result_calls"]


@cache
def folder() -> Path:
    """Where runs go."""
    return Path(tempfile.mkdtemp(prefix="interp-fuzz-"))


@cache
def organism() -> Any:
    """The bundled model, open."""
    return interp.load("organism")


@cache
def result(kind: int) -> Any:
    """The result of a study of that kind on two scenes."""
    held: dict[str, Any] = {"data": data.bundled("natural", n=2)}
    if STUDIES[kind] is study.HeadRanking:
        held["split"] = "validation"
        held["data"] = data.bundled("natural", n=2, split="validation")
    if STUDIES[kind] is study.IndicatorComparison:
        held["indicators"] = {"random": indicators.RandomMap(), "centre": indicators.CentrePrior()}
        held["n_checked"] = 1
    if STUDIES[kind] is study.StatedBoxes:
        held |= {"convention": "internvl", "generate": 2}
    if STUDIES[kind] is study.ReasoningSweep:
        return _reasoned()
    return STUDIES[kind](**held).run(folder(), progress=False, mllm=organism())


REPORTED = ("summary", "table", "figures", "report", "top", "best", "verdict", "tests", "compare", "found")
ELSE = (
    "at_layer",
    "layers",
    "best_layer",
    "compare_groups",
    "faithfulness",
    "localisation",
    "n_beating_even",
    "by",
    "averages",
    "flips",
    "rows",
    "yes_no",
    "graph",
    "heads",
    "per_group",
    "export",
)


def _reasoned() -> Any:
    """A `ReasoningSweep`'s result of a tiny model that may think; the organism does not."""
    thoughts = [one.replace(meta={"reasoning": "is it red ?"}) for one in data.bundled("natural", n=2)]
    fields = {"thoughts": "given", "prompt": interp.Prompt(thinking=True), "answer_tokens": 2}
    sweep = study.ReasoningSweep(data=data.Samples(thoughts), **fields)
    return sweep.run(folder(), progress=False, mllm=interp.wrap(*tiny_thinking()))


def result_calls(kind: int) -> list[Call]:
    """The methods of a study's result, and its own `run`."""
    found = result(kind)
    name = type(found).__name__
    own = {
        "metric": "ar", "layer": 2, "k": 2, "measure": "auroc", "path": folder() / "tried" / "page.html",
        "key": "kind", "n": 3, "folder": folder() / "tried" / "tables",
        "formats": (),  # figures take a browser seconds each
    }  # fmt: skip
    if isinstance(found, study.BenchmarkResult):
        own["measure"] = "strict"
    if isinstance(found, study.HeadTable):
        own["measure"] = found.measures[0]
    calls = []
    for method in (*REPORTED, *ELSE):
        function = getattr(found, method, None)
        if callable(function):
            call = Call(f"{name}.{method}", function)
            takes = {one: own[one] for one in call.arguments if one in own}
            calls.append(Call(f"{name}.{method}", function, given(**takes)))
    run = found.cells[0].study.run
    own_run = given(out=folder(), progress=False, mllm=organism())
    return [*calls, Call(f"{STUDIES[kind].__name__}.run", run, own_run)]


def layer_calls(found: Any) -> list[Call]:
    """The methods of a layer sweep's result but for its pages, and what else takes one."""
    compared = given(result=found, metric="ar", layer=1)
    return [
        Call("choose_layer", interp.choose_layer, given(validation=found, metric="ar", descriptive=True)),
        Call("study.compare", study.compare, compared),
        Call("study.compare_groups", study.compare_groups, compared),
        Call("study.lesion_hits", study.lesion_hits, given(result=found)),
        Call("area_frame", study.area_frame, compared),
        Call("Result.summary", found.summary),
        Call("Result.table", found.table, given(metric="ar")),
        Call("Result.at_layer", found.at_layer, given(layer=1)),
        Call("Result.best_layer", found.best_layer, given(descriptive=True)),
        Call("Result.join", type(found).join, given(results=[found])),
    ]
