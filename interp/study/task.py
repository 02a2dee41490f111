"""The common part of all studies' tasks: model, plan, samples that cannot be used, pickling."""

from __future__ import annotations

import copy
import hashlib
import json
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from functools import cached_property
from queue import SimpleQueue
from typing import Any
from weakref import WeakKeyDictionary

import pyarrow as pa

from interp.data import Samples
from interp.errors import ImageTokenMismatch, InterpError, RunError, SampleError, StudyError
from interp.inputs.masks import Mask
from interp.inputs.prompt import Prompt
from interp.inputs.sample import Sample
from interp.inputs.sample_list import image_key, question_length
from interp.run import FAILURES, Outcome, Plan, ProcessCache, canonical, digest, make_plan
from interp.run.store import SCHEMA_VERSION
from interp.run.task import Records, TableRows, failure, joined_rows
from interp.study.baselines import partners
from interp.study.model_spec import ModelSpec, model_provenance, open_model
from interp.tracing import Batch, Decoding, Edit, Mllm, Prefix, Prefixes, Trace
from interp.tracing.answers_only_mllm import AnsweringMllm
from interp.tracing.parameters.fingerprint import fingerprint
from interp.tracing.reads import Read
from interp.tracing.reasoning import leaves_open, marks

__all__ = [
    "SMALL",
    "StudyTask",
    "TableRows",
    "check_files",
    "data_identity",
    "edited",
    "fault",
    "file_keys",
    "model_identity",
    "suitable_threads",
]


def edited(mllm: Any, edits: Sequence[Edit]) -> Any:
    """The model with these edits before those of each trace; itself when there are none.

    Everything that a trace reads, generates or predicts then comes from the edited model, also under the generic prompt
    of a relative map: the edits must fit that prompt too (it has no rows "question"; "after_image" fits both).
    Work of an indicator outside `Mllm.trace` is not edited.

    Raises:
        StudyError: Edits on something that is not an `Mllm`.
    """
    if not edits:
        return mllm
    if not isinstance(mllm, Mllm):
        raise StudyError(f"edits need a model of interp.load or interp.wrap; got {type(mllm).__name__}.")
    parts = {field.name: getattr(mllm, field.name) for field in fields(mllm)}
    return _Edited(**parts, edits=tuple(edits))


@dataclass(frozen=True, eq=False, repr=False)
class _Edited(Mllm):
    """An `Mllm` with edits of its own."""

    edits: tuple[Edit, ...] = ()

    def trace(
        self,
        samples: Sample | Iterable[Sample] | Batch | Prefix,
        prompt: Prompt | None = None,
        reads: Sequence[Read] = (),
        edits: Sequence[Edit] = (),
        generate: int = 0,
        seed: int | None = None,
        decoding: Decoding = Decoding(),  # noqa: B008 - frozen
        **options: Any,
    ) -> Trace:
        """`Mllm.trace`, with the model's own edits first."""
        return super().trace(
            samples, prompt, reads, (*self.edits, *edits), generate, seed, decoding, **options
        )


def model_identity(mllm: Any, *, again: bool = False) -> dict[str, str]:
    """The opened model as it is now, as a study's JSON names it: what all its numbers depend on.

    The fingerprint names weights, adapters, hooks, settings and the processor. It is taken anew at each call, because
    any of them may have changed since the model was opened.

    Args:
        mllm: The model.
        again: Whether the fingerprint was taken before in this run; weights are then read again only where torch saw
            them change.
    """
    live = fingerprint(mllm.identity_since()) if again and isinstance(mllm, Mllm) else mllm.fingerprint
    found = {"fingerprint": live, "dtype": str(mllm.dtype).removeprefix("torch.")}
    if isinstance(mllm, Mllm):
        found["attention"] = mllm.installation.implementation
        found |= {} if mllm.executor == "tap" else {"executor": mllm.executor}
        kinds = sorted({device.type for device in mllm.layer_devices})
        found |= {} if len(kinds) == 1 else {"layers_on": " and ".join(kinds)}
    return {**found, "device": mllm.place if isinstance(mllm, Mllm) else str(mllm.device)}


