"""Scores of open answers by their words: BLEU-1 and LLaVA-Med's recall."""

from __future__ import annotations

import importlib
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from interp.errors import StudyError
from interp.inputs.argument_checks import check_bool, check_number
from interp.inputs.prompt import Prompt
from interp.inputs.sample import Sample
from interp.inputs.text import brief
from interp.metrics.scorers.scorer import as_text, check_extract, checked_texts, extracted

__all__ = ["Bleu1", "OpenRecall", "needs_eval", "normalised_words", "open_average"]

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_ARTICLES = ("a", "an", "the")
_NUMBERS = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7",
    "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
_CONTRACTIONS = (
    "ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's "
    "isn't it'd it'll ma'am might've mightn't must've mustn't needn't o'clock oughtn't shan't should've shouldn't "
    "somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd there're "
    "there's they'd they'll they're they've 'twas wasn't we've weren't what'll what're what's what've when's "
    "where'd where's where've who'd who'll who's who've why'll why're why's won't would've wouldn't y'all you'd "
    "you'll you're you've"
)
_SHORT = {one.replace("'", ""): one for one in _CONTRACTIONS.split()}


def normalised_words(text: str) -> list[str]:
    """Returns the words of an answer as LLaVA-Med compares them.

    The text becomes lower case. Most punctuation is removed where it touches a space (or where a number has a comma),
    and becomes a space elsewhere. Full stops are removed unless a digit follows. "none" and the numbers up to ten
    become digits. The articles a, an and the are removed. Contractions without their apostrophe get it back. The words
    are then split at spaces. Accents are composed first (NFC), which the original does not do; contractions of three
    words ("couldn't've") are left as they are.

    Raises:
        StudyError: `text` is no text.

    >>> normalised_words("There are Two well-defined nodules, in the left lung.")
    ['there', 'are', '2', 'well', 'defined', 'nodules', 'in', 'left', 'lung']

    Source: the answer normalisation of VQA v2's evaluation, as LLaVA-Med (arXiv 2306.00890) uses it.
    """
    text = unicodedata.normalize("NFC", as_text("text", text)).lower()
    comma_in_number = re.search(r"\d,\d", text) is not None
    found = text
    for mark in _PUNCTUATION:
        out = mark + " " in text or " " + mark in text or comma_in_number
        found = found.replace(mark, "" if out else " ")
    words = (_NUMBERS.get(word, word) for word in re.sub(r"\.(?!\d)", "", found).split())
    return [_SHORT.get(word, word) for word in words if word not in _ARTICLES]


@dataclass(frozen=True)
class Bleu1:
    """BLEU-1 of each answer: the share of its words that the reference has, times a penalty for short answers.

    Over `normalised_words` of answer c and reference r: BLEU-1 = min(1, exp(1 − |r|/|c|)) · Σ_w min(c_w, r_w) / |c|,
    NLTK's `sentence_bleu` with the weights (1, 0, 0, 0) and no smoothing. A word more than the reference has costs
    precision, so long answers score low even where they are right. 0 without a shared word, for an empty answer, and
    where the reference has no word (such as "the"). Needs the extra `eval`.

    Args:
        extract: The part of the text that is scored; see `extracted`.

    Source: Papineni et al., 2002; per item and averaged, as LLaVA-Med and the reference paper (its Table E.3).

    >>> from interp import Prompt, Sample
    >>> sample = Sample("scan.png", "Where is it?", answer="left lung")
    >>> Bleu1().scores(["in the left lung", "The liver"], [sample] * 2, Prompt())
    [0.6666666666666666, 0.0]
    """

    extract: str = "whole"

    name = "BLEU-1"
    unit = "mean BLEU-1"
    direction = "higher"
    needs_log_probabilities = False

    def __post_init__(self) -> None:
        check_extract(self.extract)

    def scores(
        self, texts: Sequence[str | None], samples: Sequence[Sample], prompt: Prompt
    ) -> list[float | None]:
        """Returns the BLEU-1 of each answer, from 0 to 1; None for a sample without an answer, 0 for no text."""
        bleu = needs_eval("nltk.translate.bleu_score", "Bleu1").sentence_bleu

        def score(text: list[str], reference: list[str]) -> float:
            return float(bleu([reference], text, weights=(1, 0, 0, 0))) if text and reference else 0.0

        with warnings.catch_warnings():  # of no shared pairs of words, whose weight is 0
            warnings.simplefilter("ignore", UserWarning)
            return _word_scores(score, self.extract, checked_texts(texts, samples, prompt))

    def to_dict(self) -> dict[str, Any]:
        """The scorer as JSON values, part of a study's hash."""
        return {"scorer": self.name, **asdict(self)}


