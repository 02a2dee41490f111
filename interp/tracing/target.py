"""Targets: the tokens of a target after each prompt, and their log-probability.

The logits of a model in half precision are computed in float32, so that rounding does not hide their differences.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any, overload

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.errors import ModelError, PromptError
from interp.inputs.prompt import Diff, Prompt, Target
from interp.inputs.sample import Sample
from interp.tracing.cost import Cost, Meter
from interp.tracing.edits import Edit, check_edits
from interp.tracing.encoding.batch import Batch, longer
from interp.tracing.execution import apart, ends, execute
from interp.tracing.passes.micro_batches import BATCH_SIZE, MicroBatch, Places, in_batches, in_order
from interp.tracing.passes.prefix_pass import given_as
from interp.tracing.passes.run import Generation
from interp.tracing.prefix import Prefix
from interp.tracing.reasoning import CLOSE, check_closed, said
from interp.tracing.values import for_samples
from interp.tracing.wrapped_model import WrappedModel

__all__ = [
    "ANSWER_ROWS",
    "PROMPT_LAST",
    "Aim",
    "Aims",
    "Objective",
    "Scores",
    "aim_of",
    "aims",
    "answer_ids",
    "check_target",
    "forced",
    "forced_values",
    "is_half",
    "joined_scores",
    "likeliest",
    "log_probabilities",
    "objectives",
    "score",
    "target_values",
    "texts_of",
    "wide_logits",
]


ANSWER_ROWS, PROMPT_LAST = "answer row", "prompt last"
"""Groups of tokens in a teacher-forced batch: the rows that predict the answer, and the first of these rows."""


CHUNK = 2**24
"""The largest number of the output layer's weights that are held in float32 at once."""


def log_probabilities(
    logits: Float[Tensor, "*variant position token_id"],
    ids: Sequence[int] | Int[Tensor, "*variant position"],
) -> Float[Tensor, "*variant"]:
    """Σ_t log p(ids[t]) in nats, float64 and differentiable, from the logits of the rows that predict the tokens.

    Exponentials are computed in the logits' dtype, or in float32 if that is narrower; their sum and the difference are
    computed in float64.
    """
    wide = logits if logits.dtype == torch.float64 else logits.float()
    chosen = torch.as_tensor(ids, device=wide.device).expand(wide.shape[:-1])[..., None]
    top = wide.detach().amax(dim=-1, keepdim=True)
    whole = top[..., 0].double() + (wide - top).exp().sum(dim=-1, dtype=torch.float64).log()
    return (wide.gather(-1, chosen)[..., 0].double() - whole).sum(dim=-1)


@dataclass(frozen=True)
class Aim:
    """A target for one sample: Σ_a weights[a] · Σ_t log p(answers[a][t] | prompt, answers[a][:t]), in nats.

    Attributes:
        answers: the token ids of one answer, or of both answers of a difference.
        weights: (1,) or (1, −1); if the target is a mean, each is divided by its answer's number of tokens.
    """

    answers: tuple[tuple[int, ...], ...]
    weights: tuple[float, ...]

    @property
    def single(self) -> bool:
        """Whether every answer is one token, so that the logits after the prompt suffice."""
        return all(len(answer) == 1 for answer in self.answers)

    @property
    def each(self) -> list[Aim]:
        """One aim for each answer; the sum of their values is the value of this aim."""
        return [Aim((ids,), (weight,)) for ids, weight in zip(self.answers, self.weights, strict=True)]

    def value(self, logits: Float[Tensor, "*variant position token_id"]) -> Float[Tensor, "*variant"]:
        """The target's value, from the logits of a pass's last rows; the last len(answer) of them predict an answer."""
        parts = [
            weight * log_probabilities(logits[..., -len(ids) :, :], ids)
            for ids, weight in zip(self.answers, self.weights, strict=True)
        ]
        return torch.stack(parts).sum(dim=0)


