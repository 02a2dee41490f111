"""What tells one job of a server from another, and what errors of a server become; without a server."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import websocket

import interp
from interp.errors import EditError, ServerError
from interp.tracing.cost import Meter
from interp.tracing.remote import connection as connections
from interp.tracing.remote.connection import Connection, LostConnectionError, wait_for
from interp.tracing.remote.server import Server, digest_of


def _asked(monkeypatch: pytest.MonkeyPatch, key: str, inputs: Any, job: Any) -> str:
    """The digest under which the result of a job is fetched."""
    seen: list[str] = []
    monkeypatch.setattr(Server, "_fetched", lambda self, job, asked: seen.append(asked) or {})
    nn = SimpleNamespace(to_model_key=lambda: key)
    parts: Any = {"layers": [], "head": None, "cap": None, "windows": False, "norm": None, "decoder": None}
    server = Server(nn=nn, connection=Connection("http://nowhere"), job="id", **parts)
    server._result(
        dict(job), SimpleNamespace(inputs=inputs), Meter(torch.device("cpu")), lambda backend: None
    )
    return seen[0]


def test_a_job_is_known_by_its_model_inputs_and_work(
    monkeypatch: pytest.MonkeyPatch, unchecked: None
) -> None:
    """Pixels too: other samples may have prompts of the same tokens."""
    inputs = {"input_ids": torch.tensor([[1, 2]]), "pixel_values": torch.zeros(1, 3)}
    job = {"layers": [0, 1], "n": 1}
    plain = _asked(monkeypatch, "model", inputs, job)
    assert _asked(monkeypatch, "model", dict(inputs), dict(job)) == plain
    others = [
        _asked(monkeypatch, "other", inputs, job),
        _asked(monkeypatch, "model", {**inputs, "pixel_values": torch.ones(1, 3)}, job),
        _asked(monkeypatch, "model", {**inputs, "input_ids": torch.tensor([[1, 3]])}, job),
        _asked(monkeypatch, "model", inputs, {**job, "layers": [0, 2]}),
        _asked(monkeypatch, "model", inputs, {**job, "n": 2}),
    ]
    assert len({plain, *others}) == 6


def double(values: Any) -> Any:
    return values * 2


def halve(values: Any) -> Any:
    return values / 2


VALUES = [
    None,
    0,
    0.0,
    False,
    "0",
    b"0",
    [],
    [0],
    (0,),
    {"a": 0},
    {"b": 0},
    {"a": 1},
    frozenset({1, 2}),
    frozenset({1, 3}),
    torch.zeros(2),
    torch.zeros(1, 2),
    torch.zeros(2, dtype=torch.int32),
    torch.ones(2),
    torch.tensor([0.0, 1.0]),
    torch.tensor([1.0, 0.0]),
    torch.zeros(2, dtype=torch.bfloat16),
    np.zeros(2),
    np.zeros((1, 2)),
    np.ones(2),
    interp.Contrast(1.0),
    interp.Contrast(2.0),
    double,
    halve,
    SimpleNamespace(a=0),
    SimpleNamespace(a=1),
]


def test_other_values_have_other_digests() -> None:
    assert len({digest_of(one) for one in VALUES}) == len(VALUES)
    assert digest_of(frozenset("abcdef")) == digest_of(frozenset("fedcba"))
    transposed = torch.arange(6.0).reshape(2, 3).T
    assert digest_of(transposed) == digest_of(transposed.contiguous())


def test_waiting_ends_with_a_result_or_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that only sleep moves: asked at 0, 1 and 2 s of 2, and never again."""
    clock = [0.0]
    monkeypatch.setattr(
        connections,
        "time",
        SimpleNamespace(monotonic=lambda: clock[0], sleep=lambda s: clock.append(clock.pop() + s)),
    )
    asked: list[float] = []
    assert wait_for(lambda: asked.append(clock[0]), 1.0, 2.0) is None
    assert asked == [0.0, 1.0, 2.0]
    answers = iter([None, None, None, {}])
    assert wait_for(lambda: next(answers), 1.0, None) == {}
    assert wait_for(dict, 1.0, 0.0) == {}


