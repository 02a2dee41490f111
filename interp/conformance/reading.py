"""Whether rows of attention are what transformers' eager attention computes: in the prompt, batched, decoding."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from interp.conformance.agreement import Agreement, same_greedy
from interp.conformance.result import Measured
from interp.conformance.subject import Subject
from interp.tokens import TokenMap
from interp.tracing import Rows, Site, positions

__all__ = ["attends", "batching", "decoding", "idle_tap", "prompt_columns", "rows"]

_ROWS = 64
"""Rows read of a prompt at most, spread over it."""
_STEPS = 4
_KEPT = 16
"""Last positions whose logits are compared bit by bit; every position of a large vocabulary is gigabytes."""


def idle_tap(subject: Subject) -> Measured:
    """A wrapped model that reads and edits nothing gives the bits of the unwrapped one; so does reading."""
    batch, mllm = subject.batch, subject.mllm
    with torch.no_grad():
        expected = subject.unwrapped.hf(**batch.inputs, logits_to_keep=_KEPT, use_cache=False).logits
        found = mllm.hf(**batch.inputs, logits_to_keep=_KEPT, use_cache=False).logits
    last = subject.unwrapped.logits(batch.inputs).float().cpu()
    read = [Rows(Site(queries="last", keys="all"))]
    traced = [torch.from_numpy(mllm.trace(batch, reads=reads).logits.values) for reads in ([], read)]
    different = int((found != expected).sum()) + sum(int((one != last).sum()) for one in traced)
    attention = mllm.installation.implementation
    detail = f"the model as it is, traced and read, against {attention} attention never wrapped"
    return Measured(different, "logits that differ in any bit", 0, detail)


def rows(subject: Subject) -> Measured:
    """Rows and logits of each sample alone equal eager's; positions are worked out by transformers there."""
    found = Agreement(subject)
    for i, batch in enumerate(subject.singles):
        at = np.unique(np.linspace(0, batch.tokens[0].length - 1, _ROWS).round().astype(int))
        index = torch.from_numpy(at)
        trace = subject.mllm.trace(batch, reads=[Rows(Site(queries=positions(at.tolist()), keys="all"))])
        logits, kept = subject.eager.reading(
            subject.plain(i), lambda weights, index=index: weights[0, :, index.to(weights.device)].cpu()
        )
        found.rows(trace[0].rows.values, torch.stack(kept).numpy())
        found.logits(trace.logits.values[0], logits[0].float().cpu().numpy())
    return found.measured(f"up to {_ROWS} rows of {len(subject.singles)} prompts, every layer and head")


def batching(subject: Subject) -> Measured:
    """A left-padded batch of prompts of different lengths gives each sample's own logits and last rows."""
    read = [Rows(Site(queries="last", keys="all"))]
    together = subject.mllm.trace(subject.batch, reads=read)
    found = Agreement(subject)
    for i, batch in enumerate(subject.singles):
        alone = subject.mllm.trace(batch, reads=read)
        found.rows(together[i].rows.values, alone[0].rows.values)
        found.logits(together.logits.values[i], alone.logits.values[0])
    pads = [int(n) for n in subject.batch.pad]
    found.wrong += [] if max(pads) else ["no prompt was padded"]
    return found.measured(f"padded by {pads} tokens")


def decoding(subject: Subject) -> Measured:
    """Rows of generated tokens, and the tokens, equal those of transformers' own eager `generate`."""
    read = [Rows(Site(queries="last", keys="all"))]
    together = subject.mllm.trace(subject.batch, reads=read, generate=_STEPS)
    found, compared = Agreement(subject), 0
    for i in range(len(subject.samples)):
        ids, steps, logits = subject.eager.generated(subject.plain(i), _STEPS)
        n, wrong = same_greedy(subject, together.answers[i], ids, logits)
        found.wrong += [] if wrong is None else [wrong]
        own, length = together[i].rows.values[:, :, :, 0], subject.tokens[i].length
        expected = np.stack([prompt_columns(layers, length, step) for step, layers in enumerate(steps)])
        if n == len(ids) and own.shape != expected.shape:
            found.wrong.append(f"{len(own)} steps, eager {len(expected)}")
        for step in range(min(n, len(own))):
            found.rows(own[step], expected[step])
        compared += n - 1
    found.wrong += (
        [] if compared else ["eager's best tokens tie at once, so no generated row was compared: use float32"]
    )
    return found.measured(
        f"{compared} rows of generated tokens after {len(subject.samples)} prompts, the same ones"
    )


def prompt_columns(layers: list[Tensor], length: int, step: int) -> np.ndarray:
    """(layer, head, key) over the prompt's positions; a sliding layer lacks the first columns, which are 0."""
    whole = [
        torch.nn.functional.pad(row.cpu(), (length + step - row.shape[-1], 0))[:, :length] for row in layers
    ]
    return torch.stack(whole).numpy()


def attends(subject: Subject) -> Measured:
    """Which later tokens a row sees, in some layer and head, is what the adapter's `attends` says."""
    wrong, later = 0, 0
    for i, tokens in enumerate(subject.tokens):
        _, kept = subject.eager.reading(subject.plain(i), lambda weights: (weights[0] > 0).any(0).cpu())
        seen = np.triu(torch.stack(kept).any(0).numpy(), 1)
        wrong += int((seen != _declared(tokens, subject.attends)).sum())
        later += int(seen.sum())
    detail = (
        f"declared {subject.attends!r}; {later} pairs of a row and a later token it sees in "
        f"{len(subject.samples)} prompts"
    )
    return Measured(wrong, "pairs that are not as declared", 0, detail)


def _declared(tokens: TokenMap, attends: str) -> Bool[np.ndarray, "query key"]:
    """The later tokens each row sees by declaration."""
    seen = np.zeros((tokens.length, tokens.length), bool)
    if attends == "prefix":
        seen[:] = True
    if attends == "image_blocks" and tokens.n:
        block = np.full(tokens.length, -1)
        block[tokens.image] = np.cumsum(np.diff(tokens.image, prepend=tokens.image[0]) > 1)
        seen = (block[:, None] == block) & (block[:, None] >= 0)
    return np.triu(seen, 1)
