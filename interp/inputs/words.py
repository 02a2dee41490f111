"""What a word is, in any script."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["spelling", "word_spans", "word_spellings"]

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


_PLAIN = {**dict.fromkeys(map(ord, _JOINERS)), ord("’"): "'", 0x2010: "-", 0x2011: "-"}
