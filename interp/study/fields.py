"""Fields of a study: declared with a type, a converter and a validator; checked when a study is made.

    class Sweep(Checked):
        data: Samples = field(converter=as_samples)
        rule: str = field(default="touch", validator=one_of("touch", "center", "stretch"))

A class that inherits from `Checked` is a frozen dataclass with keyword-only fields.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Set
from numbers import Real
from typing import Any, Protocol, dataclass_transform, runtime_checkable

from interp.data import Samples
from interp.errors import MapError, SampleError, StudyError
from interp.indicators import indicator_named
from interp.inputs.prompt import Prompt
from interp.inputs.sample_list import as_samples as list_of_samples
from interp.inputs.text import meant
from interp.metrics import METRICS

__all__ = [
    "RULES",
    "Checked",
    "Indicator",
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
        default: Its default; without it and `factory` the field must be given. It is converted too.
        factory: Makes the default.
        converter: Turns what was given into the field's type. It must leave what it has converted as it is.
        validator: Takes the field's name and its converted value, and raises `StudyError` for one that makes no sense.
        compare: Whether equality and the hash depend on it.
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
        indicator: The indicator. One that does not say its `dims` passes: its maps tell.

    Raises:
        StudyError: As said.
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
