"""Converts an original checkpoint to a folder in transformers' layout, tensor by tensor."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from interp.errors import ModelError
from interp.models.checkpoints.checkpoint import HUB_ID, Checkpoint, check, check_source_files, empty_model
from interp.models.checkpoints.layout import open_original
from interp.models.checkpoints.tensors import Entry, write_shards
from interp.models.configs import raw_config

__all__ = ["Converted", "convert", "model_card"]

_CODE = """```python
{lines}
```"""
_PLAIN = """from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained("this/folder", dtype="auto")
processor = AutoProcessor.from_pretrained("this/folder")"""
_OURS = """import interp

mllm = interp.load("this/folder", dtype="auto")  # the transformers model is mllm.hf"""


def model_card(checkpoint: Checkpoint, origin: str, dtype: torch.dtype) -> str:
    """Returns the text of README.md.

    Args:
        checkpoint: The converted checkpoint.
        origin: The hub id it came from, or the name of the folder.
        dtype: The dtype of the language model's weights.
    """
    name = origin.rstrip("/").split("/")[-1]
    return "\n\n".join(
        [
            _header(checkpoint, origin),
            f"# {name}, in transformers' layout",
            f"Converted from `{origin}` ({checkpoint.layout} layout) by interp {version('interp')} for transformers "
            f"{version('transformers')}. This is not the authors' own release.",
            "## Licence\n\n" + _licence(checkpoint),
            "## What was changed\n\n" + "\n".join(f"- {line}" for line in _changes(checkpoint, dtype)),
            "## How to load it\n\n" + _loading(checkpoint),
            "## Prompt\n\nThe chat template writes, with `{system}`, `<image>` and `{question}` filled in:\n\n"
            f"```text\n{checkpoint.prompt}\n```",
        ]
    ) + "\n"  # fmt: skip


def _header(checkpoint: Checkpoint, origin: str) -> str:
    found = checkpoint.licence
    known = found is not None and re.fullmatch(r"[a-z0-9][a-z0-9.\-]*", found)
    lines = [f"license: {found if known else 'other' if found else 'unknown'}"]
    if found and not known:
        lines.append(f"license_name: {json.dumps(found)}")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", origin):
        lines.append(f"base_model: {origin}")
    library = "transformers" if checkpoint.stock else "interp"
    return "\n".join(["---", *lines, f"library_name: {library}", "pipeline_tag: image-text-to-text", "---"])


def _licence(checkpoint: Checkpoint) -> str:
    if checkpoint.licence is None:
        return (
            "The source states none. Without one you may not pass this on: ask its authors, and look at the licences "
            "of the language model and vision tower it was made from."
        )
    return (
        f"`{checkpoint.licence}`, as the source states it; it holds for this copy too. The language model and the "
        "vision tower it was made from may have terms of their own."
    )


def _changes(checkpoint: Checkpoint, dtype: torch.dtype) -> list[str]:
    return [
        f"Tensors have the names of `{checkpoint.model_class.__name__}`; fused ones are split. Their values are the "
        f"source's, in {str(dtype).removeprefix('torch.')}.",
        "`config.json`, processor and chat template were made from the source's config and its original code.",
        *checkpoint.notes,
    ]


def _loading(checkpoint: Checkpoint) -> str:
    if checkpoint.stock:
        return _CODE.format(lines=_PLAIN)
    return (
        f"transformers has no class that computes this model: `{checkpoint.model_class.__name__}` comes with interp, "
        "and transformers alone refuses the folder by its model type.\n\n" + _CODE.format(lines=_OURS)
    )


SHARD = 5 * 10**9
"""The largest size of a file of weights in bytes, as in transformers."""


@dataclass(frozen=True)
class Converted:
    """The result of a conversion.

    Attributes:
        folder: The folder written.
        layout: The layout it was converted from.
        model_class: The name of the class that loads it.
        stock: Whether that is a class of transformers; if not, the folder needs `interp.load`.
        nbytes: The size of all weights in bytes.
        licence: The licence that the source states; None if it states none.
        notes: Notes for the user.
    """

    folder: Path
    layout: str
    model_class: str
    stock: bool
    nbytes: int
    licence: str | None
    notes: tuple[str, ...]

    @property
    def way(self) -> str:
        """How to load it, as text."""
        if self.stock:
            return f"load it with transformers alone, or with interp.load({str(self.folder)!r})"
        return (
            f"transformers has no class for it: {self.model_class} comes with interp, so the folder needs "
            f"interp.load({str(self.folder)!r}); transformers alone refuses it by its model type"
        )


