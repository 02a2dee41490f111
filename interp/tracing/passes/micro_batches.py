"""Runs any number of samples in micro-batches that fit in memory, and returns results in the order of the samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from interp.errors import InterpError, ModelError
from interp.inputs.argument_checks import check_bool, check_whole
from interp.inputs.sample import Sample
from interp.inputs.sample_list import as_samples, image_key, pack, question_length
from interp.tracing.encoding.batch import Batch
from interp.tracing.passes.out_of_memory import in_halves
from interp.tracing.passes.prefix_pass import Samples
from interp.tracing.passes.progress_bar import progress_bar, without_bars
from interp.tracing.prefix import Prefix
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["BATCH_SIZE", "MicroBatch", "Places", "in_batches", "in_order"]

BATCH_SIZE = 8
"""The default number of samples in one pass; a study's `batch` has the same default."""

Places = tuple[int, ...]
"""The places of a micro-batch's samples among all samples."""

T = TypeVar("T")
Given = tuple[Sample, ...] | Batch | Prefix


@dataclass(frozen=True, eq=False)
class MicroBatch:
    """Some of the samples.

    Attributes:
        samples: These samples, or a batch or prefix of them.
        at: Their places among all samples.
        n_all: The number of all samples.
    """

    samples: Given
    at: Places
    n_all: int


def in_batches(
    mllm: Any,
    samples: Samples,
    run: Callable[[Any, MicroBatch], T],
    *,
    batch_size: int = BATCH_SIZE,
    progress: bool = True,
    alone: bool = False,
) -> list[tuple[Places, T]]:
    """What `run` returns for each micro-batch, with the places of its samples; see `in_order`.

    Samples with the same images run together, so that they share the prefix, then samples of similar length (see
    `interp.inputs.sample_list.pack`). The longest run first, so that a lack of memory shows at once. A micro-batch that
    does not fit in memory runs in halves, and no later one is larger than the parts that did fit. A batch or prefix is
    cut in the same way. Of a micro-batch only what `run` returns is kept.

    Args:
        mllm: The model. A model that `at_once` returned gets all samples together.
        samples: Samples, an encoded batch or a prefix.
        run: A function of the model, as `at_once` returns it, and a micro-batch.
        batch_size: The largest number of samples in a micro-batch.
        progress: Whether to show a progress bar if there are several micro-batches; long work inside a single
            micro-batch may show a bar of its own.
        alone: Whether each sample runs alone, whatever `batch_size` is.

    Raises:
        ModelError: A `batch_size` below 1, or a sample that does not fit in memory alone.
        SampleError: No samples, or something that is not a `Sample`.
    """
    size = check_whole("batch_size, the samples in one pass,", batch_size, 1, ModelError)
    check_bool("progress", progress, ModelError)
    given = samples if isinstance(samples, Batch | Prefix) else as_samples(samples)
    n, size = len(given), 1 if alone else size
    own = mllm.at_once() if isinstance(mllm, WrappedModel) else mllm
    work = _Work(own, given, run)
    with without_bars(not progress):
        if not getattr(mllm, "batches", True):
            groups = [(i,) for i in range(n)] if alone else [tuple(range(n))]
            return [work.on(at) for at in groups]
        return work.fitting(_groups(given, size))


def in_order(parts: Sequence[tuple[Places, Iterable[T]]]) -> list[T]:
    """One value for each sample, in the order of the samples, from the values of each micro-batch."""
    found = {place: one for at, values in parts for place, one in zip(at, values, strict=True)}
    return [found[place] for place in sorted(found)]


@dataclass
class _Work(Generic[T]):
    """The samples and the function to run on them; see `in_batches`."""

    mllm: Any
    given: Given
    run: Callable[[Any, MicroBatch], T]
    done: list[tuple[Places, T]] = field(default_factory=list)

    def fitting(self, groups: Sequence[Places]) -> list[tuple[Places, T]]:
        """Runs the groups in parts that fit in memory, starting with the last group."""
        largest = max(map(len, groups))
        label = f"micro-batches of {largest}" if largest > 1 else "one by one"
        with progress_bar(label, len(self.given), show=len(groups) > 1) as advance:
            for group in reversed(groups):
                for at in _cut(group, largest):
                    found = in_halves(at, self.on, too_large=self._too_large)
                    if len(found) > 1:
                        largest = min(largest, max(len(part) for part, _ in found))
                    self.done += found
                    advance(len(at))
        return self.done

    def on(self, at: Places) -> tuple[Places, T]:
        """Runs one micro-batch; an error gets a note that says which samples the micro-batch holds."""
        try:
            return at, self.run(self.mllm, MicroBatch(self._part(at), at, len(self.given)))
        except InterpError as error:
            if len(at) < len(self.given):
                error.add_note(
                    f"The batch held the samples with these numbers among those given, counted from 0: {list(at)}."
                )
            raise

    def _part(self, at: Places) -> Given:
        given = self.given
        if at == tuple(range(len(given))):
            return given
        if isinstance(given, tuple):
            return tuple(given[i] for i in at)
        batch = self.mllm.encoder.part(given.batch if isinstance(given, Prefix) else given, at)
        return given.part(at, batch) if isinstance(given, Prefix) else batch

    def _too_large(self, at: Places, problem: str) -> ModelError:
        (place,) = at
        given = self.given if isinstance(self.given, tuple) else self.given.samples
        return ModelError(
            f"sample {given[place].id}, number {place} of those given (from 0), does not fit in memory even alone "
            f"({problem}). "
            "Free memory, or load the model with dtype='bfloat16' or on a larger device."
        )


def _groups(given: Given, size: int) -> list[Places]:
    """The places of each micro-batch, with the shortest samples first."""
    if len(given) <= size:
        return [tuple(range(len(given)))]
    samples = given if isinstance(given, tuple) else given.samples
    lengths = (
        [question_length(sample) for sample in samples]
        if isinstance(given, tuple)
        else [tokens.length for tokens in given.tokens]
    )
    return pack(lengths, size, kinds=[image_key(sample) for sample in samples])


def _cut(group: Places, size: int) -> Iterator[Places]:
    yield from (group[start : start + size] for start in range(0, len(group), size))
