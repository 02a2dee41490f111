"""What a method changed: marks, probabilities, flips and cost, before and after, with intervals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from interp.study.head_ranking.head_set import HeadSet
from interp.study.refinement.paired_result import MANY, PairedResult, methods_table
from interp.study.refinement.task import references
from interp.study.result import counted, stored_tokens
from interp.study.runs import GridCell

if TYPE_CHECKING:
    from interp.inputs.tokens import TokenMap

__all__ = ["RefinementCell", "RefinementResult", "numeric_pair", "varied"]


def varied(cells: Sequence[tuple[Mapping[str, str], Mapping[str, Any]]]) -> pd.DataFrame:
    """One row per cell: its labels, and those parameters of its method that differ between cells.

    Heads that differ are `k`, their number. What is no number, text or None is written as JSON; a parameter that
    only some methods have is None for the others.

    Args:
        cells: Each cell's labels and its method as JSON values.
    """
    flat = [_flat(method) for _, method in cells]
    names = dict.fromkeys(name for method in flat for name in method)
    taken = cells[0][0]
    differ = [
        name
        for name in names
        if name not in taken and len({json.dumps(method.get(name)) for method in flat}) > 1
    ]
    rows = [
        {**labels, **{name: method.get(name) for name in differ}}
        for (labels, _), method in zip(cells, flat, strict=True)
    ]
    return pd.DataFrame(rows)


def numeric_pair(parameters: pd.DataFrame, axes: Sequence[str]) -> tuple[str, str] | None:
    """The two numbers in which the methods differ, where these are all they differ in; else None."""
    own = [str(name) for name in parameters.columns if name not in axes]
    if len(own) != 2 or not all(pd.api.types.is_numeric_dtype(parameters[name]) for name in own):
        return None
    return (own[0], own[1]) if not parameters[own].isna().to_numpy().any() else None


def _flat(method: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in method.items():
        if name == "heads":
            found["k"] = len(value)
        else:
            found[name] = value if isinstance(value, int | float | str | None) else json.dumps(value)
    return found


@dataclass(frozen=True)
class RefinementCell(GridCell):
    """One method's finished run."""

    @property
    def method(self) -> dict[str, Any]:
        """The method as it ran, its heads named."""
        return self.folder.study()["method"]

    def maps(self, indices: Sequence[int]) -> dict[int, dict[str, Float[np.ndarray, " token"]]]:
        """Each sample's maps over its image tokens: "method" and "kept" (1 or 0) as far as the method gives them;
        "before" and "after", relative attention at `read_layer`, as far as it was read."""
        found: dict[int, dict[str, np.ndarray]] = {index: {} for index in indices}
        for row in self.folder.find("maps", index=indices).to_pylist():
            found[row["index"]][row["map"]] = np.array(row["values"], np.float32)
        return found

    def tokens(self, index: int) -> TokenMap:
        """Where the image tokens of one sample lie."""
        return stored_tokens(self, index)


@dataclass(frozen=True, repr=False)
class RefinementResult(PairedResult):
    """The result of a `Refinement`, or of a grid over one.

    `scores` has one row per (axes…, sample, group, measure, when): measure "correct" (1 or 0), "logprob" and
    "probability" of beginning the sample's answer, "ar" where attention was read; when "before" or "after".
    `samples` has a row per sample with both texts and what the method did.
    """

    cells: tuple[RefinementCell, ...]
    cell_type = RefinementCell

    @cached_property
    def parameters(self) -> pd.DataFrame:
        """One row per cell: the parameters of its method that differ between cells; heads by their number, `k`."""
        return varied([(cell.labels, cell.method) for cell in self.cells])

    def sentences(self) -> list[str]:
        """How heads by reference were chosen, and whether on other groups than these; all numbers of heads in one."""
        found: dict[str, list[int]] = {}
        for cell in self.cells:
            here: Any = RefinementResult.of(cell.study, [cell], self.folder)
            for heads in references(cell.study.method).values():
                if isinstance(heads, HeadSet):
                    said = heads.sentence(here).replace(f"the top {heads.k} heads", "the top # heads")
                    found.setdefault(f"{cell.labels['data']}: {said}", []).append(len(heads))
        numbers = {said: ", ".join(map(str, sorted(set(counts)))) for said, counts in found.items()}
        return [said.replace("the top # heads", f"the top {numbers[said]} heads") for said in found]

    def table(self) -> str:
        """Text: one line per cell: accuracy before and after, difference [low, high], flips, p, cost; and group by
        group where groups are too few for an interval."""
        few = self.per_group() if "correct" in self.measures and len(self.cells) <= MANY else None
        table = methods_table(self.summary(), few, self.axes, self.varied)
        return "\n".join([table, *(counted(self) if len(self.cells) <= MANY else [])])
