"""Checks of edits: do knockouts hide what they name, and do both executors agree?"""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from interp.conformance.check_result import Measured
from interp.conformance.read_checks import Agreement, compare_answer, relative
from interp.conformance.reference import image_layers, row_groups
from interp.conformance.subject import Subject
from interp.inputs.tokens import TokenMap
from interp.tracing import Apply, Knockout, PatchRows, Rows, Site, image_mask
from interp.tracing.edits import Stage

__all__ = ["executors", "knockout_arithmetic", "knockout_mass", "no_op_edits", "two_thirds"]

_MODES = ("renormalise", "zero")
_STEPS = 3


def two_thirds(subject: Subject) -> list[Bool[np.ndarray, " token"]]:
    """Returns a mask of all but every third image token of each sample."""
    return [np.arange(tokens.n) % 3 != 1 for tokens in subject.tokens]


def no_op_edits(subject: Subject) -> Measured:
    """Checks that edits without effect leave every bit of the logits unchanged.

    The edits are knockouts of no key, functions that return their input, and rows that are patched with themselves.
    """
    mllm, batch, layers = subject.mllm, subject.batch, image_layers(subject.mllm)
    none = image_mask([np.zeros(t.n, bool) for t in subject.tokens])
    nothing = Site(layers=layers, queries="after_image", keys=none)
    site = Site(layers=layers, queries="after_image", keys="image")
    plain = mllm.trace(batch, reads=[Rows(site)])
    edits = [
        *(Knockout(nothing, mode) for mode in _MODES),
        *(Apply(site, _same, stage) for stage in get_args(Stage)),
        PatchRows(site, [one.rows.values for one in plain]),
    ]
    different = sum(
        int((mllm.trace(batch, edits=[edit]).logits.values != plain.logits.values).sum()) for edit in edits
    )
    detail = "knockouts of no key, functions that change nothing, rows patched with themselves"
    return Measured(different, "logits that differ in any bit", 0, detail)


def _same(values: Tensor, cells: Tensor) -> Tensor:
    return values


def knockout_mass(subject: Subject) -> Measured:
    """Checks that hidden keys get exactly 0 in the rows of the last prompt token and of generated tokens."""
    hidden = two_thirds(subject)
    largest, kept, steps = 0.0, np.inf, 0
    layers = image_layers(subject.mllm)
    read = [Rows(Site(layers=layers, queries="last"))]
    for mode in _MODES:
        edit = Knockout(Site(layers=layers, queries="last", keys=image_mask(hidden)), mode, steps="all")
        trace = subject.mllm.trace(subject.batch, reads=read, edits=[edit], generate=_STEPS)
        for one, flags in zip(trace, hidden, strict=True):
            largest = max(largest, float(one.rows.values[..., flags].max()))
            kept = min(kept, float(one.rows.values[..., ~flags].max(axis=(1, 2, 3, 4)).min()))
            steps = max(steps, len(one.rows))
    detail = f"up to {steps} steps, both modes; the other image tokens keep up to {kept:.2g}"
    return Measured(largest, "largest probability of a hidden key", 0, detail, holds=kept > 0 and steps > 1)


def knockout_arithmetic(subject: Subject) -> Measured:
    """Checks that logits, rows and answers under a knockout equal those of eager attention with the same keys left out.

    The knockout covers half the heads of each layer and two thirds of the image tokens, in the last row of the prompt
    and in all generated tokens.
    """
    pairs = [
        (layer, head)
        for at, layer in enumerate(image_layers(subject.mllm))
        for head in range(at % 2, subject.mllm.n_heads, 2)
    ]
    found, moved = Agreement(subject), np.inf
    plain = subject.mllm.trace(subject.batch).logits.values
    masks = two_thirds(subject)
    for mode in _MODES:
        edit = Knockout(Site(heads=pairs, queries="last", keys=image_mask(masks)), mode, steps="all")
        read = [group.read("last") for group in row_groups(subject.mllm)]
        trace = subject.mllm.trace(subject.batch, reads=read, edits=[edit], generate=_STEPS)
        for i, tokens in enumerate(subject.tokens):
            with subject.eager.hiding(_flags(tokens, masks[i], pairs, subject.mllm.n_heads), mode):
                logits = compare_answer(subject, found, i, trace[i])
            found.logits(trace.logits.values[i], logits[0].float().cpu().numpy())
            moved = min(moved, relative(trace.logits.values[i], plain[i]))
    enough = moved > (1e-4 if subject.exact else 2 * subject.eps)
    found.wrong += [] if enough else [f"the edit moves the logits by {moved:.2g} only: use float32"]
    return found.measured(f"both modes, {_STEPS} steps; the edit moves the logits by {moved:.2g} or more")


def _flags(
    tokens: TokenMap, mask: Bool[np.ndarray, " token"], pairs: list[tuple[int, int]], n_heads: int
) -> Callable[[int, int, int, int], Bool[Tensor, "head query key"] | None]:
    """Returns a function that gives the keys hidden from the last row of each pass, in the columns of a layer."""

    def hidden(layer: int, step: int, queries: int, keys: int) -> Bool[Tensor, "head query key"] | None:
        """Returns the keys that a layer hides in a pass; None for a layer without a pair."""
        heads = [head for at, head in pairs if at == layer]
        if not heads:
            return None
        before = 0 if tokens.cross is not None else tokens.length + step - keys
        columns = tokens.image[mask] - before
        flags = torch.zeros(n_heads, queries, keys, dtype=torch.bool)
        for head in heads:
            flags[head, -1, torch.from_numpy(columns[columns >= 0])] = True
        return flags

    return hidden


def executors(subject: Subject) -> Measured:
    """Checks that both executors agree on reads, edits in both modes and decode steps of a left-padded batch.

    In a hybrid model, those of its gated DeltaNet layers are compared too.
    """
    hidden, layers = image_mask(two_thirds(subject)), image_layers(subject.mllm)
    reads = [one.read(queries) for one in row_groups(subject.mllm) for queries in ("after_image", "last")]
    edits = [
        Knockout(Site(layers=[layers[0]], queries="after_image", keys=hidden)),
        Knockout(Site(heads=[(layers[-1], 0)], queries="last", keys=hidden), "zero"),
    ]
    if "linear" in subject.mllm.layer_kinds:
        reads.append(Rows(Site(layers="linear", queries="last", keys="all")))
        edits.insert(0, Knockout(Site(layers="linear", queries="last", keys=hidden), steps="all"))
    other = subject.mllm.using("source")
    found = Agreement(subject)
    for chosen in ([], edits):
        one, two = (
            m.trace(subject.batch, reads=reads, edits=chosen, generate=_STEPS) for m in (subject.mllm, other)
        )
        for i, (a, b) in enumerate(zip(one, two, strict=True)):
            found.logits(one.logits.values[i], two.logits.values[i])
            for x, y in zip(a.reads, b.reads, strict=True):
                for step in range(min(len(x), len(y))):
                    found.rows(x.values[step], y.values[step])
            found.wrong += [] if a.answer == b.answer else [f"{a.answer!r}, by source {b.answer!r}"]
    return found.measured(f"reads, edits and {_STEPS} steps of {len(subject.samples)} prompts, left-padded")