@dataclass(frozen=True)
class OpenRecall:
    """How much of the reference an answer has, in words.

    Over `normalised_words` of answer c and reference r: LLaVA-Med's recall is tp / (tp + fn) with tp = Σ c_w over the
    words that both have and fn = Σ r_w over the words that the answer lacks. An answer that repeats a right word gains:
    "lung lung lung" scores 3/4 against "left lung". With `clean`, Σ_w min(c_w, r_w) / |r|: 1/2 there. Either rewards
    long answers: one that names everything has recall 1. 0 for an empty answer, and where the reference has no word.

    Args:
        clean: Whether each word of the reference counts at most as often as it occurs there.
        extract: The part of the text that is scored; see `extracted`.

    Source: the recall of open questions in LLaVA-Med's evaluation (arXiv 2306.00890).

    >>> from interp import Prompt, Sample
    >>> sample = Sample("scan.png", "Where is it?", answer="left lung")
    >>> OpenRecall().scores(["lung, lung, lung"], [sample], Prompt())
    [0.75]
    >>> OpenRecall(clean=True).scores(["lung, lung, lung"], [sample], Prompt())
    [0.5]
    """

    clean: bool = False
    extract: str = "whole"

    unit = "mean recall"
    direction = "higher"
    needs_log_probabilities = False

    def __post_init__(self) -> None:
        check_bool("clean", self.clean, StudyError)
        check_extract(self.extract)

    @property
    def name(self) -> str:
        """The name in tables and figures."""
        return "recall, each word once" if self.clean else "recall"

    def scores(
        self, texts: Sequence[str | None], samples: Sequence[Sample], prompt: Prompt
    ) -> list[float | None]:
        """Returns the recall of each answer, from 0 to 1; None for a sample without an answer, 0 for no text."""
        return _word_scores(self._recall, self.extract, checked_texts(texts, samples, prompt))

    def to_dict(self) -> dict[str, Any]:
        """The scorer as JSON values, part of a study's hash."""
        return {"scorer": "recall", **asdict(self)}

    def _recall(self, text: list[str], reference: list[str]) -> float:
        if not reference:
            return 0.0
        said, wanted = Counter(text), Counter(reference)
        if self.clean:
            return (said & wanted).total() / wanted.total()
        found = sum(n for word, n in said.items() if word in wanted)
        missed = sum(n for word, n in wanted.items() if word not in said)
        return found / (found + missed)


def _word_scores(score: Any, extract: str, pairs: Sequence[tuple[str | None, Sample]]) -> list[float | None]:
    """The score of each answer's words against its sample's."""
    return [
        None
        if sample.answer is None
        else 0.0
        if text is None
        else score(
            normalised_words(extracted(text, extract, len(sample.options or ()))),
            normalised_words(sample.answer),
        )
        for text, sample in pairs
    ]


def open_average(*scores: Sequence[float | None]) -> list[float | None]:
    """Returns the mean of several scorers' scores for each answer; None where any of them is None.

    The reference paper's Table E.3 averages BLEU-1, BERTScore and recall.

    Raises:
        StudyError: No scores, lists of several lengths, or what is neither a number nor None.

    >>> open_average([0.5, None], [1.0, 1.0], [0.0, 1.0])
    [0.5, None]
    """
    listed = all(isinstance(one, Sequence) and not isinstance(one, str) for one in scores)
    if not scores or not listed or len({len(one) for one in scores}) > 1:
        got = f"lengths {sorted({len(one) for one in scores})}" if listed else brief(scores)
        raise StudyError(
            f"open_average takes lists of the scores of several scorers for the same answers; got {got}."
        )
    for value in (value for one in scores for value in one if value is not None):
        check_number("a score", value, error=StudyError)
    rows = zip(*scores, strict=True)
    known = ([one for one in row if one is not None] for row in rows)
    return [sum(row) / len(row) if len(row) == len(scores) else None for row in known]


def needs_eval(module: str, scorer: str) -> Any:
    """Returns a module of the extra `eval`.

    Raises:
        StudyError: It is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise StudyError(
            f"{scorer} needs the library {module.split('.')[0].replace('_', '-')}; install it with: pip install "
            "'interp[eval]'"
        ) from error