def data_identity(samples: Samples, *, labels: bool = False) -> dict[str, Any]:
    """The data as a study's JSON names them: by content, and by the ids that the tables will show.

    An image that cannot be read counts by its sample's id: it becomes a failure, not the end of the study.

    Args:
        samples: The data.
        labels: Whether `meta["label"]` counts too, which is no part of a sample's fingerprint.
    """
    found = {
        "fingerprint": _hashed(samples, _content),
        "ids": _hashed(samples, lambda sample: sample.id),
        "n": len(samples),
    }
    return {**found, "labels": _hashed(samples, _label)} if labels else found


def _label(sample: Sample) -> str:
    return json.dumps(sample.meta.get("label"), default=str)


def _asks_for_labels(value: Any) -> bool:
    """Whether an indicator, as JSON values, reads the rows of each sample's own label."""
    if isinstance(value, Mapping):
        return value.get("queries") == "label" or any(map(_asks_for_labels, value.values()))
    return isinstance(value, list | tuple) and any(map(_asks_for_labels, value))


def _hashed(samples: Samples, word: Callable[[Sample], str]) -> str:
    return hashlib.sha256("\n".join(word(sample) for sample in samples).encode()).hexdigest()


def _content(sample: Sample) -> str:
    try:
        return sample.fingerprint
    except InterpError:
        return f"unreadable {sample.id}"


def fault(sample: Sample, *, boxes: bool = True) -> tuple[str, str] | None:
    """The fault of a sample, as (error, reason); None when its header and boxes are in order.

    Args:
        sample: The sample.
        boxes: Whether the sample must have boxes.
    """
    try:
        sample.check()
        if boxes and not sample.boxes:
            raise SampleError(
                "the sample has no box, so there is nothing to score a map against. Give it boxes=[…], or leave it out."
            )
        _ = sample.sizes
    except InterpError as error:
        return type(error).__name__, str(error)
    return None


def file_keys(sample: Sample, *, again: bool = False) -> tuple[str, ...]:
    """Returns the names of the content of a sample's images and of each of its masks.

    Args:
        sample: The sample.
        again: Whether files are read again; otherwise known fingerprints are taken.
    """
    if not sample.is_usable:
        return ()
    masks = [Mask(one.values, one.image, one.label) if again else one for one in sample.masks]
    return image_key(sample.replace() if again else sample), *(_mask_key(mask) for mask in masks)


def _mask_key(mask: Mask) -> str:
    try:
        return mask.fingerprint
    except InterpError:
        return "unreadable"


def check_files(sample: Sample, keys: tuple[str, ...]) -> None:
    """Raise an error if the files of a sample, read again, have other `file_keys` than these.

    Raises:
        RunError: A file is missing, is another one, or is there although it was not.
    """
    held = [*zip(sample.images, sample.in_memory, strict=True)]
    files = [
        str(values)
        for values, inside in (*held, *((m.values, m.in_memory) for m in sample.masks))
        if not inside
    ]
    if files and file_keys(sample, again=True) != keys:
        raise RunError(
            f"expected the files of sample {sample.id} on {socket.gethostname()} to be those that the study was "
            f"started with, but one is missing, unreadable or different there: {', '.join(files)}. Put the files under "
            f"the same paths on every machine, for instance in a shared folder, or give the samples images in memory."
        )


BATCHES_PER_SHARD = 4


