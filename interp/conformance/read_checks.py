"""Checks of reads: are rows, logits, gradients and prefixes what transformers' eager attention computes?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.conformance.check_result import Measured
from interp.conformance.subject import Subject
from interp.inputs.prompt import GENERIC_PROMPT
from interp.inputs.tokens import TokenMap
from interp.tracing import Knockout, Mllm, Rows, Site, positions

__all__ = [
    "Agreement",
    "attends",
    "batching",
    "decoding",
    "idle_tap",
    "image_prefix",
    "prompt_columns",
    "relative",
    "row_gradients",
    "rows",
    "same_greedy",
]


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """Returns the largest difference divided by the largest expected value; NaN if either array holds NaN."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


class Agreement:
    """Collects differences of rows and logits and judges them.

    The error of a row is Σ|found − expected| / Σ expected over the keys compared (the sum alone where nothing
    is expected): 0 for equal rows, up to 2 for rows that do not overlap. Unlike a difference of single
    probabilities, it does not shrink with the number of keys.

    In float32 the largest error of any row, and the largest difference of the logits divided by the largest logit,
    must not exceed 1e-5. In half precision rounding errors accumulate over the layers; a limit that every correct
    deep model meets would then also accept rows of a wrong temperature. But the rows of the first layer are computed
    from identical inputs: their median error must not exceed 1.25 eps. The median error of all rows and the
    difference of the logits must not exceed 8 eps.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.wrong: list[str] = []
        self._rows: list[np.ndarray] = []
        self._first: list[np.ndarray] = []
        self._logits = 0.0

    def rows(self, found: Float[np.ndarray, "layer *other key"], expected: np.ndarray) -> None:
        """Compares rows, with those of the first layer at index 0; NaN counts as an infinite error."""
        mass = expected.sum(-1)
        off = np.abs(found - expected).sum(-1)
        errors = np.nan_to_num(np.where(mass > 0, off / np.where(mass > 0, mass, 1), off), nan=np.inf)
        self._rows.append(errors.reshape(-1))
        self._first.append(errors[0].reshape(-1))

    def logits(self, found: np.ndarray, expected: np.ndarray) -> None:
        """Compares the logits of one position."""
        self._logits = max(self._logits, float(np.nan_to_num(relative(found, expected), nan=np.inf)))

    def measured(self, detail: str) -> Measured:
        """Returns the verdict. Entries of `wrong` fail the check and replace the detail."""
        eps = self.subject.eps
        errors, first = (np.concatenate(parts or [np.zeros(1)]) for parts in (self._rows, self._first))
        if self.subject.exact:
            value, limit = max(float(errors.max()), self._logits), self.subject.tolerance
            what, holds = "largest difference of a row (of its mass) or of the logits (of the largest)", True
        else:
            value, limit = float(np.median(first)), 1.25 * eps
            what = "difference of the first layer's rows (of their mass, median)"
            middle = float(np.median(errors))
            holds = middle <= 8 * eps and self._logits <= 8 * eps
            detail += f"; all layers {middle:.2g}, logits {self._logits:.2g}, both ≤ {8 * eps:.2g}"
        return Measured(value, what, limit, "; ".join(self.wrong) or detail, holds=holds and not self.wrong)


def same_greedy(subject: Subject, answer: str, ids: Tensor, logits: Tensor) -> tuple[int, str | None]:
    """Returns how many of eager's greedy steps can be compared, and the error in the answer or None.

    If eager's two best tokens differ by less than rounding, another exact computation may choose the other token.
    Nothing is compared from there on.

    Args:
        subject: The model under test.
        answer: The model's answer.
        ids: Eager's tokens, (step,).
        logits: Eager's logits of each step, (step, token_id).
    """
    best = logits.float().topk(2, dim=-1).values
    near = subject.tolerance if subject.exact else 3 * subject.eps
    close = (best[:, 0] - best[:, 1]) <= near * logits.float().abs().amax(dim=-1)
    steps = int(close.nonzero()[0]) if bool(close.any()) else len(ids)
    text = subject.mllm.processor.tokenizer.decode(ids[:steps], skip_special_tokens=True).strip()
    same = answer == text if steps == len(ids) else answer.startswith(text)
    return min(steps + 1, len(ids)), None if same else f"{answer!r}, eager {text!r}"


_ROWS = 64
"""The largest number of rows read of a prompt, spread over it."""
_STEPS = 4
_KEPT = 16
"""How many last positions have their logits compared bit by bit; all positions would take gigabytes."""


def idle_tap(subject: Subject) -> Measured:
    """Checks that a wrapped model gives the same bits as the unwrapped one, without reads and with them."""
    batch, mllm = subject.batch, subject.mllm
    with torch.no_grad():
        expected = subject.unwrapped.hf(**batch.inputs, logits_to_keep=_KEPT, use_cache=False).logits
        found = mllm.hf(**batch.inputs, logits_to_keep=_KEPT, use_cache=False).logits
    last = subject.unwrapped.logits(batch.inputs).float().cpu()
    read = [Rows(Site(queries="last", keys="all"))]
    traced = [torch.from_numpy(mllm.trace(batch, reads=reads).logits.values) for reads in ([], read)]
    different = int((found != expected).sum()) + sum(int((one != last).sum()) for one in traced)
    attention = mllm.installation.implementation
    detail = f"the wrapped model, plain, traced and read, against unwrapped {attention} attention"
    return Measured(different, "logits that differ in any bit", 0, detail)


def rows(subject: Subject) -> Measured:
    """Checks that rows and logits of single samples equal eager's, where transformers computes the positions itself."""
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
    """Checks that a left-padded batch of prompts of different lengths gives each sample's own logits and last rows."""
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
    """Checks that generated tokens and their rows equal those of transformers' own eager `generate`."""
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
        []
        if compared
        else ["eager's best tokens tie at the first step, so no generated row was compared; use float32"]
    )
    return found.measured(
        f"{compared} rows of generated tokens after {len(subject.samples)} prompts, the same ones"
    )


