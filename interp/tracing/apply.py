"""An edit of attention by a function of the user's own."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any, ClassVar, get_args

from jaxtyping import Bool, Float
from torch import Tensor

from interp.errors import EditError
from interp.tracing.edits import AttentionEdit, Stage, Steps
from interp.tracing.site import Site

__all__ = ["Apply"]

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
            it takes from its module is not, so let that be nothing that changes.
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
        if self.stage not in get_args(Stage):
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
        raise EditError(
            f"a study is hashed with the source code of its edits, which does not say what {name} computes"
            + (f": it takes {held} from around it" if held else "")
            + ". Define it with def in a file or a notebook cell, and give what varies as a default argument."
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
