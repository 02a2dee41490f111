"""Edits: values that say how to change attention during a trace.

Edits have two stages: scores (before the softmax) and probabilities (the weights, after it). They apply in this order:
edits of scores, which get the scaled and soft-capped scores e before any mask; the model's mask and the knockouts; the
softmax; edits of probabilities. Within a stage they apply in list order; an edit of scores that is listed after an edit
of probabilities is refused. A key that a row cannot see keeps the weight 0, whatever the edits are.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from types import FunctionType
from typing import Any, ClassVar, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.errors import EditError
from interp.tracing.site import GENERATED, Selector, Site

__all__ = [
    "Apply",
    "AttentionEdit",
    "Boost",
    "Edit",
    "Guide",
    "Knockout",
    "ScaleScores",
    "ScaleWeights",
    "Stage",
    "Steps",
    "check_edits",
    "check_last_of_generated",
    "check_order",
    "check_steps",
]


_LARGEST = torch.finfo(torch.float32).max

Stage = Literal["scores", "probabilities"]
Steps = Literal["prefill", "decode", "all"]


class Edit(ABC):
    """A change to a model's computation, as a value."""

    steps: Steps

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The edit as JSON values."""


class AttentionEdit(Edit):
    """A change of attention at a site.

    Attributes:
        site: layers, heads, queries (rows) and keys (columns).
        steps: "prefill" (rows of the prompt), "decode" (rows of generated tokens; the queries must name "last",
            "reasoning" or "answer") or "all" (both). "last" is the last row of every pass. The first generated token is
            predicted by the last row of the prompt.
    """

    site: Site

    all_heads: ClassVar[bool] = False
    """Whether `on` needs the values of every head of the layer."""
    unsure: ClassVar[bool] = False
    """Whether the changed rows are known only after the edit has run. Rows that do not change then stay as they are."""

    @property
    @abstractmethod
    def stage(self) -> Stage:
        """ "scores" (before the softmax) or "probabilities" (after it)."""

    @property
    def idle(self) -> bool:
        """Whether the edit never changes anything."""
        return False

    @abstractmethod
    def on(
        self, values: Float[Tensor, "sample head row key"], cells: Bool[Tensor, "sample _ row key"]
    ) -> Float[Tensor, "sample head row key"]:
        """The edited values of a stage. Only the values at `cells` are used."""

    @property
    def decodes(self) -> bool:
        """Whether the edit applies to rows of generated tokens."""
        return self.steps != "prefill" and any(q in ("last", *GENERATED) for q in self.site.groups[0])

    @property
    def stage_of_tokens(self) -> str | None:
        """The kind of generated tokens that the edit is limited to, "reasoning" or "answer"; None if it is not."""
        named = [q for q in self.site.groups[0] if q in ("last", *GENERATED)]
        return str(named[0]) if self.decodes and len(set(named)) == 1 and named[0] != "last" else None

    @property
    def prefill_queries(self) -> tuple[Selector, ...]:
        """The queries that name rows of the prompt; none if the edit applies to generated tokens only."""
        if self.steps == "decode":
            return ()
        return tuple(q for q in self.site.groups[0] if q not in GENERATED)

    def _check(self) -> None:
        name = type(self).__name__
        if not isinstance(self.site, Site):
            raise EditError(f"{name} takes a Site first, such as Site(layers=[16]); got {self.site!r}.")
        check_steps(self.steps, self.site.groups[0])


@dataclass(frozen=True)
class Knockout(AttentionEdit):
    """Hides the site's keys from the site's queries.

    "renormalise" sets the scores to −∞ before the softmax, so the other keys get the weight of the hidden keys. "zero"
    sets the weights to 0 after the softmax, so the row loses their weight. In both modes the hidden keys get a weight
    of exactly 0. If the rows cannot see any of the hidden keys anyway, the model's output stays the same, bit for bit.

    Args:
        site: Layers, heads, queries (rows) and keys (columns). Some samples may have none of these keys.
        mode: "renormalise" or "zero".
        steps: "prefill" (rows of the prompt), "decode" (rows of generated tokens; the queries must name "last",
            "reasoning" or "answer") or "all" (both). "last" is the last row of every pass. The first generated token is
            predicted by the last row of the prompt.

    Raises:
        EditError: An unknown mode or steps; steps "decode" with queries that name no generated tokens; with mode
            "renormalise", while tracing, a row with no keys left.
    """

    site: Site
    mode: Literal["renormalise", "zero"] = "renormalise"
    steps: Steps = "prefill"

    def __post_init__(self) -> None:
        if not isinstance(self.mode, str) or self.mode not in ("renormalise", "zero"):
            raise EditError(f'mode is "renormalise" or "zero"; got {self.mode!r}.')
        self._check()

    @property
    def stage(self) -> Stage:
        """ "scores" for mode "renormalise", "probabilities" for mode "zero"."""
        return "scores" if self.mode == "renormalise" else "probabilities"

    def on(
        self, values: Float[Tensor, "sample head row key"], cells: Bool[Tensor, "sample _ row key"]
    ) -> Float[Tensor, "sample head row key"]:
        """Returns zeros. A knockout of scores is applied as a mask instead."""
        return torch.zeros_like(values)

    def to_dict(self) -> dict[str, Any]:
        """The edit as JSON values."""
        return {"knockout": {"site": self.site.to_dict(), "mode": self.mode, "steps": self.steps}}


@dataclass(frozen=True)
class _Scale(AttentionEdit):
    """Multiplies scores or weights by a factor; a subclass says which, and has the edit's name in JSON."""

    site: Site
    factor: float
    steps: Steps = "prefill"

    json_name = ""  # without annotation: where the class is sent to a server as source, it would be a field

    def __post_init__(self) -> None:
        _number(self.factor, "factor", least=0)
        self._check()

    @property
    def idle(self) -> bool:
        """Whether the factor is 1."""
        return self.factor == 1

    def on(
        self, values: Float[Tensor, "sample head row key"], cells: Bool[Tensor, "sample _ row key"]
    ) -> Float[Tensor, "sample head row key"]:
        """Returns values · factor."""
        return values * float(self.factor)

    def to_dict(self) -> dict[str, Any]:
        """The edit as JSON values."""
        return {
            self.json_name: {"site": self.site.to_dict(), "factor": float(self.factor), "steps": self.steps}
        }


