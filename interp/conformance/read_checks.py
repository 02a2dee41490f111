"""Checks of reads: do rows, logits, gradients and prefixes equal those of transformers' eager attention?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.conformance.check_result import Measured
from interp.conformance.reference import at_least_float32, image_layers, row_groups
from interp.conformance.subject import Subject
from interp.inputs.prompt import GENERIC_PROMPT
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.models.base import image_reads_prompt
from interp.tracing import Knockout, Mllm, Rows, Site, positions
from interp.tracing.layers.decoder_layers import mixer
from interp.tracing.trace import SampleTrace

__all__ = [
    "Agreement",
    "attends",
    "batching",
    "compare_answer",
    "decoding",
    "idle_tap",
    "image_prefix",
    "relative",
    "row_gradients",
    "rows",
    "wrong_choices",
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
    must not exceed 1e-5, or 4 times the error that eager attention itself has against float64 (`Subject.rounding`),
    which is larger in deep models with large activations; and never 1e-3. In half precision rounding errors accumulate
    over the layers; a limit that every correct deep model meets would also accept rows of a wrong temperature. But
    the rows of the first layer are computed from identical inputs: their median error must not exceed 1.25 eps. The
    median error of all rows and the difference of the logits must not exceed 8 eps.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.wrong: list[str] = []
        self._rows: list[np.ndarray] = []
        self._first: list[np.ndarray] = []
        self._logits = 0.0

    def rows(
        self, found: Float[np.ndarray, "layer *other key"], expected: np.ndarray, first: bool = True
    ) -> None:
        """Compares rows; NaN counts as an infinite error. `first`: whether those at index 0 are of the first layer."""
        mass = expected.sum(-1)
        off = np.abs(found - expected).sum(-1)
        errors = np.nan_to_num(np.where(mass > 0, off / np.where(mass > 0, mass, 1), off), nan=np.inf)
        self._rows.append(errors.reshape(-1))
        self._first += [errors[0].reshape(-1)] if first else []

    def logits(self, found: np.ndarray, expected: np.ndarray) -> None:
        """Compares the logits of one position."""
        self._logits = max(self._logits, float(np.nan_to_num(relative(found, expected), nan=np.inf)))

    def measured(self, detail: str) -> Measured:
        """Returns the verdict. Entries of `wrong` fail the check and replace the detail."""
        eps = self.subject.eps
        errors, first = (np.concatenate(parts or [np.zeros(1)]) for parts in (self._rows, self._first))
        if self.subject.exact:
            value = max(float(errors.max()), self._logits)
            limit, said = self._limit(value)
            detail += said
            what, holds = "largest difference of a row (of its mass) or of the logits (of the largest)", True
        else:
            value, limit = float(np.median(first)), 1.25 * eps
            what = "difference of the first layer's rows (of their mass, median)"
            middle = float(np.median(errors))
            holds = middle <= 8 * eps and self._logits <= 8 * eps
            detail += f"; all layers {middle:.2g}, logits {self._logits:.2g}, both ≤ {8 * eps:.2g}"
        return Measured(value, what, limit, "; ".join(self.wrong) or detail, holds=holds and not self.wrong)

    def _limit(self, value: float) -> tuple[float, str]:
        """Returns the limit in float32 and a remark on it; the wider reference is run only where it is needed."""
        limit = self.subject.tolerance
        if not limit < value <= _COARSE:
            return limit, ""
        rounding = self.subject.rounding
        return float(np.clip(4 * rounding, limit, _COARSE)), f"; eager itself is {rounding:.2g} from float64"


_COARSE = 1e-3
"""The largest error that rounding in float32 may excuse."""


def wrong_choices(subject: Subject, ids: Sequence[int], logits: Float[Tensor, "step token_id"]) -> list[str]:
    """Returns the generated tokens that are not eager's best ones.

    Where eager's logits of two tokens differ by less than rounding, another exact computation may choose either.

    Args:
        subject: The model under test.
        ids: The generated tokens.
        logits: Eager's logits at each step of the same answer.
    """
    logits = at_least_float32(logits)
    chosen = logits[torch.arange(len(ids)), list(ids)]
    behind = ((logits.amax(-1) - chosen) / logits.abs().amax(-1)).tolist()
    near = subject.tolerance
    if subject.exact and near < max(behind) <= _COARSE:
        near = max(near, 4 * subject.rounding)
    word = subject.mllm.processor.tokenizer.convert_ids_to_tokens
    return [
        f"token {step} is {word(ids[step])!r}, eager's best is {word(int(logits[step].argmax()))!r}"
        for step, one in enumerate(behind)
        if one > near
    ]


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
    read = [group.read("last") for group in row_groups(mllm)]
    traced = [torch.from_numpy(mllm.trace(batch, reads=reads).logits.values) for reads in ([], read)]
    different = int((found != expected).sum()) + sum(int((one != last).sum()) for one in traced)
    attention = mllm.installation.implementation
    detail = f"the wrapped model, plain, traced and read, against unwrapped {attention} attention"
    return Measured(different, "logits that differ in any bit", 0, detail)


def rows(subject: Subject) -> Measured:
    """Checks that rows and logits of single samples equal eager's, where transformers computes the positions itself.

    Rows of gated DeltaNet layers times the layer's values must give what the layer's rule gave.
    """
    found = Agreement(subject)
    for i, batch in enumerate(subject.singles):
        at = np.unique(np.linspace(0, batch.tokens[0].length - 1, _ROWS).round().astype(int))
        index = torch.from_numpy(at)
        groups = row_groups(subject.mllm)
        trace = subject.mllm.trace(batch, reads=[one.read(positions(at.tolist())) for one in groups])
        logits, kept = subject.eager.reading(
            subject.plain(i), lambda weights, index=index: weights[0, :, index.to(weights.device)].cpu()
        )
        for group, values in zip(groups, trace[0].reads, strict=True):
            found.rows(values.values, group.of(kept, batch.tokens[0]), first=0 in group.places)
        found.logits(trace.logits.values[0], logits[0].float().cpu().numpy())
        if "linear" in subject.mllm.layer_kinds:
            _delta_rows(subject, i, at, found)
    return found.measured(f"up to {_ROWS} rows of {len(subject.singles)} prompts, every layer and head")


def _delta_rows(subject: Subject, sample: int, at: np.ndarray, found: Agreement) -> None:
    """Compares rows of DeltaNet layers times values with the layers' outputs, which are linear in the values."""
    site = Site(layers="linear", queries=positions(at.tolist()), keys="all")
    rows = subject.mllm.trace(subject.singles[sample], reads=[Rows(site)])[0].rows.values
    for own, (values, outputs) in zip(
        rows, subject.unwrapped.delta_values(subject.plain(sample)), strict=True
    ):
        made = np.einsum("hqk,khd->qhd", own, values.cpu().numpy())
        found.logits(made, outputs[at].cpu().numpy())


