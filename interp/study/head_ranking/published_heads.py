"""Published sets of heads, and of which checkpoints they are."""

from __future__ import annotations

import re
from pathlib import Path

from interp.errors import StudyError
from interp.study.head_ranking.head_set import HeadSet
from interp.study.model_spec import ModelSpec

__all__ = ["CHECKPOINTS", "PUBLISHED", "UNPUBLISHED", "published_checkpoint", "published_heads"]

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
"""Name → the heads, best first, and the layer that VGRefine masks with them."""

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
"""Hub id → what to say of a checkpoint that the paper used without publishing all of its settings."""
UNPUBLISHED["FreedomIntelligence/HuatuoGPT-Vision-34B-hf"] = UNPUBLISHED[
    "FreedomIntelligence/HuatuoGPT-Vision-34B"
]

_CONVERTED = re.compile(r"^Converted from `([^`]+)` \(.* layout\) by interp ", re.MULTILINE)


def published_heads(name: str) -> HeadSet:
    """A published set of heads by the model's name, with its source and the layer it masks.

    `"huatuogpt-vision-7b"`: the 20 heads of VGRefine, best first, and layer 16, all 0-based.

    Raises:
        StudyError: No set of that name.

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
    """The hub id of the checkpoint that a model is known to be, of those in `CHECKPOINTS`; None where it is not known.

    Heads of one checkpoint mean nothing in another, and a folder's name proves nothing: a fine-tuned copy often has the
    same. Known are the hub id itself, a snapshot in the hub's cache, and a folder that `interp convert` made of the hub
    id, by its model card. Not with a LoRA adapter or another vision tower: those change what heads do.
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
