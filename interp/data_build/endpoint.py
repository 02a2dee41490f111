"""Question texts from any OpenAI-compatible endpoint. Answers still come from the masks; no picture is sent."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from interp.data.build import Question
from interp.data.lines import needs
from interp.data_build.pairs import Pair
from interp.errors import DataError
from interp.inputs.argument_checks import check_number, check_whole
from interp.inputs.files import digest, write_atomically
from interp.inputs.text import brief, unstorable

__all__ = ["PROMPT", "Answers", "Endpoint", "WordingError", "prompt_of"]

PROMPT = """You word two questions for a visual question answering test on a medical image.
Facts: the image shows the structure "{label}"{modality}. Everything below is already known to be true.
1. Localization question (does the reader find the structure?): {localization} The right answer is "{loc_answer}".
2. Attribute question (does the reader see all of it?): {attribute} The right answer is "{att_answer}".
Reword both questions so that they are natural, name the structure "{label}", keep the same right answer, need no more
than looking at the whole structure, and do not give the answer away. If a question offers a choice, keep both choices.
Reply with JSON only: {{"localization": "…?", "attribute": "…?"}}"""
LONGEST = 300
"""The most characters of a question."""
RETRIED = (408, 409, 425, 429, 500, 502, 503, 504)
"""HTTP codes after which the same request may succeed."""
MOST_IN_A_ROW = 5
"""Pairs that may fail one after the other before the build stops."""


class WordingError(DataError):
    """No usable reply after all tries; the message says why."""


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible endpoint.

    Attributes:
        url: The base URL, such as "http://localhost:8000/v1"; questions go to `/chat/completions` below it.
        model: The name of the model at the endpoint.
        key_variable: The environment variable that holds the key, if one is needed. The key is stored nowhere.
        tries: The most requests for one pair, repeated after errors of the network or the server and after unusable
            replies.
        wait: Seconds before the second try; doubled before each further one.
        timeout: Seconds after which a request is given up.
    """

    url: str
    model: str
    key_variable: str = "OPENAI_API_KEY"
    tries: int = 3
    wait: float = 1.0
    timeout: float = 60.0

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url) if isinstance(self.url, str) else urlsplit("")
            right = parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
        except ValueError:
            right = False
        if not right:
            raise DataError(
                "the endpoint is the base of an OpenAI-compatible server, such as 'http://localhost:8000/v1', without "
                f"user or password; got {brief(self.url)}."
            )
        for name in ("model", "key_variable"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip() or unstorable(value):
                raise DataError(f"{name} is a text; got {brief(value)}.")
        check_whole("tries", self.tries, 1, DataError, most=20)
        check_number("wait", self.wait, low=0.0, high=600.0, error=DataError)
        check_number("timeout", self.timeout, low=0.0, open_low=True, high=3600.0, error=DataError)

    def described(self) -> dict[str, Any]:
        """The settings that a build records."""
        return {"url": self.url, "model": self.model, "prompt": PROMPT, "temperature": 0}

    def ask(self, prompt: str) -> str:
        """Returns the reply to one prompt.

        Raises:
            WordingError: The network, the server or the reply failed in a way that may pass.
            DataError: The server refuses the request for good: the key, the address or the model is wrong.
        """
        httpx = needs("httpx")
        key = os.environ.get(self.key_variable, "")
        body = {"model": self.model, "temperature": 0, "messages": [{"role": "user", "content": prompt}]}
        try:
            reply = httpx.post(
                f"{self.url.rstrip('/')}/chat/completions",
                json=body,
                headers={"Authorization": f"Bearer {key}"} if key else {},
                timeout=self.timeout,
            )
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise WordingError(f"{type(error).__name__}: {error}") from error
        if reply.status_code in RETRIED:
            raise WordingError(f"HTTP {reply.status_code}")
        if reply.status_code != 200:
            raise DataError(
                f"the endpoint {self.url} answered HTTP {reply.status_code}: {brief(reply.text)}. Check its address, "
                f"the model {self.model!r}, and the key in the environment variable {self.key_variable}."
            )
        try:
            return str(reply.json()["choices"][0]["message"]["content"])
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise WordingError(f"no chat completion in the reply: {brief(reply.text)}") from error


def prompt_of(pair: Pair) -> str:
    """Returns the prompt for a pair of questions."""
    shown = pair.target.sample.meta.get("modality")
    return PROMPT.format(
        label=pair.target.known.label,
        modality=f" ({shown})" if shown else "",
        localization=pair.localization.text,
        loc_answer=pair.localization.answer,
        attribute=pair.attribute.text,
        att_answer=pair.attribute.answer,
    )


@dataclass
class Answers:
    """Words pairs through an endpoint, and keeps every usable reply in a file, so that a second run asks nothing.

    Attributes:
        endpoint: The endpoint to ask.
        path: The file of the answers, one JSON object a line. Failures are not kept, so a later run tries again.
        kept: The answers by the key of their prompt, with the date on which each came.
        used: The keys that this build used.
        in_a_row: The number of pairs that failed one after the other up to now.
    """

    endpoint: Endpoint
    path: Path
    kept: dict[str, dict[str, Any]] = field(default_factory=dict)
    used: list[str] = field(default_factory=list)
    in_a_row: int = 0

    def __post_init__(self) -> None:
        self.kept = _read(self.path)

    def worded(self, pair: Pair) -> tuple[str, str]:
        """Returns the two questions of a pair.

        Raises:
            WordingError: No usable reply after all tries.
            DataError: The server refuses for good, or several pairs failed one after the other.
        """
        prompt = prompt_of(pair)
        key = digest({**self.endpoint.described(), "prompt": prompt})
        if key not in self.kept:
            try:
                self._keep(key, self._asked(prompt, pair))
                self.in_a_row = 0
            except WordingError as error:
                self.in_a_row += 1
                if self.in_a_row >= MOST_IN_A_ROW:
                    raise DataError(
                        f"the endpoint {self.endpoint.url} failed for {MOST_IN_A_ROW} pairs in a row, last with: "
                        f"{error}. The answers so far are kept in {str(self.path)!r}; run again when it works."
                    ) from error
                raise
        self.used.append(key)
        found = self.kept[key]
        return found["localization"], found["attribute"]

    def described(self) -> dict[str, Any]:
        """The record of a build: the endpoint, the prompt, and the dates of the answers that it used."""
        dates = sorted({self.kept[key]["date"] for key in self.used})
        return {**self.endpoint.described(), "answers": len(self.used), "dates": dates}

    def _asked(self, prompt: str, pair: Pair) -> dict[str, str]:
        reason = ""
        for i in range(self.endpoint.tries):
            if i:
                time.sleep(self.endpoint.wait * 2 ** (i - 1))
            try:
                return _checked(self.endpoint.ask(prompt), pair)
            except WordingError as error:
                reason = str(error)
        raise WordingError(f"{reason} (after {self.endpoint.tries} tries)")

    def _keep(self, key: str, found: Mapping[str, str]) -> None:
        self.kept[key] = {"key": key, "date": datetime.now(UTC).date().isoformat(), **found}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.kept[key], ensure_ascii=False) + "\n")


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """The answers in a file; a last line that a kill cut short is removed."""
    if not path.is_file():
        return {}
    found: dict[str, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            one = json.loads(line)
        except ValueError:
            continue
        if isinstance(one, dict) and {"key", "date", "localization", "attribute"} <= set(one):
            found[str(one["key"])] = one
    write_atomically(
        path, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in found.values()).encode()
    )
    return found


