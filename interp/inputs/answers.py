"""Answer matching: which option a text names, and whether a text is a sample's answer. One rule for generated texts
and for first tokens.

Two texts match when they are equal without regard to case and to quotes, dashes, stops and space at their ends:
"Yes.", '"yes"' and "- - yes" are "yes"; "yes, there is" and "yesterday" are not. Signs that carry meaning stay: "<1 cm"
is not ">1 cm", "HER2+" is not "HER2−", "C" is neither "C++" nor "C#". Where the prompt letters the options, the
answer's letter stands for its text.

Among options the exact text wins, then the text without case, then the rule above, and last the text without any
punctuation. Each step counts only where it leaves exactly one option: a text that fits two names none.
"""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Callable, Sequence

from interp.inputs.prompt import Prompt
from interp.inputs.sample import Sample

__all__ = ["RULE", "accepted", "answer_place", "bare", "is_right", "named_option", "other_options", "plain"]

RULE = """Right: the whole generated text is the sample's answer, without regard to case, and to quotes, dashes, stops
and space at its ends; signs such as <, + and % count. Where options are lettered, the answer's letter, its text, or the
letter followed by the text is right. Anything more (“yes, there is”) or less is wrong. The thought of a model that
thinks is no part of its answer; an answer that did not come, because the thought took all tokens, is wrong."""

_MINUS = "-‐‑‒–−"
_SIGNS = "#%‰°&@"
"""Punctuation that carries meaning, beside mathematical and currency symbols and a minus that touches its word."""
_APART = "|−"
"""Mathematical symbols that are layout, or that count only where they touch the word."""


def bare(text: str) -> str:
    """The text without punctuation, symbols and space at its ends; empty where there is nothing else.

    >>> [bare(text) for text in ("- - Yes.", "(B)", "...", "HER2−")]
    ['Yes', 'B', '', 'HER2']
    """
    start, end = _core(text)
    return text[start:end]


def plain(text: str) -> str:
    """What is compared: the text without case, and without what carries no meaning at its ends.

    A text of nothing but punctuation stays as it is.

    >>> [plain(text) for text in ("- - Yes.", " YES ", "+", "“C++”.", "<1 cm.", "(-5)")]
    ['yes', 'yes', '+', 'c++', '<1 cm', '-5']
    """
    start, end = _core(text)
    if start == end:
        return _folded(text.strip())
    before, core, after = text[:start], text[start:end], text[end:]
    point = core[0].isdigit() and before.endswith(".") and not before.endswith("..")
    before, core = (before[:-1], "." + core) if point else (before, core)
    lead = _signs(before[::-1], minus=core[0] == "." or core[0].isdigit())[::-1]
    return _folded(lead + core + _signs(after, minus=True))


def named_option(text: str, options: Sequence[str]) -> int | None:
    """The place of the option that a text names; None where it names none, or fits several alike.

    >>> options = ("<1 cm", ">1 cm", "not visible")
    >>> [named_option(text, options) for text in (">1 cm", "<1 CM.", "1 cm", "Not visible!")]
    [1, 0, None, 2]
    """
    return _named(text, options, (*_CLOSE, _bare_folded))


def accepted(sample: Sample, prompt: Prompt) -> str:
    """The text that the prompt wants for the sample's answer: its letter where options are lettered, else itself.

    >>> sample = Sample("scan.png", "Which organ?", answer="liver", options=("spleen", "liver"))
    >>> accepted(sample, Prompt(options="letters")), accepted(sample, Prompt(options="none"))
    ('B', 'liver')
    """
    place = answer_place(sample, prompt) if prompt.options == "letters" else None
    return str(sample.answer) if place is None else string.ascii_uppercase[place]


def other_options(sample: Sample, prompt: Prompt) -> list[str]:
    """The options that are not the sample's answer, as text; all where the answer is none of them."""
    place = answer_place(sample, prompt)
    return [option for i, option in enumerate(sample.options or ()) if i != place]


