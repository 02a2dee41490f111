"""What a conversion may read: the files of the source, and no link that leads out of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from interp.errors import ModelError

__all__ = ["check_source_files", "check_vocabulary"]

VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def check_source_files(folder: Path) -> None:
    """Checks that nothing in a folder leads out of it, so that a copy of it can be passed on.

    Links to places inside the folder may be followed. So may those of a snapshot in the hub's cache to the blobs of the
    same repository, of which such a snapshot consists.

    Raises:
        ModelError: A link leads elsewhere, or something is neither a file nor a folder, such as a pipe.
    """
    root = folder.resolve()
    homes = (root, *_blobs(root))
    whole = (root / "config.json").exists()  # else it is no checkpoint, and may be a whole disk
    for path in _entries(root, whole):
        kind = path.lstat().st_mode
        if stat.S_ISLNK(kind):
            _check_link(path, homes)
        elif not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
            raise ModelError(f"{path} is neither a file nor a folder, so it is not read. Remove it.")


def _entries(root: Path, whole: bool) -> Iterator[Path]:
    """Yields what a folder holds; with `whole`, what the folders in it hold too."""
    for place, folders, files in os.walk(root):
        yield from (Path(place) / name for name in (*folders, *files))
        if not whole:
            return


def _check_link(path: Path, homes: tuple[Path, ...]) -> None:
    try:
        target = path.resolve()
    except (OSError, RuntimeError) as error:  # a circle of links
        raise ModelError(
            f"{path} is a link that leads nowhere ({error}). Remove it, or copy its file."
        ) from error
    if not any(target.is_relative_to(home) for home in homes):
        raise ModelError(
            f"{path} is a link to {target}, outside {homes[0]}. Links out of the source are not followed, because what "
            "they show would be copied to the target. If it belongs to the model, replace the link by a copy."
        )
    if target.exists() and not (target.is_file() or target.is_dir()):
        raise ModelError(f"{path} is a link to {target}, which is neither a file nor a folder. Remove it.")


def _blobs(root: Path) -> Iterator[Path]:
    """Yields the folder that a snapshot in the hub's cache links to: models--x/blobs for models--x/snapshots/y."""
    for parent in root.parents:
        if parent.name.startswith("models--") and root.is_relative_to(parent / "snapshots"):
            yield parent / "blobs"


def check_vocabulary(folder: Path) -> None:
    """Raise ModelError for a folder without a vocabulary: some tokenizers then make an empty one.

    Raises:
        ModelError: None of the files that tokenizers read is there.
    """
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise ModelError(
            f"{folder} holds none of {', '.join(VOCABULARIES)}, so it has no tokenizer. Is the download complete? "
            "Else copy the files of its tokenizer into it."
        )