class StudyTask(ABC):
    """A task over the samples of a study with `data`, `model`, `prompt` and `batch`.

    A subclass says what its numbers depend on besides those (`to_dict`), what its tables are (`schemas`, `joined`)
    and how a micro-batch becomes rows (`measure`). Pickles without its model, which each process opens again.

    Traces of `mllm` go on from an image prefix wherever that is exact, and leave it for the tasks of the same
    sharing_key: those of the same model, samples and batches. Whether a prefix was made or found changes the cost
    alone; that a trace goes on from one at all is part of `to_dict`, because it rounds differently (about 1e-5).

    Attributes:
        name: The study's name.
        needs_boxes: Whether a sample without boxes is a failure.
        takes_thoughts: Whether a thought may follow the prompt; otherwise the next token is taken for the answer's
            first, and a prompt that a thought follows is refused.
    """

    name: str
    needs_boxes: bool = True
    takes_thoughts: bool = False

    def __init__(self, study: Any, mllm: Any) -> None:
        self.study, self._mllm, self._shelf = study, mllm, ProcessCache()
        self._ahead = 0
        self._identity = model_identity(mllm)

    @abstractmethod
    def schemas(self) -> Mapping[str, pa.Schema]:
        """The tables of a shard, without the failures."""

    @abstractmethod
    def joined(self) -> tuple[str, ...]:
        """The tables joined over all shards."""

    @abstractmethod
    def measure(self, indices: tuple[int, ...]) -> Outcome:
        """Rows of a micro-batch of samples that have no fault (see `each`), and what they cost."""

    def __getstate__(self) -> dict[str, Any]:
        if not isinstance(self.study.model, ModelSpec):
            raise RunError(
                'expected a model that other processes can open, got an opened one. Pass model="an id" or a '
                "ModelSpec to the study, or run with workers=1."
            )
        _ = self._file_keys  # as they are here, which other processes compare
        return {**self.__dict__, "_mllm": None, "_shelf": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _shelf=ProcessCache())

    def use(self, shelf: ProcessCache) -> None:
        """Share prefixes, passes and the opened model with other tasks of this process."""
        self._shelf = shelf

    @cached_property
    def sharing_key(self) -> str:
        """Equal for tasks of one model, the same samples and the same micro-batches, which can share passes."""
        return digest({"model": self._identity, "data": self._data, "plan": self._planned})

    @property
    def mllm(self) -> Any:
        """The opened model; its traces share image prefixes and run a micro-batch at once, which a run halves."""
        mllm = self._plain_mllm
        if not isinstance(mllm, Mllm):
            return mllm
        return mllm.sharing(Prefixes(self._shelf.once, self._model_key)).at_once()

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the opened model."""
        return self._plain_mllm.processor.tokenizer

    @property
    def _plain_mllm(self) -> Any:
        """The opened model as it was opened."""
        return self._shelf.model(self._model_key, self._opened) if self._mllm is None else self._mllm

    @cached_property
    def _model_key(self) -> str:
        return canonical(self._identity)

    def _opened(self) -> Any:
        mllm = open_model(self.study.model)
        if mllm.fingerprint != self._identity["fingerprint"]:
            raise RunError(
                f"expected the model {self.study.model} with fingerprint {self._identity['fingerprint']}, got "
                f"{mllm.fingerprint}. Did its files change while the study ran?"
            )
        return mllm

    @property
    def device(self) -> str:
        """The device that the model takes, such as "cuda:0"; "remote" where it runs on a server."""
        if self._identity["device"] == "remote":
            return "remote"
        return str(self.study.model.device if isinstance(self.study.model, ModelSpec) else self.mllm.device)

    def move(self, device: str) -> None:
        """Open the model on this device, which is of the same type; for a task that is new in its process.

        A model on a server stays where it is: Ray's workers may have a GPU for other models of the run.
        """
        if self.device != "remote":
            self.study = self.study.replace(model=replace(self.study.model, device=device))

    def check_inputs(self, indices: Sequence[int]) -> None:
        """Raise an error if a file of these samples is not here, or is another one than when this was planned.

        Raises:
            RunError: A sample would fail, or give other numbers, in this process alone.
        """
        for index in indices:
            check_files(self.study.data[index], self._file_keys[index])

    def check_unchanged(self) -> None:
        """Raise an error if the model is no longer the one that the run's folder is named for.

        Raises:
            RunError: Something that the numbers depend on has changed.
        """
        before, now = self._identity, model_identity(self.mllm, again=True)
        changed = [name for name in before if name != "device" and now.get(name) != before[name]]
        if changed:
            raise RunError(
                f"expected the model to stay as it was when the study started, but its {' and '.join(changed)} changed "
                f"while the study ran (its weights, adapters, hooks, settings or processor). What was computed "
                f"meanwhile is not stored. Run again: the changed model gets a folder of its own."
            )

    def to_dict(self) -> dict[str, Any]:
        """Everything that the numbers of every study depend on; subclasses add their own entries."""
        device = self._identity["device"].partition(":")[0]
        return {
            "study": self.name,
            "schema": SCHEMA_VERSION,
            "model": {**self._identity, "device": device},
            "data": self._data,
            "prompt": self.study.prompt.to_dict(),
            "plan": self._planned,
        }

    def provenance(self) -> dict[str, Any]:
        """The names of the model and the data, which `to_dict` holds by fingerprint."""
        return {
            "model": model_provenance(self.study.model, self.mllm, self._identity["fingerprint"]),
            "data": {"name": self.study.data.name, **self._data},
            "device": self._identity["device"],
        }

    def plan(self) -> Plan:
        """Micro-batches of questions on the same images, and of like length; the same for every prompt."""
        return self._plan

    def identity(self, index: int) -> tuple[str, str]:
        """The sample's id and group."""
        sample = self.study.data[index]
        return sample.id, self.study.data.groups[index]

    def _sample_fields(self, index: int) -> dict[str, Any]:
        """The sample's values of `SAMPLE_FIELDS`, the first columns of a table of one row per sample."""
        sample, (name, group) = self.study.data[index], self.identity(index)
        own = {"question": sample.question, "answer": sample.answer}
        return {"index": index, "sample": name, "group": group, **own}

    def compute(self, indices: tuple[int, ...]) -> Outcome:
        """Rows of the samples that can be used; the others' failures."""
        self._forget_images()
        faults = {index: self._faults[index] for index in indices}
        failures = [failure(self, index, *found) for index, found in faults.items() if found]
        able = tuple(index for index, found in faults.items() if found is None)
        if able and not self.takes_thoughts:
            self._check_thoughts(able[0])
        outcome = self.measure(able) if able else Outcome({})
        if self._ahead:
            self.mllm.installation.processed.forget_ready([self.study.data[index] for index in indices])
        rows = {name: outcome.rows.get(name, ()) for name in (*self.schemas(), FAILURES)}
        return Outcome({**rows, FAILURES: [*failures, *rows[FAILURES]]}, outcome.cost)

    def thinks(self, index: int) -> bool:
        """Whether a thought follows a sample's prompt, or may; not asked of a model that only answers."""
        mllm, prompt = self.mllm, self.study.prompt
        if not isinstance(mllm, Mllm) or isinstance(mllm, AnsweringMllm) or marks(mllm.processor) is None:
            return False
        return leaves_open(mllm.encoder.text(self.study.data[index], prompt), prompt, mllm.processor)

    def _check_thoughts(self, index: int) -> None:
        """Refuses a prompt that a thought follows; a sample that cannot be encoded becomes a failure elsewhere."""
        with suppress(SampleError, ImageTokenMismatch):
            if self.thinks(index):
                raise StudyError(
                    f"{type(self.study).__name__} reads and scores what follows the prompt, and with this one that is "
                    "the model's thought and not its answer. Write prompt=interp.Prompt(thinking=False) for answers "
                    "without a thought, or run an interp.ReasoningSweep."
                )

    def preparer(self, threads: int) -> Callable[[tuple[int, ...]], None]:
        """A function that encodes a micro-batch's samples under the study's prompt, for threads beside the model's.

        Each of them has a processor of its own: tokenizers refuse to be used by two threads at once.
        """
        mllm, data, prompt = self.mllm, self.study.data, self.study.prompt
        if not isinstance(mllm, Mllm) or isinstance(mllm, AnsweringMllm):
            return lambda indices: None
        self._ahead = threads + 1
        encoders: SimpleQueue[Any] = SimpleQueue()
        settings = mllm.encoder.settings
        for _ in range(threads):
            encoders.put(replace(mllm.encoder, processor=copy.deepcopy(mllm.processor)))

        def prepare(indices: tuple[int, ...]) -> None:
            encoder = encoders.get()
            try:
                for index in (index for index in indices if self._faults[index] is None):
                    with suppress(InterpError):  # the computation will find it, and record a failure
                        encoder.prepare([data[index]], prompt, settings)
            finally:
                encoders.put(encoder)

        return prepare

    def _forget_images(self) -> None:
        """Releases the images of micro-batches before the last; samples that share images follow each other."""
        if isinstance(self.mllm, Mllm):
            self.mllm.installation.processed.forget_but((2 + self._ahead) * self.study.batch)

    def each(self, indices: Sequence[int], rows: Callable[[int, int], TableRows]) -> dict[str, Records]:
        """The rows of every sample together; one whose `rows(place, index)` raises an `InterpError` has failed.

        Args:
            indices: The samples.
            rows: From a sample's place among `indices` and its index to its rows by table.
        """
        found: dict[str, list[Records]] = {name: [] for name in (*self.schemas(), FAILURES)}
        for place, index in enumerate(indices):
            try:
                own = rows(place, index)
            except RunError:  # of the run, such as a lost server, and not of the sample
                raise
            except InterpError as error:
                own = {FAILURES: [failure(self, index, type(error).__name__, str(error))]}
            for name, more in own.items():
                found[name].append(more)
        return {name: joined_rows(parts) for name, parts in found.items()}

    @cached_property
    def _partners(self) -> tuple[int | None, ...]:
        """For each sample the index of another one, of another group and picture, that a baseline borrows from."""
        data, usable = self.study.data, [found is None for found in self._faults]
        return partners(data.groups, usable, data.pictures, seed=self.study.seed)

    @cached_property
    def _data(self) -> dict[str, Any]:
        return data_identity(self.study.data, labels=self.reads_labels)

    @property
    def reads_labels(self) -> bool:
        """Whether `meta["label"]` of the samples decides what is measured."""
        one = getattr(self.study, "indicator", None)
        every = [*getattr(self.study, "indicators", {}).values(), *([] if one is None else [one])]
        return any(_asks_for_labels(indicator.to_dict()) for indicator in every)

    @cached_property
    def _plan(self) -> Plan:
        data = self.study.data
        lengths, kinds = [question_length(sample) for sample in data], [image_key(sample) for sample in data]
        return make_plan(lengths, batch=self._planned["batch"], shard=self._planned["shard"], kinds=kinds)

    @cached_property
    def _file_keys(self) -> tuple[tuple[str, ...], ...]:
        return tuple(file_keys(sample) for sample in self.study.data)

    @property
    def _planned(self) -> dict[str, Any]:
        """How samples are batched and run, in so far as the bytes depend on it."""
        shard = self.study.batch * BATCHES_PER_SHARD
        return {
            "batch": self.study.batch,
            "shard": shard,
            "order": "image, question",
            "prefix": "where exact",
        }

    @cached_property
    def _faults(self) -> list[tuple[str, str] | None]:
        """What is wrong with each sample before any model sees it: (error, reason) or None."""
        self.study.data.warn_of_boxes()
        return [fault(sample, boxes=self.needs_boxes) for sample in self.study.data]


SMALL = 50_000_000
"""Parameters below which a second thread slows a model down: on a busy machine with two cores an
organism of 1.8 million took 28 times as long on two threads as on one."""


_N_PARAMETERS: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
"""Model → its number of parameters, which takes milliseconds to count."""


def _is_small(hf: Any) -> bool:
    """Whether a transformers model has fewer than `SMALL` parameters; False for anything else."""
    if not hasattr(hf, "parameters"):
        return False
    if hf not in _N_PARAMETERS:
        _N_PARAMETERS[hf] = sum(weight.numel() for weight in hf.parameters())
    return _N_PARAMETERS[hf] < SMALL


@contextmanager
def suitable_threads(mllm: Any) -> Iterator[None]:
    """One torch thread while a small model runs on a CPU; otherwise as many as there were.

    It also makes a small model's bytes independent of the number of cores.
    """
    import torch

    before = torch.get_num_threads()
    if _is_small(getattr(mllm, "hf", None)) and str(mllm.device).startswith("cpu"):
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