def is_right(text: str | None, sample: Sample, prompt: Prompt) -> bool | None:
    """Whether a generated text is the sample's answer, by the rule of this module; None without an answer.

    A text of None is wrong: the model was still reasoning when its tokens ran out.

    With lettered options the answer's letter, its text and both ("B", "liver", "B. liver", "(b) liver") are right. An
    answer that is given as a letter names that option, unless it is the text of one. A text that fits several
    options alike is wrong.

    >>> sample = Sample("scan.png", "Which organ?", answer="liver", options=("spleen", "liver"))
    >>> [is_right(text, sample, Prompt()) for text in ("B", "Liver.", "b) liver", "the liver", "A")]
    [True, True, True, False, False]
    """
    if sample.answer is None:
        return None
    if text is None:
        return False
    place = answer_place(sample, prompt)
    if place is None:
        return plain(text) == plain(sample.answer)
    return _said_place(text, sample.options or (), lettered=prompt.options == "letters") == place


def answer_place(sample: Sample, prompt: Prompt) -> int | None:
    """The place of the answer among the options: by its text, or by its letter where the prompt letters them.

    None without an answer or options, and for an answer that is none of them.
    """
    options = sample.options or ()
    if sample.answer is None or not options:
        return None
    if (place := _named(sample.answer, options, _CLOSE)) is not None:
        return place
    letter = _letter(sample.answer, options) if prompt.options == "letters" else None
    return named_option(sample.answer, options) if letter is None else letter


def _said_place(text: str, options: Sequence[str], *, lettered: bool) -> int | None:
    """The place of the option that a generated text names: by its letter first, because the prompt asks for it."""
    if not lettered:
        return named_option(text, options)
    if (letter := _letter(text, options)) is not None:
        return letter
    if (place := _named(text, options, _CLOSE)) is not None:
        return place
    start = _core(text)[0]
    head, rest = text[start : start + 1], text[start + 1 :]
    led = _letter(head, options) if rest and not rest[0].isalnum() else None
    if led is not None and named_option(rest, options) == led:
        return led
    return named_option(text, options) if led is None else None


def _letter(text: str, options: Sequence[str]) -> int | None:
    """The place of the option that a text letters: "B", "b." and "(B)" are 1; "B+" is no letter."""
    letter = plain(text)
    letters = string.ascii_lowercase[: len(options)]
    return letters.index(letter) if len(letter) == 1 and letter in letters else None


def _named(text: str, options: Sequence[str], keys: Sequence[Callable[[str], str]]) -> int | None:
    """The only option that equals the text by the first key by which any does."""
    for key in keys:
        wanted = key(text)
        found = [i for i, option in enumerate(options) if key(option) == wanted] if wanted else []
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text.strip())


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def _bare_folded(text: str) -> str:
    return _folded(bare(text))


_CLOSE: tuple[Callable[[str], str], ...] = (str, _composed, lambda text: _folded(text.strip()), plain)
"""From the strictest to the loosest way of comparing that keeps signs."""


def _core(text: str) -> tuple[int, int]:
    """Where the text without punctuation, symbols and space at its ends lies: [start, end)."""
    inner = [i for i, character in enumerate(text) if unicodedata.category(character)[0] not in "PSZC"]
    return (inner[0], inner[-1] + 1) if inner else (0, 0)


def _signs(outside: str, *, minus: bool) -> str:
    """Of what lies outside the core, from the core outwards, the characters that carry meaning.

    Args:
        outside: The characters before the core, reversed, or those after it.
        minus: Whether a single minus that touches the core carries meaning: it does after a word and before a number.
    """
    kept = [
        character
        for character in outside
        if character in _SIGNS
        or (unicodedata.category(character) in ("Sm", "Sc") and character not in _APART)
    ]
    single = outside[:1] in tuple(_MINUS) and outside[1:2] not in tuple(_MINUS)
    return ("-" if minus and single else "") + "".join(kept)
