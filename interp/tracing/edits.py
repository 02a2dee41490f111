"""What to change of attention during a trace, as values.

Edits come in two stages: scores (before the softmax) and probabilities (after it). Score edits see the scaled,
soft-capped logits e before any mask; then come the model's mask and the knockouts; then the softmax; then the
edits of probabilities. List order counts within a stage, and a scores edit listed after a probabilities edit
is refused. What a row cannot see stays 0 whatever an edit says.
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
    """A change of what a model computes, as a value."""

    steps: Steps

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The edit as JSON values."""


class AttentionEdit(Edit):
    """A change of attention at a site.

    Attributes:
        site: layers, heads, queries (rows) and keys (columns).
        steps: "prefill" (rows of the prompt), "decode" (the row of each generated token, queries "last",
            "reasoning" or "answer") or "all". "last" is the last row of every pass; the first generated token comes
            from the prompt's.
    """

    site: Site

    all_heads: ClassVar[bool] = False
    """Whether `on` needs the values of every head of the layer."""
    unsure: ClassVar[bool] = False
    """Whether only running it shows which rows it changes; rows that come out the same are then left alone."""

    @property
    @abstractmethod
    def stage(self) -> Stage:
        """Before or after the softmax."""

    @property
    def idle(self) -> bool:
        """Whether it changes nothing, whatever the attention."""
        return False

    @abstractmethod
    def on(
        self, values: Float[Tensor, "sample head row key"], cells: Bool[Tensor, "sample _ row key"]
    ) -> Float[Tensor, "sample head row key"]:
        """The edited values of a stage. Only what is in `cells` is taken over."""

    @property
    def decodes(self) -> bool:
        """Whether it applies to the row of each generated token."""
        return self.steps != "prefill" and any(q in ("last", *GENERATED) for q in self.site.groups[0])

    @property
    def stage_of_tokens(self) -> str | None:
        """The only kind of generated tokens whose rows it applies to, "reasoning" or "answer"; None for all."""
        named = [q for q in self.site.groups[0] if q in ("last", *GENERATED)]
        return str(named[0]) if self.decodes and len(set(named)) == 1 and named[0] != "last" else None

    @property
    def prefill_queries(self) -> tuple[Selector, ...]:
        """What it applies to among the prompt's rows."""
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

    "renormalise" sets the scores to −∞ before the softmax, so the other keys take the mass. "zero" sets the
    probabilities to 0 after it, so the row loses the mass. Either way the hidden keys get exactly 0. A
    knockout that hides nothing a row could see leaves the model's output bit-equal.

    Args:
        site: Layers, heads, queries (rows) and keys (columns). Some samples may have no such keys.
        mode: "renormalise" or "zero".
        steps: "prefill" (rows of the prompt), "decode" (the row of each generated token, queries "last",
            "reasoning" or "answer") or "all". "last" is the last row of every pass; the first generated token comes
            from the prompt's.

    Raises:
        EditError: An unknown mode or steps, steps "decode" without rows that are generated, or, when traced
            under "renormalise", a row whose every key would be hidden.
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
        """ "scores" when it renormalises, "probabilities" when it zeroes."""
        return "scores" if self.mode == "renormalise" else "probabilities"

    def on(
        self, values: Float[Tensor, "sample head row key"], cells: Bool[Tensor, "sample _ row key"]
    ) -> Float[Tensor, "sample head row key"]:
        """Zeros. A knockout of scores is carried out as a mask instead."""
        return torch.zeros_like(values)

    def to_dict(self) -> dict[str, Any]:
        """The edit as JSON values."""
        return {"knockout": {"site": self.site.to_dict(), "mode": self.mode, "steps": self.steps}}


@dataclass(frozen=True)
class _Scale(AttentionEdit):
    """Multiplies what the softmax takes or gives; each kind says which, and what it is called in JSON."""

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
        """Returns the values · factor."""
        return values * float(self.factor)

    def to_dict(self) -> dict[str, Any]:
        """The edit as JSON values."""
        return {
            self.json_name: {"site": self.site.to_dict(), "factor": float(self.factor), "steps": self.steps}
        }


