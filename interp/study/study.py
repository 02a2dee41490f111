"""A study as a value that says what is measured on what: its fields with their checks, its JSON, its run.

A new study is a class with its own fields, a task and a result:

    class MethodStudy(Study[GridResult]):
        method: Method = field(default=Plain())      # any field can be an axis: Grid(study, method=[…], data={…})

        name = "method-study"                        # the run's folder is <name>-<hash>
        title = "Methods"
        page = "my_package.method_page"              # has write_page(result, path) and figures(result)

        @property
        def question(self):
            return "Which method is right more often?"

        def task(self, mllm):
            return MethodTask(self, mllm)            # a StudyTask: schemas, joined, to_dict, measure

        def collect(self, whole, cells, folder):
            return GridResult.of(whole, cells, folder)

The task's `to_dict` names the run's folder: all that the stored numbers depend on must be in it, and nothing else.
Its tables: `samples` (index, sample, group, …: one row per measured sample), `scores` (index, …, value: what the tidy
frame is made of), and whatever else it needs. `StudyTask` does the model, the plan, the samples that cannot be
used and the pickling; `SamplesTask` also runs the study's indicator.

A study that needs another's result first overrides `unresolved` and `resolved`; `Refinement` ranks heads so.

Each field is declared with a type, a converter and a validator, and is checked when a study is made:

    class Sweep(Checked):
        data: Samples = field(converter=as_samples)
        rule: str = field(default="touch", validator=one_of("touch", "center", "stretch"))

A class that inherits from `Checked` is a frozen dataclass with keyword-only fields.
"""

from __future__ import annotations

import dataclasses
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar, dataclass_transform, runtime_checkable

from interp.data import Samples
from interp.errors import MapError, SampleError, StudyError
from interp.indicators import indicator_named
from interp.inputs.prompt import PAPER_PROMPT, Prompt
from interp.inputs.sample_list import as_samples as list_of_samples
from interp.inputs.text import meant
from interp.metrics import METRICS
from interp.run import Task, Workers, canonical
from interp.study.model_spec import ModelSpec, OpenModel, as_model, model_label, open_model
from interp.study.runs import GridCell, run_cells

__all__ = [
    "RULES",
    "Checked",
    "Indicator",
    "Study",
    "as_indicator",
    "as_samples",
    "as_tuple",
    "field",
    "is_indicator",
    "is_level",
    "is_per_layer",
    "is_prompt",
    "metric_names",
    "not_empty",
    "one_of",
    "some_of",
    "whole_number",
    "words",
]


RULES = ("touch", "center", "stretch", "masks")
"""When a token belongs to a box; with "masks", samples' masks take the place of their boxes."""
Validator = Callable[[str, Any], None]
"""Takes a field's name and its value; raises `StudyError`."""


@runtime_checkable
class Indicator(Protocol):
    """What gives maps over image tokens: one of `interp.indicators`, or anything of this shape."""

    def __call__(self, mllm: Any, samples: Any) -> Any:
        """The maps of these samples; most take `prompt=` and `target=` too."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Everything the maps depend on, as JSON values."""
        ...


def field(
    *,
    default: Any = dataclasses.MISSING,
    factory: Any = dataclasses.MISSING,
    converter: Callable[[Any], Any] | None = None,
    validator: Validator | None = None,
    compare: bool = True,
) -> Any:
    """A field of a `Checked` class.

    Args:
        default: The field's default, which is converted too. Without a default and a `factory` the field must be given.
        factory: A function that makes the default.
        converter: A function from the given value to the field's type. It must leave a converted value as it is.
        validator: A function of the field's name and its converted value that raises `StudyError` for a wrong value.
        compare: Whether equality and the hash depend on the field.
    """
    metadata = {"converter": converter, "validator": validator}
    return dataclasses.field(default=default, default_factory=factory, compare=compare, metadata=metadata)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