def prompt_columns(layers: list[Tensor], length: int, step: int) -> np.ndarray:
    """Returns (layer, head, key) over the prompt's positions; columns that a sliding layer lacks become 0."""
    whole = [
        torch.nn.functional.pad(row.cpu(), (length + step - row.shape[-1], 0))[:, :length] for row in layers
    ]
    return torch.stack(whole).numpy()


def attends(subject: Subject) -> Measured:
    """Checks that the later tokens that a row sees, in any layer and head, are those that `attends` declares."""
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
    return Measured(wrong, "pairs that differ from the declaration", 0, detail)


def _declared(tokens: TokenMap, attends: str) -> Bool[np.ndarray, "query key"]:
    """Returns the later tokens that each row sees by declaration."""
    seen = np.zeros((tokens.length, tokens.length), bool)
    if attends == "prefix":
        seen[:] = True
    if attends == "image_blocks" and tokens.n:
        block = np.full(tokens.length, -1)
        block[tokens.image] = np.cumsum(np.diff(tokens.image, prepend=tokens.image[0]) > 1)
        seen = (block[:, None] == block) & (block[:, None] >= 0)
    return np.triu(seen, 1)


def image_prefix(subject: Subject) -> Measured:
    """Checks a prefix with the suffix of another question: rows after the image, edited logits, and eager's logits.

    Families whose prompts attend to all of their tokens must not use the prefix, and must still be right.
    """
    mllm = subject.mllm
    prefix = mllm.prefix(subject.batch)
    read = [Rows(Site(queries="after_image", keys="all"))]
    edit = [Knockout(Site(layers=[mllm.n_layers // 2], queries="after_image"))]
    found, used = Agreement(subject), []
    for edits in ([], edit):
        short = mllm.trace(prefix, GENERIC_PROMPT, reads=read, edits=edits)
        whole = mllm.trace(subject.samples, GENERIC_PROMPT, reads=read, edits=edits)
        for i, (one, other) in enumerate(zip(short, whole, strict=True)):
            found.rows(one.rows.values, other.rows.values)
            found.logits(short.logits.values[i], whole.logits.values[i])
        used.append(short.cost.tokens < whole.cost.tokens)
    unedited = mllm.trace(prefix, GENERIC_PROMPT).logits.values
    for i, sample in enumerate(subject.samples):
        inputs = mllm.encode(sample, GENERIC_PROMPT).inputs
        plain = {k: v for k, v in inputs.items() if k != "position_ids"}
        found.logits(unedited[i], subject.eager.logits(plain)[0].float().cpu().numpy())
    exact = subject.attends != "prefix"
    detail = "used: only what follows the image was run" if all(used) else "not used: full passes"
    found.wrong += [] if used == [exact] * 2 else [f"{detail}, but the adapter declares {subject.attends!r}"]
    return found.measured(f"{detail}, as declared by the adapter: {subject.attends!r}")


def row_gradients(subject: Subject) -> Measured:
    """Checks the gradient of the top log-probability with respect to each layer's last row in an nnsight trace."""
    worst = 0.0
    with _differentiable(subject.mllm.hf):
        for i in range(len(subject.samples)):
            found = _in_nnsight_trace(subject.mllm, subject.plain(i))
            expected = _in_eager(subject, subject.plain(i))
            for one, other in zip(found, expected, strict=True):
                scale = float(other.abs().max())
                worst = max(worst, float((one - other).abs().max()) / scale if scale else np.nan)
    detail = f"every layer, last row, {len(subject.samples)} prompts"
    what = "largest difference over a layer's largest gradient"
    return Measured(worst, what, 5 * subject.tolerance, detail)


def _in_nnsight_trace(mllm: Mllm, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """Returns the gradient (head, key) of each layer."""
    with mllm.tap(queries="last"), mllm.nn.trace(**inputs, use_cache=False):
        kept = []
        for layer in mllm.layers:
            rows = layer.self_attn.pattern.output
            layer.self_attn.pattern.output = rows * 1  # a copy is spliced in, so the logits depend on it
            kept.append(rows)
        top = mllm.nn.output.logits[0, -1].float().log_softmax(-1).max()
        gradients: Any = list(torch.autograd.grad(top, kept))
        found = gradients.save()
    return [one[0, :, 0].float() for one in found]


def _in_eager(subject: Subject, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    weights: list[Tensor] = []
    with subject.eager.hooked(lambda _, one: weights.append(one)):
        logits = subject.eager.hf(**inputs, use_cache=False).logits
    top = logits[0, -1].float().log_softmax(-1).max()
    return [one[0, :, -1].float() for one in torch.autograd.grad(top, weights)]


@contextmanager
def _differentiable(hf: Any) -> Iterator[None]:
    """Lets gradients reach every row within the block, even if the model's weights are frozen."""
    weight = hf.get_input_embeddings().weight
    before = weight.requires_grad
    weight.requires_grad_(True)
    try:
        yield
    finally:
        weight.requires_grad_(before)
