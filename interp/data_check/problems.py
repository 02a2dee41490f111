"""Counts of samples, and their problems. Every image file is read once; none is decoded."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from interp.data.row_fields import CORNERS, resembling
from interp.data.samples import Samples
from interp.errors import InterpError
from interp.inputs.sample import Sample

__all__ = ["KINDS", "Findings", "Problem", "inspect"]

TINY_SIDE, TINY_SHARE = 4.0, 1e-3
"""A box is tiny if a side has fewer pixels, or if it covers a smaller share of its image."""
SIZES = (("x", "y", "w", "h"), ("x", "y", "width", "height"), ("left", "top", "width", "height"))
"""Names of columns that hold the corner and the size of a box."""
FREQUENT, FEW = 0.8, 20
"""An answer is too frequent from this share of the answers on; with fewer answers none is."""

KINDS: Mapping[str, tuple[bool, str]] = {
    "bad row": (True, "A row that its reader could not read."),
    "missing image": (True, "An image that is missing or cannot be read."),
    "box outside": (True, "A box that does not fit its image."),
    "same image in two splits": (
        True,
        "A choice made on one split has then already seen images of the other.",
    ),
    "same group in two splits": (
        False,
        "The group's samples are not independent, so neither are the splits.",
    ),
    "same sample twice": (False, "Equal image, question, boxes and answer: it counts twice in every mean."),
    "same id twice": (False, "Tables name samples by their ids."),
    "column not read": (
        False,
        "It is kept as meta. If its name is a slip, rename the column, or say which field it holds.",
    ),
    "no box": (False, "Maps cannot be compared with boxes: layer sweeps and head rankings need them."),
    "tiny box": (
        False,
        f"Under {TINY_SIDE:g} pixels a side or {TINY_SHARE:.1%} of the image: less than one image token in most "
        "models.",
    ),
    "no answer type": (
        False,
        "Only questions answered yes or no then count as closed; others, such as of a side or an organ, count as open.",
    ),
    "unbalanced answers": (False, "A model that always gives this answer is right as often."),
}
"""Kind of problem → whether it must be mended before a study, and what it means."""


@dataclass(frozen=True)
class Problem:
    """One problem: its kind, the id of the sample (or the column or group) concerned, and what is wrong."""

    kind: str
    where: str
    text: str

    @property
    def is_error(self) -> bool:
        """Whether it must be mended before a study."""
        return KINDS[self.kind][0]


@dataclass(frozen=True)
class Findings:
    """The counts of samples (name → text), and their problems, errors first."""

    counts: Mapping[str, str]
    problems: tuple[Problem, ...]

    @property
    def n_errors(self) -> int:
        """The number of problems that must be mended."""
        return sum(problem.is_error for problem in self.problems)

    def by_kind(self) -> dict[str, list[Problem]]:
        """Kind → its problems, for the kinds that occur, in the order of `KINDS`."""
        return {
            kind: found for kind in KINDS if (found := [one for one in self.problems if one.kind == kind])
        }


def inspect(samples: Samples) -> Findings:
    """Returns the counts of samples and their problems."""
    usable = [sample for sample in samples if sample.is_usable]
    problems = [Problem("bad row", sample.id, sample.fault) for sample in samples if sample.fault is not None]
    sizes: dict[int, tuple[tuple[int, int], ...]] = {}
    for i, sample in enumerate(samples):
        if not sample.is_usable:
            continue
        try:
            sizes[i] = sample.sizes
        except InterpError as error:
            problems.append(Problem("missing image", sample.id, str(error)))
    for i in sizes:
        problems += _of_boxes(samples[i], sizes[i])
    problems += [
        *_unread(usable),
        *_in_two_splits(samples),
        *_twice(samples, list(sizes)),
        *_without_type(usable),
        *_of_answers(usable),
    ]
    order = list(KINDS)
    problems.sort(key=lambda one: order.index(one.kind))
    return Findings(_counts(samples, usable, sizes), tuple(problems))


def _of_boxes(sample: Sample, sizes: Sequence[tuple[int, int]]) -> Iterator[Problem]:
    """Boxes that do not fit, and tiny ones."""
    try:
        sample.check()
    except InterpError as error:
        yield Problem("box outside", sample.id, str(error))
        return
    for box in sample.boxes:
        width, height = sizes[box.image]
        share = box.area / (width * height)
        if min(box.x1 - box.x0, box.y1 - box.y0) < TINY_SIDE or share < TINY_SHARE:
            sides = f"{box.x1 - box.x0:.3g} × {box.y1 - box.y0:.3g} pixels, {share:.2%} of its image"
            yield Problem("tiny box", sample.id, f"box {box.as_tuple()} has {sides}")


def _unread(samples: Sequence[Sample]) -> Iterator[Problem]:
    """Columns kept as meta whose names are like those of fields that no sample has, and data without any box."""
    fields = {
        "boxes": any(sample.boxes or sample.masks for sample in samples),
        "answer": any(sample.answer is not None for sample in samples),
        "options": any(sample.options is not None for sample in samples),
        "group": any(sample.group is not None for sample in samples),
    }
    lacking = [name for name, held in fields.items() if not held]
    lacking += CORNERS if "boxes" in lacking else ()
    for name in _meta_names(samples):
        if like := resembling(name, lacking):
            yield Problem("column not read", name, f"no sample has what {like!r} would hold: is it meant?")
    if samples and "boxes" in lacking and (edges := _size_columns(_meta_names(samples))):
        named = " ".join(f"{field}={name}" for field, name in zip(CORNERS, edges, strict=True))
        yield Problem(
            "column not read",
            ", ".join(edges),
            f"they look like a corner and the size of a box. If so: --columns {named} --box-format xywh, "
            "which interp.data.csv takes too; `interp run` reads corners, columns named x0, y0, x1 and y1",
        )
    if samples and "boxes" in lacking:
        yield Problem("no box", "all samples", "none has a box or a mask")


def _size_columns(names: Sequence[str]) -> tuple[str, ...]:
    """The four columns named like a box's corner and size, as they are written; empty where the names do not occur."""
    plain = {name.lower(): name for name in names}
    for edges in SIZES:
        if set(edges) <= set(plain):
            return tuple(plain[edge] for edge in edges)
    return ()


