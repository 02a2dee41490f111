"""The explorer's server: who may reach it, where it listens, and how it ends. No browser is needed."""

from __future__ import annotations

import re
import socket
import sys
import webbrowser
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import pytest
from flask import Flask

import interp
from interp.errors import RunError
from interp.explore import application, local_server
from interp.explore.local_server import Server, serve


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(interp.load("organism"), model={"model": "mine"}, generate=3) as running:
        yield running


def answer(server: Server, host: str, address: str = "127.0.0.1") -> tuple[int, str]:
    """Status and text of the page, asked for at this address under this name."""
    port = int(server.url.rstrip("/").rsplit(":", 1)[1])
    connection = HTTPConnection(address, port, timeout=20)
    connection.request("GET", "/", headers={"Host": host.format(port=port)})
    found = connection.getresponse()
    text = found.read().decode()
    connection.close()
    return found.status, text


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "127.0.0.1", "localhost"])
def test_the_page_is_served_under_its_own_names(server: Server, host: str) -> None:
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", server.url)
    assert answer(server, host)[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example:{port}", "[::1]:{port}"]
)
def test_other_names_are_refused(server: Server, host: str) -> None:
    status, text = answer(server, host)
    assert (status, text) == (403, "This explorer answers under 127.0.0.1 or localhost only.")


@pytest.mark.parametrize(
    ("hosts", "name", "refused"),
    [({"[::1]", "localhost"}, "[::1]:8050", False), ({"[::1]", "localhost"}, "[::1]", False),
     ({"[::1]", "localhost"}, "[::2]:8050", True), (None, "evil.example", False)],
)  # fmt: skip
def test_names_of_ipv6_and_of_public_addresses(hosts: set[str] | None, name: str, refused: bool) -> None:
    with Flask("test").test_request_context(headers={"Host": name}):
        assert (local_server._only_for(hosts)() is not None) == refused


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have one loopback address")
def test_another_loopback_address_answers_under_its_own_name() -> None:
    with Server(interp.load("organism"), host="127.0.0.2", generate=1) as other:
        assert other.url.startswith("http://127.0.0.2:")
        assert answer(other, "127.0.0.2:{port}", "127.0.0.2")[0] == 200
        assert answer(other, "127.0.0.1:{port}", "127.0.0.2")[0] == 403


def test_every_option_reaches_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    made = application.application

    def page(*given: Any) -> Any:
        asked.append(given)
        return made(*given)

    monkeypatch.setattr(application, "application", page)
    mllm, prompt = interp.load("organism"), interp.Prompt("{question} In one word:")
    sample = interp.data.bundled("natural", n=1)[0]
    with Server(mllm, sample, model={"model": "mine", "dtype": "float32"}, prompt=prompt, generate=5):
        pass
    ((explored, named, shown),) = asked
    assert (explored.mllm, explored.prompt, explored.generate) == (mllm, prompt, 5)
    assert (named, shown) == ({"model": "mine", "dtype": "float32"}, sample)


def test_a_public_address_is_reached_under_any_name() -> None:
    with Server(interp.load("organism"), host="0.0.0.0", generate=1) as public:
        assert answer(public, "lab.example:{port}")[0] == 200


def test_a_taken_port_or_a_strange_address_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RunError, match=rf"cannot listen at 127\.0\.0\.1:{port} .*Choose another port"):
            Server(interp.load("organism"), port=port)
    with pytest.raises(RunError, match=r"cannot listen at 192\.0\.2\.1:"):
        Server(interp.load("organism"), host="192.0.2.1")


def test_it_listens_at_the_port_and_stops() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with Server(interp.load("organism"), port=port) as running:
        assert running.url == f"http://127.0.0.1:{port}/"
    with pytest.raises(ConnectionRefusedError):
        answer(running, "localhost")


@pytest.mark.parametrize("open_page", [True, False])
def test_serving_says_where_and_waits_until_the_end(
    open_page: bool, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    happened: list[Any] = []

    class Stand:
        url = "http://here/"

        def __init__(self, *given: Any, **options: Any) -> None:
            happened.append((given, options))

        def __enter__(self) -> Stand:
            return self

        def __exit__(self, *_: object) -> None:
            happened.append("stopped")

        def wait(self) -> None:
            happened.append("waited")

    monkeypatch.setattr(local_server, "Server", Stand)
    monkeypatch.setattr(webbrowser, "open", lambda url: happened.append(url))
    mllm, sample = interp.load("organism"), interp.Sample("a.png", "?")
    serve(mllm, sample, open_page=open_page, port=5)
    assert happened == [
        ((mllm, sample), {"port": 5}), *(["http://here/"] if open_page else []), "waited", "stopped",
    ]  # fmt: skip
    assert "The explorer is at http://here/" in capsys.readouterr().out
