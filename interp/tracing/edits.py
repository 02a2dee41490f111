"""What to change during a trace, as values, and what they become once layers and tokens are known.

Edits come in two stages: scores (before the softmax) and probabilities (after it). List order counts within a
stage, and a scores edit listed after a probabilities edit is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.errors import EditError
from interp.tracing.site import Selector, Site

__all__ = ["Edit", "Hiding", "Knockout", "Stage", "Steps", "check_order"]

Stage = Literal["scores", "probabilities"]
Steps = Literal["prefill", "decode", "all"]


@runtime_checkable
class Edit(Protocol):
    """A change of attention at a site. `stage` says when it applies."""

    @property
    def site(self) -> Site:
        """Where it applies."""
        ...

    @property
    def stage(self) -> Stage:
        """Before or after the softmax."""
        ...


@dataclass(frozen=True)
class Knockout:
    """Hides the site's keys from the site's queries.

    "renormalise" sets the scores to −∞ before the softmax, so the other keys take the mass. "zero" sets the
    probabilities to 0 after it, so the row loses the mass. Either way the hidden keys get exactly 0. A
    knockout that hides nothing a row could see leaves the model's output bit-equal.

    Args:
        site: Layers, heads, queries (rows) and keys (columns). Keys may be none for some samples.
        mode: "renormalise" or "zero".
        steps: "prefill" (rows of the prompt), "decode" (the row of each generated token, queries "last" or
            "answer") or "all". "last" is the last row of every pass; the first generated token comes from the
            prompt's.

    Raises:
        EditError: An unknown mode or steps, steps "decode" without rows that are generated, or, when traced
            under "renormalise", a row whose every key would be hidden.
    """

    site: Site
    mode: Literal["renormalise", "zero"] = "renormalise"
    steps: Steps = "prefill"

    def __post_init__(self) -> None:
        if not isinstance(self.site, Site):
            raise EditError(f"Knockout takes a Site, as in Knockout(Site(layers=[16])); got {self.site!r}.")
        if self.mode not in ("renormalise", "zero"):
            raise EditError(f'mode is "renormalise" or "zero"; got {self.mode!r}.')
        if self.steps not in get_args(Steps):
            raise EditError(f'steps is "prefill", "decode" or "all"; got {self.steps!r}.')
        if self.steps == "decode" and not self.decodes:
            raise EditError(
                'rows of generated tokens are queries "last" or "answer"; with steps="decode", queries='
                f"{self.site.queries!r} name none."
            )

    @property
    def decodes(self) -> bool:
        """Whether it applies to the row of each generated token."""
        return self.steps != "prefill" and any(q in ("last", "answer") for q in self.site.groups[0])

    @property
    def prefill_queries(self) -> tuple[Selector, ...]:
        """What it applies to among the prompt's rows."""
        if self.steps == "decode":
            return ()
        generated = ("answer",) if self.decodes else ()
        return tuple(q for q in self.site.groups[0] if q not in generated)

    @property
    def stage(self) -> Stage:
        """ "scores" when it renormalises, "probabilities" when it zeroes."""
        return "scores" if self.mode == "renormalise" else "probabilities"

    def to_dict(self) -> dict[str, Any]:
        """The edit as JSON values."""
        return {"knockout": {"site": self.site.to_dict(), "mode": self.mode, "steps": self.steps}}


@dataclass(frozen=True, eq=False)
class Hiding:
    """A knockout of one layer in one pass, by padded row and column. None for `heads` means every head.

    Columns beyond `keys`, those of generated tokens, are not hidden.
    """

    stage: Stage
    heads: Bool[Tensor, " head"] | None
    queries: Bool[Tensor, "sample query"]
    keys: Bool[Tensor, "sample key"]

    def block(
        self, rows: Int[Tensor, "sample row"], heads: Int[Tensor, " chosen_head"], n_keys: int
    ) -> Bool[Tensor, "sample _ row all_keys"]:
        """What is hidden in a block of rows and heads; the head axis is 1 when it does not matter."""
        hidden = self.queries.gather(1, rows)[:, None, :, None] & self.columns(n_keys)
        return hidden if self.heads is None else hidden & self.heads[heads][None, :, None, None]

    def everywhere(self, n_keys: int) -> Bool[Tensor, "sample 1 query all_keys"]:
        """What is hidden in every row of the pass, whatever the head."""
        return self.queries[:, None, :, None] & self.columns(n_keys)

    def columns(self, n_keys: int) -> Bool[Tensor, "sample 1 1 all_keys"]:
        """The hidden columns of a pass with `n_keys` keys."""
        missing = n_keys - self.keys.shape[1]
        return torch.nn.functional.pad(self.keys, (0, missing))[:, None, None, :]


def check_order(edits: Sequence[Edit]) -> None:
    """Refuse a scores edit listed after a probabilities edit.

    Raises:
        EditError: As said, or something that is not an edit.
    """
    late: Edit | None = None
    for edit in edits:
        if not isinstance(edit, Knockout):
            raise EditError(f"edits= takes edits such as interp.Knockout(site); got {edit!r}.")
        if edit.stage == "probabilities":
            late = edit
        elif late is not None:
            raise EditError(
                f"{edit!r} works on scores, before the softmax, but is listed after {late!r}, which works on "
                "probabilities. List it first."
            )
