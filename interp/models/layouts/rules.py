"""From the names an original checkpoint uses to transformers' names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from interp.errors import ModelError
from interp.models.layouts.tensors import Tensors

__all__ = ["IGNORED", "Part", "Rule", "Step"]

Change = Callable[[Tensor], Sequence[Tensor]]
"""One tensor into those of the new names; pure, and true to shapes on the meta device."""


@dataclass(frozen=True)
class Rule:
    r"""What becomes of the tensors whose whole name matches a pattern.

    Args:
        pattern: a regular expression, such as `r"model\.layers\.(.+)"`.
        to: the new name, or names, as replacements (`r"model.language_model.layers.\1"`); none: ignored on purpose.
        change: makes the tensors of those names out of the one; None keeps it as it is.
    """

    pattern: str
    to: str | tuple[str, ...] = ()
    change: Change | None = None

    def targets(self, name: str) -> tuple[str, ...] | None:
        """The new names; None where the rule is about other tensors."""
        found = re.fullmatch(self.pattern, name)
        if found is None:
            return None
        return tuple(found.expand(one) for one in ((self.to,) if isinstance(self.to, str) else self.to))


IGNORED: tuple[Rule, ...] = (Rule(r".*rotary_emb\.inv_freq"), Rule(r".*position_ids"))
"""Buffers that old checkpoints carry and transformers computes anew."""


@dataclass(frozen=True)
class Step:
    """One tensor on its way: `names` None means that no rule speaks of it, empty that it is ignored."""

    source: str
    names: tuple[str, ...] | None
    rule: Rule | None


@dataclass(frozen=True, eq=False)
class Part:
    """Some files of a checkpoint and the rules for the names in them; the first rule that matches counts."""

    tensors: Tensors
    rules: tuple[Rule, ...]

    def steps(self) -> Iterator[Step]:
        """Every tensor with its new names, in the order of the files."""
        for source in self.tensors.names():
            yield next(
                (Step(source, to, rule) for rule in self.rules if (to := rule.targets(source)) is not None),
                Step(source, None, None),
            )

    def metas(self, step: Step) -> list[tuple[str, Tensor]]:
        """New names with shapes and dtypes; nothing is read."""
        return self._made(step, self.tensors.meta(step.source))

    def values(self, step: Step) -> list[tuple[str, Tensor]]:
        """New names with their tensors."""
        return self._made(step, self.tensors.read(step.source))

    def _made(self, step: Step, tensor: Tensor) -> list[tuple[str, Tensor]]:
        names = step.names or ()
        change = None if step.rule is None else step.rule.change
        try:
            made = [tensor] * len(names) if change is None else list(change(tensor))
            return list(zip(names, made, strict=True))
        except (
            RuntimeError,
            ValueError,
            IndexError,
        ) as error:  # torch's words for a shape that cannot be cut
            raise ModelError(
                f"{step.source} of shape {tuple(tensor.shape)} cannot be made into {' and '.join(names)} ({error}). "
                "Does its config.json describe other sizes?"
            ) from error
