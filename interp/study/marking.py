"""Whether a generated text is a sample's answer: the strict comparison."""

from __future__ import annotations

import string

from interp.inputs.prompt import Prompt
from interp.inputs.sample import Sample

__all__ = ["RULE", "is_right"]

RULE = """Right: the whole generated text is the sample's answer, without regard to case, punctuation and space
around it. Where options are lettered, the answer's letter, its text, or the letter followed by the text. Anything
more (“yes, there is”) or less is wrong."""


def is_right(text: str, sample: Sample, prompt: Prompt) -> bool | None:
    """Whether a generated text answers the sample as it says it should be; None when it does not say.

    Strict: the whole text counts, compared without case and without punctuation and space at its ends. "Yes." is
    "yes"; "yes, there is" and "yesterday" are not. Where the prompt letters the options, the answer's letter, its
    text and both ("B", "liver", "B. liver", "(b) liver") are right; an answer given as a letter names that option.

    >>> from interp.inputs.sample import Sample
    >>> asked = Sample("scan.png", "Which organ?", answer="liver", options=("spleen", "liver"))
    >>> [is_right(text, asked, Prompt()) for text in ("B", "Liver.", "b) liver", "the liver", "A")]
    [True, True, True, False, False]
    """
    if sample.answer is None:
        return None
    said, answer = plain(text), plain(str(sample.answer))
    if prompt.options != "letters" or not sample.options:
        return said == answer
    options = [plain(option) for option in sample.options]
    letters = [letter.casefold() for letter in string.ascii_uppercase[: len(options)]]
    if answer not in options and answer not in letters:
        return said == answer
    place = options.index(answer) if answer in options else letters.index(answer)
    if said in (letters[place], options[place]):
        return True
    head, rest = said[:1], said[1:]
    apart = rest[:1] in (*string.punctuation, *string.whitespace)
    return head == letters[place] and apart and plain(rest) == options[place]


def plain(text: str) -> str:
    """A text without case, and without punctuation and space at its ends."""
    return text.strip(string.punctuation + string.whitespace).casefold()