@dataclass(frozen=True)
class ScaleWeights(_Scale):
    """Multiplies weights after the softmax: p · factor. The other weights of the row stay, so the row's sum changes.

    Args:
        site: Layers, heads, queries and keys.
        factor: The factor, ≥ 0, for the site's weights; 0 is the same as `Knockout(site, "zero")`.
        steps: As in `Knockout`.

    Raises:
        EditError: A factor that is not a finite number ≥ 0, or unknown steps.
    """

    json_name = "scale_weights"

    @property
    def stage(self) -> Stage:
        """After the softmax."""
        return "probabilities"


@dataclass(frozen=True)
class ScaleScores(_Scale):
    """Multiplies scores before the softmax: e · factor. The row's weights still sum to 1.

    On image keys this is the edit of AdaptVis (arXiv 2503.01773). A factor above 1 raises positive scores and lowers
    negative scores, which sharpens the row; a factor below 1 brings the scores closer to 0; with a factor of 0 all the
    site's scores are 0.

    Args:
        site: Layers, heads, queries and keys.
        factor: The factor, ≥ 0, for the site's scores.
        steps: As in `Knockout`.

    Raises:
        EditError: A factor that is not a finite number ≥ 0, or unknown steps.
    """

    json_name = "scale_scores"

    @property
    def stage(self) -> Stage:
        """Before the softmax."""
        return "scores"


@dataclass(frozen=True)
class _Raise(AttentionEdit):
    """Adds α · (a size of scores) to scores; a subclass says which size, and has the edit's name in JSON."""

    site: Site
    alpha: float
    steps: Steps = "prefill"

    json_name = ""  # without annotation: where the class is sent to a server as source, it would be a field

    def __post_init__(self) -> None:
        _number(self.alpha, "alpha")
        self._check()

    @property
    def stage(self) -> Stage:
        """Before the softmax."""
        return "scores"

    @property
    def idle(self) -> bool:
        """Whether alpha is 0."""
        return self.alpha == 0

    def to_dict(self) -> dict[str, Any]:
        """The edit as JSON values."""
        return {
            self.json_name: {"site": self.site.to_dict(), "alpha": float(self.alpha), "steps": self.steps}
        }


@dataclass(frozen=True)
class Boost(_Raise):
    """Raises scores in proportion to their size, before the softmax: e + α·|e|. The edit of PAI (arXiv 2407.21771).

    Args:
        site: Layers, heads, queries and keys.
        alpha: α. A positive α raises the keys' scores, a negative α lowers them.
        steps: As in `Knockout`.

    Raises:
        EditError: An alpha that is not a finite number, or unknown steps.
    """

    json_name = "boost"

    def on(
        self, values: Float[Tensor, "sample head row key"], cells: Bool[Tensor, "sample _ row key"]
    ) -> Float[Tensor, "sample head row key"]:
        """Returns e + α·|e|."""
        return values + float(self.alpha) * values.abs()