def test_a_key_is_not_shown() -> None:
    assert "secret" not in repr(Connection("http://here", "secret"))


def _served(monkeypatch: pytest.MonkeyPatch, answers: dict[str, Any]) -> Connection:
    monkeypatch.setattr(Connection, "_get", lambda self, path: answers[path])
    return Connection("http://here", "secret")


def _key(**settings: Any) -> str:
    return f"module:{json.dumps({'repo_id': 'a/b', 'task': 'image-text-to-text', **settings})}"


@pytest.mark.parametrize(
    ("other", "served"),
    [
        ({}, True),
        ({"revision": "main"}, True),
        ({"revision": None}, True),
        ({"revision": "v2"}, False),
        ({"repo_id": "a/c"}, False),
        ({"task": "text-generation"}, False),
    ],
)
def test_a_model_is_served_by_id_revision_and_task(
    monkeypatch: pytest.MonkeyPatch, other: dict[str, Any], served: bool
) -> None:
    deployments = {
        "1": {"model_key": _key(repo_id="x/y")},
        "2": {"model_key": _key(**other)},
        "3": "starting",
    }
    found = _served(monkeypatch, {"/status": {"deployments": deployments}})
    if served:
        found.check_served(_key())
    else:
        with pytest.raises(
            ServerError, match=r"does not serve a/b \(revision main, task image-text-to-text\)"
        ):
            found.check_served(_key())


def _translated(error: Exception, backend: Any = None) -> Exception:
    with pytest.raises(interp.errors.InterpError) as raised, Connection("http://h", "k").translated(backend):
        raise error
    return raised.value


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (401, "refuses the key it was given"),
        (403, "refuses the key it was given"),
        (400, "refuses this machine's nnsight"),
        (500, "answers 500 .*Try again later"),
    ],
)
def test_each_status_is_told(status: int, told: str) -> None:
    request = httpx.Request("GET", "http://h")
    error = httpx.HTTPStatusError("x", request=request, response=httpx.Response(status, request=request))
    found = _translated(error)
    assert type(found) is ServerError  # not sent again
    assert re.search(told, str(found))


@pytest.mark.parametrize("error", [httpx.ConnectError("x"), websocket.WebSocketException("x"), OSError("x")])
def test_every_broken_connection_is_tried_again(error: Exception, unchecked: None) -> None:
    assert isinstance(_translated(error), LostConnectionError)
    sent = SimpleNamespace(job_id="7", place="while job 7 was RUNNING")
    found = _translated(error, sent)
    assert isinstance(found, LostConnectionError)
    assert "while job 7 was RUNNING" in str(found)


def test_errors_of_a_job_keep_their_class_and_words() -> None:
    found = connections._of_job("Traceback …\ninterp.errors.EditError: no such row", "job 7 failed")
    assert type(found) is EditError
    assert str(found) == "no such row"
    plain = connections._of_job("Traceback …\nValueError: odd", "job 7 failed")
    assert type(plain) is ServerError
    assert "Traceback …" in str(plain)
    for told in ("x does not require grad", "x does not have a grad_fn", "x appears to not have been used"):
        assert "no gradient can flow" in str(connections._of_job(f"RuntimeError: {told}", "job 7 failed"))
    assert "no words" in str(connections._of_job("", "job 7 failed"))


@pytest.mark.parametrize(
    ("status", "body", "state"),
    [(200, {"status": "RUNNING"}, "RUNNING"), (200, {}, "unknown"), (404, {}, "unknown")],
)
def test_the_state_of_a_job_is_the_servers_word(
    monkeypatch: pytest.MonkeyPatch, status: int, body: Any, state: str
) -> None:
    asked = []

    def answer(url: str, headers: Any, **_: Any) -> httpx.Response:
        asked.append((url, headers))
        return httpx.Response(status, json=body, request=httpx.Request("GET", url))

    monkeypatch.setattr(httpx, "get", answer)
    assert Connection("http://here", "secret").state("7") == state
    Connection("http://here").state("8")
    assert asked == [
        ("http://here/response/7", {"ndif-api-key": "secret"}),
        ("http://here/response/8", {}),
    ]
