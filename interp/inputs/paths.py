"""Whether a path names a file that can be read: asked before it is opened, because some paths never end."""

from __future__ import annotations

import os
import stat

from interp.inputs.text import brief

__all__ = ["unreadable"]

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
_KERNEL = ("/proc/", "/sys/")


def unreadable(path: str | os.PathLike[str]) -> str | None:
    """Says why a path does not name a regular file, as the end of a sentence; None where it does. Opens nothing.

    Pipes, devices and sockets can wait or deliver without end; files of /proc and /sys are made by the kernel.

    >>> unreadable("/dev/zero")
    'is a device, not a regular file. Copy the data to a file first.'
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return "does not exist. Check the path; URLs are not fetched."
    except (
        OSError,
        ValueError,
    ) as error:  # too long, a loop of links, no permission; a null byte, a lone surrogate
        reason = getattr(error, "strerror", None) or brief(str(error))
        return f"is not a path that can be read ({reason}). Check the path."
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "a special file")
        return f"is {kind}, not a regular file. Copy the data to a file first."
    if found.st_blocks == 0 and os.path.realpath(path).startswith(_KERNEL):  # they take no room on a disk
        return "is made by the kernel (/proc, /sys), not a regular file. Copy the data to a file first."
    return None