@dataclass(frozen=True)
class Guide(_Raise):
    """Raises scores by the mean size of the key's scores over heads: e_h + α·mean over all heads h′ of |e_h′|.

    This is the edit of HGAI, "Devils in Middle Layers of LVLMs" (arXiv 2411.16724). The mean is over every head of the
    layer, whichever heads the site names. After other edits of scores, it is the mean of the edited scores.

    Args:
        site: Layers, heads, queries and keys.
        alpha: α. A positive α raises the weights of keys whose scores are far from 0 in some heads.
        steps: As in `Knockout`.

    Raises:
        EditError: An alpha that is not a finite number, or unknown steps.
    """

    json_name = "guide"
    all_heads = True

    def on(
        self, values: Float[Tensor, "sample head row key"], cells: Bool[Tensor, "sample _ row key"]
    ) -> Float[Tensor, "sample head row key"]:
        """Returns e + α·mean over heads of |e|."""
        return values + float(self.alpha) * values.abs().mean(dim=1, keepdim=True)


def check_steps(steps: Any, queries: Sequence[Selector]) -> None:
    """Refuse unknown steps, and steps in which the queries have no rows.

    Raises:
        EditError: Unknown steps, or steps in which the queries have no rows.
    """
    if not isinstance(steps, str) or steps not in get_args(Steps):
        raise EditError(f'steps is "prefill", "decode" or "all"; got {steps!r}.')
    if steps == "decode" and not any(q in ("last", *GENERATED) for q in queries):
        raise EditError(
            'steps="decode" needs queries that name rows of generated tokens, "last", "reasoning" or "answer"; got '
            f'queries={tuple(queries)!r}. Name one of these, or write steps="prefill".'
        )
    for name in GENERATED:
        if steps == "prefill" and name in queries:
            raise EditError(
                f'queries="{name}" names rows of generated tokens, which steps="prefill" leaves out. Write '
                'steps="decode" or steps="all".'
            )


def check_last_of_generated(steps: Any, queries: Sequence[Selector], name: str) -> None:
    """Refuse steps as `check_steps` does, and names of rows of generated tokens other than "last".

    Raises:
        EditError: As in `check_steps`, or rows of generated tokens with another name than "last".
    """
    check_steps(steps, queries)
    if steps != "prefill" and ("last" not in queries or any(one in GENERATED for one in queries)):
        raise EditError(
            f'{name} names each generated token as "last"; got {queries!r} with steps={steps!r}. Write "last", or '
            '["all", "last"] for the whole prompt as well; or steps="prefill" for the prompt alone.'
        )


def check_edits(edits: Any) -> None:
    """Refuse anything but a list of edits.

    Raises:
        EditError: Something that is not a list, or a list with something that is not an edit.
    """
    if not isinstance(edits, Sequence) or isinstance(edits, str | bytes):
        write = f" Write edits=[{edits!r}]." if isinstance(edits, Edit) else ""
        raise EditError(
            f"edits= is a list of edits such as interp.Knockout(site); got {edits!r:.300}.{write}"
        )
    for edit in edits:
        if not isinstance(edit, Edit):
            write = f" Write edits=[interp.Knockout({edit!r})]." if isinstance(edit, Site) else ""
            raise EditError(f"edits= takes edits such as interp.Knockout(site); got {edit!r:.300}.{write}")


def check_order(edits: Sequence[Edit]) -> None:
    """Refuse an edit of scores that is listed after an edit of probabilities.

    Raises:
        EditError: An edit of scores after an edit of probabilities, or something that is not an edit.
    """
    check_edits(edits)
    late: Edit | None = None
    for edit in edits:
        if not isinstance(edit, AttentionEdit):
            continue
        if edit.stage == "probabilities":
            late = edit
        elif late is not None:
            raise EditError(
                f"edits of scores come before edits of probabilities in the list; got {edit!r}, which changes scores, "
                f"after {late!r}, which changes probabilities. List the edit of scores first."
            )


def _number(value: Any, name: str, least: float = -math.inf) -> None:
    real = isinstance(value, Real) and not isinstance(value, bool)
    if not real or not abs(value) <= _LARGEST or value < least:  # pyright: ignore[reportOperatorIssue]
        bound = "" if least == -math.inf else f" ≥ {least}"
        raise EditError(f"{name} is a finite number{bound} that float32 can hold; got {value!r:.200}.")


