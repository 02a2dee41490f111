"""Words as token ids of one vocabulary."""

from __future__ import annotations

from typing import Any

from interp.errors import PromptError

__all__ = ["word_ids"]


def word_ids(tokenizer: Any, word: str) -> tuple[int, ...]:
    """The tokens that spell a whole word: as written, lower case, capitalised; with and without a space before.

    Raises:
        PromptError: None of its spellings is one token.
    """
    unknown = getattr(tokenizer, "unk_token_id", None)
    spellings = dict.fromkeys((word, word.lower(), word.capitalize()))
    pieces = [
        tokenizer.encode(before + spelling, add_special_tokens=False)
        for spelling in spellings
        for before in ("", " ")
    ]
    found = {ids[0] for ids in pieces if len(ids) == 1 and ids[0] != unknown}
    found |= {
        ids[1]
        for ids in pieces
        if len(ids) == 2 and not tokenizer.decode(ids[:1]).strip() and ids[1] != unknown
    }
    if not word.strip() or not found:
        pieced = tokenizer.convert_ids_to_tokens(pieces[0]) if word.strip() else []
        raise PromptError(
            f"a word of the logit lens is one token; {word!r} is {pieced} in this vocabulary. Give one of its "
            "tokens, or a shorter word."
        )
    return tuple(sorted(found))