@dataclass(frozen=True)
class ScaleWeights(_Scale):
    """Multiplies probabilities after the softmax; the rest of the row stays, so its sum changes.

    Args:
        site: Layers, heads, queries and keys.
        factor: What the site's probabilities are multiplied by, ≥ 0; 0 is `Knockout(site, "zero")`.
        steps: See `Knockout`.

    Raises:
        EditError: A factor that is no finite number ≥ 0, or unknown steps.
    """

    json_name = "scale_weights"

    @property
    def stage(self) -> Stage:
        """After the softmax."""
        return "probabilities"


@dataclass(frozen=True)
class ScaleScores(_Scale):
    """Multiplies scores before the softmax: e · factor. The other keys gain or lose what these do.

    On image keys this is the edit of AdaptVis (arXiv 2503.01773). A factor above 1 sharpens: it favours keys of
    positive score and disfavours keys of negative score; below 1 it evens them out; at 0 they all score 0.

    Args:
        site: Layers, heads, queries and keys.
        factor: What the site's scores are multiplied by, ≥ 0.
        steps: See `Knockout`.

    Raises:
        EditError: A factor that is no finite number ≥ 0, or unknown steps.
    """

    json_name = "scale_scores"

    @property
    def stage(self) -> Stage:
        """Before the softmax."""
        return "scores"


@dataclass(frozen=True)
class _Raise(AttentionEdit):
    """Adds α · a size to scores; each kind says whose size, and what it is called in JSON."""

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
    """Raises scores by a share of their size before the softmax: e + α·|e|. The edit of PAI (arXiv 2407.21771).

    Args:
        site: Layers, heads, queries and keys.
        alpha: α; positive draws attention to the keys, negative away from them.
        steps: See `Knockout`.

    Raises:
        EditError: An alpha that is no finite number, or unknown steps.
    """

    json_name = "boost"

    def on(
        self, values: Float[Tensor, "sample head row key"], cells: Bool[Tensor, "sample _ row key"]
    ) -> Float[Tensor, "sample head row key"]:
        """Returns e + α·|e|."""
        return values + float(self.alpha) * values.abs()


@dataclass(frozen=True)
class Guide(_Raise):
    """Raises scores by what the layer's heads make of a key together: e_h + α·mean over all heads h′ of |e_h′|.

    The edit of HGAI, "Devils in Middle Layers of LVLMs" (arXiv 2411.16724). The mean is over every head of the
    layer, whichever heads the site edits; with several score edits it is over the scores as edited so far.

    Args:
        site: Layers, heads, queries and keys.
        alpha: α; positive draws attention to keys that any head scores far from 0.
        steps: See `Knockout`.

    Raises:
        EditError: An alpha that is no finite number, or unknown steps.
    """

    json_name = "guide"
    all_heads = True

    def on(
        self, values: Float[Tensor, "sample head row key"], cells: Bool[Tensor, "sample _ row key"]
    ) -> Float[Tensor, "sample head row key"]:
        """Returns e + α·mean over heads of |e|."""
        return values + float(self.alpha) * values.abs().mean(dim=1, keepdim=True)


def check_steps(steps: Any, queries: Sequence[Selector]) -> None:
    """Refuse unknown steps, and steps that the queries have no rows in.

    Raises:
        EditError: Unknown steps, or steps that the queries have no rows in.
    """
    if not isinstance(steps, str) or steps not in get_args(Steps):
        raise EditError(f'steps is "prefill", "decode" or "all"; got {steps!r}.')
    if steps == "decode" and not any(q in ("last", *GENERATED) for q in queries):
        raise EditError(
            'rows of generated tokens are queries "last", "reasoning" or "answer"; with steps="decode", queries='
            f"{tuple(queries)!r} name none."
        )
    for name in GENERATED:
        if steps == "prefill" and name in queries:
            raise EditError(
                f'rows "{name}" exist only while the model generates; with steps="prefill", write steps="decode" or '
                'steps="all".'
            )