def _meta_names(samples: Sequence[Sample]) -> list[str]:
    """The names in the samples' meta, in the order of reading."""
    return list(dict.fromkeys(str(name) for sample in samples for name in sample.meta))


def _in_two_splits(samples: Samples) -> Iterator[Problem]:
    """Images that are in several splits, and named groups that are. Samples without a split are in none."""
    pictures: dict[str, dict[str, str]] = defaultdict(dict)
    groups: dict[str, dict[str, str]] = defaultdict(dict)
    for sample, names in zip(samples, samples.pictures, strict=True):
        if (split := sample.meta.get("split")) is None:
            continue
        for name in names:
            pictures[name].setdefault(str(split), sample.id)
        if sample.group is not None:
            groups[sample.group].setdefault(str(split), sample.id)
    for kind, found in (("same image in two splits", pictures), ("same group in two splits", groups)):
        for name, where in found.items():
            if len(where) > 1:
                told = ", ".join(f"{one} in {split}" for split, one in where.items())
                yield Problem(
                    kind, name if kind.startswith("same group") else next(iter(where.values())), told
                )


def _twice(samples: Samples, at: Iterable[int]) -> Iterator[Problem]:
    """Samples of equal content, and ids that several samples have."""
    same: dict[str, list[str]] = defaultdict(list)
    for i in at:
        same[samples[i].fingerprint].append(samples[i].id)
    for ids in same.values():
        if len(ids) > 1:
            yield Problem("same sample twice", ids[0], f"{len(ids)} samples: {_some(ids)}")
    for name, n in Counter(samples.sample_ids).items():
        if n > 1:
            yield Problem("same id twice", name, f"{n} samples have this id")


