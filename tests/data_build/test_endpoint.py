"""Questions worded by an OpenAI-compatible server, a real one on this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from interp.data.build import Question, Structure
from interp.data_build import Built, Endpoint, build, scans
from interp.data_build.endpoint import Answers, WordingError, _checked, prompt_of
from interp.data_build.pairs import Pair, Target
from interp.errors import DataError
from interp.inputs.sample import Sample
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


def pair(label: str = "Liver", options: tuple[str, ...] = (), answer: str = "left", **meta: Any) -> Pair:
    """A pair whose attribute question has these options and this answer."""
    sample = Sample(np.zeros((8, 8), np.uint8), "?", meta=meta)
    target = Target(sample, (0, 0, 4, 4), Structure(label, 0.25), 0)
    place = Question("localization", f"Is the {label} visible?", "yes")
    return Pair(
        target, place, Question("attribute", f"Which side is the {label} on?", answer, "side", options)
    )


def reply(attribute: str, localization: str = "Is the liver there?") -> str:
    return json.dumps({"localization": localization, "attribute": attribute})


def test_a_request_goes_below_the_base_and_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def post(url: str, **options: Any) -> Any:
        asked.append((url, options["timeout"]))
        return httpx.Response(200, json={"choices": [{"message": {"content": "hello"}}]})

    monkeypatch.setattr(httpx, "post", post)
    for url in ("http://x/v1", "http://x/v1/"):
        assert Endpoint(url, "m", timeout=7.5).ask("?") == "hello"
    assert asked == [("http://x/v1/chat/completions", 7.5)] * 2


@pytest.mark.parametrize(
    ("status", "again"),
    [(408, True), (409, True), (425, True), (429, True), (500, True), (502, True), (503, True), (504, True),
     (400, False), (403, False), (404, False), (501, False)],
)  # fmt: skip
def test_only_what_may_pass_is_asked_again(status: int, again: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httpx, "post", lambda *_, **__: httpx.Response(status, text="no"))
    with pytest.raises(DataError) as error:
        Endpoint("http://x/v1", "m").ask("?")
    assert isinstance(error.value, WordingError) is again
    assert f"HTTP {status}" in str(error.value)


def test_failing_networks_and_strange_replies_may_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise httpx.ConnectError("no route")

    monkeypatch.setattr(httpx, "post", broken)
    with pytest.raises(WordingError, match="ConnectError: no route"):
        Endpoint("http://x/v1", "m").ask("?")
    for content in ({"choices": []}, {"error": "x"}, [1]):
        monkeypatch.setattr(
            httpx, "post", lambda *_, content=content, **__: httpx.Response(200, json=content)
        )
        with pytest.raises(WordingError, match="no chat completion in the reply"):
            Endpoint("http://x/v1", "m").ask("?")


def test_a_prompt_names_the_modality_where_it_is_known() -> None:
    assert 'the structure "Liver" (MR). ' in prompt_of(pair(modality="MR"))
    assert 'the structure "Liver". ' in prompt_of(pair())
    said = prompt_of(pair(answer="left"))
    assert 'Is the Liver visible? The right answer is "yes"' in said
    assert 'Which side is the Liver on? The right answer is "left"' in said


def test_another_model_is_asked_anew_and_dates_are_of_its_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        Endpoint, "ask", lambda self, prompt: asked.append(self.model) or reply("Where is the liver?")
    )
    path = tmp_path / "answers.jsonl"
    for model in ("a", "b", "a"):
        answers = Answers(Endpoint("http://x/v1", model), path)
        assert answers.worded(pair()) == ("Is the liver there?", "Where is the liver?")
        assert answers.described()["answers"] == 1
    assert asked == ["a", "b"]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text(
        "".join(json.dumps({**line, "date": f"2030-01-0{i}"}) + "\n" for i, line in enumerate(lines, 1))
    )
    answers = Answers(Endpoint("http://x/v1", "b"), path)
    answers.worded(pair())
    answers.worded(pair())
    assert (answers.described()["answers"], answers.described()["dates"]) == (2, ["2030-01-02"])


def test_lines_of_answers_that_lack_a_field_are_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "answers.jsonl"
    monkeypatch.setattr(Endpoint, "ask", lambda self, prompt: reply("Where is the liver?"))
    Answers(Endpoint("http://x/v1", "m"), path).worded(pair())
    whole = json.loads(path.read_text())
    for name in ("date", "localization", "attribute"):
        path.write_text(json.dumps({key: value for key, value in whole.items() if key != name}) + "\n[3]\n")
        assert Answers(Endpoint("http://x/v1", "m"), path).kept == {}
        assert path.read_text() == ""


@pytest.mark.parametrize(
    ("attribute", "options", "problem"),
    [
        ("Where does the LIVER lie?", (), None),
        ("  Where does the\n liver   lie? ", (), None),
        ("Is the liver on the left?", (), "the answer is given away"),
        ("Is the liver on the leftmost side?", (), None),
        ("Is the liver left or right?", ("left", "right"), None),
        ("Is the liver LEFT or right?", ("left", "right"), None),
        ("Is the liver left?", ("left", "right"), "the choice 'right' is missing"),
        ("Is the liver on the right?", ("left", "right"), "the choice 'left' is missing"),
        ("Where is the spleen?", (), "the structure 'Liver' is not named"),
        ("liver" + "e" * 294 + "?", (), None),
        ("liver" + "e" * 295 + "?", (), "more than 300 characters"),
    ],
)
def test_what_a_model_worded_is_checked(
    attribute: str, options: tuple[str, ...], problem: str | None
) -> None:
    if problem is None:
        found = _checked(f"Here: {reply(attribute)} Good luck!", pair(options=options))
        assert found["attribute"] == " ".join(attribute.split())
        assert found["localization"] == "Is the liver there?"
    else:
        with pytest.raises(WordingError, match=f"attribute: {problem}"):
            _checked(reply(attribute), pair(options=options))


def test_an_answer_that_is_part_of_the_label_is_not_given_away() -> None:
    named = pair("left lung", answer="left")
    said = reply("Where is the left lung?", "Is the left lung there?")
    assert _checked(said, named)["attribute"] == "Where is the left lung?"