def check_last_of_generated(steps: Any, queries: Sequence[Selector], name: str) -> None:
    """Refuse steps, as `check_steps`, and any way but "last" to name rows of generated tokens.

    Raises:
        EditError: As `check_steps`, or rows of generated tokens with another name than "last".
    """
    check_steps(steps, queries)
    if steps != "prefill" and ("last" not in queries or any(one in GENERATED for one in queries)):
        raise EditError(
            f'{name} names each generated token as "last"; got {queries!r} with steps={steps!r}. Write "last", or '
            '["all", "last"] for the whole prompt as well; or steps="prefill" for the prompt alone.'
        )


def check_edits(edits: Any) -> None:
    """Refuse what is no list of edits.

    Raises:
        EditError: No list, or something in it that is no edit.
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
    """Refuse a scores edit listed after a probabilities edit.

    Raises:
        EditError: A scores edit after a probabilities edit, or something that is not an edit.
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
                f"{edit!r} works on scores, before the softmax, but is listed after {late!r}, which works on "
                "probabilities. List it first."
            )


def _number(value: Any, name: str, least: float = -math.inf) -> None:
    real = isinstance(value, Real) and not isinstance(value, bool)
    if not real or not abs(value) <= _LARGEST or value < least:  # pyright: ignore[reportOperatorIssue]
        bound = "" if least == -math.inf else f" ≥ {least}"
        raise EditError(f"{name} is a finite number{bound}, as float32 holds it; got {value!r:.200}.")


Function = Callable[[Tensor, Tensor], Tensor]
"""(values, cells) → new values; see `Apply`."""


@dataclass(frozen=True)
class Apply(AttentionEdit):
    """A function of your own on scores or probabilities.

        def flatten(values, cells):      # the site's keys share their mass evenly
            share = torch.where(cells, values, 0.0)
            return share.sum(-1, keepdim=True) / cells.sum(-1, keepdim=True).clamp(min=1)

        interp.Apply(interp.Site(layers=[3]), flatten, stage="probabilities")

    The function gets `values`, float32 (sample, head, row, key) of every head of the layer and every key, and
    `cells`, bool (sample, 1 or head, row, key), the site's; it returns values that broadcast to that shape.
    Only the cells are taken over. Keys of padding, and keys a row cannot see, hold scores all the same, and get
    no mass. The function must depend on nothing but its arguments, as a batch may be split.

    Args:
        site: Layers, heads, queries and keys.
        function: The function. It is part of a study's hash by its name, source code and default arguments; what
            it takes from its module is not, so it must take nothing that changes.
        stage: "scores" (scaled, soft-capped logits, before any mask) or "probabilities".
        steps: See `Knockout`.

    Raises:
        EditError: No function, an unknown stage or steps; when traced, a result of another shape or not finite
            (what the function raises comes through as it is); when hashed, a function whose source code does not
            say all: a lambda, a method, or one that takes values from the function around it.
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
        """What the function returns, checked."""
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
                f"{self.name} returned NaN or infinity. To hide keys use Knockout, which goes with the mask."
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """The edit as JSON values, the function by its name and a hash of its source code."""
        described = {"stage": self.stage, "function": self.name, "source_sha256": _digest(self.function)}
        return {"apply": {"site": self.site.to_dict(), **described, "steps": self.steps}}


def _digest(function: Any) -> str:
    """A hash of a function's source code and default arguments.

    Raises:
        EditError: These do not say what it computes.
    """
    name = getattr(function, "__qualname__", type(function).__name__)
    plain = isinstance(function, FunctionType) and function.__name__ != "<lambda>"
    if not plain or function.__closure__:
        held = ", ".join(getattr(getattr(function, "__code__", None), "co_freevars", ()))
        taken = f": it takes {held} from around it" if held else ""
        raise EditError(
            f"a study is hashed with the source code of its edits, which does not say what {name} computes{taken}. "
            "Define it with def in a file or a notebook cell, and give what varies as a default argument."
        )
    try:
        source = inspect.getsource(function)
    except OSError as error:
        raise EditError(
            f"a study is hashed with the source code of its edits, and {name} has none. Define it with def in a "
            "file or a notebook cell."
        ) from error
    defaults = [*(function.__defaults__ or ()), *sorted((function.__kwdefaults__ or {}).items())]
    return hashlib.sha256(f"{source}{defaults!r}".encode()).hexdigest()