@dataclass(frozen=True, eq=False)
class Aims(Sequence[Aim]):
    """One aim per sample, and the cost of finding them: zero, unless the model had to answer first."""

    each: tuple[Aim, ...]
    cost: Cost

    def __len__(self) -> int:
        return len(self.each)

    @overload
    def __getitem__(self, index: int) -> Aim: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Aim, ...]: ...

    def __getitem__(self, index: int | slice) -> Aim | tuple[Aim, ...]:
        return self.each[index]


def check_target(target: Any) -> None:
    """Raise `PromptError` for anything but an `interp.Target`."""
    if not isinstance(target, Target):
        write = f" Write interp.Target({target!r})." if isinstance(target, str | Diff) else ""
        raise PromptError(f'target is an interp.Target, such as Target("yes"); got {target!r:.200}.{write}')


def aims(mllm: WrappedModel, given: Batch | Prefix, target: Target) -> Aims:
    """The target's tokens after each sample's prompt. For the target "greedy" the model generates them first.

    Raises:
        PromptError: Something that is not a target, an answer without tokens or with words that are not in the
            vocabulary, two answers with the same tokens, or a prompt that a thought follows.
    """
    check_target(target)
    batch = given.batch if isinstance(given, Prefix) else given
    check_closed([one.text for one in batch.singles], batch.prompt, mllm.processor)
    with Meter(mllm.device) as meter:
        if target.spec == "greedy":
            found = [(ids,) for ids in _greedy(mllm, given, target.tokens, meter)]
        else:
            found = [
                tuple(answer_ids(mllm.processor, one.text, text) for text in texts_of(target))
                for one in batch.singles
            ]
    each = tuple(aim_of(target, own, one) for own, one in zip(found, batch.samples, strict=True))
    return Aims(each, meter.cost)


def aim_of(target: Target, answers: tuple[tuple[int, ...], ...], sample: Sample) -> Aim:
    """The target for one sample, from the tokens of its answers.

    Raises:
        PromptError: Two answers with the same tokens.
    """
    if len(set(answers)) < len(answers):
        raise PromptError(
            f"{target.spec!r} compares two answers with the same tokens {answers[0]} after the prompt of sample "
            f"{sample.id}; the difference is always zero. Name answers that the tokenizer tells apart."
        )
    return Aim(answers, _weights(answers, target))


def texts_of(target: Target) -> tuple[str, ...]:
    """The text of a target, or the two texts that it compares."""
    spec = target.spec
    return (spec.first, spec.second) if isinstance(spec, Diff) else (spec,)


def _weights(answers: Sequence[tuple[int, ...]], target: Target) -> tuple[float, ...]:
    signs = (1.0, -1.0)[: len(answers)]
    if target.reduce == "sum":
        return signs
    return tuple(sign / len(answer) for sign, answer in zip(signs, answers, strict=True))


def _greedy(mllm: WrappedModel, given: Batch | Prefix, n: int, meter: Meter) -> list[tuple[int, ...]]:
    """The first `n` tokens of each sample's answer, or fewer if it ends before.

    An end token is left out, unless it is the first token.
    """
    if n == 1:
        _, _, outcome = execute(mllm, given, None, [], [], meter)
        return [_answer_start(mllm, (int(token),)) for token in outcome.logits.argmax(dim=-1)]
    last = ends(mllm)

    def generation(batch: Batch) -> Generation:
        return Generation(n, last, batch.pad_id, lambda logits: logits.argmax(dim=-1))

    _, _, outcome = execute(mllm, given, None, [], [], meter, generation=generation)
    assert outcome.ids is not None
    lines = [tuple(line) for line in outcome.ids.tolist()]
    stops = [next((i for i, token in enumerate(line) if token in last), len(line)) for line in lines]
    return [_answer_start(mllm, line[: max(stop, 1)]) for line, stop in zip(lines, stops, strict=True)]


