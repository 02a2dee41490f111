"""Answer matching: whether a text is a sample's answer. One rule for generated texts and for first tokens.

Two texts match when they are equal without regard to case, and to punctuation and space at their ends: "Yes.", '"yes"'
and "- - yes" are "yes"; "yes, there is" and "yesterday" are not. A text of nothing but punctuation matches itself
only, so that "+" is not "−". Where the prompt letters the options, the answer's letter stands for its text.
"""

from __future__ import annotations

import string

from interp.inputs.prompt import Prompt
from interp.inputs.sample import Sample

__all__ = ["RULE", "accepted", "bare", "is_right", "plain"]

RULE = """Right: the whole generated text is the sample's answer, without regard to case, and to punctuation and space
at its ends. Where options are lettered, the answer's letter, its text, or the letter followed by the text is right.
Anything more (“yes, there is”) or less is wrong."""

ENDS = string.punctuation + string.whitespace


def bare(text: str) -> str:
    """The text without punctuation and space at its ends; empty where there is nothing else.

    >>> [bare(text) for text in ("- - Yes.", "(B)", "...")]
    ['Yes', 'B', '']
    """
    return text.strip(ENDS)


def plain(text: str) -> str:
    """What is compared: the bare text without case; a text of nothing but punctuation as it is.

    >>> [plain(text) for text in ("- - Yes.", " YES ", "+")]
    ['yes', 'yes', '+']
    """
    return (bare(text) or text.strip()).casefold()


def accepted(sample: Sample, prompt: Prompt) -> str:
    """The text that the prompt wants for the sample's answer: its letter where options are lettered, else itself.

    >>> sample = Sample("scan.png", "Which organ?", answer="liver", options=("spleen", "liver"))
    >>> accepted(sample, Prompt(options="letters")), accepted(sample, Prompt(options="none"))
    ('B', 'liver')
    """
    place = _place(sample, prompt)
    return str(sample.answer) if place is None else string.ascii_uppercase[place]


def is_right(text: str, sample: Sample, prompt: Prompt) -> bool | None:
    """Whether a generated text is the sample's answer, by the rule of this module; None without an answer.

    With lettered options the answer's letter, its text and both ("B", "liver", "B. liver", "(b) liver") are right. An
    answer that is given as a letter names that option, unless it is the text of one.

    >>> sample = Sample("scan.png", "Which organ?", answer="liver", options=("spleen", "liver"))
    >>> [is_right(text, sample, Prompt()) for text in ("B", "Liver.", "b) liver", "the liver", "A")]
    [True, True, True, False, False]
    """
    if sample.answer is None:
        return None
    said, place = plain(text), _place(sample, prompt)
    if place is None:
        return said == plain(str(sample.answer))
    letter, option = string.ascii_lowercase[place], plain((sample.options or ())[place])
    if said in (letter, option):
        return True
    head, rest = said[:1], said[1:]
    return head == letter and rest[:1] in tuple(ENDS) and plain(rest) == option


def _place(sample: Sample, prompt: Prompt) -> int | None:
    """The place of the answer among lettered options; None where options are not lettered or it is none of them."""
    if prompt.options != "letters" or not sample.options:
        return None
    answer, options = plain(str(sample.answer)), [plain(option) for option in sample.options]
    names = (options, list(string.ascii_lowercase[: len(options)]))
    return next((listed.index(answer) for listed in names if answer in listed), None)
