"""Original layouts: which one a folder is in, what its settings say, and opening a checkpoint by name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from interp.errors import ModelError
from interp.models.checkpoints.checkpoint import Checkpoint
from interp.models.checkpoints.hub import fetched, small_files
from interp.models.configs import original_layout, raw_config

__all__ = [
    "LAYOUTS",
    "Layout",
    "Setting",
    "check_settings",
    "config_of",
    "layouts",
    "licence",
    "open_original",
    "recognise",
    "refuse_tower",
]

LAYOUTS: tuple[str, ...] = (
    "interp.models.checkpoints.llava_kinds:LlavaLora",
    "interp.models.checkpoints.llava_kinds:LlavaMed",
    "interp.models.checkpoints.llava_kinds:HuatuoBio",
    "interp.models.checkpoints.llava_kinds:HuatuoVision7",
    "interp.models.checkpoints.llava_kinds:HuatuoVision34",
    "interp.models.checkpoints.llava_kinds:LlavaTri",
    "interp.models.checkpoints.llava_kinds:LlavaV15",
    "interp.models.checkpoints.vila_layout:Vila",
    "interp.models.checkpoints.internvl_layout:InternVl",
)
"""The layouts, module:class, in the order they are asked; imported when they are first asked for."""


@runtime_checkable
class Layout(Protocol):
    """A way in which some original code saved its models."""

    name: str

    def matches(self, folder: Path) -> bool:
        """Whether a folder is in this layout, from the names of its files and its config.json alone."""
        ...

    def open(
        self, folder: Path, vision_tower: str | Path | None = None, *, download: bool = False
    ) -> Checkpoint:
        """The folder's checkpoint; weights are not read.

        Args:
            folder: a folder that `matches`.
            vision_tower: folder or hub id of a tower that replaces the one the config names. A hub id may be
                downloaded.
            download: whether parts that the config names by hub id may be downloaded; else they must be on hand.

        Raises:
            ModelError: A part is not on hand, or the config is not understood.
        """
        ...


def layouts() -> Iterator[Layout]:
    """The known layouts, one by one."""
    for path in LAYOUTS:
        module, name = path.split(":")
        yield getattr(import_module(module), name)()


def recognise(folder: Path) -> Layout | None:
    """The layout of a folder; None for transformers' own, and for what none of the layouts knows."""
    return next((layout for layout in layouts() if layout.matches(folder)), None)


def config_of(folder: Path) -> dict[str, Any]:
    """What a folder's config.json holds; empty where there is none, or no JSON object."""
    try:
        found = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


Setting = tuple[str, Any, tuple[Any, ...]]
"""Name, value found, values that are computed here; the first of these is the usual one."""


def check_settings(folder: Path, found: Iterable[Setting], *, known: str) -> None:
    """Raise `ModelError` for settings under which the original code computes something else than here.

    Args:
        folder: the checkpoint's.
        found: the settings.
        known: the models whose settings are known, for the message.
    """
    wrong = [f"{name}={value!r} (known: {good[0]!r})" for name, value, good in found if value not in good]
    if wrong:
        raise ModelError(
            f"{folder} has settings that are not computed here: {', '.join(wrong)}. Known are those of {known}. For "
            "others take a copy in transformers' layout, or build the model yourself and use interp.wrap(hf_model, "
            "processor, adapter=…)."
        )


def refuse_tower(folder: Path, vision_tower: str | Path | None) -> None:
    """Raise `ModelError` where a tower is given to a layout that holds its own."""
    if vision_tower is not None:
        raise ModelError(
            f"vision_tower={str(vision_tower)!r} has no place in {folder}, which holds a vision tower that was tuned "
            "with the rest. Leave it out."
        )


def licence(folder: Path) -> str | None:
    """What a model card's header, or else the first line of a licence file, says; None without either."""
    card = folder / "README.md"
    head = card.read_text("utf-8", errors="replace") if card.is_file() else ""
    if head.startswith("---"):
        header = head[3:].split("\n---", 1)[0]
        named = re.search(r"^license(?:_name)?:\s*(\S.*)$", header, re.MULTILINE)
        if named is not None:
            return named.group(1).strip().strip("'\"")
    for path in sorted(folder.glob("LICEN[SC]E*")):
        lines = [line.strip() for line in path.read_text("utf-8", errors="replace").splitlines()]
        first = next((line for line in lines if line), None)
        if first is not None:
            return first
    return None


def open_original(
    where: str, options: Mapping[str, Any], vision_tower: str | Path | None = None
) -> Checkpoint | None:
    """The checkpoint at a folder or hub id; None where it is not in an original layout.

    Of a hub id only config.json is fetched before its layout is known, then its small files, then its weights.

    Args:
        where: a folder or hub id.
        options: `local_files_only` and `revision`, as `from_pretrained` takes them.
        vision_tower: folder or hub id that replaces the tower the config names.

    Raises:
        ModelError: It is in an original layout, but a part is missing or not understood, or the hub is out of reach.
    """
    local = Path(where).is_dir()
    if not local and original_layout(raw_config(where, options)) is None:
        return None
    revision = options.get("revision")
    folder = Path(where) if local else small_files(where, revision)
    layout = recognise(folder)
    if layout is None:
        return None
    if not local:
        folder = fetched(where, revision)
    return layout.open(folder, vision_tower, download=not local)