def convert(
    source: str | Path,
    target: str | Path,
    *,
    dtype: str | torch.dtype = "auto",
    vision_tower: str | Path | None = None,
    revision: str | None = None,
    shard: int = SHARD,
    progress: Callable[[str], None] | None = None,
) -> Converted:
    """Writes a checkpoint that is in an original layout as a folder that transformers loads.

    The folder holds weights, config, processor with chat template, and a model card with the source's licence. Weights
    are read, cast and written one by one, so only one tensor is in memory. Everything is first written to a hidden
    folder beside the target, without config.json; the target appears when it is complete.

    Args:
        source: Folder or hub id of an original checkpoint.
        target: A folder that is empty or does not exist yet, and does not lie in the source.
        dtype: The dtype of floating weights, such as "bfloat16"; "auto" keeps the dtype of each tensor, so that the
            model gives the same bits as the source.
        vision_tower: Folder or hub id of a tower to use instead of the one that the config names.
        revision: The revision of a hub id.
        shard: The largest size of a file of weights, in bytes.
        progress: A function that is called with the name of each tensor before it is written.

    Raises:
        ModelError: The source is not in an original layout, does not fit it or holds a link that leads out of it; the
            target is not empty or cannot be written; the disk is full; or an argument is of the wrong kind.
    """
    _check_arguments(source, target, vision_tower, revision, shard, progress)
    place = _place(target, source)
    kind = _dtype(dtype)
    checkpoint = _opened(str(source), vision_tower, revision)
    model = empty_model(checkpoint, checkpoint.dtype)
    tied = check(checkpoint, model)
    entries = _entries(checkpoint, tied, kind)
    size = sum(entry.nbytes for entry in entries)
    _check_room(place, size)
    with _unfinished(place) as folder:
        tensors = _watched(checkpoint, tied, progress)
        write_shards(folder, entries, tensors, shard)
        own = _folder(str(source))
        origin = str(source) if own is None else own.absolute().name
        _write_words(folder, checkpoint, model, origin, kind or checkpoint.dtype)
    return Converted(
        folder=place,
        layout=checkpoint.layout,
        model_class=checkpoint.model_class.__name__,
        stock=checkpoint.stock,
        nbytes=size,
        licence=checkpoint.licence,
        notes=checkpoint.notes,
    )


def _check_arguments(source: Any, target: Any, tower: Any, revision: Any, shard: Any, progress: Any) -> None:
    for name, path in {"source": source, "target": target, "vision_tower": tower}.items():
        optional = name == "vision_tower" and path is None
        if not optional and (not isinstance(path, str | Path) or not str(path) or "\0" in str(path)):
            raise ModelError(f"{name} is a path, as a string or a Path; got {path!r}.")
    if revision is not None and not isinstance(revision, str):
        raise ModelError(f"revision is the name of a branch, a tag or a commit; got {revision!r}.")
    if isinstance(shard, bool) or not isinstance(shard, int) or shard < 1:
        raise ModelError(f"shard is a number of bytes, at least 1; got {shard!r}.")
    if progress is not None and not callable(progress):
        raise ModelError(f"progress is a function of a tensor's name; got {progress!r}.")


def _place(target: str | Path, source: str | Path) -> Path:
    """Returns the folder to write after checking that it is empty or absent and can be made."""
    try:
        place = Path(target).expanduser()
        if place.is_symlink() and place.is_dir():
            place = place.resolve()
        if not (place.is_dir() and not any(place.iterdir())) and (place.exists() or place.is_symlink()):
            held = f"holds {len(list(place.iterdir()))} files" if place.is_dir() else "is a file"
            raise ModelError(
                f"{place} {held}; nothing is overwritten. Name a folder that is empty or not there."
            )
        above = next(folder for folder in place.absolute().parents if folder.exists())
        if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
            what = "cannot be written to" if above.is_dir() else "is a file"
            raise ModelError(f"{place} cannot be made: {above} {what}. Name a folder elsewhere.")
        inside = _folder(str(source))
        if inside is not None and place.resolve().is_relative_to(inside.resolve()):
            raise ModelError(
                f"{place} lies in the source, {inside}, which is left as it is. Name a folder elsewhere."
            )
    except ModelError:  # of the lines above, not of the system
        raise
    except (
        OSError,
        ValueError,
        RuntimeError,
    ) as error:  # a name too long, or without a meaning on this system
        raise ModelError(
            f"{str(target)[:200]!r} cannot be the target ({error}). Name another folder."
        ) from error
    return place


