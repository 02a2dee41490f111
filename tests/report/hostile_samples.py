"""Samples whose every text tries to be markup, and a parser that tells elements from text."""

from __future__ import annotations

from html.parser import HTMLParser

from interp.data import Samples
from tests.study.planted import sample

ATTACK = "<script>alert('x')</script><img src=https://evil.example/x.png>"


class Elements(HTMLParser):
    """The elements of a page, and its text outside scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.code, self._inside = "", "", ""
        self.feed(str(page))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "style":
            self.code += data
        elif self._inside != "script":
            self.text += data


def hostile() -> Samples:
    """Samples whose every text tries to be markup; 23 groups, so that there are intervals."""
    data = [sample(number, group=f"{ATTACK}{number}") for number in range(23)]
    data[0] = data[0].replace(question=ATTACK, answer=ATTACK, id=f"id {ATTACK}")
    data[1] = data[1].replace(boxes=[], id=f"bad {ATTACK}")
    return Samples(data)