def _checked(reply: str, pair: Pair) -> dict[str, str]:
    """The questions in a reply; raises `WordingError` where they lose the structure or give the answer away."""
    start, end = reply.find("{"), reply.rfind("}")
    try:
        found = json.loads(reply[start : end + 1]) if start >= 0 else None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise WordingError(f"the reply holds no JSON object: {brief(reply)}")
    made = {}
    for question in (pair.localization, pair.attribute):
        text = found.get(question.kind)
        if problem := _problem(text, question, pair.target.known.label):
            raise WordingError(f"{question.kind}: {problem}: {brief(text)}")
        made[question.kind] = " ".join(str(text).split())
    return made


def _problem(text: Any, question: Question, label: str) -> str | None:
    """The fault of a question that a model worded; None where there is none."""
    if not isinstance(text, str) or not text.strip().endswith("?") or unstorable(text):
        return "no question"
    if len(text) > LONGEST:
        return f"more than {LONGEST} characters"
    said = text.lower()
    if label.lower() not in said:
        return f"the structure {label!r} is not named"
    words = re.findall(r"\w+", said.replace(label.lower(), " "))
    if not question.options and question.answer.lower() in words:
        return "the answer is given away"
    lost = [one for one in question.options if one.lower() not in said]
    return f"the choice {lost[0]!r} is missing" if lost else None
