"""A model on an NDIF server: how it is opened, and what its Mllm asks of it, each thing as one job.

A job carries a hash of its request, so that its result is not mistaken for that of another job.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import FunctionType
from typing import Any

import nnsight
import numpy as np
import torch
from jaxtyping import Float
from nnsight import TransformersModel
from nnsight.modeling import huggingface
from torch import Tensor
from transformers import DynamicCache, GenerationConfig

from interp.errors import ModelError, ServerError
from interp.models.adapter import Adapter
from interp.tracing.attention.rows import Block
from interp.tracing.cost import Meter
from interp.tracing.encoding.batch import Batch, ProcessedImages
from interp.tracing.executors.hooks import Installation
from interp.tracing.layers.decoder_layers import key_layers, layer_kinds, mixer
from interp.tracing.layers.layer_plan import Recorder
from interp.tracing.layers.layer_work import LayerWork
from interp.tracing.layers.mlp_and_experts import RouterWork
from interp.tracing.layers.residual import StreamWork
from interp.tracing.layers.visibility import chunks, windows
from interp.tracing.model import Mllm
from interp.tracing.passes.decoding import Guidance
from interp.tracing.passes.run import Generation, Outcome, without_choice
from interp.tracing.remote.connection import Connection, JobBackend, LostConnectionError, wait_for
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
from interp.tracing.vision_tower import VisionWork

__all__ = ["Server", "Skeleton", "digest_of", "open_remote", "refuse_shared_keys", "skeleton_model"]


@dataclass(frozen=True, eq=False)
class Server:
    """Runs passes of a model on an NDIF server.

    Attributes:
        nn: nnsight's model, without weights.
        layers: nnsight's views of the decoder layers.
        head: nnsight's view of the output layer.
        cap: The soft cap that the model puts on its logits after the output layer; None without one.
        windows: Whether rows of some layer see only a sliding window.
        norm: nnsight's view of the norm after the last decoder layer; None where it is not found.
        decoder: nnsight's view of the module that holds the decoder layers.
        connection: The connection to the server.
        waits: Whether to wait for a job; with False it is submitted and left to run.
        job: The id of a job to fetch; None to send a new one.
        timeout: The most seconds to wait for a job that is fetched; None to wait without a limit.
        sent: The ids of the jobs that were sent.
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
        """What is known about the model on the server: its key, its requests' settings, and the server's versions.

        The weights cannot be hashed from this machine: the same id and revision are taken to be the same weights.
        """
        config = self.nn._module.config.to_json_string(use_diff=False)
        return {
            "server model": self.nn.to_model_key(),
            "server env": json.dumps(self.nn._remoteable_get_env(), sort_keys=True),
            "server versions": json.dumps(self.connection.versions, sort_keys=True),
            "config": hashlib.sha256(config.encode()).hexdigest(),
        }

    def leaving(self) -> Server:
        """The same server, whose jobs are left to run: a `Submitted` is raised instead of their results."""
        return replace(self, waits=False)

    def fetching(self, job: str, timeout: float | None) -> Server:
        """The same server, which fetches the result of a submitted job instead of sending a new one."""
        return replace(self, job=job, timeout=timeout)

    def state(self, job: str) -> str:
        """The state of a submitted job on the server; "unknown" before the server has one."""
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
            batch: The samples, with a contrast as `interp.tracing.passes.run.with_imageless` makes it.
            work: Layer → the work in its attention.
            streams: Layer → the work on its output.
            routing: Layer → the work on what its router returns.
            recorder: The recorder that `work`, `streams` and `routing` share.
            meter: Counts every pass.
            tower: The work in the vision tower, and nnsight's views of its attention modules; None for no work.
            generation: How to generate; None to run the prompt only.
            contrast: The guidance by the prompts without images; None without one.
            keep: The number of last positions whose logits the outcome's `tail` holds.
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
            batch: The samples, with the answers after them.
            block: The rows.
            layers: The layers, increasing.
            aims: What the last rows predict; None for the likeliest next token.
            meter: Counts the passes.
            keep: The number of last positions whose logits are returned.
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
            batch: The samples, with the answers after them.
            leaf: The pixels, or the embeddings of image tokens.
            places: The sample and column of each embedding; None for pixels.
            aims: What the last rows predict; None for the likeliest next token.
            meter: Counts the passes.
            keep: The number of last positions whose logits the aims need.
            gradient: Whether to return the gradient.
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
        """The input of the first decoder layer."""
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
        """The result of a function that runs in a job, during one pass over the prompts, without gradients.

        Args:
            batch: The samples.
            work: The function, which is sent as source. It gets the views and `job`, and must use modules in the order
                in which they run. It may return tensors, plain values, and lists and mappings of them.
            job: The values that the function gets.
            meter: Counts the pass.
            keep: The number of last positions that have logits.
        """
        job = {**job, "work": work}

        def send(backend: JobBackend) -> None:
            views = Views(self.layers, self.norm, self.head, self.cap, self.decoder)
            with self.nn.trace(**self._inputs(batch, keep), backend=backend):
                found = nnsight.save(without_graph(work, views, job))  # noqa: F841

        return self._result(job, batch, meter, send)

    def need_norm(self) -> None:
        """Refuses a model whose last norm is not where transformers' decoders have it.

        Raises:
            ModelError: Such a model.
        """
        if self.norm is None:
            raise ModelError(
                f"the decoder of {type(self.nn._module).__name__} has no `norm` beside its layers, which a job "
                "needs to read its residual stream. Load the model without remote=True."
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
        """The arguments of a pass, without positions, which the model computes itself."""
        return {**batch.inputs, "logits_to_keep": keep, "use_cache": False}

    def _result(
        self, job: dict[str, Any], batch: Batch, meter: Meter, send: Callable[[JobBackend], None]
    ) -> dict[str, Any]:
        """The result of a job that is sent and waited for, or fetched.

        Raises:
            Submitted: A job that was sent and left to run.
            ServerError: A server that cannot be reached, refuses or fails.
            ModelError: A fetched job that was sent with other arguments.
        """
        asked = job["asked"] = digest_of((self.nn.to_model_key(), batch.inputs, job))
        found = self._sent(send) if self.job is None else self._fetched(self.job, asked)
        meter.forwards += 1
        meter.tokens += batch.inputs["input_ids"].numel()
        return found

    def _sent(self, send: Callable[[JobBackend], None]) -> dict[str, Any]:
        """The result of a new job, which is sent again where the connection breaks, as it changes nothing there."""
        backend = self._again(self._backend, send)
        if backend.job_id is None or (self.waits and backend.saved is None):
            raise ServerError(
                f"{self.connection.host} gave no job id or no result, so it is not certain that the pass ran. Is it "
                f"an NDIF server for nnsight {version('nnsight')}?"
            )
        self.sent.append(backend.job_id)
        if backend.saved is None:
            raise Submitted(backend.job_id)
        return backend.saved["found"]

    def _again(self, make: Callable[[], JobBackend], use: Callable[[JobBackend], Any]) -> JobBackend:
        """The backend that was used successfully; a new one is made and used where the connection breaks."""
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
        """The result of a submitted job."""
        backend = self._backend(job)

        def asked_for() -> dict[str, Any] | None:
            return self._again(lambda: backend, JobBackend.fetch).saved

        saved = wait_for(asked_for, self.connection.wait, self.timeout)
        if saved is None:
            raise ServerError(
                f"job {job} is not done on {self.connection.host} after {self.timeout:g} s (state: "
                f"{backend.status.value if backend.status else 'not known there'}). Ask again later with the same id."
            )
        found = saved.get("found", {})
        if found.get("asked") != asked:
            raise ModelError(
                f"job {job} was sent with other samples, reads, edits or options, or by another version of interp. "
                "Collect it with the same arguments and the same version."
            )
        return found

    def _backend(self, job: str | None = None) -> JobBackend:
        env = dict(self.nn._remoteable_get_env())
        return JobBackend(self.connection, self.nn.to_model_key(), env, job, self.waits and job is None)


def _entering_first_layer(views: Views, job: dict[str, Any]) -> dict[str, Tensor]:
    return {"entering": views.entering(0)}


def digest_of(value: Any) -> str:
    """Hex SHA-256 of a value made of tensors, arrays, mappings, sequences and dataclasses; equal in every process."""
    found = hashlib.sha256()
    for word in _words(value):
        found.update(word)
    return found.hexdigest()


def _words(value: Any) -> Iterator[bytes]:
    """The value as bytes, part by part: functions by their source, other objects by their attributes."""
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


def open_remote(where: str, adapter: Adapter, processor: Any, options: Mapping[str, Any]) -> Mllm:
    """The model of that name on the server of nnsight's settings, after a check of the server's versions and models.

    Args:
        where: A hub id, or a local folder that the server knows by the same path.
        adapter: The adapter of the family.
        processor: The processor, which is kept and not copied.
        options: The revision and the attention implementation, where they are given.

    Raises:
        ServerError: A server that cannot be reached, does not serve the model, or runs versions that cannot read jobs
            of this machine.
        ModelError: A model that transformers cannot build, or that jobs cannot read.
    """
    connection = Connection.configured()
    connection.check_versions()
    nn = skeleton_model(where, processor, options)
    connection.check_served(nn.to_model_key())
    hf: Any = nn._module
    layers = adapter.layers(hf)
    paths = {module: path for path, module in hf.named_modules()}
    head = hf.get_output_embeddings()
    if head is None or not all(hasattr(layer, "self_attn") for layer in layers):
        raise ModelError(
            f"{type(hf).__name__} has no output layer, or a layer without self-attention; a job needs an output layer, "
            "and self-attention in every layer."
        )
    beside = hf.get_submodule(paths[layers[0]].rpartition(".layers.")[0])
    text = hf.config.get_text_config(decoder=True)
    refuse_shared_keys(hf, len(layers))
    server = Server(
        nn=nn,
        layers=[nn.get(paths[layer]) for layer in layers],
        head=nn.get(paths[head]),
        cap=getattr(text, "final_logit_softcapping", None),
        windows=any(one is not None for of in (windows, chunks) for one in of(text, len(layers))),
        norm=nn.get(paths[beside.norm]) if hasattr(beside, "norm") else None,
        decoder=nn.get(paths[beside]),
        connection=connection,
    )
    return Mllm(hf, processor, adapter, Skeleton(nn, layers), executor="source", server=server)


def refuse_shared_keys(hf: Any, n_layers: int) -> None:
    """Refuses a model whose last layers have no keys of their own, because a server cannot return their rows.

    Raises:
        ModelError: Such a model.
    """
    if key_layers(hf.config.get_text_config(decoder=True), n_layers) != tuple(range(n_layers)):
        raise ModelError(
            f"layers of {type(hf).__name__} share keys, and on a server transformers computes only their last row. "
            "Load the model here, without remote=True."
        )


def skeleton_model(where: str, processor: Any, options: Mapping[str, Any]) -> Any:
    """nnsight's model of a checkpoint on the meta device, with the name that the server uses; no weights are read.

    Args:
        where: A hub id, or a local folder that the server knows by the same path.
        processor: The model's processor.
        options: The revision and attention implementation, where they are given.

    Raises:
        ServerError: The hub cannot be asked for the spelling of the id.
        ModelError: A model that transformers cannot build.
    """
    if Path(where).is_dir():
        huggingface._ID_CACHE[where] = where  # nnsight would ask the hub
    try:
        made = TransformersModel(where, task="image-text-to-text", processor=processor, **options)
    except Exception as error:  # whatever building a foreign config raises
        raise ModelError(
            f"transformers cannot build {where} without its weights ({type(error).__name__}: {error}). Is it an "
            "image-text-to-text model in transformers' own layout? Others are not served."
        ) from error
    try:
        made.to_model_key()
    except Exception as error:  # the hub client's own, and its transport's
        raise ServerError(
            f"the server needs the exact name of {where}, which could not be looked up on the hub "
            f"({type(error).__name__}: {error}). Is this machine offline?"
        ) from error
    for name in ("tokenizer", "processor", "image_processor", "feature_extractor"):
        setattr(made, name, None)  # jobs send tensors, and the server need not have the same parts
    made.dispatched = True  # else a trace of it without remote=True would fetch the weights and run here
    return made


class Skeleton(Installation):
    """The installation of a model on a server: nothing is wrapped, and no work can be armed."""

    def __init__(self, nn: Any, layers: Sequence[Any]) -> None:
        self.nn = nn
        self.hf = self.given = nn._module
        self.layers = list(layers)
        self.kinds = layer_kinds(layers)
        self.attentions = [mixer(layer) for layer in layers]
        self.implementation = str(nn.attn_implementation)
        self.forwards: dict[Any, Any] = {}
        self.processed = ProcessedImages()
        self.known = None
        self.active = True

    def check(self) -> None:
        """Nothing to check: it is never unwrapped."""

    @contextmanager
    def armed(
        self, work: Any = None, streams: Any = None, routing: Any = None, mlps: Any = None
    ) -> Iterator[None]:
        """Refuses work on the modules themselves.

        Raises:
            ServerError: Always.
        """
        self.need_weights()
        yield

    def need_weights(self) -> None:
        """Refuses whatever needs the weights on this machine.

        Raises:
            ServerError: Always. A study stops at it and does not count every sample as a failure.
        """
        raise ServerError(
            "this needs the model's weights on this machine, and they are on an NDIF server. Such a model runs "
            "mllm.trace, mllm.score, gradients of rows and of inputs, and everything computed from these; "
            "docs/remote.md lists it. Load the model without remote=True for the rest."
        )

    def remove(self) -> Any:
        """Refuses to unwrap a model that was never wrapped.

        Raises:
            ModelError: Always.
        """
        raise ModelError("a model on an NDIF server is not wrapped, so unwrap() has no model to return.")