def batching(subject: Subject) -> Measured:
    """Checks that a left-padded batch of prompts of different lengths gives each sample's own logits and last rows."""
    groups = row_groups(subject.mllm)
    read = [group.read("last") for group in groups]
    together = subject.mllm.trace(subject.batch, reads=read)
    found = Agreement(subject)
    for i, batch in enumerate(subject.singles):
        alone = subject.mllm.trace(batch, reads=read)
        for group, one, other in zip(groups, together[i].reads, alone[0].reads, strict=True):
            found.rows(one.values, other.values, first=0 in group.places)
        found.logits(together.logits.values[i], alone.logits.values[0])
    pads = [int(n) for n in subject.batch.pad]
    found.wrong += [] if max(pads) else ["no prompt was padded"]
    return found.measured(f"padded by {pads} tokens")


def decoding(subject: Subject) -> Measured:
    """Checks that generated tokens and their rows are those of transformers' own eager `generate`.

    Eager follows the model's own answer, so all of its rows are compared, also after a token that was nearly a tie.
    """
    read = [group.read("last") for group in row_groups(subject.mllm)]
    together = subject.mllm.trace(subject.batch, reads=read, generate=_STEPS)
    found, compared = Agreement(subject), 0
    for i in range(len(subject.samples)):
        compared += len(compare_answer(subject, found, i, together[i])) - 1
    found.wrong += (
        [] if compared else ["every answer ended at its first token, so no generated row was compared"]
    )
    return found.measured(
        f"{compared} rows of generated tokens after {len(subject.samples)} prompts, the same ones"
    )