def _opened(source: str, vision_tower: str | Path | None, revision: str | None) -> Checkpoint:
    folder = _folder(source)
    if folder is None and not HUB_ID.fullmatch(source):
        raise ModelError(
            f"{source[:200]!r} is neither a folder nor a hub id (organisation/name). Check the path; nothing was "
            "downloaded."
        )
    for part in (source, str(vision_tower or "")):
        if (own := _folder(part)) is not None:
            check_source_files(own)
    where = source if folder is None else str(folder)
    options: dict[str, Any] = {"local_files_only": folder is not None}
    options |= {} if revision is None else {"revision": revision}
    found = open_original(where, options, vision_tower)
    if found is None:
        kind = raw_config(where, options).get("model_type")
        raise ModelError(
            f"{where} is in no original layout that is read: its model type is {kind!r}. Where transformers knows that "
            "type it needs no conversion: interp.load reads it as it is."
        )
    return found


def _folder(name: str) -> Path | None:
    """Returns the folder of that name; None if there is none."""
    try:
        folder = Path(name).expanduser()
        return folder if name and folder.is_dir() else None
    except (OSError, RuntimeError):  # a name too long, or ~ of an unknown user
        return None


def _dtype(dtype: str | torch.dtype) -> torch.dtype | None:
    """Returns the dtype to cast to; None to keep that of each tensor."""
    if isinstance(dtype, str) and dtype == "auto":
        return None
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ModelError(
            f'dtype is "auto", a name such as "bfloat16", or a floating torch.dtype; got {dtype!r}.'
        )
    return found


def _entries(checkpoint: Checkpoint, tied: frozenset[str], dtype: torch.dtype | None) -> list[Entry]:
    """Returns the entries to write, in the order in which they are read."""
    return [
        Entry(name, dtype if dtype and meta.is_floating_point() else meta.dtype, tuple(meta.shape))
        for _, name, meta in checkpoint.shapes()
        if name not in tied
    ]


def _watched(
    checkpoint: Checkpoint, tied: frozenset[str], progress: Callable[[str], None] | None
) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in checkpoint.tensors():
        if name in tied:
            continue
        if progress is not None:
            progress(name)
        yield name, tensor


def _check_room(place: Path, size: int) -> None:
    parent = next(folder for folder in place.absolute().parents if folder.is_dir())
    free = shutil.disk_usage(parent).free
    if free < size:
        raise ModelError(
            f"the weights take {size / 1e9:.1f} GB, but {parent} has {free / 1e9:.1f} GB free. Name a folder on "
            "another disk, or a smaller dtype."
        )


@contextmanager
def _unfinished(place: Path) -> Iterator[Path]:
    """Yields a hidden folder beside `place` that is renamed to it at the end, or removed on an error."""
    folder = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{place.name}.unfinished-", dir=place.parent))
        yield folder
        folder.chmod(0o755)
        folder.replace(place)
    except OSError as error:
        raise ModelError(
            f"{place} cannot be written ({error}); what was begun is removed. Is the disk full, or the folder in use?"
        ) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _write_words(folder: Path, checkpoint: Checkpoint, model: Any, origin: str, dtype: torch.dtype) -> None:
    """Writes everything but the weights; config.json comes last, so that an unfinished folder lacks it."""
    checkpoint.make_processor().save_pretrained(folder)
    _add_videos(folder)
    model.generation_config.save_pretrained(folder)
    (folder / "README.md").write_text(model_card(checkpoint, origin, dtype), "utf-8")
    for path in Path(checkpoint.where).glob("*"):
        if path.is_file() and path.name.upper().startswith(("LICENSE", "LICENCE", "NOTICE")):
            shutil.copyfile(path, folder / path.name)
    config = copy.deepcopy(checkpoint.config)
    config.architectures = [checkpoint.model_class.__name__]
    for part in (config, *(getattr(config, name) for name in config.sub_configs)):
        part.dtype = dtype
        part._name_or_path = ""
    config.save_pretrained(folder)


def _add_videos(folder: Path) -> None:
    """Adds the video part of a processor's config, which is not saved without torchvision."""
    path = folder / "processor_config.json"
    found = json.loads(path.read_text("utf-8"))
    if found.get("processor_class") == "InternVLProcessor" and "video_processor" not in found:
        size = found["image_processor"]["size"]
        found["video_processor"] = {"video_processor_type": "InternVLVideoProcessor", "size": size}
        path.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n", "utf-8")
