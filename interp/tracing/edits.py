"""What to change during a trace, as values, and what they become once layers and tokens are known.

Edits come in two stages: scores (before the softmax) and probabilities (after it). List order counts within a
stage, and a scores edit listed after a probabilities edit is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from jaxtyping import Bool, Int
from torch import Tensor

from interp.errors import EditError
from interp.tracing.site import Site

__all__ = ["Edit", "Hiding", "Knockout", "Stage", "check_order"]

Stage = Literal["scores", "probabilities"]


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
        steps: "prefill": the rows of the prompt. Rows of generated tokens cannot be knocked out yet.

    Raises:
        EditError: An unknown mode, steps other than "prefill", or, when traced under "renormalise", a row
            whose every key would be hidden.
    """

    site: Site
    mode: Literal["renormalise", "zero"] = "renormalise"
    steps: Literal["prefill"] = "prefill"

    def __post_init__(self) -> None:
        if not isinstance(self.site, Site):
            raise EditError(f"Knockout takes a Site, as in Knockout(Site(layers=[16])); got {self.site!r}.")
        if self.mode not in ("renormalise", "zero"):
            raise EditError(f'mode is "renormalise" or "zero"; got {self.mode!r}.')
        if self.steps != "prefill":
            raise EditError(
                f'knockouts apply to the prompt\'s rows, steps="prefill"; got {self.steps!r}. Rows of '
                "generated tokens cannot be knocked out in this version."
            )

    @property
    def stage(self) -> Stage:
        """ "scores" when it renormalises, "probabilities" when it zeroes."""
        return "scores" if self.mode == "renormalise" else "probabilities"

    def to_dict(self) -> dict[str, Any]:
        """The edit as JSON values."""
        return {"knockout": {"site": self.site.to_dict(), "mode": self.mode, "steps": self.steps}}


@dataclass(frozen=True, eq=False)
class Hiding:
    """A knockout of one layer, by padded row and column. None for `heads` means every head."""

    stage: Stage
    heads: Bool[Tensor, " head"] | None
    queries: Bool[Tensor, "sample query"]
    keys: Bool[Tensor, "sample key"]

    def block(
        self, rows: Int[Tensor, "sample row"], heads: Int[Tensor, " chosen_head"]
    ) -> Bool[Tensor, "sample _ row key"]:
        """What is hidden in a block of rows and heads; the head axis is 1 when it does not matter."""
        hidden = self.queries.gather(1, rows)[:, None, :, None] & self.keys[:, None, None, :]
        return hidden if self.heads is None else hidden & self.heads[heads][None, :, None, None]


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