def compare_answer(
    subject: Subject, found: Agreement, sample: int, one: SampleTrace
) -> Float[Tensor, "step token_id"]:
    """Compares a sample's answer, its rows and the prompt's last row with eager's.

    Args:
        subject: The model under test.
        found: Collects the differences.
        sample: The sample's number.
        one: Its share of a trace with generate= that read the last row of each group of layers.

    Returns:
        Eager's logits at each step.
    """
    steps, logits = subject.eager.following(subject.plain(sample), one.ids)
    found.wrong += wrong_choices(subject, one.ids, logits.cpu())
    for group, read in zip(row_groups(subject.mllm), one.reads, strict=True):
        own = read.values[:, :, :, 0]
        expected = [group.of(layers, subject.tokens[sample], step) for step, layers in enumerate(steps)]
        if own.shape != np.shape(expected):
            found.wrong.append(f"{len(own)} steps, eager {len(expected)}")
        for step in range(min(len(own), len(expected))):
            found.rows(own[step], expected[step], first=0 in group.places)
    return logits


def attends(subject: Subject) -> Measured:
    """Checks that the later tokens that a row sees, in any layer and head, are those that `attends` declares.

    In cross-attention layers the keys that a row sees are compared with the declared ones.
    """
    wrong, later = 0, 0
    own, *cross = row_groups(subject.mllm)
    for i, tokens in enumerate(subject.tokens):
        _, kept = subject.eager.reading(subject.plain(i), lambda weights: (weights[0] > 0).any(0).cpu())
        seen = np.triu(np.any([kept[place].numpy() for place in own.places], axis=0), 1)
        wrong += int((seen != _declared(tokens, subject.attends)).sum())
        later += int(seen.sum())
        if tokens.cross is not None:
            blocks = np.repeat(tokens.cross.blocks, tokens.cross.width, axis=1)
            wrong += sum(int((kept[place].numpy() != blocks).sum()) for place in cross[0].places)
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
    if attends in ("image_blocks", "sliding_image_blocks", "images") and tokens.n:
        block = np.full(tokens.length, -1)
        new = np.diff(tokens.image, prepend=tokens.image[0]) > 1
        block[tokens.image] = 0 if attends == "images" else np.cumsum(new)
        seen = (block[:, None] == block) & (block[:, None] >= 0)
    return np.triu(seen, 1)


def image_prefix(subject: Subject) -> Measured:
    """Checks a prefix with the suffix of another question: rows after the image, edited logits, and eager's logits.

    Where prompts attend to all of their tokens, the image is no part of the sequence or its features depend on the
    prompt's words, the prefix must not be used, and the results must still be right. In hybrid models, prompts whose
    suffixes differ in length must not share a prefix, so each has its own.
    """
    if not subject.mllm.linear_heads:
        return _after_prefix(subject, subject.samples)
    results = [_after_prefix(subject, [sample]) for sample in subject.samples]
    return max(results, key=lambda one: (not one.passed, one.value))


