"""Some heads of a model as a value: the best k of a ranking, or a list; and the sets that are published."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interp.errors import SiteError, StudyError
from interp.inputs.notebook import block, facts
from interp.inputs.text import count
from interp.metrics import METRICS
from interp.run import Workers, canonical
from interp.study.head_ranking.result import Pairs
from interp.study.model_spec import ModelSpec, OpenModel
from interp.study.result import GridResult
from interp.study.study import Study, as_tuple
from interp.tracing import Site

__all__ = [
    "CHECKPOINTS",
    "PUBLISHED",
    "UNPUBLISHED",
    "HeadSet",
    "Pairs",
    "published_checkpoint",
    "published_heads",
]


SHOWN = 6
"""The maximum number of heads that a line of text names."""


@dataclass(frozen=True)
class HeadSet:
    """Heads of a model: a reference to the best `k` of a ranking, or listed (layer, head) pairs.

    A reference costs nothing until `resolve` runs its ranking, or reads the run when it is stored. Equal sets
    hash alike; `name`, `source` and `masked_layer` describe a set and take no part in that.

        heads = HeadRanking(data=validation).top(20);    pairs = heads.resolve("runs")
        heads = HeadSet.of([(15, 4), (16, 5)]);          pairs = heads.pairs

    Attributes:
        ranking: The ranking of the heads; None for a list.
        k: How many of the ranking's best heads; None for a list.
        listed: The (layer, head) pairs of a list, 0-based, best first.
        name: The set's name in tables.
        source: The source of a list.
        masked_layer: The layer whose attention VGRefine masks with these heads, 0-based; None where the source names
            none.

    Raises:
        StudyError: Both a ranking and a list are given, or neither; the ranking is on the test split; or `k` is no
            whole number ≥ 1.
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
            StudyError: There are no pairs, something is no pair of indices ≥ 0, or a head is named twice.
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
            said = f"{count(len(self.listed), 'head')} as (layer, head): {shown}"
        return f"HeadSet({f'{self.name!r}, ' if self.name else ''}{said})"

    def _repr_html_(self) -> str:
        """The view in a notebook: the heads by layer, or the ranking."""
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
        """The listed pairs, best first, as `Site(heads=…)` takes them.

        Raises:
            StudyError: The set is a reference; its pairs are known after `resolve`.
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
            workers: The number of processes, or an `interp.run.Workers`, in case the ranking has to run.
            progress: Whether to show progress on stderr.
            mllm: The ranking's model, if it is already open.

        Raises:
            StudyError: Fewer than k heads have a defined score.
        """
        if self.ranking is None:
            return self.listed
        return self.ranking.run(out, workers=workers, progress=progress, mllm=mllm).top(int(self.k or 0))

    def held_out(self, result: GridResult) -> bool:
        """Whether no group of the result took part in the choice, as far as is known.

        False for a list, because the samples that its heads were chosen on are unknown.
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
        """The set as JSON values: the pairs of a list, or k and the ranking with fingerprints of model and data.

        Args:
            mllm: The ranking's model, if it is already open.
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
    """The pairs as a tuple; empty where none are given."""
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


_HUATUO_7B = (
    *((15, 4), (16, 5), (15, 1), (10, 6), (4, 0), (15, 24), (19, 6), (8, 3), (19, 18), (18, 10)),
    *((4, 17), (16, 2), (16, 17), (16, 1), (14, 23), (6, 18), (18, 19), (6, 11), (0, 2), (17, 26)),
)

PUBLISHED: dict[str, HeadSet] = {
    found.name: found
    for found in (
        HeadSet.of(
            _HUATUO_7B,
            name="huatuogpt-vision-7b",
            source="arXiv 2603.14323, official code of VGRefine",
            masked_layer=16,
        ),
    )
}
"""Name of a set → its heads, best first, with the layer that VGRefine masks."""

CHECKPOINTS: dict[str, str] = {
    "FreedomIntelligence/HuatuoGPT-Vision-7B": "huatuogpt-vision-7b",
    "FreedomIntelligence/HuatuoGPT-Vision-7B-hf": "huatuogpt-vision-7b",
}
"""Hub id of a checkpoint → the name of its set."""

UNPUBLISHED: dict[str, str] = {
    "FreedomIntelligence/HuatuoGPT-Vision-34B": (
        "The paper masks several layers of this model, which its Appendix P names; the numbers are lost in our copy, "
        "and its heads are not published. Give the layers you read there: --layers, or VGRefine(layers=…)."
    ),
}
"""Hub id → a sentence about a checkpoint that the paper used without publishing all of its settings."""
UNPUBLISHED["FreedomIntelligence/HuatuoGPT-Vision-34B-hf"] = UNPUBLISHED[
    "FreedomIntelligence/HuatuoGPT-Vision-34B"
]

_CONVERTED = re.compile(r"^Converted from `([^`]+)` \(.* layout\) by interp ", re.MULTILINE)


def published_heads(name: str) -> HeadSet:
    """The published set of heads of this name, with its source and the layer that VGRefine masks.

    `"huatuogpt-vision-7b"`: the 20 heads of VGRefine, best first, and layer 16, all 0-based.

    Raises:
        StudyError: There is no set of that name.

    >>> published_heads("huatuogpt-vision-7b").pairs[:2]
    ((15, 4), (16, 5))
    """
    if not isinstance(name, str) or name not in PUBLISHED:
        raise StudyError(
            f"heads are published for {', '.join(PUBLISHED)}; got {name!r}. Rank the heads of another model "
            f"with interp.HeadRanking, or list them with HeadSet.of([…])."
        )
    return PUBLISHED[name]


def published_checkpoint(model: ModelSpec) -> str | None:
    """The id in `CHECKPOINTS` of the checkpoint that a model is known to be; None where that is not known.

    Heads of one checkpoint mean nothing in another, and a folder's name proves nothing, because a fine-tuned copy often
    keeps it. A model is known by the hub id itself, by a snapshot in the hub's cache, or by the model card of a folder
    that `interp convert` made from the hub id. A model with a LoRA adapter or another vision tower is never known,
    because those change what heads do.
    """
    if model.lora is not None or model.vision_tower is not None:
        return None
    folder = Path(model.id)
    ids = {one.lower(): one for one in CHECKPOINTS}
    if not folder.is_dir():
        return ids.get(model.id.lower())
    for part in folder.resolve().parts:
        if part.startswith("models--"):
            return ids.get(part.removeprefix("models--").replace("--", "/").lower())
    card = folder / "README.md"
    found = _CONVERTED.search(card.read_text("utf-8", errors="replace")) if card.is_file() else None
    return ids.get(found[1].lower()) if found else None
