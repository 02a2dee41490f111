"""Words of several scripts."""

from __future__ import annotations

import unicodedata

import pytest

from interp.inputs.words import spelling, word_spans, word_spellings


def words(text: str) -> list[str]:
    return [text[start:end] for start, end in word_spans(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Is the X-ray, or the patient's lung, 2.5 cm?", ["Is", "the", "X-ray", "or", "the", "patient's"]),
        ("हिन्दी का पाठ।", ["हिन्दी", "का", "पाठ"]),
        ("أين العُقَيْدة؟", ["أين", "العُقَيْدة"]),
        (
            unicodedata.normalize("NFD", "où est le café?"),
            [unicodedata.normalize("NFD", w) for w in ("où", "est")],
        ),
        ("می\u200cخواهم نه", ["می\u200cخواهم", "نه"]),
        ("左肺に結節が", ["左", "肺", "に", "結", "節", "が"]),
        ("ปอดซ้าย", ["ป", "อ", "ด", "ซ้", "า", "ย"]),
        ("ＣＴ検査 CT-1", ["ＣＴ", "検", "査", "CT-1"]),
        ("?! -- ’", []),
        ("\u0301 a", ["a"]),
        ("", []),
    ],
)
def test_words_of_scripts(text, expected):
    assert words(text)[: len(expected)] == expected
    assert bool(expected) == bool(words(text))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Café", unicodedata.normalize("NFD", "cafÉ")),
        ("STRASSE", "straße"),
        ("ｃｔ", "CT"),
        ("ｶﾞﾝ", "ガン"),
        ("x‑ray", "X-ray"),
        ("patient’s", "patient's"),
        ("nod\u00adule", "nodule"),
        ("العُقَّيْدة", "العُقَّيْدة"),
        ("İ", "i̇"),
    ],
)
def test_two_ways_to_write_a_word_are_equal(one, other):
    assert word_spellings(one) == word_spellings(other) != []


def test_marks_tell_words_apart():
    assert spelling("café") != spelling("cafe")
    assert spelling("हिन्दी") != spelling("हिन्द")
    assert spelling("…") == ""
