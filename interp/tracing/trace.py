"""`Trace` and its samples: how `trace` makes them from samples, reads and edits, and how they are shown and stored.

`RemoteJob` is a trace that a server runs, which is collected later, in this process or another.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from markupsafe import Markup

from interp.errors import MapError, PromptError, SiteError
from interp.inputs import archive
from interp.inputs.archive import token_map, token_record
from interp.inputs.notebook import block, facts
from interp.inputs.patch_map import PatchMap
from interp.inputs.prompt import Prompt
from interp.inputs.text import brief, count
from interp.inputs.tokens import TokenMap
from interp.tracing.cost import Cost, Meter
from interp.tracing.edits import Edit
from interp.tracing.encoding.batch import Batch
from interp.tracing.execution import apart, check_arguments, check_decoding, ends, execute
from interp.tracing.layers.labels import LINEAR, label_rows
from interp.tracing.layers.request import Request
from interp.tracing.passes.decoding import Decoding, Draw
from interp.tracing.passes.micro_batches import BATCH_SIZE, MicroBatch, Places, in_batches, in_order
from interp.tracing.passes.non_finite import check_reads
from interp.tracing.passes.prefix_pass import Samples
from interp.tracing.passes.run import Generation, Outcome
from interp.tracing.reads import Read
from interp.tracing.reasoning import Said, Stages, check_stages, make_stages, said_by
from interp.tracing.values import for_samples
from interp.tracing.wrapped_model import WrappedModel

__all__ = [
    "RemoteJob",
    "SampleTrace",
    "Submitted",
    "Trace",
    "answers",
    "array_line",
    "cost_line",
    "load_trace",
    "sample_parts",
    "sample_record",
    "trace",
    "trace_html",
    "trace_lines",
]


SHOWN, VALUES = 4, 4
"""Samples and values that a line names."""
_PLAIN = ("answer", "ids", "reasoning", "n_reasoning")


@dataclass(frozen=True, eq=False)
class SampleTrace:
    """One sample's share of a trace.

    Attributes:
        reads: One array per read, in the order of `reads=`.
        tokens: Where its tokens are.
        answer: The generated text, without the thought before it; None without generate=, and where the thought did
            not end within the tokens.
        ids: The generated tokens, the end included if it came; empty without generate=.
        patches: Where its patches are in the vision tower; None unless that was read or edited.
        reasoning: The thought before the answer, without its marks; None where there is none.
        n_reasoning: How many of `ids` are the thought's, its marks included; the others are the answer's.
    """

    reads: tuple[xr.DataArray, ...]
    tokens: TokenMap
    answer: str | None = None
    ids: tuple[int, ...] = ()
    patches: PatchMap | None = None
    reasoning: str | None = None
    n_reasoning: int = 0

    @property
    def rows(self) -> xr.DataArray:
        """The rows of the trace's only `Rows`: ([step,] [layer,] [head,] query, key or token), float32.

        The last dimension is "token", numbered as the image tokens are, when only image tokens are read, else
        "key". "query" (of step 0) and "key" are unpadded positions; so is the coordinate "position", along the
        last dimension. With (layer, head) pairs, "head" is a MultiIndex of "layer" and "head_in_layer". Rows of gated
        DeltaNet layers are named "linear attention" and say that they are signed (`attrs`).

        Raises:
            SiteError: The trace has no `Rows`, or several: use `reads`.
        """
        return _only(self.reads, ("attention", LINEAR), "Rows(interp.Site())")

    @property
    def residual(self) -> xr.DataArray:
        """The stream of the trace's only `Residual`: ([step,] layer, position, hidden), float32.

        "position" (of step 0) is unpadded.

        Raises:
            SiteError: The trace has no `Residual`, or several: use `reads`.
        """
        return _only(self.reads, ("residual",), "Residual()")

    @property
    def experts(self) -> xr.DataArray:
        """The routing of the trace's only `Experts`: ([step,] layer, token or position, expert), float32.

        Raises:
            SiteError: The trace has no `Experts`, or several: use `reads`.
        """
        return _only(self.reads, "experts", "Experts()")

    def __repr__(self) -> str:
        answer = "" if self.answer is None else f", answer {brief(self.answer)}"
        lines = "".join(f"\n  reads[{j}]  {array_line(read)}" for j, read in enumerate(self.reads))
        return f"SampleTrace({self.tokens.length} tokens{answer}){lines}"


@dataclass(frozen=True, eq=False)
class Trace(Sequence):
    """What a trace found. `trace[i]` is sample i.

    Attributes:
        logits: (sample, token_id) after the last prompt token, float32.
        answers: the generated texts, without the thoughts before them; None for one whose thought did not end.
            Empty without generate=.
        tokens: where each sample's tokens are.
        cost: time, memory, passes.
    """

    samples: tuple[SampleTrace, ...]
    logits: xr.DataArray
    answers: list[str | None]
    tokens: tuple[TokenMap, ...]
    cost: Cost

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: Any) -> Any:
        return self.samples[index]

    def __iter__(self) -> Iterator[SampleTrace]:
        return iter(self.samples)

    @property
    def rows(self) -> xr.DataArray:
        """All samples' rows over a new first dimension "sample", padded with NaN.

        Query, key and token are counted from 0 within each sample; "position" (sample, key or token) keeps
        the unpadded positions, NaN in the padding.

        Raises:
            SiteError: The trace has no read, or several.
        """
        return _joined([sample.rows for sample in self.samples])

    def __repr__(self) -> str:
        lines = "".join(f"\n  {name:<14}{line}" for name, line in trace_lines(self))
        return f"Trace of {len(self.samples)} sample{'' if len(self.samples) == 1 else 's'}{lines}"

    def _repr_html_(self) -> str:
        """What a notebook shows: what was read, and the samples with their answers."""
        return trace_html(self)

    def save(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Writes the trace to one file that holds no code, whole or not at all, and returns its path.

        `interp.load_trace(path)` reads it. Samples and their images are not kept.

        Args:
            path: The file, such as "trace.safetensors".

        Raises:
            MapError: No path. Inside `mllm.nn.trace`, where `.save()` keeps a value, write `nnsight.save(trace)`.
            RunError: The file cannot be written.
        """
        if path is None:
            raise MapError(archive.SAVE_ADVICE.format(what="trace"))
        content = {
            "samples": list(map(sample_record, self.samples)),
            "logits": self.logits,
            "answers": self.answers,
            "cost": asdict(self.cost),
        }
        return archive.write(path, "trace", content)


