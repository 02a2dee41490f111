"""Downloads original checkpoints and their towers from the hub, through huggingface_hub's own cache."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import huggingface_hub

from interp.errors import ModelError

__all__ = ["HUB_ID", "fetched", "find_part", "lora_files", "reachable", "small_files"]

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_SMALL = ("*.json", "*.txt", "*.model", "*.jinja", "LICENSE*", "README.md")
"""Configs, tokenizers, indexes and licences; no code and no weights."""


_SECONDS = 3.0
"""How long the hub may take to answer that it is there."""


def reachable() -> bool:
    """Whether the hub can be asked: not told to stay offline, and it answers. Its client would try for minutes.

    Behind a proxy only the proxy knows, so the answer is then yes.
    """
    if huggingface_hub.is_offline_mode():
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    hub = urlsplit(huggingface_hub.constants.ENDPOINT)
    try:
        with socket.create_connection((hub.hostname or "", hub.port or 443), timeout=_SECONDS):
            return True
    except OSError:
        return False


def small_files(hub_id: str, revision: str | None = None) -> Path:
    """Returns a local folder with a repository's small files: configs, tokenizers, indexes.

    Raises:
        ModelError: The repository cannot be reached.
    """
    return _snapshot(hub_id, revision, _SMALL)


def lora_files(hub_id: str) -> Path:
    """Returns a local folder with the settings and weights of a LoRA adapter on the hub.

    Raises:
        ModelError: The repository cannot be reached.
    """
    return _snapshot(hub_id, None, ("adapter_config.json", "adapter_model.safetensors"))


def fetched(hub_id: str, revision: str | None = None) -> Path:
    """Returns a local folder with a repository's small files and weights; if it has safetensors, no other shards.

    Raises:
        ModelError: The repository cannot be reached.
    """
    if not reachable():
        return _snapshot(hub_id, revision, (*_SMALL, "*.safetensors", "*.bin"))
    try:
        files = huggingface_hub.HfApi().list_repo_files(hub_id, revision=revision)
    except Exception as error:  # whatever the hub's client raises
        raise _unreachable(hub_id, error) from error
    safe = any(name.endswith(".safetensors") for name in files)
    ignored = ("*pytorch_model*.bin",) if safe else ()
    return _snapshot(hub_id, revision, (*_SMALL, "*.safetensors", "*.bin"), ignored)


def find_part(
    what: str,
    named: str | None,
    folder: Path,
    given: str | Path | None,
    *,
    download: bool,
    option: str | None = None,
) -> Path:
    """Returns the folder of a part that lies outside a checkpoint, such as its vision tower.

    It is the given part, or else the one that the config names. The latter is looked for in the checkpoint's folder, as
    a folder of its own, in the hub's cache and, if allowed, on the hub. If a path does not exist, its last component is
    looked for in the checkpoint's folder.

    Args:
        what: The name of the part, for messages.
        named: The path or hub id in the config.
        folder: The checkpoint's folder.
        given: Folder or hub id to use instead.
        download: Whether the part that the config names may be downloaded.
        option: The argument of `interp.load` for this part, if there is one.

    Raises:
        ModelError: The part is not available.
    """
    if given is not None:
        if Path(given).expanduser().is_dir():
            return Path(given).expanduser()
        if HUB_ID.fullmatch(str(given)):
            return fetched(str(given))
        raise ModelError(f"{option}={str(given)!r} is neither a folder nor a hub id (organisation/name).")
    beside = folder / Path(named or "").name
    for place in (folder / named, Path(named), beside) if named else ():
        if place.is_dir():
            return place
    if named and HUB_ID.fullmatch(named):
        if download:
            return fetched(named)
        cached = _cached(named)
        if cached is not None:
            return cached
    copied = f"Put a copy at {beside} (a link there serves interp.load, but not interp convert)"
    way = f"Pass {option}= with the folder of a copy, or with a hub id to download it"
    raise ModelError(
        f"{folder} comes without its {what}: its config names {named!r}, which is not available, and nothing is "
        f"downloaded for a local folder. {way if option else copied}."
    )


def _cached(hub_id: str) -> Path | None:
    try:
        return Path(huggingface_hub.snapshot_download(hub_id, local_files_only=True))
    except Exception:  # not in the cache, or no such id
        return None


def _snapshot(
    hub_id: str, revision: str | None, patterns: Sequence[str], ignored: Sequence[str] = ()
) -> Path:
    options: dict[str, Any] = {"allow_patterns": list(patterns), "ignore_patterns": list(ignored) or None}
    options["local_files_only"] = not reachable()
    try:
        return Path(huggingface_hub.snapshot_download(hub_id, revision=revision, **options))
    except Exception as error:  # whatever the hub's client raises
        raise _unreachable(hub_id, error) from error


def _unreachable(hub_id: str, error: Exception) -> ModelError:
    return ModelError(
        f"{hub_id} cannot be downloaded from the hub ({type(error).__name__}: {error}). Is the hub "
        "reachable, is the name right, and do you have access? Offline, pass the folder of a copy."
    )
