"""What `interp models` says of the built-in families, stored in a file: importing their adapters takes seconds.

A test compares the file with the adapters; `python -m interp.conformance.family_facts` writes it again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import entry_points, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from packaging.version import Version

__all__ = [
    "FamilyFacts",
    "every_family",
    "facts_of",
    "known_types",
    "read_facts",
    "without_maps",
    "write_facts",
]

PATH = Path(__file__).parent / "family_facts.json"
GROUP = "interp.adapters"
"""The entry point group of adapters of other packages."""
MAPPINGS = ("auto_mappings.py", "configuration_auto.py")
"""The files of transformers that name its model types, with the class of each one's config."""


@dataclass(frozen=True)
class FamilyFacts:
    """What a table of families shows of one adapter.

    Attributes:
        name: The family.
        layout: One line on its image tokens.
        examples: Checkpoints of the family.
        maps: What a map is made of: "self", "cross" or "composed" (`interp.models.base.Maps`).
        attends: What a row of the prompt may attend to (`interp.models.base.Attends`).
        video: Whether a sample may show a video.
        tower: Whether the vision tower's own attention can be read.
        several_images: Whether a sample may have several images.
        model_types: The `model_type` of its configs, without those of this package's own classes.
        needs: The oldest transformers that the family works with; "" for any.
    """

    name: str
    layout: str
    examples: tuple[str, ...]
    maps: str
    attends: str
    video: bool
    tower: bool
    several_images: bool
    model_types: tuple[str, ...]
    needs: str

    def is_available(self, known: frozenset[str]) -> bool:
        """Whether the installed transformers can build the family.

        Args:
            known: The model types of the installed transformers (`known_types`).
        """
        recent = not self.needs or Version(version("transformers")) >= Version(self.needs)
        return recent and (not self.model_types or not known.isdisjoint(self.model_types))


def facts_of(adapter: Any) -> FamilyFacts:
    """Returns the facts of an adapter."""
    from interp.models.adapter import NEEDS

    types = tuple(one for one in getattr(adapter, "model_types", ()) if not one.startswith("interp_"))
    return FamilyFacts(
        name=adapter.name,
        layout=getattr(adapter, "layout", "") or "",
        examples=tuple(getattr(adapter, "examples", ())),
        maps=getattr(adapter, "maps", "self"),
        attends=getattr(adapter, "attends", "causal"),
        video=bool(getattr(adapter, "video", False)),
        tower=not getattr(adapter, "unread_tower", "") and hasattr(adapter, "patches"),
        several_images=bool(getattr(adapter, "several_images", True)),
        model_types=types,
        needs=NEEDS.get(adapter.name, ""),
    )


def every_family() -> list[FamilyFacts]:
    """Returns the facts of every family: those of installed packages, which are imported, then the built-in ones."""
    if not entry_points(group=GROUP):
        return list(read_facts())
    from interp.models.adapter import installed

    return [*map(facts_of, installed().values()), *read_facts()]


def read_facts() -> tuple[FamilyFacts, ...]:
    """Returns the facts of the built-in families from the file."""
    lists = ("examples", "model_types")
    return tuple(
        FamilyFacts(**{**one, **{name: tuple(one[name]) for name in lists}}) for one in _stored()["families"]
    )


def without_maps() -> list[str]:
    """Returns the model types without a map that can answer, from the file."""
    return list(_stored()["without_maps"])


def known_types() -> frozenset[str]:
    """Returns the model types of the installed transformers, read from its files without importing it."""
    spec = find_spec("transformers")
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    files = [Path(folder) / "models" / "auto" / name for folder in folders for name in MAPPINGS]
    texts = [file.read_text(encoding="utf-8") for file in files if file.is_file()]
    found = frozenset(name for text in texts for name in re.findall(r'"([\w.-]+)", "\w+Config"', text))
    if found:
        return found
    from transformers import CONFIG_MAPPING

    return frozenset(CONFIG_MAPPING)


def write_facts(path: Path = PATH) -> None:
    """Writes the facts of the built-in families to the file."""
    from interp.models.adapter import built_in
    from interp.models.refusals import without_maps

    found = {"families": [asdict(facts_of(one)) for one in built_in()], "without_maps": without_maps()}
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _stored(path: Path = PATH) -> Mapping[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    write_facts()
