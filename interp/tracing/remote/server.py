"""A model on an NDIF server: what its `Mllm` asks of it, each thing as one job.

A job carries a hash of what it was asked, so that its result is not taken for that of another.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from importlib.metadata import version
from types import FunctionType
from typing import Any

import nnsight
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache, GenerationConfig

from interp.errors import ModelError, ServerError
from interp.tracing.attention.call import Block
from interp.tracing.cost import Meter
from interp.tracing.encoding.batch import Batch
from interp.tracing.layers.layer_plan import Recorder
from interp.tracing.layers.layer_work import LayerWork
from interp.tracing.layers.residual import RouterWork, StreamWork
from interp.tracing.passes.decoding import Guidance
from interp.tracing.passes.run import Generation, Outcome, without_choice
from interp.tracing.remote.connection import Connection, JobBackend, LostConnectionError, waited
from interp.tracing.remote.job_passes import (
    Views,
    differentiate_input,
    differentiate_rows,
    prompt_pass,
    steps,
    without_graph,
)
from interp.tracing.target import Aim
from interp.tracing.trace import Submitted
from interp.tracing.vision.work import VisionWork

__all__ = ["Server", "digest_of"]


@dataclass(frozen=True, eq=False)
class Server:
    """Runs passes of a model on an NDIF server.

    Attributes:
        nn: nnsight's model, without weights.
        layers: nnsight's views of the decoder layers.
        head: nnsight's view of the output layer.
        cap: the soft cap that the model puts on its logits after the output layer; None for none.
        windows: whether rows of some layer see a sliding window only.
        norm: nnsight's view of the norm after the last decoder layer; None where it is not found.
        decoder: nnsight's view of the module that has the decoder layers.
        connection: the way to the server.
        waits: whether a job is waited for; otherwise it is left to run.
        job: the id of a job to fetch instead of sending one.
        timeout: how many seconds to wait for that; None for as long as it takes.
        sent: the ids of the jobs that were sent.
    """

    nn: Any
    layers: Sequence[Any]
    head: Any
    cap: float | None
    windows: bool
    norm: Any
    decoder: Any
    connection: Connection
    waits: bool = True
    job: str | None = None
    timeout: float | None = None
    sent: list[str] = field(default_factory=list)

    @property
    def identity(self) -> dict[str, str]:
        """What is known of the model on the server: its key, what its requests set, and the server's versions.

        The weights cannot be hashed from here: the same id and revision are taken to be the same weights.
        """
        config = self.nn._module.config.to_json_string(use_diff=False)
        return {
            "server model": self.nn.to_model_key(),
            "server env": json.dumps(self.nn._remoteable_get_env(), sort_keys=True),
            "server versions": json.dumps(self.connection.versions, sort_keys=True),
            "config": hashlib.sha256(config.encode()).hexdigest(),
        }

    def leaving(self) -> Server:
        """The same, whose jobs are left to run: a `Submitted` is raised in place of their results."""
        return replace(self, waits=False)

    def fetching(self, job: str, timeout: float | None) -> Server:
        """The same, which fetches the result of a job that was left to run instead of sending one."""
        return replace(self, job=job, timeout=timeout)

    def state(self, job: str) -> str:
        """What the server says of a job that was left to run; "unknown" where it says nothing yet."""
        return self.connection.state(job)

    def run(
        self,
        batch: Batch,
        work: Mapping[int, LayerWork],
        streams: Mapping[int, StreamWork],
        routing: Mapping[int, RouterWork],
        recorder: Recorder,
        meter: Meter,
        *,
        tower: tuple[VisionWork, Sequence[Any]] | None,
        generation: Generation | None,
        contrast: Guidance | None,
        keep: int,
    ) -> Outcome:
        """The outcome of a prompt and of what is generated after it.

        Args:
            batch: the samples, with a contrast as `interp.tracing.passes.run.with_imageless` makes it.
            work: what to do in the attention of which layer.
            streams: what to do with the output of which layer.
            routing: what to do with what the router of which layer returns.
            recorder: the one that `work`, `streams` and `routing` share.
            meter: counts every pass.
            tower: what to do in the vision tower, and nnsight's views of its attention modules; None for nothing.
            generation: how to generate, if at all.
            contrast: the guidance by the prompts without images, if any.
            keep: how many positions' logits the outcome's `tail` has.
        """
        job: dict[str, Any] = {"work": dict(work), "streams": dict(streams), "routing": dict(routing)}
        job |= {"recorder": recorder, "contrast": contrast, "n": len(batch)}
        job["tower"], views = (None, ()) if tower is None else tower
        if generation is None:
            found = self._result(
                job, batch, meter, lambda backend: self._prompt(backend, batch, views, job, keep)
            )
            tail = found["tail"]
            lost = without_choice(tail) | without_choice(found["logits"])
            return Outcome(found["logits"], tail, None, found["rows"], lost)
        job |= {"generation": generation}
        found = self._result(job, batch, meter, lambda backend: self._generate(backend, batch, views, job))
        tail, ids = found["tail"], torch.stack(found["ids"], dim=1) if found["ids"] else None
        more = len(found["ids"]) - 1
        meter.forwards += more
        meter.tokens += more * len(batch.inputs["input_ids"])
        if hasattr(generation.draw, "steps"):
            generation.draw.steps[:] = found["seen"]  # pyright: ignore[reportFunctionMemberAccess]
        none = torch.zeros(len(batch), 0, dtype=torch.long)
        return Outcome(found["logits"], tail, none if ids is None else ids, found["rows"], found["lost"])

    def row_gradients(
        self,
        batch: Batch,
        block: Block,
        layers: Sequence[int],
        aims: tuple[Aim, ...] | None,
        meter: Meter,
        *,
        keep: int,
    ) -> tuple[Float[Tensor, "sample position token_id"], list[Tensor], list[Tensor]]:
        """Logits, rows of attention of each layer, and the gradients of the target with respect to them.

        Args:
            batch: the samples, with the answers behind them.
            block: the rows.
            layers: the layers, increasing.
            aims: what the last rows predict; None for the likeliest next token.
            meter: counts the passes.
            keep: of how many last positions logits are wanted.
        """
        job = {"block": block, "layers": list(layers), "aims": aims}

        def send(backend: JobBackend) -> None:
            views, head, cap = self.layers, self.head, self.cap
            inputs = self._inputs(batch, keep)
            with self.nn.trace(**inputs, backend=backend):
                found = nnsight.save(differentiate_rows(views, head, job, cap, keep))  # noqa: F841

        found = self._result(job, batch, meter, send)
        meter.backwards += 1
        return found["logits"], found["rows"], found["gradients"]

    def at_input(
        self,
        batch: Batch,
        leaf: Tensor,
        places: tuple[Tensor, Tensor] | None,
        aims: tuple[Aim, ...] | None,
        meter: Meter,
        *,
        keep: int,
        gradient: bool,
    ) -> tuple[Float[Tensor, " sample"], Tensor | None]:
        """The target's values at changed inputs, and their gradient.

        Args:
            batch: the samples, with the answers behind them.
            leaf: the pixels, or embeddings of image tokens.
            places: (sample, column) of the embeddings; None for pixels.
            aims: what the last rows predict; None for the likeliest next token.
            meter: counts the passes.
            keep: of how many last positions logits are wanted.
            gradient: whether it is wanted.
        """
        leaf = leaf.detach().clone().requires_grad_(gradient)
        job = {"leaf": leaf, "places": places, "aims": aims, "gradient": gradient}

        def send(backend: JobBackend) -> None:
            views, head, cap = self.layers, self.head, self.cap
            inputs = self._inputs(batch, keep) | ({"pixel_values": leaf} if places is None else {})
            with self.nn.trace(**inputs, backend=backend):
                found = nnsight.save(differentiate_input(views, head, job, cap, keep))  # noqa: F841

        found = self._result(job, batch, meter, send)
        meter.backwards += int(gradient)
        return found["values"], found.get("gradient")

    def embeddings(self, batch: Batch, meter: Meter) -> Float[Tensor, "sample position hidden"]:
        """What enters the first decoder layer."""
        return self.compute(batch, _entering_first_layer, {}, meter)["entering"]

    def compute(
        self,
        batch: Batch,
        work: Callable[[Views, dict[str, Any]], Any],
        job: dict[str, Any],
        meter: Meter,
        *,
        keep: int = 1,
    ) -> dict[str, Any]:
        """What a function makes of one pass over the prompts, beside the model; gradients are off there.

        Args:
            batch: the samples.
            work: the function; it is sent as source. It is given the views and `job`, and asks for modules in the order
                in which they run. Of what it returns, tensors, plain values, lists and mappings of them come back.
            job: what it works with.
            meter: counts the pass.
            keep: of how many last positions there are logits.
        """
        job = {**job, "work": work}

        def send(backend: JobBackend) -> None:
            views = Views(self.layers, self.norm, self.head, self.cap, self.decoder)
            with self.nn.trace(**self._inputs(batch, keep), backend=backend):
                found = nnsight.save(without_graph(work, views, job))  # noqa: F841

        return self._result(job, batch, meter, send)

    def need_norm(self) -> None:
        """Refuse a model whose last norm is not where transformers' decoders have it.

        Raises:
            ModelError: As said.
        """
        if self.norm is None:
            raise ModelError(
                f"the decoder of {type(self.nn._module).__name__} has no `norm` beside its layers, by which a job "
                "could read its residual stream. Load the model without remote=True."
            )

    def _prompt(
        self, backend: JobBackend, batch: Batch, tower: Sequence[Any], job: dict[str, Any], keep: int
    ) -> None:
        views, head, cap = self.layers, self.head, self.cap
        with self.nn.trace(**self._inputs(batch, keep), backend=backend):
            found = nnsight.save(prompt_pass(views, tower, head, job, cap, keep))  # noqa: F841

    def _generate(self, backend: JobBackend, batch: Batch, tower: Sequence[Any], job: dict[str, Any]) -> None:
        views, head, cap, own = self.layers, self.head, self.cap, job["generation"]
        ends = sorted(own.ends)
        how = GenerationConfig(
            max_new_tokens=own.n,
            do_sample=False,
            num_beams=1,
            eos_token_id=ends or None,
            pad_token_id=own.pad_id,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            min_length=0,
        )
        options: dict[str, Any] = {"generation_config": how}
        if self.windows:  # transformers would drop the keys behind the window, and columns be no positions
            options["past_key_values"] = DynamicCache()
        with self.nn.generate(**batch.inputs, **options, backend=backend) as tracer:
            found = nnsight.save({"seen": [], "asked": job["asked"]})
            steps(tracer, views, tower, head, job, cap, found)

    @staticmethod
    def _inputs(batch: Batch, keep: int) -> dict[str, Any]:
        """The arguments of a pass; positions of several axes the model works out itself."""
        return {**batch.inputs, "logits_to_keep": keep, "use_cache": False}

    def _result(
        self, job: dict[str, Any], batch: Batch, meter: Meter, send: Callable[[JobBackend], None]
    ) -> dict[str, Any]:
        """What a job gives: sent and waited for, left to run, or fetched.

        Raises:
            Submitted: It was left to run.
            ServerError: The server cannot be reached, refuses or fails; the job was sent with other arguments.
        """
        asked = job["asked"] = digest_of((self.nn.to_model_key(), batch.inputs, job))
        found = self._sent(send) if self.job is None else self._fetched(self.job, asked)
        meter.forwards += 1
        meter.tokens += batch.inputs["input_ids"].numel()
        return found

    def _sent(self, send: Callable[[JobBackend], None]) -> dict[str, Any]:
        """What a new job gives; it is sent again where the connection breaks, for it changes nothing on the server."""
        backend = self._again(self._backend, send)
        if backend.job_id is None or (self.waits and backend.saved is None):
            raise ServerError(
                f"{self.connection.host} gave no job id or no result, so nothing says that the pass ran there. Is it "
                f"an NDIF server for nnsight {version('nnsight')}?"
            )
        self.sent.append(backend.job_id)
        if backend.saved is None:
            raise Submitted(backend.job_id)
        return backend.saved["found"]

    def _again(self, make: Callable[[], JobBackend], use: Callable[[JobBackend], Any]) -> JobBackend:
        """What was used in the end: made and used again where the connection breaks."""
        for attempt in range(self.connection.retries + 1):
            backend = make()
            try:
                with self.connection.translated(backend):
                    use(backend)
                return backend
            except LostConnectionError:
                if attempt == self.connection.retries:
                    raise
                time.sleep(self.connection.wait)
        raise AssertionError

    def _fetched(self, job: str, asked: str) -> dict[str, Any]:
        """What a job that was left to run gives."""
        backend = self._backend(job)

        def asked_for() -> dict[str, Any] | None:
            return self._again(lambda: backend, JobBackend.fetch).saved

        saved = waited(asked_for, self.connection.wait, self.timeout)
        if saved is None:
            raise ServerError(
                f"job {job} is not done on {self.connection.host} after {self.timeout:g} s (state: "
                f"{backend.status.value if backend.status else 'not known there'}). Ask again later with the same id."
            )
        found = saved.get("found", {})
        if found.get("asked") != asked:
            raise ModelError(
                f"job {job} was sent with other samples, reads, edits or options, or by another version of interp. "
                "Collect it with those that it was submitted with."
            )
        return found

    def _backend(self, job: str | None = None) -> JobBackend:
        env = self.nn._remoteable_get_env()
        blocking = self.waits and job is None
        return self.connection.backend(self.nn.to_model_key(), env, job, blocking=blocking)


def _entering_first_layer(views: Views, job: dict[str, Any]) -> dict[str, Tensor]:
    return {"entering": views.entering(0)}


def digest_of(value: Any) -> str:
    """Hex SHA-256 of a value of tensors, arrays, mappings, sequences and dataclasses; the same in every process."""
    found = hashlib.sha256()
    for word in _words(value):
        found.update(word)
    return found.hexdigest()


def _words(value: Any) -> Iterator[bytes]:
    """The value as bytes, one part after the other; functions by their source, other objects by their attributes."""
    yield type(value).__name__.encode() + b"\0"
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        yield f"{value.dtype}{tuple(value.shape)}".encode()
        yield (value.float() if value.is_floating_point() else value).contiguous().numpy().tobytes()
    elif isinstance(value, np.ndarray):
        yield f"{value.dtype}{value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from (*_words(key), *_words(one))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _words(one)
    elif isinstance(value, FunctionType):
        yield _source(value).encode()
    elif is_dataclass(value):
        for one in fields(value):
            yield from _words(getattr(value, one.name))
    elif isinstance(value, str | bytes | int | float | frozenset | type(None)):
        yield repr(sorted(value) if isinstance(value, frozenset) else value).encode()
    else:
        yield from _words(getattr(value, "__dict__", {}))


def _source(function: FunctionType) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return function.__qualname__
