"""Kinds of questions in benchmarks, and presence questions after POPE, which test for hallucinated objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any, Literal, cast, get_args

import numpy as np

from interp.data.labelled import PRESENT, Asked, plain_label
from interp.data.samples import Samples
from interp.errors import DataError
from interp.inputs.answers import plain
from interp.inputs.argument_checks import check_one_of, check_whole
from interp.inputs.sample import Box, Sample
from interp.inputs.sample_list import as_samples, image_key
from interp.inputs.text import brief, count

__all__ = [
    "KINDS",
    "QUESTIONS",
    "Negatives",
    "Wanted",
    "checked_names",
    "chosen_splits",
    "is_yes_or_no",
    "presence_questions",
    "question_counts",
]


QUESTIONS = ("closed", "open", "all")
"""The questions that a reader can keep. "closed": those with few possible answers, multiple-choice ones too."""
KINDS = ("closed", "choice", "open")
"""`meta["kind"]` of a sample: closed without options (yes or no, left or right), multiple choice, open."""
_WORDS = {"closed": "closed questions", "choice": "multiple-choice questions", "open": "open questions"}


@dataclass(frozen=True)
class Wanted:
    """The questions that a reader keeps; the others are counted.

    Attributes:
        questions: The kind to keep, "closed" (with multiple choice), "open" or "all".
        splits: The splits to keep.
        left_out: The numbers of questions left out, by kind and split, such as "open questions of test".

    Raises:
        DataError: `questions` is not known.
    """

    questions: str
    splits: tuple[str, ...]
    left_out: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        check_one_of("questions", self.questions, QUESTIONS, DataError)

    def takes(self, kind: str, split: str) -> bool:
        """Returns whether a question of this kind and split is kept; counts it if not."""
        fits = self.questions == "all" or (kind == "open") == (self.questions == "open")
        kept = fits and split in self.splits
        if not kept:
            self.left_out[f"{_WORDS[kind]} of {split}"] += 1
        return kept


def chosen_splits(split: str, known: Sequence[str], source: str, every: str = "all") -> tuple[str, ...]:
    """Returns the splits that `split` names: one of `known`, or all of them.

    Raises:
        DataError: The source has no such split.
    """
    if isinstance(split, str) and split == every:
        return tuple(known)
    if not isinstance(split, str) or split not in known:
        raise DataError(
            f"{source} has the splits {', '.join(known)}, and {every!r} for every one; got {brief(split)}."
        )
    return (split,)


def checked_names(name: str, given: Any, example: str) -> tuple[str, ...]:
    """Returns a list of names as a tuple.

    Raises:
        DataError: Anything but a list of at least one text; the message shows `example`.
    """
    listed = isinstance(given, list | tuple | set | frozenset) and all(isinstance(one, str) for one in given)
    if not listed or not given:
        raise DataError(f'{name} is a list of names, such as ["{example}"]; got {brief(given)}.')
    return tuple(given)


def is_yes_or_no(answer: str | None) -> bool:
    """Whether an answer is "yes" or "no", without regard to case, space and a full stop.

    >>> [is_yes_or_no(answer) for answer in ("Yes", " no.", "No, it is not", None)]
    [True, True, False, False]
    """
    return answer is not None and plain(answer) in ("yes", "no")


def question_counts(samples: Iterable[Sample]) -> dict[tuple[str, str, str], int]:
    """Returns (benchmark, split, kind) → number of samples, in the order in which they first appear.

    Kinds are those of `KINDS`. Samples that could not be read, or that no benchmark's reader made, are counted under
    empty texts.

    Raises:
        DataError: An argument that holds anything but samples.

    >>> from interp.inputs.sample import Sample
    >>> about = {"benchmark": "VQA-RAD", "split": "test", "kind": "closed"}
    >>> question_counts([Sample("a.png", "Is it?", answer="yes", meta=about)] * 3)
    {('VQA-RAD', 'test', 'closed'): 3}
    """
    names = ("benchmark", "split", "kind")
    listed = (
        tuple(samples) if isinstance(samples, Iterable) and not isinstance(samples, Sample) else (samples,)
    )
    if not all(isinstance(one, Sample) for one in listed):
        raise DataError(
            f"question_counts takes samples, such as interp.data.vqa_rad gives; got {brief(samples)}."
        )
    found = Counter(tuple(str(one.meta.get(name) or "") for name in names) for one in listed)
    return {(benchmark, split, kind): n for (benchmark, split, kind), n in found.items()}


Negatives = Literal["random", "popular", "adversarial"]
"""The ways in which absent labels are chosen."""


@dataclass
class _Picture:
    """One picture: a sample of it, and the boxes of each label in it."""

    sample: Sample
    boxes: dict[str, list[Box]] = field(default_factory=dict)
    present: set[str] = field(default_factory=set)


def presence_questions(
    samples: Sample | Iterable[Sample],
    negatives: Negatives | Sequence[Negatives] = ("random", "popular", "adversarial"),
    *,
    per_picture: int = 3,
    question: str = PRESENT,
    seed: int = 0,
) -> Samples:
    """Returns as many questions about labels that are in a picture as about labels that are not.

    A picture's labels are the `meta["label"]` of its samples that have boxes, and those of `meta["present"]`, a list of
    everything known to be there. The vocabulary is every label of all pictures. For each kind of negatives and each
    picture, up to `per_picture` labels with boxes are drawn and asked about (answer "yes", with the label's boxes), and
    as many absent labels (answer "no", no boxes):

    - "random": drawn evenly from the absent labels;
    - "popular": the absent labels that most pictures show;
    - "adversarial": the absent labels that most often stand in pictures together with labels of this one, summed over
      these. A model that answers from what usually goes together says yes to them.

    Ties are broken by the number of pictures, then alphabetically. The same present labels are asked about under every
    kind, so the kinds differ only in the absent labels. A picture that lacks no label is left out.

    "No" is true only where the annotation is complete: a label that was not drawn may still be in the picture. Use data
    whose annotators checked the whole vocabulary, and give synonyms one name.

    Args:
        samples: Labelled samples of one image each, such as a reader gives; samples of the same image are joined.
        negatives: The kind of absent labels, or several kinds.
        per_picture: The most labels of a picture that are asked about as present; the paper takes 3.
        question: A template with {label} for the label, and {a} for "a" or "an".
        seed: The seed of the draws.

    Returns:
        Samples with options yes and no, `meta["label"]`, `meta["negatives"]` (the kind) and the group of the picture.

    Raises:
        DataError: An unknown kind, no labelled picture, or none that lacks a label of the others.

    >>> import interp.data
    >>> scenes = interp.data.bundled("medical", n=20)
    >>> asked = presence_questions(scenes, "popular", per_picture=1)
    >>> sorted({sample.answer for sample in asked})
    ['no', 'yes']

    Source: Li et al. 2023, "Evaluating Object Hallucination in Large Vision-Language Models" (POPE, arXiv 2305.10355).
    """
    kinds = _kinds(negatives)
    check_whole("per_picture", per_picture, 1, DataError)
    check_whole("seed", seed, 0, DataError)
    asked = {"yes": Asked(question, "yes"), "no": Asked(question, "no")}
    pictures = _pictures(as_samples(samples))
    counts = Counter(label for picture in pictures for label in picture.present)
    together = Counter(pair for picture in pictures for pair in permutations(sorted(picture.present), 2))
    made = []
    for number, picture in enumerate(pictures):
        rng = np.random.default_rng([seed, number])
        shown = [str(label) for label in rng.permutation(sorted(picture.boxes))][:per_picture]
        for kind in kinds:
            away = _absent(kind, picture.present, counts, together, rng)[: len(shown)]
            for answer, labels in (("yes", shown[: len(away)]), ("no", away)):
                made += [_asked(picture, label, answer, kind, asked[answer]) for label in labels]
    if not made:
        raise DataError(
            f"No question can be made of {count(len(pictures), 'picture')} with {count(len(counts), 'label')}: none "
            "lacks a label that another one has. Give samples of more pictures, or with more labels."
        )
    return Samples(made, "presence questions")


def _kinds(negatives: Any) -> tuple[Negatives, ...]:
    listed = [negatives] if isinstance(negatives, str) else negatives
    if not isinstance(listed, list | tuple):
        raise DataError(
            f"negatives is one of {', '.join(get_args(Negatives))}, or a list; got {negatives!r:.100}."
        )
    for kind in listed:
        if not isinstance(kind, str) or kind not in get_args(Negatives):
            raise DataError(f"negatives are {', '.join(get_args(Negatives))}; got {kind!r:.100}.")
    if not listed or len(set(listed)) < len(listed):
        raise DataError(f"negatives takes at least one kind, each once; got {negatives!r}.")
    return tuple(cast(list[Negatives], listed))


def _pictures(samples: Sequence[Sample]) -> list[_Picture]:
    """The pictures that have a label with boxes, in the order in which they first appear."""
    found: dict[str, _Picture] = {}
    for sample in samples:
        label = sample.meta.get("label") if sample.is_usable else None
        if not isinstance(label, str) or not label.strip() or len(sample.images) != 1:
            continue
        picture = found.setdefault(image_key(sample), _Picture(sample))
        others = sample.meta.get("present")
        picture.present |= {
            plain_label(str(one)) for one in (others if isinstance(others, list | tuple) else ())
        }
        if sample.boxes:
            picture.present.add(plain_label(label))
            own = picture.boxes.setdefault(plain_label(label), [])
            own += [box for box in sample.boxes if box not in own]
    listed = [picture for picture in found.values() if picture.boxes]
    if not listed:
        raise DataError(
            "presence questions need samples of one image with boxes, whose meta['label'] says what they show; got "
            f"{count(len(samples), 'sample')} and none such. A reader such as interp.data.coco_instances gives them."
        )
    return listed


def _absent(
    kind: str,
    present: set[str],
    counts: Mapping[str, int],
    together: Mapping[tuple[str, str], int],
    rng: np.random.Generator,
) -> list[str]:
    """The labels that are not in a picture, those to ask about first."""
    absent = sorted(set(counts) - present, key=lambda label: (-counts[label], label))
    if kind == "random":
        return [str(label) for label in rng.permutation(sorted(absent))]
    if kind == "popular":
        return absent
    return sorted(absent, key=lambda label: -sum(together[one, label] for one in present))


def _asked(picture: _Picture, label: str, answer: str, kind: str, asked: Asked) -> Sample:
    sample = picture.sample
    return sample.replace(
        question=asked.text(label),
        boxes=picture.boxes[label] if answer == "yes" else (),
        masks=(),
        answer=answer,
        options=("yes", "no"),
        group=sample.group,
        meta={**{k: v for k, v in sample.meta.items() if k != "present"}, "label": label, "negatives": kind},
        id=f"{sample.id}:{kind}:{label}",
    )
