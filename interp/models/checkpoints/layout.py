"""Original layouts: recognises the layout of a folder, checks its settings, and opens a checkpoint by name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from interp.errors import InterpError, ModelError
from interp.models.checkpoints.checkpoint import Checkpoint, fetched, small_files
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
"""The layouts, module:class, in the order in which they are tried; imported on first use."""


@runtime_checkable
class Layout(Protocol):
    """The way in which an original code saves its models."""

    name: str

    def matches(self, folder: Path) -> bool:
        """Whether a folder is in this layout, from the names of its files and its config.json alone."""
        ...

    def open(
        self, folder: Path, vision_tower: str | Path | None = None, *, download: bool = False
    ) -> Checkpoint:
        """The folder's checkpoint; weights are not read.

        Args:
            folder: A folder that `matches`.
            vision_tower: Folder or hub id of a tower to use instead of the one that the config names. A hub id may
                be downloaded.
            download: Whether parts that the config names by hub id may be downloaded.

        Raises:
            ModelError: A part is not available, or the config is not supported.
        """
        ...


def layouts() -> Iterator[Layout]:
    """Yields the known layouts."""
    for path in LAYOUTS:
        module, name = path.split(":")
        yield getattr(import_module(module), name)()


def recognise(folder: Path) -> Layout | None:
    """Returns the layout of a folder; None for transformers' own and for unknown layouts."""
    return next((layout for layout in layouts() if layout.matches(folder)), None)


def config_of(folder: Path) -> dict[str, Any]:
    """Returns the content of a folder's config.json; empty if there is none or it is not a JSON object."""
    try:
        found = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


Setting = tuple[str, Any, tuple[Any, ...]]
"""Name, value found, and supported values, of which the first is the usual one."""


def check_settings(folder: Path, found: Iterable[Setting], *, known: str) -> None:
    """Raises `ModelError` for settings with which the original code computes something else than the classes here.

    Args:
        folder: The checkpoint's folder.
        found: The settings.
        known: The models whose settings are supported, for the message.
    """
    wrong = [f"{name}={value!r} (known: {good[0]!r})" for name, value, good in found if value not in good]
    if wrong:
        raise ModelError(
            f"{folder} has settings that are not supported: {', '.join(wrong)}. Supported are those of {known}. For "
            "others take a copy in transformers' layout, or build the model yourself and use interp.wrap(hf_model, "
            "processor, adapter=…)."
        )


def refuse_tower(folder: Path, vision_tower: str | Path | None) -> None:
    """Raises `ModelError` if a tower is given for a layout that holds its own."""
    if vision_tower is not None:
        raise ModelError(
            f"vision_tower={str(vision_tower)!r} has no place in {folder}, which holds a vision tower that was tuned "
            "with the rest. Leave it out."
        )


def licence(folder: Path) -> str | None:
    """Returns the licence in a model card's header, or else the first line of a licence file; None without either."""
    card = folder / "README.md"
    head = card.read_text("utf-8", errors="replace") if card.is_file() else ""
    if head.startswith("---"):
        header = head[3:].split("\n---", 1)[0]
        named = re.search(r"^license(?:_name)?:\s*(\S.*)$", header, re.MULTILINE)
        if named is not None:
            return named.group(1).strip().strip("'\"")
    for path in sorted(one for one in folder.glob("LICEN[SC]E*") if one.is_file()):
        lines = [line.strip() for line in path.read_text("utf-8", errors="replace").splitlines()]
        first = next((line for line in lines if line), None)
        if first is not None:
            return first
    return None


def open_original(
    where: str, options: Mapping[str, Any], vision_tower: str | Path | None = None
) -> Checkpoint | None:
    """Returns the checkpoint at a folder or hub id; None if it is not in an original layout.

    For a hub id only config.json is downloaded before its layout is known; then its small files, then its weights.

    Args:
        where: A folder or hub id.
        options: `local_files_only` and `revision`, as for `from_pretrained`.
        vision_tower: Folder or hub id of a tower to use instead of the one that the config names.

    Raises:
        ModelError: The checkpoint is in an original layout, but a part is missing or not supported, or the hub cannot
            be reached.
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
    try:
        return layout.open(folder, vision_tower, download=not local)
    except InterpError:
        raise
    except Exception as error:  # whatever files with wrong values raise
        raise ModelError(
            f"{where} looks like {layout.name}, but its files do not describe one ({type(error).__name__}: {error}). "
            "Were they changed by hand, or is the download incomplete? Copy the folder again."
        ) from error