Function = Callable[[Tensor, Tensor], Tensor]
"""(values, cells) → new values; see `Apply`."""


@dataclass(frozen=True)
class Apply(AttentionEdit):
    """Applies a function of your own to scores or probabilities.

        def flatten(values, cells):      # gives the site's keys the mean of their weights
            share = torch.where(cells, values, 0.0)
            return share.sum(-1, keepdim=True) / cells.sum(-1, keepdim=True).clamp(min=1)

        interp.Apply(interp.Site(layers=[3]), flatten, stage="probabilities")

    The function gets `values`, float32 (sample, head, row, key), for every head of the layer and every key, and
    `cells`, bool (sample, 1 or head, row, key), True at the site. It returns values that broadcast to the shape of
    `values`; only those at the cells are used. At stage "scores", padding and keys that a row cannot see have scores
    too; their weights are 0 all the same. The function must depend only on its arguments, because a batch may be split.

    Args:
        site: Layers, heads, queries and keys.
        function: The function. Its name, source code and default arguments are part of a study's hash. Names that it
            uses from its module are not, so the values of these must not change.
        stage: "scores" (scaled and soft-capped, before any mask) or "probabilities".
        steps: As in `Knockout`.

    Raises:
        EditError: Something that is not a function, an unknown stage or steps; while tracing, a result of another shape
            or one that is not finite (errors of the function itself are not changed); when the edit is hashed, a
            function whose source code is not enough to know it: a lambda, a method, or a function that uses values of
            an enclosing function.
    """

    site: Site
    function: Function
    stage: Stage = "probabilities"  # pyright: ignore[reportIncompatibleMethodOverride]
    steps: Steps = "prefill"

    all_heads: ClassVar[bool] = True
    unsure: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise EditError(f"Apply takes a function of (values, cells); got {self.function!r}.")
        if not isinstance(self.stage, str) or self.stage not in get_args(Stage):
            raise EditError(f'stage is "scores" or "probabilities"; got {self.stage!r}.')
        self._check()

    @property
    def name(self) -> str:
        """The function's name."""
        return getattr(self.function, "__qualname__", type(self.function).__name__)

    def on(
        self, values: Float[Tensor, "sample head row key"], cells: Bool[Tensor, "sample _ row key"]
    ) -> Float[Tensor, "sample head row key"]:
        """Returns the function's result, after a check of its type, shape and values."""
        found = self.function(values.clone(), cells)
        if not isinstance(found, Tensor):
            raise EditError(f"{self.name} must return a tensor; got {type(found).__name__}.")
        try:
            found = found.to(values).expand(values.shape)
        except RuntimeError as error:
            raise EditError(
                f"{self.name} must return values that broadcast to {tuple(values.shape)}, (sample, head, row, "
                f"key); got {tuple(found.shape)}."
            ) from error
        if not bool((found.isfinite() | ~cells).all()):
            raise EditError(
                f"{self.name} must return finite values; got NaN or infinity. To hide keys use interp.Knockout."
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """The edit as JSON values; the function is described by its name and a hash of its source code."""
        described = {"stage": self.stage, "function": self.name, "source_sha256": _digest(self.function)}
        return {"apply": {"site": self.site.to_dict(), **described, "steps": self.steps}}


def _digest(function: Any) -> str:
    """A hash of a function's source code and default arguments.

    Raises:
        EditError: Source code and default arguments do not determine what the function computes.
    """
    name = getattr(function, "__qualname__", type(function).__name__)
    plain = isinstance(function, FunctionType) and function.__name__ != "<lambda>"
    if not plain or function.__closure__:
        held = ", ".join(getattr(getattr(function, "__code__", None), "co_freevars", ()))
        taken = f": it uses {held} of the function around it" if held else ""
        raise EditError(
            "the hash of a study includes the source code of its edits, which does not determine what "
            f"{name} computes{taken}. Define it with def in a file or a notebook cell, and give values that vary as "
            "default arguments."
        )
    try:
        source = inspect.getsource(function)
    except OSError as error:
        raise EditError(
            f"the hash of a study includes the source code of its edits, but {name} has no source code. Define it with "
            "def in a file or a notebook cell."
        ) from error
    defaults = [*(function.__defaults__ or ()), *sorted((function.__kwdefaults__ or {}).items())]
    return hashlib.sha256(f"{source}{defaults!r}".encode()).hexdigest()