class Checked:
    """A frozen dataclass with keyword-only fields, which are converted and checked when it is made."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        dataclasses.dataclass(frozen=True, kw_only=True)(cls)
        own = {one.name: Any for one in dataclasses.fields(cls) if any(one.metadata.values())}  # pyright: ignore[reportArgumentType]
        cls.__init__.__annotations__.update(own)  # it takes whatever the converter and the validator take

    def __post_init__(self) -> None:
        for own in dataclasses.fields(self):  # pyright: ignore[reportArgumentType]
            convert, validate = own.metadata.get("converter"), own.metadata.get("validator")
            if convert is not None:
                object.__setattr__(self, own.name, convert(getattr(self, own.name)))
            if validate is not None:
                validate(own.name, getattr(self, own.name))
        self.check()

    def check(self) -> None:
        """Raise `StudyError` for fields that make no sense together."""


def as_samples(data: Any, name: str = "data") -> Samples:
    """`Samples` from a list of samples; `Samples` as they are.

    Raises:
        StudyError: Anything else.
    """
    if isinstance(data, Samples):
        return data
    if isinstance(data, list | tuple) and not data:
        return Samples([])
    try:
        return Samples(list_of_samples(data))
    except SampleError as error:
        raise StudyError(
            f'{name} is Samples or a list of Sample, such as interp.data.bundled("natural"); got '
            f"{type(data).__name__}: {error}"
        ) from error


def not_empty(name: str, value: Samples) -> None:
    """At least one sample."""
    if len(value) == 0:
        raise StudyError(f"the {name} {value.name!r} hold no sample. Was a filter too strict?")


def one_of(*known: str) -> Validator:
    """One of these words."""

    def validate(name: str, value: Any) -> None:
        if not isinstance(value, str) or value not in known:
            raise StudyError(f"{name} is one of {', '.join(known)}; got {value!r}.{meant(value, known)}")

    return validate


def some_of(known: Iterable[str]) -> Validator:
    """A tuple of some of these words, at least one, each once."""
    words = tuple(known)

    def validate(name: str, value: Any) -> None:
        right = isinstance(value, tuple) and value and all(isinstance(one, str) for one in value)
        if not right or set(value) - set(words) or len(set(value)) < len(value):
            unknown = [one for one in value if one not in words] if isinstance(value, tuple) else value
            raise StudyError(
                f"{name} takes at least one of {', '.join(words)}, each once; got {value!r}.{meant(unknown, words)}"
            )

    return validate


def whole_number(least: int, *, or_none: bool = False) -> Validator:
    """A whole number of at least `least`, or None where that is allowed."""

    def validate(name: str, value: Any) -> None:
        if or_none and value is None:
            return
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            none = ", or None" if or_none else ""
            raise StudyError(f"{name} is a whole number ≥ {least}{none}; got {value!r}.")

    return validate


def true_or_false(name: str, value: Any) -> None:
    """True or False."""
    if not isinstance(value, bool):
        raise StudyError(f"{name} is True or False; got {value!r}.")


def is_prompt(name: str, value: Any) -> None:
    """An `interp.Prompt`."""
    if not isinstance(value, Prompt):
        raise StudyError(f"{name} is an interp.Prompt; got {value!r}. Write Prompt(template=…).")


def as_indicator(value: Any) -> Any:
    """The indicator of a name, with its default settings; anything else as it is.

    Raises:
        StudyError: No indicator has that name.
    """
    if not isinstance(value, str):
        return value
    try:
        return indicator_named(value)[1]
    except MapError as error:
        raise StudyError(f"{error} Or pass an indicator, such as Attention().") from error


def is_indicator(name: str, value: Any) -> None:
    """One of `interp.indicators`, or anything that is an `Indicator`."""
    if not isinstance(value, Indicator):
        raise StudyError(
            f"{name} is one of interp.indicators, such as Attention(), or the name of one; got {value!r}."
        )


def is_per_layer(study: str, indicator: Any) -> None:
    """Refuse, before anything runs, an indicator whose `dims` say that it gives one map and none per layer.

    Args:
        study: The study in the message.
        indicator: The indicator. One without `dims` passes; its maps are checked when they are made.

    Raises:
        StudyError: The indicator's `dims` have no layer.
    """
    dims = getattr(indicator, "dims", None)
    if dims is not None and "layer" not in dims:
        raise StudyError(
            f"{study} needs maps per layer; {type(indicator).__name__} gives one map ({', '.join(dims)}). Use one that "
            "has layers, such as Attention(), or compare this one in an IndicatorComparison."
        )


def is_level(name: str, value: Any) -> None:
    """The coverage of an interval."""
    if not isinstance(value, Real) or not 0 < float(value) < 1:
        raise StudyError(f"{name} is between 0 and 1, such as 0.95; got {value!r}.")


metric_names = some_of(METRICS)
"""Short names of metrics."""


def as_tuple(value: Any) -> Any:
    """A tuple from a list, an array or anything else that has an order; the rest as it is, for a validator to refuse.

    A set has no order of its own: its elements would come in another one in the next process.
    """
    listed = value.tolist() if hasattr(value, "tolist") and not isinstance(value, type) else value
    if isinstance(listed, str | bytes | Mapping | Set) or not isinstance(listed, Iterable):
        return value
    return tuple(listed)


def words(value: Any) -> Any:
    """A tuple from one word or several; see `as_tuple`."""
    return (value,) if isinstance(value, str) else as_tuple(value)


R = TypeVar("R")
Own = TypeVar("Own", bound="Study[Any]")


class Study(Checked, ABC, Generic[R]):
    """A study: a frozen dataclass whose fields say what is measured on what. `R` is its result.

    Args:
        data: Samples; a plain list becomes `Samples`.
        model: Id, `ModelSpec`, or an opened model (which only one process can use).
        prompt: The prompt of every question.
        seed: The seed of all random draws and of the bootstrap.
        batch: Samples per forward pass; part of the hash, because other batches round differently.

    Raises:
        StudyError: A value that makes no sense.
    """

    data: Samples = field(converter=as_samples, validator=not_empty)
    model: ModelSpec | OpenModel = field(default=ModelSpec("organism"), converter=as_model)
    prompt: Prompt = field(default=PAPER_PROMPT, validator=is_prompt)
    seed: int = field(default=0, validator=whole_number(0))
    batch: int = field(default=8, validator=whole_number(1))

    name: ClassVar[str]
    """What its runs' folders begin with."""
    title: ClassVar[str]
    """What reports call it."""
    page: ClassVar[str] = ""
    """The module of its page and figures; see `interp.study.result.GridResult.report`."""

    @property
    @abstractmethod
    def question(self) -> str:
        """What the study answers, in a sentence."""

    @abstractmethod
    def task(self, mllm: Any) -> Task:
        """The study as work for the runner, on its opened model."""

    @abstractmethod
    def collect(self, whole: Any, cells: tuple[GridCell, ...], folder: Path) -> Any:
        """The result of `whole`: this study itself, or a grid over it.

        Args:
            whole: The study whose result it is.
            cells: Its finished runs in order; one when `whole` is this study.
            folder: The folder of the result's own files.
        """

    @property
    def labels(self) -> dict[str, str]:
        """The labels that every tidy frame has: short names of the model and the data."""
        return {"model": model_label(self.model), "data": self.data.name}

    @property
    def label(self) -> str:
        """The labels in one text, for figures and messages."""
        return " · ".join(self.labels.values())

    def to_dict(self, mllm: OpenModel | None = None) -> dict[str, Any]:
        """The study as JSON values: everything its stored numbers depend on, with model and data by fingerprint.

        Args:
            mllm: The opened model, when there is one; otherwise it is opened to take its fingerprint.

        Raises:
            StudyError: The study needs another's result first (see `resolved`).
        """
        return dict(self.task(open_model(self.model) if mllm is None else mllm).to_dict())

    def to_json(self, mllm: OpenModel | None = None) -> str:
        """The canonical text of `to_dict`; the first 12 hex digits of its sha256 name the run's folder."""
        return canonical(self.to_dict(mllm))

    def replace(self: Own, **changes: Any) -> Own:
        """A copy with some fields changed.

        Raises:
            StudyError: A value that makes no sense, as when the study is made.
        """
        return dataclasses.replace(self, **changes)  # pyright: ignore[reportArgumentType, reportReturnType]

    def run(
        self,
        out: str | os.PathLike[str] = "runs",
        *,
        workers: int | Workers = 1,
        address: str | None = None,
        gpus: float | None = None,
        devices: str | Sequence[str] = (),
        progress: bool = True,
        part: tuple[int, int] | None = None,
        loaders: int = 0,
        mllm: OpenModel | None = None,
    ) -> R:
        """The study's result; what is already under `out` is not computed again.

        Args:
            out: The folder that holds runs; this one's is `<name>-<hash>`.
            workers: Processes, each with its own copy of the model; the bytes are the same for any number. An
                `interp.run.Workers` holds the next three options too.
            address: Where Ray runs the workers: "local" for a private Ray on this machine, "auto", "host:port" or
                "ray://host:port" for a cluster; None for processes of this machine.
            gpus: The GPUs of each worker on Ray, a fraction or a whole number; by default 1 for a model on "cuda".
            devices: The devices that local workers take in turn, such as ["cuda:0", "cuda:1"]; "cuda" for all
                visible ones. With workers=1 there is one worker per device.
            progress: Show progress on stderr.
            part: (i, n) computes only part i of n, 1 ≤ i ≤ n. The result can be read once every part is under
                `out`: computed there, or joined by `interp.run.merge`.
            loaders: Threads of each process that read, decode and tokenise the next micro-batches while the model
                runs; with any, shards are written behind it. The bytes are the same for any number.
            mllm: The study's model, when it is open already.

        Raises:
            StudyError: Nothing could be measured.
        """
        listed = ((self.labels, self),)
        found = Workers.of(workers, address=address, gpus=gpus, devices=devices)
        options: dict[str, Any] = {"workers": found, "progress": progress, "part": part, "loaders": loaders}
        cells = run_cells(listed, out, **options, mllm=mllm)
        return self.collect(self, cells, cells[0].folder.path)

    @property
    def unresolved(self) -> bool:
        """Whether the study needs another's result before it can run."""
        return False

    def resolved(
        self: Own,
        out: str | os.PathLike[str] = "runs",
        *,
        workers: int | Workers = 1,
        progress: bool = True,
        mllm: OpenModel | None = None,
    ) -> Own:
        """The study to run in its place, with the results of other studies filled in; itself where it needs none.

        Args:
            out: The folder that holds runs; one that is there is not computed again.
            workers: Processes, or an `interp.run.Workers`, when another study has to run.
            progress: Show progress on stderr.
            mllm: The study's model, when it is open already.
        """
        return self
