"""A file is replaced by a whole one or not at all, whatever its path names."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from interp.errors import ImageError, RunError
from interp.inputs.files import (
    as_path,
    canonical,
    checked_content,
    digest,
    file_checksum,
    file_state,
    read_canonical,
    read_json,
    remove_leftovers,
    unreadable,
    write_atomically,
)
from interp.inputs.sample import Sample


def test_a_kill_before_the_rename_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    write_atomically(file, b"old")
    process = os.fork()
    if process == 0:
        os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # pyright: ignore[reportAttributeAccessIssue]
        write_atomically(file, b"new")
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(process, 0)[1]) == signal.SIGKILL
    assert file.read_bytes() == b"old"
    write_atomically(file, b"newer")
    assert file.read_bytes() == b"newer"


def test_a_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    for name in ("there.html", "not-yet.html"):
        link, real = tmp_path / name, tmp_path / "real" / name
        link.symlink_to(real)
        write_atomically(link, b"page")
        assert link.is_symlink()
        assert real.read_bytes() == b"page"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"expected to write .*it is a folder, name a file in it"):
        write_atomically(tmp_path, b"page")
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RunError, match="name an ordinary file"):
        write_atomically(tmp_path / "pipe", b"page")
    assert (tmp_path / "pipe").is_fifo()


def test_a_protected_file_stays(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text("old")
    file.chmod(0o444)
    with pytest.raises(RunError, match="write-protected"):
        write_atomically(file, b"new")
    assert file.read_text() == "old"


def test_a_file_in_the_place_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"expected to write .*file/page.html"):
        write_atomically(tmp_path / "file" / "page.html", b"page")


def test_a_missing_folder_is_made_and_a_long_name_refused(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "b" / "page.html", b"page")
    assert (tmp_path / "a" / "b" / "page.html").read_bytes() == b"page"
    write_atomically(tmp_path / ("é" * 100), b"page")  # 200 bytes: its temporary name is shorter
    with pytest.raises(RunError, match="File name too long"):
        write_atomically(tmp_path / ("x" * 300), b"page")


@pytest.mark.parametrize("value", [None, 5, "", "a\0b", b"bytes", ["runs"], "\ud800"])
def test_what_is_no_path_is_refused_by_name(value: Any) -> None:
    with pytest.raises(RunError, match='expected out to be a path, such as "runs"'):
        as_path("out", value)


def test_deeply_nested_json_is_damaged_json(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[" * 100_000)
    assert read_json(tmp_path / "x.json") is None


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


def test_only_the_content_that_is_expected_is_read(tmp_path: Path) -> None:
    file, sha256 = tmp_path / "a", hashlib.sha256(b"x").hexdigest()
    assert checked_content(file, sha256) is None
    file.write_bytes(b"x")
    assert checked_content(file, sha256) == b"x"
    file.write_bytes(b"y")
    assert checked_content(file, sha256) is None


def test_json_is_canonical_or_counts_as_damaged(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    for text, found in (
        ('{\n "a": 1\n}\n', {"a": 1}),
        ('{"a": 1}', None),
        ("{", None),
        ('{\n "a": NaN\n}\n', None),
    ):
        file.write_text(text)
        assert read_canonical(file) == found


def test_canonical_json_by_hand() -> None:
    assert canonical({"b": "é", "a": [1, None]}) == '{\n "a": [\n  1,\n  null\n ],\n "b": "é"\n}\n'
    assert digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1}) != digest({"a": 1, "b": 2})
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical({"a": float("nan")})


def test_an_ending_is_asked_for_in_any_case() -> None:
    assert as_path("out", "A.JSONL", endings=(".jsonl",)) == Path("A.JSONL")
    with pytest.raises(
        RunError, match=r"expected out to end in \.jsonl or \.csv, such as \"a\.jsonl\"; got \"a\.txt\""
    ):
        as_path("out", "a.txt", endings=(".jsonl", ".csv"))


def test_leftovers_of_ended_processes_alone_are_removed(tmp_path: Path) -> None:
    ended = os.fork()
    if ended == 0:
        os._exit(0)
    os.waitpid(ended, 0)
    host = socket.gethostname()
    names = [
        f".a.{host}.{ended}.x.tmp",
        f".a.{host}.{os.getpid()}.x.tmp",
        f".a.{host}.no.x.tmp",
        ".a.else.1.x.tmp",
    ]
    (tmp_path / "in").mkdir()
    for name in names:
        (tmp_path / "in" / name).touch()
    remove_leftovers(tmp_path)
    assert sorted(one.name for one in (tmp_path / "in").iterdir()) == sorted(names[1:])


def test_what_is_no_file_counts_as_absent(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        assert read_json(path) is None
        assert read_canonical(path) is None
        assert checked_content(path, "") is None
        with pytest.raises(OSError, match=r"No such file|no regular file"):
            file_checksum(path)
    assert file_state(tmp_path / "none") == (0, 0)
    (tmp_path / "a").write_bytes(b"xyz")
    assert file_state(tmp_path / "a")[1] == 3
    (tmp_path / "deep").write_text("[" * 100_000)
    assert read_canonical(tmp_path / "deep") is None
