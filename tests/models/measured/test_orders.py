"""The tokens of a measured grid in other orders: what is no layout that can be found is refused."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from benchmarks.measured_footprints import compared, opened
from interp import Sample
from interp.inputs.tokens import TokenMap
from interp.models.measured import Measured
from interp.models.measured.embedder import fitted
from interp.models.measured.measurement import Scan, decoded, scan

SIZE = (320, 180)
FAMILIES = {"gemma3": (4, 4), "kimi_k25": (6, 11)}
ORDERS = {
    "by rows": lambda g: g,
    "down columns": lambda g: g.T,
    "rows from below": lambda g: g[::-1],
    "rows from the right": lambda g: g[:, ::-1],
    "rows to and fro": lambda g: np.stack([row[:: (-1) ** i] for i, row in enumerate(g)]),
    "rows shuffled": lambda g: g[np.random.default_rng(0).permutation(len(g))],
    "shuffled": lambda g: np.random.default_rng(0).permutation(g.ravel()),
    "interleaved": lambda g: np.concatenate([g[i::2, j::2].ravel() for i in (0, 1) for j in (0, 1)]),
    "pairs swapped": lambda g: g.reshape(-1, 2)[:, ::-1],
}
FOUND = {"by rows", "down columns"}


@cache
def seen(family: str) -> tuple[Scan, TokenMap]:
    known, model, processor = opened(family)
    truth = known.encode(Sample(np.full((*SIZE[::-1], 3), 90, np.uint8), "where is it?")).tokens[0]
    prompt = known.adapter.fallback_prompt("where is it?", 1, None)
    return scan(fitted(model, processor, Measured().layers(model)[0], 1, prompt), [SIZE]), truth


@pytest.mark.by_default(family=["gemma3"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("order", ORDERS)
def test_an_order_is_found_or_refused(family: str, order: str) -> None:
    found, truth = seen(family)
    places = ORDERS[order](np.arange(len(found.positions)).reshape(FAMILIES[family])).ravel()
    turned = replace(found, energies=[[energy[places] for energy in pair] for pair in found.energies])
    moved = replace(truth, footprints=truth.footprints[places])
    row = compared(family, SIZE, moved, decoded(turned), 0)
    assert row.verdict.split()[0] == ("right" if order in FOUND else "refused"), row
