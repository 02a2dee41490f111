"""A name of a model to its checkpoint, where it is in an original layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interp.models.configs import original_layout, raw_config
from interp.models.layouts.checkpoint import Checkpoint
from interp.models.layouts.hub import fetched, small_files
from interp.models.layouts.layout import recognise

__all__ = ["open_original"]


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