def _without_type(samples: Sequence[Sample]) -> Iterator[Problem]:
    """Rows of SLAKE without the field that says whether a question is closed."""
    own = [sample for sample in samples if sample.meta.get("benchmark") == "SLAKE"]
    lacking = [sample for sample in own if not isinstance(sample.meta.get("answer_type"), str)]
    if lacking:
        told = f"{len(lacking)} of {len(own)} rows have no answer_type"
        yield Problem("no answer type", lacking[0].id, f"{told}; {lacking[0].id} is the first")


def _of_answers(samples: Sequence[Sample]) -> Iterator[Problem]:
    answers = Counter(sample.answer.strip().lower() for sample in samples if sample.answer is not None)
    n = sum(answers.values())
    if n >= FEW:
        answer, most = answers.most_common(1)[0]
        if most >= FREQUENT * n:
            yield Problem(
                "unbalanced answers", answer, f"{answer!r} answers {most} of {n} questions ({most / n:.0%})"
            )


def _some(names: Sequence[str], n: int = 5) -> str:
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")


def _counts(
    samples: Samples, usable: Sequence[Sample], sizes: Mapping[int, tuple[tuple[int, int], ...]]
) -> dict[str, str]:
    """Name → text; empty counts are left out."""
    boxes = [len(sample.boxes) for sample in usable]
    found = [size for one in sizes.values() for size in one]
    shares = [
        100 * box.area / np.prod(sizes[i][box.image])
        for i in sizes
        for box in samples[i].boxes
        if box.image < len(sizes[i])
    ]
    images = {name for names in samples.pictures for name in names}
    answers = Counter(sample.answer for sample in usable if sample.answer is not None)
    counts = {
        "samples": f"{len(samples)}, of which {len(samples) - len(usable)} unreadable" if len(samples) > len(usable)
        else str(len(samples)),
        "fields read": ", ".join(_fields(usable)),
        "kept as meta": _some(_meta_names(usable), 20),
        "images": str(len(images)),
        "groups": str(len(set(samples.groups))),
        "splits": _listed(Counter(str(sample.meta.get("split")) for sample in usable if sample.meta.get("split"))),
        "boxes a sample": _spread(boxes),
        "samples without a box": str(boxes.count(0)),
        "box, % of its image": _spread(shares),
        "image width": _spread([width for width, _ in found]),
        "image height": _spread([height for _, height in found]),
        "modality": _listed(Counter(str(sample.meta["modality"]) for sample in usable if sample.meta.get("modality"))),
        "labels": _listed(Counter(str(sample.meta["label"]) for sample in usable if sample.meta.get("label"))),
        "answers": _listed(answers),
        "samples with options": str(sum(sample.options is not None for sample in usable) or ""),
        **{f"left out: {why}": str(n) for why, n in samples.skipped.items()},
    }  # fmt: skip
    return {name: text for name, text in counts.items() if text}


def _fields(samples: Sequence[Sample]) -> Iterator[str]:
    """The fields that samples have; where not all samples have a field, with the number of those that do."""
    held = {
        "image or video": [True] * len(samples),
        "question": [bool(sample.question) for sample in samples],
        "boxes": [bool(sample.boxes) for sample in samples],
        "masks": [bool(sample.masks) for sample in samples],
        "answer": [sample.answer is not None for sample in samples],
        "options": [sample.options is not None for sample in samples],
        "group": [sample.group is not None for sample in samples],
    }
    for name, found in held.items():
        if any(found):
            yield name if all(found) else f"{name} ({sum(found)} of {len(found)})"


def _spread(values: Sequence[float]) -> str:
    """Smallest, median and largest, or the one value."""
    if not values:
        return ""
    low, middle, high = (
        f"{value:.3g}" if value < 1000 else f"{value:.0f}" for value in np.percentile(values, (0, 50, 100))
    )
    return low if low == high else f"{low} to {high}, median {middle}"


def _listed(counts: Counter[str], n: int = 8) -> str:
    """The most frequent values with their numbers."""
    first = ", ".join(f"{name[:60]} ×{number}" for name, number in counts.most_common(n))
    return first + (f" and {len(counts) - n} more" if len(counts) > n else "")
