from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from interp.errors import ImageError
from interp.inputs.paths import unreadable
from interp.inputs.sample import Sample


@pytest.fixture
def special(tmp_path: Path) -> Iterator[dict[str, str]]:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        yield {
            "is a named pipe": str(tmp_path / "pipe"),
            "is a named pipe, not": str(tmp_path / "link"),
            "symbolic links": str(tmp_path / "loop"),
            "is a socket": str(tmp_path / "socket"),
            "is a folder": str(tmp_path),
            "is a device": "/dev/zero",
            "is made by the kernel": "/proc/self/status",
            "does not exist": str(tmp_path / "nothing"),
            "File name too long": "x" * 100_000,
            "Not a directory": __file__ + "/x",
        }


def test_only_regular_files_can_be_read(special: dict[str, str]) -> None:
    for reason, path in special.items():
        assert reason in str(unreadable(path))
    assert "null byte" in str(unreadable("a\0b"))
    assert "surrogates not allowed" in str(unreadable("\ud83d"))
    assert unreadable(__file__) is None


def test_links_and_names_that_are_not_utf8_can_be_read(tmp_path: Path) -> None:
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    file.write_text("x")
    (tmp_path / "link").symlink_to(file)
    assert unreadable(file) is None
    assert unreadable(tmp_path / "link") is None


def test_no_image_is_opened_that_could_wait_or_never_end(special: dict[str, str]) -> None:
    for reason, path in special.items():
        for read in (lambda s: s.sizes, lambda s: s.load(), lambda s: s.fingerprint):
            with pytest.raises(ImageError, match=reason):
                read(Sample(path, "q"))
        assert Sample(path, "q").id