def _after_prefix(subject: Subject, samples: Sequence[Sample]) -> Measured:
    """Returns the check of a prefix of these samples."""
    mllm = subject.mllm
    prefix = mllm.prefix(samples)
    groups, layers = row_groups(mllm), image_layers(mllm)
    read = [group.read("after_image") for group in groups]
    mode = (
        "zero" if mllm.maps == "cross" else "renormalise"
    )  # there are no other keys in a cross-attention layer
    edit = [Knockout(Site(layers=[layers[len(layers) // 2]], queries="after_image"), mode)]
    found, used = Agreement(subject), []
    for edits in ([], edit):
        short = mllm.trace(prefix, GENERIC_PROMPT, reads=read, edits=edits)
        whole = mllm.trace(samples, GENERIC_PROMPT, reads=read, edits=edits)
        for i, (one, other) in enumerate(zip(short, whole, strict=True)):
            for group, some, same in zip(groups, one.reads, other.reads, strict=True):
                found.rows(some.values, same.values, first=0 in group.places)
            found.logits(short.logits.values[i], whole.logits.values[i])
        used.append(short.cost.tokens < whole.cost.tokens)
    unedited = mllm.trace(prefix, GENERIC_PROMPT).logits.values
    for i, sample in enumerate(samples):
        inputs = mllm.encode(sample, GENERIC_PROMPT).inputs
        plain = {k: v for k, v in inputs.items() if k != "position_ids"}
        found.logits(unedited[i], subject.eager.logits(plain)[0].float().cpu().numpy())
    reads = image_reads_prompt(mllm.adapter)
    exact = subject.attends != "prefix" and mllm.maps != "cross" and not reads
    detail = "used: only what follows the image was run" if all(used) else "not used: full passes"
    declared = f"{subject.attends!r}, {mllm.maps!r}" + ", image_reads_prompt" * reads
    found.wrong += [] if used == [exact] * 2 else [f"{detail}, but the adapter declares {declared}"]
    return found.measured(f"{detail}, as declared by the adapter: {declared}")


def row_gradients(subject: Subject) -> Measured:
    """Checks the gradient of the top log-probability with respect to each layer's last row in an nnsight trace.

    In float32 the largest difference from eager's gradient must not exceed 5e-5 of the layer's largest gradient. Where
    it does, and in half precision, the error against the next wider type must not exceed three times that of eager's
    own gradient, by norm and layer.
    """
    found, eager = [], []
    with _differentiable(subject.mllm.hf):
        for i in range(len(subject.samples)):
            found.append(_in_nnsight_trace(subject.mllm, subject.plain(i)))
            eager.append(subject.eager.gradients(subject.plain(i)))
    detail = f"every layer, last row, {len(subject.samples)} prompts"
    worst = max(
        _apart(a, b) for one, other in zip(found, eager, strict=True) for a, b in zip(one, other, strict=True)
    )
    if subject.exact and not 5 * subject.tolerance < worst <= _COARSE:
        what = "largest difference over a layer's largest gradient"
        return Measured(worst, what, 5 * subject.tolerance, detail)
    with _differentiable(subject.finer.hf):
        true = [subject.finer.gradients(subject.plain(i)) for i in range(len(subject.samples))]
    ours, theirs = _errors(found, true), _errors(eager, true)
    ratio = float((ours / np.maximum(theirs, 5e-5 if subject.exact else subject.eps)).max())
    detail += f"; errors up to {ours.max():.2g}, eager's up to {theirs.max():.2g}"
    return Measured(ratio, "error of a layer's gradient, over eager's own", 3, detail)


def _apart(one: Tensor, other: Tensor) -> float:
    """Returns the largest difference of two gradients, over the largest of the second; NaN where that is 0."""
    scale = float(other.abs().max())
    return float((one - other).abs().max()) / scale if scale else np.nan


def _errors(found: list[list[Tensor]], true: list[list[Tensor]]) -> Float[np.ndarray, " layer"]:
    """Returns the norm of the error of each layer's gradients over that of the true ones, all samples together."""
    mine, others = (
        [torch.cat([g.flatten() for g in layer]) for layer in zip(*all_, strict=True)]
        for all_ in (found, true)
    )
    return np.array([float((a - b).norm() / b.norm()) for a, b in zip(mine, others, strict=True)])


def _in_nnsight_trace(mllm: Mllm, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """Returns the gradient (head, key) of each layer."""
    with mllm.tap(queries="last"), mllm.nn.trace(**inputs, use_cache=False):
        kept = []
        for layer, kind in zip(mllm.layers, mllm.layer_kinds, strict=True):
            if kind not in ("attention", "cross"):
                continue
            pattern = mixer(layer).pattern
            rows = pattern.output
            pattern.output = rows * 1  # a copy is spliced in, so the logits depend on it
            kept.append(rows)
        top = mllm.nn.output.logits[0, -1].float().log_softmax(-1).max()
        gradients: Any = list(torch.autograd.grad(top, kept))
        found = gradients.save()
    return [one[0, :, 0].float() for one in found]


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
