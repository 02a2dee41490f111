from __future__ import annotations

import unicodedata

import pytest

from interp.inputs.text import (
    brief,
    count,
    faulty_text,
    meant,
    spelling,
    storable,
    unstorable,
    word_spans,
    word_spellings,
)


@pytest.mark.parametrize("character", ["\x00", "\x07", "\x1b", "\x7f", "\x85", "\ud83d", chr(0xDCE9)])
def test_surrogates_and_control_characters_are_found(character: str) -> None:
    assert repr(character) in str(unstorable(f"ab{character}"))
    assert "position 2" in str(unstorable(f"ab{character}"))
    assert unstorable(storable(f"ab{character}")) is None


@pytest.mark.parametrize("text", ["", "two\nlines\tand a tab\r\n", "naïve 😀 肝 \u200f\u2028", "e\u0301"])
def test_other_text_can(text: str) -> None:
    assert unstorable(text) is None
    assert storable(text) == text
    assert text.encode().decode() == text


def test_escapes_keep_the_bytes_of_a_name_readable() -> None:
    assert storable("caf\udce9 \x1b.png") == r"caf\udce9 \x1b.png"


def test_the_place_of_a_bad_text_is_named() -> None:
    assert "meta['a'][1]['b'] holds" in str(faulty_text("meta", {"a": [1, {"b": "\0"}]}))
    assert "a key of meta holds" in str(faulty_text("meta", {"\0": 1}))
    assert faulty_text("meta", {"a": [1, None, 2.5, ("x",)]}) is None


def test_what_is_nested_without_end_is_refused() -> None:
    endless: list[object] = []
    endless.append(endless)
    assert "more than 32 levels" in str(faulty_text("meta", endless))


@pytest.mark.parametrize(
    "wrap", [lambda inner: [inner], lambda inner: {"a": inner}], ids=["lists", "mappings"]
)
def test_texts_lie_up_to_32_levels_deep(wrap) -> None:
    held: object = "x"
    for _ in range(32):
        held = wrap(held)
    assert faulty_text("meta", held) is None
    assert "more than 32 levels" in str(faulty_text("meta", wrap(held)))


def test_a_number_and_its_noun() -> None:
    assert [count(n, "group") for n in (0, 1, 2)] == ["0 groups", "1 group", "2 groups"]
    assert str(unstorable("é\x00")) == "the control character '\\x00' at position 1"
    assert spelling("_") == "_"


def test_long_values_are_shown_short() -> None:
    assert len(brief("x" * 10_000)) <= 200
    assert len(brief([[["y" * 5_000] * 50] * 50])) <= 601
    assert "int" in brief(10**6_000)


def words(text: str) -> list[str]:
    return [text[start:end] for start, end in word_spans(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Is the X-ray, or the patient's lung, 2.5 cm?",
            ["Is", "the", "X-ray", "or", "the", "patient's", "lung", "2", "5", "cm"],
        ),
        ("हिन्दी का पाठ।", ["हिन्दी", "का", "पाठ"]),
        ("أين العُقَيْدة؟", ["أين", "العُقَيْدة"]),
        (
            unicodedata.normalize("NFD", "où est le café?"),
            [unicodedata.normalize("NFD", w) for w in ("où", "est", "le", "café")],
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
    assert words(text) == expected


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


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("layer_swep", " Did you mean 'layer-sweep'?"),
        ("LAYER SWEEP", " Did you mean 'layer-sweep'?"),
        (["heads", "Metrik"], " Did you mean 'metrics'?"),
        ("zzz", ""),
        ("", ""),
        (5, ""),
        ([None, 3], ""),
    ],
)
def test_the_name_that_was_meant_is_the_nearest(given: object, said: str) -> None:
    assert meant(given, ["layer-sweep", "metrics", "rule"]) == said
    assert meant(given, []) == ""


def test_spans_are_where_the_words_stand() -> None:
    assert word_spans("Is  the X-ray's 2.5?") == [(0, 2), (4, 7), (8, 15), (16, 17), (18, 19)]
    assert words("-a- 'b' c--d e_f") == ["a", "b", "c", "d", "e_f"]


def test_several_names_are_met_with_one_each() -> None:
    known = ["layer-sweep", "metrics"]
    assert meant(["metric", "layersweep", "metrik"], known) == " Did you mean 'metrics', 'layer-sweep'?"


def test_texts_in_sets_and_tuples_are_looked_at() -> None:
    assert "meta[0] holds" in str(faulty_text("meta", {"\0"}))
    assert "meta[1] holds the lone surrogate" in str(faulty_text("meta", ("a", "b\ud83d")))
    assert faulty_text("meta", b"\0") is None
