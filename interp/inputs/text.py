"""Text that can be stored, tokenised and shown; and what a word is, in any script."""

from __future__ import annotations

import re
import reprlib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

__all__ = [
    "brief",
    "count",
    "faulty_text",
    "meant",
    "spelling",
    "storable",
    "unstorable",
    "word_spans",
    "word_spellings",
]


MAX_DEPTH = 32
"""Lists and mappings in a sample's `meta` are nested at most this deep."""

_LAYOUT = "\t\n\r"


_BRIEF = reprlib.Repr()
_BRIEF.maxlevel, _BRIEF.maxlist, _BRIEF.maxtuple, _BRIEF.maxdict = 4, 8, 8, 8
_BRIEF.maxstring, _BRIEF.maxother = 200, 200
_JOINERS = "\u00ad\u200c\u200d\u2060"
"""Characters inside words that are not seen: soft hyphen, zero-width joiners, word joiner."""
_VOICED = "\uff9e\uff9f"
"""Half-width kana's sound marks, which are letters to Unicode."""
_UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # Kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)
"""Letters of scripts that put no spaces between words."""
_PLAIN = {**dict.fromkeys(map(ord, _JOINERS)), ord("’"): "'", 0x2010: "-", 0x2011: "-"}


def count(n: int, noun: str) -> str:
    """A number with its noun: “1 group”, “3 groups”."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def unstorable(text: str) -> str | None:
    """Says which character keeps a text from being stored or tokenised; None where there is none.

    These are lone surrogates (half of a character, as from broken UTF-16 or from file names that are not UTF-8) and
    control characters other than tab and line ends.

    >>> unstorable("two\\nlines") is None, unstorable("nul \\x00")
    (True, "the control character '\\\\x00' at position 4")
    """
    if text.isascii() and text.isprintable():
        return None
    for at, character in enumerate(text):
        kind = unicodedata.category(character)
        if kind == "Cs":
            return f"the lone surrogate {character!r} at position {at}"
        if kind == "Cc" and character not in _LAYOUT:
            return f"the control character {character!r} at position {at}"
    return None


def faulty_text(name: str, value: Any) -> str | None:
    """Says what is wrong with the texts in a value: its own, its keys' and its items'; None where nothing is.

    Args:
        name: The name of the value in the message.
        value: A text, or lists, tuples, sets and mappings of texts. Any other value has no text.
    """
    for depth, where, part in _parts(name, value):
        if depth > MAX_DEPTH:
            return f"{name} is nested more than {MAX_DEPTH} levels deep. Flatten it."
        problem = unstorable(part) if isinstance(part, str) else None
        if problem:
            return (
                f"{where} holds {problem} of {brief(part)}: such text cannot be stored or tokenised. "
                "Decode the source with its true encoding, or remove the character."
            )
    return None


def _parts(name: str, value: Any) -> Iterator[tuple[int, str, Any]]:
    """(depth, name, value) of a value and of everything in it, until one lies too deep."""
    left = [(0, name, value)]
    while left:
        depth, where, part = left.pop()
        yield depth, where, part
        if isinstance(part, Mapping):
            left += [(depth + 1, f"a key of {where}", key) for key in part if isinstance(key, str)]
            left += [(depth + 1, f"{where}[{brief(key)}]", item) for key, item in part.items()]
        elif isinstance(part, list | tuple | set | frozenset):
            left += [(depth + 1, f"{where}[{i}]", item) for i, item in enumerate(part)]


def storable(text: str) -> str:
    """Returns the text with escapes in place of what cannot be stored, such as the bytes of a name that is not UTF-8.

    >>> storable("caf\\udce9.png"), storable("café.png")
    ('caf\\\\udce9.png', 'café.png')
    """
    if unstorable(text) is None:
        return text
    shown = (
        character.encode("unicode_escape").decode() if unstorable(character) else character
        for character in text
    )
    return "".join(shown)


def meant(given: Any, known: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" where one of the known names is like what was given, else "".

    Case, and whether words are joined by "-", "_" or a space, count for nothing.

    Args:
        given: What was given: an unknown name, or several, of which each is compared; anything else is like none.
        known: The names that there are.

    >>> meant("Layer_swep", ["layer-sweep", "head-ranking"]), meant("colour", ["metrics"])
    (" Did you mean 'layer-sweep'?", '')
    """
    plain = {_plain(name): name for name in known}
    listed = [given] if isinstance(given, str) else given
    asked = [one for one in listed if isinstance(one, str)] if isinstance(listed, list | tuple) else []
    near = [close for one in asked for close in get_close_matches(_plain(one), plain, 1)]
    names = dict.fromkeys(repr(plain[one]) for one in near)
    return f" Did you mean {', '.join(names)}?" if names else ""


def _plain(name: str) -> str:
    return " ".join(name.lower().replace("-", " ").replace("_", " ").split())


def brief(value: Any) -> str:
    """Returns a short `repr` for messages, whatever the length and depth of the value.

    >>> len(brief("x" * 1000))
    200
    """
    try:
        text = _BRIEF.repr(value)
    except ValueError:  # an integer of more digits than Python writes
        return f"<a {type(value).__name__} too long to write>"
    return text if len(text) <= 600 else f"{text[:300]}…{text[-300:]}"


def word_spans(text: str) -> list[tuple[int, int]]:
    """Returns (start, end) of each word, half-open, in characters.

    A word consists of letters, digits, and the marks on them, such as vowel signs and accents; hyphens and
    apostrophes inside it belong to it. In scripts without spaces between words, such as Chinese or Thai, each
    character is one: a word there is a run of them.
    """
    marks = "".join(sorted({c for c in text if unicodedata.category(c)[0] == "M"})) + _JOINERS + _VOICED
    one = rf"(?:(?![{_UNSPACED}])[\w{marks}])"
    pattern = rf"(?=\w)[{_UNSPACED}][{marks}]*|{one}+(?:[-'’\u2010\u2011]{one}+)*"
    return [found.span() for found in re.finditer(pattern, text) if spelling(found.group())]


def word_spellings(text: str) -> list[str]:
    """Returns the words of a text, spelled so that they can be compared (`spelling`)."""
    return [spelling(text[start:end]) for start, end in word_spans(text)]


def spelling(word: str) -> str:
    """Returns a word so that two ways to write it are equal: lower case, composed accents, plain widths and hyphens.

    It is empty for what holds no letter or digit.
    """
    plain = word.translate(_PLAIN)
    for _ in range(2):  # a folded case may compose anew
        plain = unicodedata.normalize("NFKC", plain).casefold()
    return plain if any(c.isalnum() or c == "_" for c in plain) else ""