def load_trace(path: str | os.PathLike[str]) -> Trace:
    """Returns the trace that `Trace.save` wrote.

    Raises:
        MapError: No such file, or one that is damaged, of another kind or of a later version.
    """
    content = archive.read(path, "trace")
    samples = tuple(SampleTrace(**sample_parts(record)) for record in content["samples"])
    tokens = tuple(one.tokens for one in samples)
    return Trace(samples, content["logits"], content["answers"], tokens, Cost(**content["cost"]))


def _only(reads: Sequence[xr.DataArray], names: Sequence[str], example: str) -> xr.DataArray:
    found, name = [read for read in reads if read.name in names], names[0]
    if len(found) != 1:
        kind = "rows" if name == "attention" else name
        raise SiteError(
            f"the trace has {len(found)} reads of {name}, but .{kind} needs exactly one. "
            + ("Use trace[i].reads." if found else f"Ask for some: reads=[interp.{example}].")
        )
    return found[0]


def _joined(rows: Sequence[xr.DataArray]) -> xr.DataArray:
    last = rows[0].dims[-1]
    ragged = [d for d in rows[0].dims if d in ("step", "query", last)]
    sizes = {d: max(r.sizes[d] for r in rows) for d in ragged}
    plain = [r.drop_vars([name for name, at in r.coords.items() if {*ragged} & {*at.dims}]) for r in rows]
    padded = [r.pad({d: (0, sizes[d] - r.sizes[d]) for d in ragged}, constant_values=np.nan) for r in plain]
    places = np.full((len(rows), sizes[last]), np.nan)
    for line, r in zip(places, rows, strict=True):
        line[: r.sizes[last]] = r["position"].values
    joined = xr.concat(padded, dim="sample")
    counted = {d: np.arange(sizes[d]) for d in ragged}
    return joined.assign_coords({**counted, "position": (("sample", last), places)})


def _joined_traces(parts: Sequence[tuple[Places, Trace]]) -> Trace:
    """The trace of all samples, from those of micro-batches or groups of them."""
    if len(parts) == 1:
        return parts[0][1]
    answered = in_order([(at, one.answers) for at, one in parts if one.answers])
    logits = in_order([(at, one.logits.values) for at, one in parts])
    return Trace(
        samples=tuple(in_order([(at, one.samples) for at, one in parts])),
        logits=xr.DataArray(np.stack(logits), dims=["sample", "token_id"], name="logits"),
        answers=answered,
        tokens=tuple(in_order([(at, one.tokens) for at, one in parts])),
        cost=reduce(add, (one.cost for _, one in parts)),
    )


