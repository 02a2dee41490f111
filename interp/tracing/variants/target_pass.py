"""A sample's prompt with the target's answers after it, run once, and the target's value in its variants.

`KeptTarget` keeps the pass on this machine. On an NDIF server (`ServedPass`) nothing is kept between jobs, so variants
run whole prompts; images go through the vision tower once a job, and what enters the decoder is repeated for each
variant.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.errors import ModelError
from interp.inputs.prompt import Prompt, Target
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.tracing.attention.rows import Call
from interp.tracing.attention.shared_keys import HiddenCells, SharedKeys
from interp.tracing.cost import Cost, Meter
from interp.tracing.encoding.batch import Batch
from interp.tracing.executors.source import as_unified, attention_call
from interp.tracing.passes.non_finite import refuse
from interp.tracing.passes.prefix_pass import given_as
from interp.tracing.passes.run import without_choice
from interp.tracing.target import Aim, aims, forced, is_half, likeliest
from interp.tracing.variants.cached_pass import KeptPass, Replaced, hidden_keys, of_image
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["AnyPass", "KeptTarget", "ServedPass", "TargetPass", "prompt_pass"]


Some = TypeVar("Some")
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class ServedPass:
    """One sample's prompt whose variants run on a server; the counterpart of `KeptPass`.

    Attributes:
        mllm: The model.
        batch: The sample, encoded alone, with an answer after it.
        aim: What the last rows predict. `run` returns its values, where a kept pass returns logits. None where only the
            stream is read.
        layers: The layers whose input `stream` can return.
    """

    mllm: WrappedModel
    batch: Batch
    aim: Aim | None
    layers: tuple[int, ...] = (0,)
    _found: dict[str, dict[int, Tensor]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.mllm.need_image_rows("variants of a prompt")

    @property
    def tokens(self) -> TokenMap:
        """Where the sample's tokens are."""
        return self.batch.tokens[0]

    @property
    def keep(self) -> int:
        """The number of last rows whose logits the aim needs."""
        return 1 if self.aim is None else max(map(len, self.aim.answers))

    @property
    def device(self) -> torch.device:
        """The device on which masks and values are made; a job moves them to its own."""
        return self.mllm.device

    def plain(self, meter: Meter) -> Float[Tensor, " one"]:
        """The aim's value without changes, in nats; the meter counts the first call.

        Raises:
            ModelError: Logits that are not numbers.
        """
        if "plain" not in self._found:
            values = self._values(1, meter, {})
            refuse(self.mllm, self.batch, values.isnan())
            self._found["plain"] = {0: values}
        return self._found["plain"][0]

    def stream(self, layer: int, meter: Meter) -> Float[Tensor, "one token hidden"]:
        """The input of one of the `layers` at the image's tokens; the meter counts the first call."""
        return self._of_stream(_streams, meter)[layer]

    def added_at_image(self, meter: Meter) -> dict[int, Float[Tensor, "one token hidden"]]:
        """Layer → what the family adds to the stream after it at the image's tokens (deepstack), (1, token, hidden)."""
        return self._of_stream(_added, meter)

    def _of_stream(self, work: Callable[..., dict[str, Any]], meter: Meter) -> dict[int, Tensor]:
        """Layer → what a job reads from the unchanged stream at the image's tokens; each job runs once."""
        if work.__name__ not in self._found:
            job = {"columns": of_image(self.tokens), "layers": list(self.layers)}
            self._found[work.__name__] = self.mllm.server.compute(self.batch, work, job, meter)["found"]
        return self._found[work.__name__]

    def stop(self, first: int) -> int:
        """The number of first rows that need not run again: 0, since a server keeps nothing."""
        del first
        return 0

    def fitting(self, variants: Some, run: Callable[[Some], T]) -> list[T]:
        """The result of `run` for all variants; they are not split where a server runs out of memory."""
        return [run(variants)]

    def hiding(
        self, keys: Bool[Tensor, "variant key"], rows: int, stop: int, layers: Collection[int]
    ) -> dict[int, HiddenCells]:
        """Keys hidden from every row from `rows` on, in some layers; see `KeptPass.hiding`."""
        return hidden_keys(self.tokens, keys, rows, stop, layers)

    def run(
        self,
        n: int,
        stop: int,
        meter: Meter,
        *,
        start: int = 0,
        entering: Replaced | None = None,
        added: Mapping[int, Replaced] | None = None,
        hidden: Mapping[int, HiddenCells] | None = None,
    ) -> Float[Tensor, " variant"]:
        """The aim's value in each of `n` variants, in nats, float64; NaN where logits are not numbers.

        In half precision a variant without changes runs beside the others, and its difference from `plain` is
        subtracted from theirs.

        Args:
            n: The number of variants.
            stop: Must be 0: every row runs.
            meter: Counts the pass.
            start: The layer whose input `entering` changes.
            entering: Image tokens replaced in the input of layer `start`.
            added: Layer → image tokens replaced in what is added after that layer.
            hidden: Layer → what each variant hides there.

        Raises:
            ModelError: No variants, or a `stop` above 0.
        """
        if n < 1 or stop:
            raise ModelError(
                f"a job runs at least one variant, and whole prompts; got {n}, from row {stop} on."
            )
        changes = {
            "start": start,
            "entering": entering,
            "added": dict(added or {}),
            "hidden": dict(hidden or {}),
        }
        if not is_half(self.mllm.dtype):
            return self._values(n, meter, changes)
        found = self._values(n + 1, meter, {**changes, **_and_none(changes)})
        return found[:-1] + (self.plain(meter) - found[-1])

    def _values(self, n: int, meter: Meter, changes: Mapping[str, Any]) -> Float[Tensor, " variant"]:
        none = {"start": 0, "entering": None, "added": {}, "hidden": {}}
        job = {
            **none,
            **changes,
            "n": n,
            "columns": of_image(self.tokens),
            "aim": self.aim,
            "keep": self.keep,
        }
        return self.mllm.server.compute(self.batch, _variants, job, meter, keep=self.keep)["values"]