def _answer_start(mllm: WrappedModel, ids: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the tokens of an answer, and refuses those that begin a thought."""
    if said(ids, mllm.processor, opened=False).reasoning is not None:
        raise PromptError(
            f'the model begins a thought; Target("greedy") would score it as if it were the answer. {CLOSE}'
        )
    return ids


def answer_ids(processor: Any, prompt: str, answer: str) -> tuple[int, ...]:
    """The tokens of an answer that follows a rendered prompt.

    Prompt and answer are tokenised together, and the prompt's tokens are removed. If a token would cover the end of the
    prompt and the start of the answer, the answer is tokenised alone, because a model that has read the prompt cannot
    generate half a token.

    Raises:
        PromptError: The answer has no tokens, or the tokenizer has no token for a part of it.
    """
    placeholder = str(getattr(processor, "image_token", None) or "")
    tail = prompt.rpartition(placeholder)[2] if placeholder else prompt
    spaced = answer if answer[:1].isspace() or not tail or tail[-1:].isspace() else f" {answer}"

    def ids(text: str) -> list[int]:
        return list(processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    before, both = ids(tail), ids(tail + spaced)
    found = both[len(before) :] if both[: len(before)] == before else ids(spaced)
    if not found:
        raise PromptError(f"the tokenizer makes no token from the answer {answer!r}. Name another answer.")
    unknown = getattr(processor.tokenizer, "unk_token_id", None)
    if unknown in found and processor.tokenizer.unk_token not in answer:
        raise PromptError(
            f"the tokenizer has no token for a part of the answer {answer!r:.200} and writes "
            f"{processor.tokenizer.unk_token!r} there; the probability of that token says nothing about the answer. "
            "Name an answer whose words are in the vocabulary."
        )
    return tuple(found)


def forced(mllm: WrappedModel, batch: Batch, answers: Sequence[tuple[int, ...]]) -> Batch:
    """The batch with each sample's answer, without its last token, after the prompt (teacher forcing).

    So the last rows of a sample predict its answer, one row for each token of the answer. These rows are the group
    `ANSWER_ROWS` of its tokens. `PROMPT_LAST` is the first of these rows, the last token of the prompt. The group
    "after_image" contains all of them.

    Raises:
        ModelError: An answer of several tokens for a model whose prompt rows would see it.
    """
    behind = [answer[:-1] for answer in answers]
    if any(behind) and mllm.visibility.attends == "prefix":
        raise ModelError(
            f"in {mllm.family} every row of the prompt sees the whole prompt, so an answer of several tokens after it "
            "would be seen too. Use a target of one token, or mllm.score, which feeds answers token by token."
        )
    singles = [
        longer(one, rest, {ANSWER_ROWS: range(-1, len(rest)), PROMPT_LAST: [-1]})
        for one, rest in zip(batch.singles, behind, strict=True)
    ]
    if any(behind):
        return mllm.encoder.joined(batch.samples, batch.prompt, singles)
    return replace(batch, singles=tuple(singles), tokens=tuple(one.tokens for one in singles))


@dataclass(frozen=True, eq=False)
class Objective:
    """One teacher-forced pass and what it contributes to each sample's target.

    Attributes:
        batch: the prompts, each with its answer after it, without the answer's last token.
        aims: the answers that this pass predicts, and their weights; None for the most likely next token.
    """

    batch: Batch
    aims: tuple[Aim, ...] | None

    @property
    def keep(self) -> int:
        """The number of last positions whose logits are needed."""
        return 1 if self.aims is None else max(len(ids) for aim in self.aims for ids in aim.answers)

    def values(self, logits: Float[Tensor, "sample position token_id"]) -> Float[Tensor, " sample"]:
        """Σ_a weight · Σ_t log p of each sample, in nats, from the logits at its last `keep` positions."""
        return target_values(self.aims, logits)


def target_values(
    aims: Sequence[Aim] | None, logits: Float[Tensor, "sample position token_id"]
) -> Float[Tensor, " sample"]:
    """Σ_a weight · Σ_t log p of each sample, in nats, from the logits of a pass's last rows.

    Args:
        aims: the answers that each sample's rows predict, and their weights; None for the most likely next token.
        logits: the logits at the last positions: at least one position for each token of the longest answer.
    """
    if aims is None:
        last = logits[:, -1:]
        return log_probabilities(last, last.argmax(dim=-1))
    return torch.stack([aim.value(own) for own, aim in zip(logits, aims, strict=True)])


def forced_values(mllm: WrappedModel, batch: Batch, aim: Aim, meter: Meter) -> Float[np.ndarray, " sample"]:
    """The value of one aim for each sample, in nats, with teacher-forced answers.

    Args:
        mllm: the model.
        batch: the prompts.
        aim: the answers' tokens and their weights, the same for every sample.
        meter: records the cost of the passes.
    """
    values = np.zeros(len(batch))
    for part in [aim] if aim.single else aim.each:
        answer = part.answers[0]
        behind = forced(mllm, batch, [answer] * len(batch))
        if mllm.server is not None:
            job = {"aim": part, "keep": len(answer)}
            values += mllm.server.compute(behind, _value, job, meter, keep=len(answer))["values"].numpy()
            continue
        with wide_logits(mllm.hf):
            _, _, outcome = execute(mllm, behind, None, [], [], meter, keep=len(answer))
        values += part.value(outcome.tail).cpu().numpy()
    return values


def _value(there: Any, job: dict[str, Any]) -> dict[str, Tensor]:
    """The value of an aim for each sample, in a job; `there` is an `interp.tracing.remote.job_passes.Views`."""
    return {"values": job["aim"].value(there.logits(job["keep"]))}


def likeliest(target: Target) -> bool:
    """Whether a target is the most likely next token; a gradient's own pass finds this token, without another pass."""
    return isinstance(target, Target) and target.spec == "greedy" and target.tokens == 1


def objectives(mllm: WrappedModel, batch: Batch, aims: Sequence[Aim] | None) -> list[Objective]:
    """The passes whose values add up to the target: one pass, or one for each answer of a difference.

    Two answers that differ only in their last token, such as two answers of one token, share a pass.

    Raises:
        ModelError: An answer of several tokens for a model whose prompt rows would see it.
    """
    if aims is None:
        return [Objective(batch, None)]
    if all(len({ids[:-1] for ids in aim.answers}) == 1 for aim in aims):
        return [Objective(forced(mllm, batch, [aim.answers[0] for aim in aims]), tuple(aims))]
    slots = range(max(len(aim.answers) for aim in aims))
    parts = [tuple(Aim((aim.answers[at],), (aim.weights[at],)) for aim in aims) for at in slots]
    return [Objective(forced(mllm, batch, [aim.answers[0] for aim in part]), part) for part in parts]


@dataclass(frozen=True, eq=False)
class Scores:
    """The target's value for each sample.

    Attributes:
        values: float64 (sample,), in nats: a log-probability (≤ 0), its mean over tokens, or a difference of two.
        aims: the answers' tokens and weights for each sample.
        cost: the cost of finding these tokens and of scoring them.
    """

    values: Float[np.ndarray, " sample"]
    aims: Aims
    cost: Cost


def score(
    mllm: WrappedModel,
    samples: Sample | Iterable[Sample] | Batch | Prefix,
    target: Target,
    prompt: Prompt | None,
    edits: Sequence[Edit],
    batch_size: int = BATCH_SIZE,
    progress: bool = True,
) -> Scores:
    """The scores of any number of samples; see `Mllm.score`."""
    check_edits(edits)

    def scored(own: WrappedModel, some: MicroBatch) -> Scores:
        edits_of = for_samples(edits, some.at, some.n_all)
        groups = apart(own, some.samples, prompt, (), edits_of)
        if groups is None:
            return _score(own, some.samples, target, prompt, edits_of)
        return joined_scores([(at, _score(own, given, target, None, each)) for at, given, _, each in groups])

    return joined_scores(in_batches(mllm, samples, scored, batch_size=batch_size, progress=progress))


def _score(
    mllm: WrappedModel,
    samples: Sample | Iterable[Sample] | Batch | Prefix,
    target: Target,
    prompt: Prompt | None,
    edits: Sequence[Edit],
) -> Scores:
    """The scores of samples that run together."""
    given = given_as(mllm, samples, prompt)
    found = aims(mllm, given, target)
    n_answers = len(found[0].answers)
    with Meter(mllm.device) as meter:
        if all(aim.single for aim in found):
            steps = _step_logits(mllm, given, edits, [()] * len(found), meter)
            values = _values(steps, found)
        else:
            parts = []
            for at in range(n_answers):
                own = [Aim((aim.answers[at],), (aim.weights[at],)) for aim in found]
                steps = _step_logits(mllm, given, edits, [aim.answers[0] for aim in own], meter)
                lengths = [len(aim.answers[0]) for aim in own]
                parts.append(_values([one[:n] for one, n in zip(steps, lengths, strict=True)], own))
            values = np.sum(parts, axis=0)
    return Scores(np.array(values, np.float64), found, found.cost + meter.cost)


def _values(steps: Sequence[Tensor] | Tensor, aims: Sequence[Aim]) -> list[float]:
    """Each sample's value; all are copied from the device at once."""
    return torch.stack([aim.value(own) for own, aim in zip(steps, aims, strict=True)]).tolist()


def joined_scores(parts: Sequence[tuple[Places, Scores]]) -> Scores:
    """The scores of all samples, from the scores of micro-batches or groups of samples."""
    if len(parts) == 1:
        return parts[0][1]
    values = in_order([(at, one.values.tolist()) for at, one in parts])
    each = tuple(in_order([(at, one.aims.each) for at, one in parts]))
    known = Aims(each, reduce(add, (one.aims.cost for _, one in parts)))
    return Scores(np.array(values), known, reduce(add, (one.cost for _, one in parts)))


def _step_logits(
    mllm: WrappedModel,
    given: Batch | Prefix,
    edits: Sequence[Edit],
    answers: Sequence[tuple[int, ...]],
    meter: Meter,
) -> Float[Tensor, "sample step token_id"]:
    """The logits that predict each token of the answers. The answers are fed token by token."""
    follow = _Follow(answers)
    n = max(len(answer) for answer in answers)

    def generation(batch: Batch) -> Generation | None:
        return Generation(n, frozenset(), batch.pad_id, follow) if n > 1 else None

    with wide_logits(mllm.hf):  # scores are subtracted from one another
        _, _, outcome = execute(mllm, given, None, [], edits, meter, generation=generation)
    return torch.stack(follow.steps or [outcome.logits], dim=1)


class _Follow:
    """Chooses the tokens of given answers instead of likely ones, and stores the logits of each step."""

    def __init__(self, answers: Sequence[tuple[int, ...]]) -> None:
        self.answers = answers
        self.steps: list[Tensor] = []

    def __call__(self, logits: Float[Tensor, "sample token_id"]) -> Int[Tensor, " sample"]:
        """The next token of each answer; after its end, its last token again."""
        at = len(self.steps)
        self.steps.append(logits)
        ids = [answer[min(at, len(answer) - 1)] for answer in self.answers]
        return torch.tensor(ids, device=logits.device)


def is_half(dtype: torch.dtype) -> bool:
    """Whether numbers of this dtype have fewer digits than float32's."""
    return dtype.is_floating_point and dtype.itemsize < 4


@contextmanager
def wide_logits(hf: Any) -> Iterator[None]:
    """Makes the output layer compute logits in float32, without rounding to the model's dtype, for the block.

    In bfloat16 a logit of 20 is a multiple of 1/8, so differences of log-probabilities would be too coarse. The input
    of the output layer is not changed. Models in float32, and output layers that are not a plain `nn.Linear`, are left
    as they are.
    """
    head = hf.get_output_embeddings()
    if type(head) is not nn.Linear or not is_half(head.weight.dtype):
        yield
        return
    handle = head.register_forward_hook(_widened)
    try:
        yield
    finally:
        handle.remove()


def _widened(head: nn.Module, given: tuple[Any, ...], output: Tensor) -> Tensor:
    hidden, weight = given[0], head.weight
    if not isinstance(weight, Tensor) or hidden.dtype != weight.dtype or hidden.device != weight.device:
        return output  # under autocast, or with weights on another device
    rows, step = hidden.float(), max(1, CHUNK // weight.shape[1])
    logits = torch.cat([rows @ part.float().T for part in weight.split(step)], dim=-1)
    return logits if not isinstance(head.bias, Tensor) else logits + head.bias.float()