def trace(
    mllm: WrappedModel,
    samples: Samples,
    prompt: Prompt | None = None,
    reads: Sequence[Read] = (),
    edits: Sequence[Edit] = (),
    generate: int = 0,
    seed: int | None = None,
    decoding: Decoding = Decoding(),  # noqa: B008 - frozen
    batch_size: int = BATCH_SIZE,
    progress: bool = True,
) -> Trace:
    """The trace of any number of samples; see `Mllm.trace`."""
    how = _TraceArguments(prompt, reads, edits, generate, seed, decoding)
    parts = in_batches(mllm, samples, how.trace, batch_size=batch_size, progress=progress)
    return _joined_traces(parts)


def answers(
    mllm: WrappedModel,
    samples: Samples,
    prompt: Prompt | None = None,
    edits: Sequence[Edit] = (),
    generate: int = 16,
    seed: int | None = None,
    decoding: Decoding = Decoding(),  # noqa: B008 - frozen
    batch_size: int = BATCH_SIZE,
    progress: bool = True,
) -> list[str | None]:
    """The generated texts of any number of samples; see `Mllm.answers`."""
    how = _TraceArguments(prompt, (), edits, generate, seed, decoding)
    if not generate:
        raise PromptError("an answer has at least one token; got generate=0. Write generate=1 or more.")

    def answered(own: WrappedModel, some: MicroBatch) -> list[str | None]:
        return how.trace(own, some).answers

    return in_order(in_batches(mllm, samples, answered, batch_size=batch_size, progress=progress))


@dataclass(frozen=True, eq=False)
class _TraceArguments:
    """The arguments of `Mllm.trace` that hold for every micro-batch; they are checked when this is made."""

    prompt: Prompt | None
    reads: Sequence[Read]
    edits: Sequence[Edit]
    generate: int
    seed: int | None
    decoding: Decoding

    def __post_init__(self) -> None:
        check_arguments(self.reads, self.edits, self.generate)
        check_decoding(self.decoding, self.seed)

    def trace(self, mllm: WrappedModel, some: MicroBatch) -> Trace:
        """The trace of a micro-batch; each sample has its own part of the reads and edits."""
        reads = for_samples(self.reads, some.at, some.n_all)
        edits = for_samples(self.edits, some.at, some.n_all)
        groups = apart(mllm, some.samples, self.prompt, reads, edits)
        if groups is None:
            return self._one(mllm, some.samples, self.prompt, reads, edits)
        return _joined_traces([(at, self._one(mllm, given, None, r, e)) for at, given, r, e in groups])

    def _one(
        self,
        mllm: WrappedModel,
        samples: Samples,
        prompt: Prompt | None,
        reads: Sequence[Read],
        edits: Sequence[Edit],
    ) -> Trace:
        """The trace of samples that run together."""
        stages: Stages | None = None

        def generation(batch: Batch) -> Generation | None:
            nonlocal stages
            how = self._generation(mllm, batch)
            if how is not None:
                stages = make_stages(mllm, batch, reads, edits)
            return None if how is None else replace(how, stages=stages)

        with Meter(mllm.device) as meter:
            with _seeded(self.seed):
                batch, request, outcome = execute(
                    mllm,
                    samples,
                    prompt,
                    reads,
                    edits,
                    meter,
                    generation=generation,
                    decoding=self.decoding,
                )
            shares = _shares(mllm, batch, request, outcome, stages, edits)
            logits = outcome.logits.cpu().numpy()
        return Trace(
            samples=shares,
            logits=xr.DataArray(logits, dims=["sample", "token_id"], name="logits"),
            answers=[] if outcome.ids is None else [one.answer for one in shares],
            tokens=batch.tokens,
            cost=meter.cost,
        )

    def _generation(self, mllm: WrappedModel, batch: Batch) -> Generation | None:
        if not self.generate:
            return None
        draw = Draw(self.decoding, self.seed, [sample.id for sample in batch.samples])
        return Generation(self.generate, ends(mllm), batch.pad_id, draw)


def _shares(
    mllm: WrappedModel,
    batch: Batch,
    request: Request,
    outcome: Outcome,
    stages: Stages | None,
    edits: Sequence[Edit],
) -> tuple[SampleTrace, ...]:
    """Each sample's share of a run, labelled and checked."""
    ids, found = None, []
    if outcome.ids is not None:
        ids, found = said_by(mllm, batch, outcome.ids.tolist(), ends(mllm))
    n_steps = None if ids is None else [len(one) for one in ids]
    patches = () if request.tower is None else request.tower.patches
    n_reasoning = [one.n_reasoning for one in found]
    if stages is not None:
        check_stages(stages, found, n_steps or [])
    asked = request.selections
    rows = label_rows(outcome.rows, asked, batch.tokens, n_steps, patches, n_reasoning or None)
    check_reads(mllm, batch, rows, edits)
    n = len(batch)
    own = patches or [None] * n
    parts = zip(rows, batch.tokens, ids or [()] * n, own, found or [Said(None)] * n, strict=True)
    return tuple(
        SampleTrace(read, tokens, one.answer, line, patch, one.reasoning, one.n_reasoning)
        for read, tokens, line, patch, one in parts
    )


@contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """Seeds torch's generators for the block and puts their state back after it."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(int(seed))
        yield


def array_line(array: xr.DataArray) -> str:
    """An array's name, dimensions and first values: "attention (layer 4, head 2, query 1, token 9): 0.1, 0.02, …"."""
    sizes = ", ".join(f"{dim} {size}" for dim, size in array.sizes.items())
    values = array.values.reshape(-1)
    first = ", ".join(f"{value:.3g}" for value in values[:VALUES])
    return f"{array.name} ({sizes}): {first}{', …' if values.size > VALUES else ''}"


def cost_line(cost: Cost) -> str:
    """What the work cost."""
    backwards = f", {cost.backwards} backwards" if cost.backwards else ""
    return f"{cost.seconds:.3g} s, {cost.forwards} forwards{backwards}, {cost.tokens} token positions"


def trace_lines(trace: Any) -> list[tuple[str, str]]:
    """Name and content of each line about an `interp.Trace`: reads of the first sample, answers, logits, cost."""
    first = trace.samples[0].reads if trace.samples else ()
    reads = [(f"[0].reads[{j}]", array_line(read)) for j, read in enumerate(first)]
    answers = []
    if trace.answers:
        more = f", and {len(trace.answers) - SHOWN} more" if len(trace.answers) > SHOWN else ""
        answers = [("answers", ", ".join(map(brief, trace.answers[:SHOWN])) + more)]
    return [*reads, *answers, ("logits", array_line(trace.logits)), ("cost", cost_line(trace.cost))]


def trace_html(trace: Any) -> str:
    """What a notebook shows of an `interp.Trace`: what it holds, and a row for each of the first samples."""
    rows = Markup("").join(_row(i, one) for i, one in enumerate(trace.samples[: 5 * SHOWN]))
    left = len(trace.samples) - 5 * SHOWN
    more = Markup("<div>and {} more</div>").format(left) if left > 0 else Markup("")
    heads = Markup("").join(
        Markup("<th scope='col' style='text-align:left'>{}</th>").format(name)
        for name in ("sample", "tokens", "image tokens", "answer")
    )
    table = Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(heads, rows)
    return block(
        f"Trace of {count(len(trace.samples), 'sample')}", facts(dict(trace_lines(trace))), table, more
    )


def _row(i: int, one: Any) -> Markup:
    cells = (i, one.tokens.length, one.tokens.n, "–" if one.answer is None else one.answer)
    return Markup("<tr>{}</tr>").format(
        Markup("").join(Markup("<td style='text-align:left'>{}</td>").format(cell) for cell in cells)
    )


def sample_record(one: Any) -> dict[str, Any]:
    """One sample's share of a trace as plain values."""
    return {
        **{name: getattr(one, name) for name in _PLAIN},
        "reads": one.reads,
        "tokens": token_record(one.tokens),
        "patches": None if one.patches is None else token_record(one.patches),
    }


def sample_parts(record: Mapping[str, Any]) -> dict[str, Any]:
    """What `sample_record` described, as arguments of `SampleTrace`."""
    patches = record["patches"]
    return {
        **{name: record[name] for name in _PLAIN},
        "ids": tuple(record["ids"]),
        "reads": tuple(record["reads"]),
        "tokens": token_map(record["tokens"]),
        "patches": None if patches is None else token_map(patches),
    }


class Submitted(Exception):  # noqa: N818 - it is no error
    """Raised in place of a result when a job was left to run; `job` is its id."""

    def __init__(self, job: str) -> None:
        super().__init__(job)
        self.job = job


@dataclass(frozen=True, eq=False)
class RemoteJob:
    """A trace that runs on a server. Made by `Mllm.submit`.

    Attributes:
        id: the server's name for it; `Mllm.collect` takes it in any process.
    """

    id: str
    _state: Callable[[], str] = field(repr=False)
    _collect: Callable[[float | None], Trace] = field(repr=False)

    @property
    def state(self) -> str:
        """What the server says of it now: "QUEUED", "RUNNING", "COMPLETED", "ERROR", …; "unknown" before it says any.

        Raises:
            ServerError: The server does not answer.
        """
        return self._state()

    def collect(self, timeout: float | None = None) -> Trace:
        """The trace, once the job is done.

        Args:
            timeout: how many seconds to wait; None for as long as it takes.

        Raises:
            ServerError: It failed, it is not done in time, or the server does not answer.
        """
        return self._collect(timeout)