def _and_none(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The changes, and one more variant that changes nothing."""
    entering, known = changes["entering"], {}
    return {
        "entering": None if entering is None else entering.with_none(),
        "added": {i: one.with_none() for i, one in changes["added"].items()},
        "hidden": {i: known.setdefault(id(one), one.with_none()) for i, one in changes["hidden"].items()},
    }


def _variants(there: Any, job: dict[str, Any]) -> dict[str, Tensor]:
    """The aim's value in each variant, in a job; `there` is an `interp.tracing.remote.job_passes.Views`."""
    n, columns, added, hidden = job["n"], job["columns"], job["added"], job["hidden"]
    there.repeat(n)
    left, busy = None, {*hidden, *added, *(i + 1 for i in added)}
    if job["entering"] is not None:
        busy.add(job["start"])
    for i in sorted(busy):
        if job["entering"] is not None and i == job["start"]:
            there.enter(i, job["entering"].in_stream(there.entering(i), columns))
        if i - 1 in added:
            there.enter(i, added[i - 1].in_stream(there.entering(i), columns, left))
        if i in hidden:
            _hide(attention_call(there.layers[i].self_attn), hidden[i])
        if i in added:
            left = there.leaving(i)
    logits = there.logits(job["keep"])
    values = job["aim"].value(logits)
    return {"values": torch.where(without_choice(logits).to(values.device), torch.nan, values)}


def _hide(view: Any, cells: HiddenCells) -> None:
    """Replaces the output of an attention call by that with cells hidden, at nnsight's view of the call, in a job."""
    positional, kwargs = as_unified(*view.inputs)
    call, output = Call.of(positional[0], positional[1:4], positional[4], kwargs), view.output
    with torch.autocast(call.queries.device.type, enabled=False):
        mine = SharedKeys(None).of_whole_prompts(call, cells.on(call.queries.device))
    view.output = (mine.to(output[0].dtype), *output[1:])


def _streams(there: Any, job: dict[str, Any]) -> dict[str, Any]:
    """The input of layers at the image's tokens, in a job; `there` as in `_variants`."""
    return {"found": {i: there.entering(i)[:, job["columns"]] for i in sorted(job["layers"])}}


def _added(there: Any, job: dict[str, Any]) -> dict[str, Any]:
    """What is added after layers at the image's tokens, in a job; `there` as in `_variants`."""
    found: dict[int, Tensor] = {}
    left: Tensor | None = None
    for i in range(len(there.layers)):
        entering = there.entering(i)
        if left is not None and not torch.equal(left.to(entering.device), entering):
            found[i - 1] = (entering - left.to(entering.device))[:, job["columns"]]
        left = there.leaving(i)
    return {"found": found}


AnyPass = KeptPass | ServedPass
"""The pass of a prompt from which variants differ: kept on this machine, or run again on a server."""


@dataclass(frozen=True, eq=False)
class TargetPass:
    """One forced prompt and what it scores: one answer of several tokens, or any number of answers of one token.

    Attributes:
        kept: The pass of the prompt, kept on this machine or run on a server.
        aim: The answers and their weights.
    """

    kept: AnyPass
    aim: Aim

    def plain(self, meter: Meter) -> float:
        """The pass's share of the target without changes, in nats."""
        kept = self.kept
        return float(self.value(kept.plain(meter) if isinstance(kept, ServedPass) else kept.logits)[0])

    def value(self, found: Float[Tensor, "variant ..."]) -> Float[np.ndarray, " variant"]:
        """The pass's share of the target in each variant, in nats.

        Args:
            found: The variants' logits of the last rows, or the values that a server returned.

        Raises:
            ModelError: A variant whose logits are not numbers.
        """
        served = found.ndim == 1
        lost = int((found.isnan() if served else without_choice(found)).sum())
        if lost:
            raise ModelError(
                f"{lost} of {len(found)} passes with tokens removed or put in place give logits that are not numbers "
                f"in {self.kept.mllm.dtype}. Load the model with dtype='float32'."
            )
        return (found if served else self.aim.value(found)).cpu().numpy()


@dataclass(frozen=True, eq=False)
class KeptTarget:
    """One sample, a prompt and a target, run once. Made by `KeptTarget.of`.

    Attributes:
        batch: The encoded sample, without an answer after it.
        aim: The answers and their weights; a greedy answer is that of the unedited model, whatever variants change.
        parts: The passes whose values add up to the target, run once; on a server, the passes that run there.
        plain: The target's value without changes, in nats.
        cost: What encoding, finding the answers and these passes cost.
    """

    batch: Batch
    aim: Aim
    parts: tuple[TargetPass, ...]
    plain: float
    cost: Cost

    @classmethod
    def of(
        cls,
        mllm: WrappedModel,
        sample: Sample | Batch,
        prompt: Prompt | None,
        target: Target,
        *,
        layers: Collection[int] = (0,),
        aim: Aim | None = None,
    ) -> KeptTarget:
        """The passes of a sample's target, kept.

        Args:
            mllm: The model.
            sample: The sample, or a batch of only this sample.
            prompt: The prompt; None for the batch's own, or `PAPER_PROMPT`.
            target: The target to score.
            layers: The layers that variants may start at.
            aim: The answers' tokens, where they are already known.

        Raises:
            SampleError, PromptError, ImageTokenMismatch: As in `Mllm.encode`, or something other than a target.
            ModelError: An answer of several tokens for a model whose prompt rows would see it.
        """
        with Meter(mllm.device) as encoding:
            batch = given_as(mllm, sample, prompt)
        assert isinstance(batch, Batch)
        finding = Cost()
        if aim is None and (mllm.server is not None or not likeliest(target)):
            found = aims(mllm, batch, target)
            aim, finding = found[0], found.cost
        with Meter(mllm.device) as meter:
            parts = _parts(mllm, batch, aim, layers, meter)
            plain = sum(part.plain(meter) for part in parts)
        known = parts[0].aim if aim is None else aim
        return cls(batch, known, parts, plain, encoding.cost + finding + meter.cost)

    @property
    def tokens(self) -> TokenMap:
        """Where the tokens of the prompt are, without an answer after it."""
        return self.batch.tokens[0]

    def values(self, run: Callable[[AnyPass], Iterable[Tensor]]) -> Float[np.ndarray, " variant"]:
        """The target's value in each variant, in nats.

        Args:
            run: A function from a part's pass to the results of its `run` for the variants, batch by batch.
        """
        return np.sum([np.concatenate([part.value(one) for one in run(part.kept)]) for part in self.parts], 0)


def _parts(
    mllm: WrappedModel, batch: Batch, aim: Aim | None, layers: Collection[int], meter: Meter
) -> tuple[TargetPass, ...]:
    """One pass if every answer is one token, else a pass for each; without an aim, a pass for the likeliest token."""
    if mllm.server is not None:
        assert aim is not None
        each = [aim] if aim.single else aim.each
        behind = [forced(mllm, batch, [() if aim.single else one.answers[0]]) for one in each]
        served = [ServedPass(mllm, own, one, tuple(layers)) for own, one in zip(behind, each, strict=True)]
        return tuple(TargetPass(own, one) for own, one in zip(served, each, strict=True))
    if aim is None or aim.single:
        kept = KeptPass.of(mllm, forced(mllm, batch, [()]), meter, layers=layers)
        likely = int(kept.logits[0, -1].to(mllm.dtype).argmax())  # as the model, which rounds them, chooses
        return (TargetPass(kept, Aim(((likely,),), (1.0,)) if aim is None else aim),)
    return tuple(
        TargetPass(
            KeptPass.of(
                mllm, forced(mllm, batch, one.answers), meter, keep=len(one.answers[0]), layers=layers
            ),
            one,
        )
        for one in aim.each
    )


def prompt_pass(mllm: WrappedModel, batch: Batch, meter: Meter) -> AnyPass:
    """The pass of a sample's prompt without an answer, for reading its stream."""
    return KeptPass.of(mllm, batch, meter) if mllm.server is None else ServedPass(mllm, batch, None)
