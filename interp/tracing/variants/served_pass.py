"""Variants of one prompt of a model on an NDIF server: many side by side in a job, and their values alone come back.

Nothing is kept there between jobs, so variants run whole prompts. Images go through the vision tower once a job: what
enters the decoder is repeated for each variant.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.errors import ModelError
from interp.inputs.tokens import TokenMap
from interp.tracing.attention.call import Call
from interp.tracing.attention.shared_keys import HiddenCells, SharedKeys
from interp.tracing.cost import Meter
from interp.tracing.encoding.batch import Batch
from interp.tracing.executors.source import as_unified, attention_call
from interp.tracing.passes.run import refuse, without_choice
from interp.tracing.target import Aim, is_half
from interp.tracing.variants.token_changes import Replaced, hidden_keys, of_image
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["ServedPass"]

Some = TypeVar("Some")
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class ServedPass:
    """One sample's prompt, whose variants a server runs: what a `KeptPass` is for a model on this machine.

    Attributes:
        mllm: the model.
        batch: the sample, encoded alone, with an answer behind it.
        aim: what the last rows predict. `run` gives its values, where a kept pass gives logits. None where only the
            stream is wanted.
        layers: the layers of which `stream` is asked.
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
        """How many last rows' logits the aim takes."""
        return 1 if self.aim is None else max(map(len, self.aim.answers))

    @property
    def device(self) -> torch.device:
        """Where masks and values are made; a job moves them."""
        return self.mllm.device

    def plain(self, meter: Meter) -> Float[Tensor, " one"]:
        """The aim's value without any change, in nats; counted by the meter the first time.

        Raises:
            ModelError: Logits that are not numbers.
        """
        if "plain" not in self._found:
            values = self._values(1, meter, {})
            refuse(self.mllm, self.batch, values.isnan())
            self._found["plain"] = {0: values}
        return self._found["plain"][0]

    def stream(self, layer: int, meter: Meter) -> Float[Tensor, "one token hidden"]:
        """What enters one of the `layers` at the image's tokens; counted by the meter the first time."""
        return self._of_stream(_streams, meter)[layer]

    def added_at_image(self, meter: Meter) -> dict[int, Float[Tensor, "one token hidden"]]:
        """What the family adds to the stream after a layer, at the image's tokens, by layer (deepstack)."""
        return self._of_stream(_added, meter)

    def _of_stream(self, work: Callable[..., dict[str, Any]], meter: Meter) -> dict[int, Tensor]:
        """What a job finds in the unchanged stream at the image's tokens, by layer; it runs once."""
        if work.__name__ not in self._found:
            job = {"columns": of_image(self.tokens), "layers": list(self.layers)}
            self._found[work.__name__] = self.mllm.server.compute(self.batch, work, job, meter)["found"]
        return self._found[work.__name__]

    def stop(self, first: int) -> int:
        """How many rows need not run again: none, as nothing is kept."""
        del first
        return 0

    def fitting(self, variants: Some, run: Callable[[Some], T]) -> list[T]:
        """What `run` gives for the variants; a server that runs out of memory says so."""
        return [run(variants)]

    def hiding(
        self, keys: Bool[Tensor, "variant key"], rows: int, stop: int, layers: Collection[int]
    ) -> dict[int, HiddenCells]:
        """As `KeptPass.hiding`."""
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
        """The aim's value in each of `n` variants, nats, float64; NaN where logits are not numbers.

        In half precision a variant without changes runs beside them, and its difference from `plain` is taken off
        theirs.

        Args:
            n: how many.
            stop: 0.
            meter: counts the pass.
            start: the layer that `entering` enters.
            entering: image tokens replaced in what enters it.
            added: image tokens replaced in what is added after layers.
            hidden: what each variant hides, by layer.

        Raises:
            ModelError: No variants, or rows that should not run.
        """
        if n < 1 or stop:
            raise ModelError(
                f"a job runs one variant or more, of whole prompts; got {n}, from row {stop} on."
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
    """The changes with one more variant, which changes nothing."""
    entering, known = changes["entering"], {}
    return {
        "entering": None if entering is None else entering.with_none(),
        "added": {i: one.with_none() for i, one in changes["added"].items()},
        "hidden": {i: known.setdefault(id(one), one.with_none()) for i, one in changes["hidden"].items()},
    }


def _variants(there: Any, job: dict[str, Any]) -> dict[str, Tensor]:
    """The aim's values, in a job; `there` is an `interp.tracing.remote.job_passes.Views`."""
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
    """Puts in the place of an attention's output that with cells hidden, at nnsight's view of its call, in a job."""
    positional, kwargs = as_unified(*view.inputs)
    call, output = Call.of(positional[0], positional[1:4], positional[4], kwargs), view.output
    with torch.autocast(call.queries.device.type, enabled=False):
        mine = SharedKeys(None).of_whole_prompts(call, cells.on(call.queries.device))
    view.output = (mine.to(output[0].dtype), *output[1:])


def _streams(there: Any, job: dict[str, Any]) -> dict[str, Any]:
    """What enters layers at the image's tokens, in a job; `there` as for `_variants`."""
    return {"found": {i: there.entering(i)[:, job["columns"]] for i in sorted(job["layers"])}}


def _added(there: Any, job: dict[str, Any]) -> dict[str, Any]:
    """What is added after layers at the image's tokens, in a job; `there` as for `_variants`."""
    found: dict[int, Tensor] = {}
    left: Tensor | None = None
    for i in range(len(there.layers)):
        entering = there.entering(i)
        if left is not None and not torch.equal(left.to(entering.device), entering):
            found[i - 1] = (entering - left.to(entering.device))[:, job["columns"]]
        left = there.leaving(i)
    return {"found": found}
