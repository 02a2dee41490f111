"""Reasons against trusting a map: checks with a value, a reference from a uniform or random map, and a sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, overload

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from markupsafe import Markup

from interp.errors import InterpError
from interp.indicators.removals import HideTokens
from interp.inputs.prompt import Prompt, Target
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.metrics import spearman
from interp.report.html import join, span, table
from interp.report.tables import count, number, percent
from interp.study.first_look.shown_map import ShownMap
from interp.study.indicator_comparison.indicator_maps import ALL, fixed_targets, shuffled
from interp.study.indicator_comparison.removal_curves import measured, run_removal, scaled
from interp.tracing.derived.outlying_norms import sinks

__all__ = ["Trust", "TrustCheck", "answer_check", "at_border", "full_checks", "quick_checks", "words_check"]

EXCESS, LOW_RHO, HIGH_RHO = 0.25, 0.3, 0.5
"""The limits of a caution: a share of the weight beyond a uniform map's that is higher than the first; a rank
correlation with another indicator that is lower than the second; one with the map of shuffled weights that is higher
than the third. They are conventions of this package, not tests."""
LOW_PROBABILITY = 0.1
"""A geometric mean of the probabilities of the answer's tokens, in [0, 1], below this value raises a caution: the model
hardly prefers its answer, so a map of it explains little. A convention of this package, not a test."""
N_RANDOM, MOST_RANDOM = 19, 1
"""The number of random orders that deletion is compared with, and how many may do as well without a caution."""
STEPS, LEAST = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75), 0.1
"""Fractions of the tokens that deletion hides, and the smallest fall of the target with all of them hidden."""

Flag = Literal["caution", "no caution", "not measured", "note"]
Shares = Float[np.ndarray, " token"]


@dataclass(frozen=True)
class TrustCheck:
    """One check of a map.

    Attributes:
        name: What is checked, in a few words.
        value: The number; NaN where it could not be measured.
        reference: The same number of a uniform map, or of random maps; NaN where there is none.
        flag: "caution", "no caution", "not measured" or "note".
        finding: What was found, as a sentence.
        meaning: What the check is and what it can show.
    """

    name: str
    value: float
    reference: float
    flag: Flag
    finding: str
    meaning: str


@dataclass(frozen=True)
class Trust(Sequence[TrustCheck]):
    """The checks of one map. No check can show that a map is right; checks show where it is doubtful."""

    checks: tuple[TrustCheck, ...]
    map: str

    def __len__(self) -> int:
        return len(self.checks)

    @overload
    def __getitem__(self, index: int) -> TrustCheck: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[TrustCheck, ...]: ...

    def __getitem__(self, index: int | slice) -> TrustCheck | tuple[TrustCheck, ...]:
        return self.checks[index]

    def __iter__(self) -> Iterator[TrustCheck]:
        return iter(self.checks)

    @property
    def cautions(self) -> tuple[str, ...]:
        """The names of the checks that raise a caution."""
        return tuple(one.name for one in self.checks if one.flag == "caution")

    @property
    def summary(self) -> str:
        """How many checks raise a caution, and what that does and does not show."""
        made = [one for one in self.checks if one.flag in ("caution", "no caution")]
        if not made:
            return "No check could be made, so nothing is known about how reliable this map is."
        if not self.cautions:
            return (
                f"None of {count(len(made), 'check')} raises a caution. That does not show that the map is right: it "
                "was not found to be wrong in these ways."
            )
        return (
            f"{len(self.cautions)} of {count(len(made), 'check')} {'raises' if len(self.cautions) == 1 else 'raise'} a "
            f"caution: {', '.join(self.cautions)}. Do not base a conclusion on this map alone."
        )

    def to_dataframe(self) -> pd.DataFrame:
        """One row per check: name, value, reference, flag, finding, meaning."""
        return pd.DataFrame([asdict(one) for one in self.checks])

    def __repr__(self) -> str:
        lines = [f"  {one.name}: {one.flag}. {one.finding}" for one in self.checks]
        return "\n".join([f"Trust({self.map!r}): {self.summary}", *lines])

    def _repr_html_(self) -> str:
        return str(self.table)

    @property
    def table(self) -> Markup:
        """The checks as an HTML table."""
        lines = [
            (one.name, one.flag, join(one.finding, " ", span(one.meaning, kind="soft")))
            for one in self.checks
        ]
        return table(("check", "verdict", "what was found, and what it means"), lines, kind="text")


def quick_checks(
    mllm: Any,
    sample: Sample,
    shown: ShownMap,
    others: Sequence[ShownMap],
    *,
    prompt: Prompt,
    inside: Float[np.ndarray, " token"] | None = None,
) -> list[TrustCheck]:
    """The checks that cost at most one more pass: sinks, border, tokens that are not drawn, agreement, boxes."""
    found = [_of_sinks(mllm, sample, shown, prompt), _of_border(shown), *_of_unseen(shown)]
    found += [_of_agreement(shown, other) for other in others]
    return found if inside is None else [*found, _of_boxes(shown, inside)]


WORDS = """A model also answers a question that it cannot read; the map then belongs to another question."""
ANSWER = """A map explains the answer. Where the model hardly prefers its answer, as with random weights or an unknown
kind of question, there is little to explain."""
SINKS = """Some image tokens have hidden states of outlying size and draw attention for any question. Weight on them
says little about their place in the image."""
BORDER = """Corners and edges often have weight because the model stores information in tokens there or because of
padding, not because the answer is there."""
UNSEEN = """Some tokens, such as separators, stand for no part of the image. Their weight belongs to the map but cannot
be drawn."""
AGREEMENT = """Rank correlation of two indicators over the image tokens: 1 is the same order, 0 is no relation. Two that
agree can both be wrong; of two that disagree, at most one can show the place of the evidence."""
BOXES = """The share of the map's weight inside the boxes. It shows where the map lies, not whether the answer depends
on that place."""
DELETION = f"""The image tokens are hidden from the text, the most important of the map first, and the fall of the
answer's probability is compared with that under {N_RANDOM} random orders. If random orders do as well, the map does not
point at what the answer needs."""
SHUFFLED = """Rank correlation with the map of a copy of the model in which all weights are shuffled. A map that stays
the same shows the image or the architecture, not what the model has learned."""


def answer_check(probability: float, n_tokens: int) -> TrustCheck:
    """The check of the answer: a caution where the mean probability of its tokens is below `LOW_PROBABILITY`.

    Args:
        probability: The joint probability of the answer's tokens, in [0, 1]; NaN where it is unknown.
        n_tokens: The number of these tokens; the mean is geometric, probability ** (1 / n_tokens).
    """
    name = "the answer's probability"
    if np.isnan(probability):
        return _unmeasured(name, "the answer comes after reasoning", ANSWER)
    each = float(probability ** (1 / max(n_tokens, 1)))
    flag: Flag = "caution" if each < LOW_PROBABILITY else "no caution"
    mean = "" if n_tokens == 1 else ", the geometric mean of its tokens"
    finding = f"The answer has {count(n_tokens, 'token')} with probability {number(each, 3)}{mean}."
    return TrustCheck(name, each, float("nan"), flag, finding, ANSWER)


def words_check(tokenizer: Any, question: str) -> list[TrustCheck]:
    """A caution where the model's vocabulary lacks words of the question; no check where it has all of them.

    Args:
        tokenizer: The model's tokenizer. A tokenizer without an unknown token reads every word.
        question: The question.
    """
    unknown = getattr(tokenizer, "unk_token_id", None)
    special = {tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id}
    if unknown is None or unknown in special:
        return []
    words = [word.strip("?!.,;:()\"'") for word in question.split()]
    lacking = [word for word in words if unknown in tokenizer.encode(word, add_special_tokens=False)]
    if not lacking:
        return []
    named = ", ".join(f"“{word}”" for word in lacking)
    finding = f"The model's vocabulary lacks {named}: it read an unknown token instead."
    share = len(lacking) / len(words)
    return [TrustCheck("the question's words", share, 0.0, "caution", finding, WORDS)]


def at_border(tokens: TokenMap) -> Bool[np.ndarray, " token"]:
    """Which tokens lie within half a footprint of the edge of what all tokens cover of their image."""
    found = np.zeros(tokens.n, bool)
    for image in np.unique(tokens.image_index):
        own = np.flatnonzero((tokens.image_index == image) & ~np.isnan(tokens.footprints).any(axis=1))
        if not len(own):
            continue
        low, high = tokens.footprints[own, :2], tokens.footprints[own, 2:]
        half = (high - low) / 2
        found[own] = ((low < low.min(axis=0) + half) | (high > high.max(axis=0) - half)).any(axis=1)
    return found


def _excess(
    name: str, shown: ShownMap, chosen: Bool[np.ndarray, " token"], where: str, meaning: str
) -> TrustCheck:
    """The check of the share of the weight on some tokens, against their share of all tokens."""
    share, even = float(shown.shares[chosen].sum()), float(chosen.mean())
    beyond = (share - even) / (1 - even) if even < 1 else 0.0
    flag: Flag = "caution" if beyond > EXCESS else "no caution"
    finding = f"{percent(share)} of the weight lies {where}; a uniform map puts {percent(even)} there."
    return TrustCheck(name, share, even, flag, finding, meaning)


def _of_sinks(mllm: Any, sample: Sample, shown: ShownMap, prompt: Prompt) -> TrustCheck:
    name = "attention sinks"

    def check() -> TrustCheck:
        """The check of the share on tokens whose hidden state has an outlying norm."""
        (found,) = sinks(mllm, [sample], "decoder", prompt=prompt, progress=False)
        outlier = np.asarray(found.outlier.values, bool)
        if len(outlier) != len(shown.values):
            return _unmeasured(name, "the map is over patches, not over the decoder's tokens", SINKS)
        if not found.n:
            return TrustCheck(name, 0.0, 0.0, "no caution", "No image token has an outlying size.", SINKS)
        where = f"on {count(found.n, 'token')} of outlying size (of {len(outlier)})"
        return _excess(name, shown, outlier, where, SINKS)

    return _tried(name, SINKS, check)


def _of_border(shown: ShownMap) -> TrustCheck:
    return _excess("border", shown, at_border(shown.tokens), "at the edge of the picture", BORDER)


def _of_unseen(shown: ShownMap) -> list[TrustCheck]:
    unseen = np.asarray(np.isnan(shown.tokens.footprints).any(axis=1))
    if not unseen.any():
        return []
    where = f"on {count(int(unseen.sum()), 'token')} that show no part of the picture"
    return [_excess("weight that is not drawn", shown, unseen, where, UNSEEN)]


def _of_agreement(shown: ShownMap, other: ShownMap) -> TrustCheck:
    name = f"agreement with {other.name}"
    if len(other.values) != len(shown.values):
        return _unmeasured(name, "the two maps are over different tokens", AGREEMENT)
    rho = spearman(shown.values, other.values)
    if np.isnan(rho):
        return _unmeasured(name, "a map has the same value everywhere, so it has no order", AGREEMENT)
    flag: Flag = "caution" if rho < LOW_RHO else "no caution"
    return TrustCheck(name, rho, 0.0, flag, f"The rank correlation is {number(rho)}.", AGREEMENT)


def _of_boxes(shown: ShownMap, inside: Float[np.ndarray, " token"]) -> TrustCheck:
    share, even = float(shown.shares @ inside), float(np.mean(inside))
    finding = (
        f"{percent(share)} of the weight lies inside the boxes; a uniform map puts {percent(even)} there."
    )
    chosen = " The layer was chosen by the boxes." if "boxes chose it" in shown.rule else ""
    return TrustCheck("inside the boxes", share, even, "note", finding + chosen, BOXES)


def full_checks(
    mllm: Any, sample: Sample, shown: ShownMap, again: Callable[[Any, Target], Float[np.ndarray, " token"]],
    *, prompt: Prompt, target: Target, seed: int,
) -> list[TrustCheck]:  # fmt: skip
    """The checks that need many passes and a second copy of the model: deletion and shuffled weights.

    Args:
        mllm: The model.
        sample: The sample.
        shown: The map.
        again: A function of (model, target) that makes the same map with another model and a fixed target.
        prompt: The prompt.
        target: The answer that is explained.
        seed: The seed of the random orders and of the shuffled weights.
    """

    def deletion() -> TrustCheck:
        return _of_deletion(mllm, sample, shown, prompt, target, seed)

    def change() -> TrustCheck:
        (fixed,) = fixed_targets(mllm, [sample], prompt, target)
        rho = spearman(shown.values, again(shuffled(mllm, ALL, seed), fixed))
        if np.isnan(rho):
            return _unmeasured(_CHANGE, "a map has the same value everywhere, so it has no order", SHUFFLED)
        flag: Flag = "caution" if rho > HIGH_RHO else "no caution"
        finding = f"The rank correlation with the map of shuffled weights is {number(rho)}."
        return TrustCheck(_CHANGE, rho, 0.0, flag, finding, SHUFFLED)

    return [_tried(_DELETION, DELETION, deletion), _tried(_CHANGE, SHUFFLED, change)]


_DELETION, _CHANGE = "deletion", "change under shuffled weights"


def _of_deletion(
    mllm: Any, sample: Sample, shown: ShownMap, prompt: Prompt, target: Target, seed: int
) -> TrustCheck:
    drawn = np.random.default_rng(seed).random((N_RANDOM, len(shown.values)))
    maps = {"map": shown.values, **{f"random {i}": values for i, values in enumerate(drawn)}}
    options: dict[str, Any] = {"prompt": prompt, "target": target}
    curves, _ = run_removal(HideTokens(), mllm, sample, maps, STEPS, seed=seed, options=options)
    areas = {name: measured(one, STEPS, STEPS[:1], target, LEAST)["deletion"] for name, one in curves.items()}
    own, others = areas.pop("map"), np.array(list(areas.values()))
    if np.isnan(own):
        before, after = scaled(curves["map"].deletion[[0, -1]], target)
        why = (
            f"hiding the whole image moves the target from {number(before)} to {number(after)}, by less than {LEAST}: "
            "the answer hardly needs the image"
        )
        return _unmeasured(_DELETION, why, DELETION)
    as_good = int((others <= own).sum())
    flag: Flag = "caution" if as_good > MOST_RANDOM else "no caution"
    finding = (
        f"On average over the hidden fraction {percent(own)} of the effect is left, and {percent(others.mean())} with "
        f"random orders; {as_good} of {N_RANDOM} random orders do as well."
    )
    return TrustCheck(_DELETION, own, float(others.mean()), flag, finding, DELETION)


def _tried(name: str, meaning: str, check: Callable[[], TrustCheck]) -> TrustCheck:
    """The check, or the reason why it could not be made with this model."""
    try:
        return check()
    except InterpError as error:
        return _unmeasured(name, str(error).rstrip("."), meaning)


def _unmeasured(name: str, why: str, meaning: str) -> TrustCheck:
    return TrustCheck(name, float("nan"), float("nan"), "not measured", f"Not measured: {why}.", meaning)
