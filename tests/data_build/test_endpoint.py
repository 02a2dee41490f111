"""Questions worded by an OpenAI-compatible server, a real one on this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from interp.data_build import Built, Endpoint, build, scans
from interp.errors import DataError
from tests.data_build.build_files import picture_folder, volume_folder

GOOD = {
    "localization": "Can the {label} be seen here?",
    "attribute": "Would you call the {label} small or large, round or elongated, normal or abnormal?",
}
Answer = Callable[[int, str], tuple[int, Any]]


class Server:
    """Answers the k-th request by a function of k and the prompt, and keeps what it was asked."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.answer: Answer = lambda k, label: (200, worded(label))
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.requests.append({"path": self.path, "key": self.headers.get("Authorization"), **body})
                label = body["messages"][0]["content"].split('structure "')[1].split('"')[0]
                status, said = server.answer(len(server.requests), label)
                text = said if isinstance(said, str) else json.dumps(said)
                content = {"choices": [{"message": {"role": "assistant", "content": text}}]}
                data = json.dumps(content if status == 200 else {"error": text}).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                """Keeps quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(f"http://127.0.0.1:{self.http.server_port}/v1", "small-llm", "TEST_KEY", wait=0.0)

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


def worded(label: str) -> dict[str, str]:
    return {kind: text.format(label=label) for kind, text in GOOD.items()}


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def built(server: Server, folder: Path, source: Path | None = None) -> Built:
    place = volume_folder(folder / "in", cases=1) if source is None else source
    return build(scans(place), folder / "out", endpoint=server.endpoint)


def test_words_come_from_the_server_and_answers_from_masks(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", "s3cret")
    server.answer = lambda k, label: (200, f"Sure!\n```json\n{json.dumps(worded(label))}\n```")
    made = built(server, tmp_path)
    assert [sample.question for sample in made.samples[:2]] == list(worded("liver").values())
    assert {sample.answer for sample in made.samples} <= {
        "yes",
        "large",
        "small",
        "round",
        "elongated",
        "abnormal",
    }
    first = server.requests[0]
    assert (first["path"], first["key"], first["model"]) == (
        "/v1/chat/completions",
        "Bearer s3cret",
        "small-llm",
    )
    assert (first["temperature"], len(first["messages"])) == (0, 1)
    assert 'the structure "liver" (CT)' in first["messages"][0]["content"]
    wording = made.record["wording"]
    assert (wording["model"], wording["answers"], len(wording["dates"])) == ("small-llm", 4, 1)
    assert "Reword both questions" in wording["prompt"]
    held = [one.read_bytes() for one in (tmp_path / "out").rglob("*") if one.is_file()]
    assert not any(b"s3cret" in one for one in held)


def test_a_second_build_asks_nothing_and_has_the_same_bytes(server: Server, tmp_path: Path) -> None:
    built(server, tmp_path)
    before = {one: one.read_bytes() for one in (tmp_path / "out").rglob("*") if one.is_file()}
    n = len(server.requests)
    built(server, tmp_path, tmp_path / "in")
    assert len(server.requests) == n
    assert {one: one.read_bytes() for one in before} == before
    kept = tmp_path / "out/answers.jsonl"
    kept.write_bytes(kept.read_bytes()[:-30])  # killed while it wrote the last answer
    built(server, tmp_path, tmp_path / "in")
    assert len(server.requests) < 2 * n
    assert (tmp_path / "out/samples.jsonl").read_bytes() == before[tmp_path / "out/samples.jsonl"]


def test_errors_that_may_pass_are_tried_again(server: Server, tmp_path: Path) -> None:
    server.answer = lambda k, label: [(503, "busy"), (200, "no JSON"), (200, worded(label))][min(k, 3) - 1]
    made = built(server, tmp_path, picture_folder(tmp_path / "in"))
    assert len(server.requests) == 3
    assert made.record["failures"] == []


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"localization": "Is it visible?"}, "the structure 'liver' is not named"),
        ({"localization": "Yes, is the liver visible?"}, "the answer is given away"),
        ({"attribute": "Is the liver large?"}, "the choice 'round' is missing"),
        ({"attribute": 5}, "no question"),
        ({"attribute": "The liver, small or large."}, "no question"),
        ({"attribute": "Is the liver small or large" + "?" * 300}, "more than 300 characters"),
    ],
)
def test_what_fails_is_recorded_and_left_out(
    server: Server, tmp_path: Path, changed: dict[str, Any], why: str
) -> None:
    server.answer = lambda k, label: (200, {**worded(label), **(changed if label == "liver" else {})})
    made = built(server, tmp_path)
    assert {sample.meta["label"] for sample in made.samples} == {"kidney tumor"}
    assert made.record["dropped"]["the endpoint failed"] == len(made.record["failures"]) == 3
    assert why in made.record["failures"][0]["error"]
    assert "(after 3 tries)" in made.record["failures"][0]["error"]
    assert len(server.requests) == 3 * 3 + 1


def test_waits_double_and_no_key_is_sent_without_one(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEST_KEY", raising=False)
    waits: list[float] = []
    monkeypatch.setattr("interp.data_build.endpoint.time.sleep", waits.append)
    server.answer = lambda k, label: (429, "slow") if k < 4 else (200, worded(label))
    ask = replace(server.endpoint, tries=4, wait=0.5)
    made = build(scans(picture_folder(tmp_path / "in")), tmp_path / "out", endpoint=ask)
    assert waits == [0.5, 1.0, 2.0]
    assert {one["key"] for one in server.requests} == {None}
    assert made.record["failures"] == []


def test_failures_in_a_row_are_counted_anew_after_an_answer(server: Server, tmp_path: Path) -> None:
    source = volume_folder(tmp_path / "in", cases=3)  # 12 pairs
    server.answer = lambda k, label: (200, worded(label)) if k % 5 == 0 else (500, "gone")
    once = replace(server.endpoint, tries=1)
    made = build(scans(source), tmp_path / "out", endpoint=once)
    failed = len(made.record["failures"])
    assert failed > 5  # but never five in a row
    assert made.record["wording"]["answers"] == 12 - failed  # an equal prompt takes the answer that is kept


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": " "}, "model is a text; got ' '"),
        ({"key_variable": ""}, "key_variable is a text; got ''"),
        ({"tries": 0}, "tries is a whole number of at least 1 and at most 20"),
        ({"tries": 21}, "tries is a whole number of at least 1 and at most 20"),
        ({"wait": -1.0}, "wait is a finite number"),
        ({"timeout": 0.0}, "timeout is a finite number above 0"),
    ],
)
def test_settings_of_an_endpoint_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Endpoint("http://x/v1", **{"model": "m", **options})


def test_a_refusal_ends_the_build_and_names_the_key(server: Server, tmp_path: Path) -> None:
    server.answer = lambda k, label: (401, "who are you")
    with pytest.raises(DataError, match=r"answered HTTP 401: .*who are you.*environment variable TEST_KEY"):
        built(server, tmp_path)
    assert len(server.requests) == 1


def test_a_dead_server_ends_the_build_and_keeps_answers(server: Server, tmp_path: Path) -> None:
    source = volume_folder(tmp_path / "in", cases=3)
    server.answer = lambda k, label: (200, worded(label)) if k < 2 else (500, "gone")
    with pytest.raises(DataError, match=r"failed for 5 pairs in a row, last with: HTTP 500.*run again"):
        built(server, tmp_path, source)
    assert len((tmp_path / "out/answers.jsonl").read_text().splitlines()) == 1
    server.answer = lambda k, label: (200, worded(label))
    assert built(server, tmp_path, source).record["wording"]["answers"] == 12


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x/v1", "http://me:key@x/v1", ""])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(DataError, match="such as 'http://localhost:8000/v1', without user or password"):
        Endpoint(url, "m")
