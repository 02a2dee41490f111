"""Some heads of a model as a value: the best k of a ranking, or a list."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from interp.errors import SiteError, StudyError
from interp.inputs.notebook import block, facts
from interp.metrics import METRICS
from interp.run import Workers, canonical
from interp.study.head_ranking.result import Pairs
from interp.study.model_spec import OpenModel
from interp.study.result import GridResult
from interp.study.study import Study, as_tuple
from interp.tracing import Site

__all__ = ["HeadSet", "Pairs"]

SHOWN = 6
"""Heads that a line of text names."""


@dataclass(frozen=True)
class HeadSet:
    """Heads of a model: a reference to the best `k` of a ranking, or listed (layer, head) pairs.

    A reference costs nothing until `resolve` runs its ranking, or reads the run when it is stored. Equal sets
    hash alike; `name`, `source` and `masked_layer` describe a set and take no part in that.

        heads = HeadRanking(data=validation).top(20);    pairs = heads.resolve("runs")
        heads = HeadSet.of([(15, 4), (16, 5)]);          pairs = heads.pairs

    Attributes:
        ranking: What ranks the heads; None for a list.
        k: How many of its best; None for a list.
        listed: The pairs of a list, in order of rank.
        name: What tables call the set.
        source: Where a list is from.
        masked_layer: The layer whose attention VGRefine masks with these heads, where the source names one.

    Raises:
        StudyError: Both a ranking and a list, or neither; a ranking on the test split; `k` that is no whole
            number ≥ 1.
    """

    ranking: Any = None  # a HeadRanking, whose file imports this one
    k: int | None = None
    listed: Pairs = ()
    name: str = field(default="", compare=False)
    source: str = field(default="", compare=False)
    masked_layer: int | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "listed", _checked(self.listed))
        if (self.ranking is None) == (not self.listed):
            raise StudyError(
                "a HeadSet is either the top of a ranking or a list of heads. Write HeadRanking(…).top(20) or "
                "HeadSet.of([(15, 4), …])."
            )
        if self.ranking is None:
            return
        split = getattr(self.ranking, "split", None)
        if not isinstance(self.ranking, Study) or split is None:
            raise StudyError(
                f"ranking is an interp.HeadRanking; got {self.ranking!r}. Write HeadRanking(data=…).top(20)."
            )
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 1:
            raise StudyError(f"top(k) takes a whole number of heads ≥ 1; got {self.k!r}.")
        if split == "test":
            raise StudyError(
                'the top heads are chosen on a validation split; got split="test". The best of many heads are '
                "too good on the samples they were found on, and then no samples are left to show them on. "
                'Choose on split="validation" and report on "test"; to describe the test samples read '
                "ranking.run().table(k)."
            )

    @classmethod
    def of(
        cls,
        pairs: Iterable[tuple[int, int]],
        *,
        name: str = "",
        source: str = "",
        masked_layer: int | None = None,
    ) -> HeadSet:
        """The listed (layer, head) pairs, 0-based, best first.

        Raises:
            StudyError: No pairs, something that is no pair of indices ≥ 0, or a head named twice.
        """
        return cls(listed=_checked(pairs), name=name, source=source, masked_layer=masked_layer)

    def __len__(self) -> int:
        return len(self.listed) if self.k is None else self.k

    def __repr__(self) -> str:
        if self.ranking is not None:
            said = f"top {self.k} of {self.ranking.title!r}, {self.ranking.label}, by {self.ranking.metric}"
        else:
            left = len(self.listed) - SHOWN
            shown = ", ".join(map(str, self.listed[:SHOWN])) + (f", and {left} more" if left > 0 else "")
            said = f"{len(self.listed)} heads as (layer, head): {shown}"
        return f"HeadSet({f'{self.name!r}, ' if self.name else ''}{said})"

    def _repr_html_(self) -> str:
        """What a notebook shows: the heads by layer, or what ranks them."""
        layers: dict[int, list[int]] = {}
        for layer, head in self.listed:
            layers.setdefault(layer, []).append(head)
        told = {"source": self.source, "masked layer": self.masked_layer}
        rows = {
            f"layer {layer}": ", ".join(f"head {head}" for head in layers[layer]) for layer in sorted(layers)
        }
        return block(repr(self), facts(told | rows))

    @property
    def pairs(self) -> Pairs:
        """The listed pairs, best first; what `Site(heads=…)` takes.

        Raises:
            StudyError: The set is a reference, whose pairs are known once it is resolved.
        """
        if self.ranking is not None:
            raise StudyError(
                f"which heads are the top {self.k} of {self.ranking.label} is known once the ranking has run: "
                f'write pairs = heads.resolve("runs"), and Site(heads=pairs).'
            )
        return self.listed

    def resolve(
        self,
        out: str | os.PathLike[str] = "runs",
        *,
        workers: int | Workers = 1,
        progress: bool = True,
        mllm: OpenModel | None = None,
    ) -> Pairs:
        """The (layer, head) pairs in order of rank; a ranking whose run is under `out` is not run again.

        Args:
            out: The folder that holds runs.
            workers: Processes, or an `interp.run.Workers`, when the ranking has to run.
            progress: Show progress on stderr.
            mllm: The ranking's model, when it is open already.

        Raises:
            StudyError: Fewer than k heads have a defined score.
        """
        if self.ranking is None:
            return self.listed
        return self.ranking.run(out, workers=workers, progress=progress, mllm=mllm).top(int(self.k or 0))

    def held_out(self, result: GridResult) -> bool:
        """Whether it is known that no group of the result took part in the choice.

        False for a list: what its heads were chosen on is not known here.
        """
        return self.ranking is not None and not self._groups & result.groups

    def sentence(self, result: GridResult) -> str:
        """How the heads were chosen, for a caption."""
        if self.ranking is None:
            whose = f" ({self.source})" if self.source else ""
            return f"{len(self)} heads of {self.name or 'a list'}{whose}; what they were chosen on is not known here."
        how = f"the top {self.k} heads by mean {METRICS[self.ranking.metric].label} on"
        if self.held_out(result):
            said = f"{self.ranking.data.split} " if self.ranking.data.split else ""
            return f"{how} {said}samples of {self.ranking.data.name} that share no group with these."
        return (
            f"{how} samples that share groups with these. Descriptive only: the best of many heads flatter; "
            f"choose on a validation split to make a claim."
        )

    def to_dict(self, mllm: OpenModel | None = None) -> dict[str, Any]:
        """The set as JSON: the pairs of a list; k and the whole ranking, by fingerprints, of a reference.

        Args:
            mllm: The ranking's model, when it is open already.
        """
        if self.ranking is None:
            return {"heads": "listed", "pairs": [list(pair) for pair in self.listed]}
        return {"heads": "ranking", "k": self.k, "ranking": self.ranking.to_dict(mllm)}

    def to_json(self, mllm: OpenModel | None = None) -> str:
        """The canonical text of `to_dict`."""
        return canonical(self.to_dict(mllm))

    @property
    def _groups(self) -> frozenset[str]:
        return frozenset() if self.ranking is None else frozenset(self.ranking.data.groups)


def _checked(pairs: Any) -> Pairs:
    """The pairs as a tuple; none where none are given."""
    given = as_tuple(pairs)
    if isinstance(given, tuple) and not given:
        return ()
    try:
        found = Site(heads=list(given) if isinstance(given, tuple) else given).pairs
    except SiteError as error:
        raise StudyError(f"heads are (layer, head) pairs such as [(15, 4), (16, 5)]: {error}") from error
    if found is None:
        raise StudyError(f"heads are (layer, head) pairs such as [(15, 4), (16, 5)]; got {pairs!r}.")
    if len(found) < len(given):
        twice = sorted({pair for pair in found if sum(tuple(one) == pair for one in given) > 1})
        raise StudyError(f"each head is named once; got {twice} more than once. Drop the repeats.")
    return found
