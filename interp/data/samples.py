"""`Samples`: the sequence of samples that a study runs on, with a name and a fingerprint."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, overload

from interp.errors import DataError, InterpError
from interp.inputs.images import image_size
from interp.inputs.sample import Sample, content
from interp.inputs.text import brief, count, storable

__all__ = ["Samples"]


class Samples(Sequence[Sample]):
    """An immutable sequence of samples. Slices, filters and sums are `Samples` again.

    Args:
        samples: The samples, in order.
        name: The name in figures and reports; not part of the fingerprint.
        skipped: Why a reader left rows or boxes out → how many; not part of the fingerprint.

    Raises:
        DataError: An element of `samples` is not a `Sample`, or `skipped` is no mapping of texts to numbers.

    Warns:
        UserWarning: Most boxes on images in memory end beyond their image (`warn_of_boxes` looks at files too).

    >>> import interp.data
    >>> medical = interp.data.bundled("medical")
    >>> ct = medical.filter(lambda sample: sample.meta["modality"] == "CT")
    >>> len(ct[:10]), ct[:10].name
    (10, 'medical')
    """

    def __init__(
        self, samples: Iterable[Sample], name: str = "samples", skipped: Mapping[str, int] | None = None
    ) -> None:
        if isinstance(samples, Sample | str) or not isinstance(samples, Iterable):
            raise DataError(
                f"Samples hold a list of Sample values; got {type(samples).__name__}. Write [sample]."
            )
        if not isinstance(name, str):
            raise DataError(f"the name of samples is a text; got {type(name).__name__}.")
        self._samples = tuple(samples)
        self._name = storable(name)
        self._skipped = _counts(skipped)
        for i, sample in enumerate(self._samples):
            if not isinstance(sample, Sample):
                raise DataError(
                    f"Samples hold Sample values; got a {type(sample).__name__} at place {i}. Make each one with "
                    "interp.Sample(image=…, question=…)."
                )
        self._warned = _warn_of_boxes(self._samples, self._name, files=False)

    def like(self, samples: Iterable[Sample], name: str | None = None) -> Samples:
        """Returns samples as `Samples` with the name and the skipped rows of these; nothing is checked again."""
        made = Samples((), self._name if name is None else name, self._skipped)
        made._samples, made._warned = tuple(samples), self._warned
        return made

    @property
    def name(self) -> str:
        """The name of these samples in figures and reports."""
        return self._name

    @property
    def skipped(self) -> Mapping[str, int]:
        """What the reader left out: reason → number of rows or boxes of the whole source. Slices keep it."""
        return MappingProxyType(self._skipped)

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the samples' fingerprints, in order. Reads every image file once."""
        words = "\n".join(sample.fingerprint for sample in self._samples)
        return hashlib.sha256(words.encode()).hexdigest()

    @property
    def sample_ids(self) -> tuple[str, ...]:
        """The id of each sample, in order."""
        return tuple(sample.id for sample in self._samples)

    @cached_property
    def pictures(self) -> tuple[tuple[str, ...], ...]:
        """The name of each image of each sample: equal for images of equal content, whatever their paths.

        A file is named by its bytes, an image in memory by its pixels; if a file of these samples has the pixels of an
        image in memory, both have the file's name. Files are decoded only to look for such pairs, and only where the
        sizes agree. An unreadable image is named by its real path. Reads every image file once.
        """
        found = [_names(sample) for sample in self._samples]
        places = [
            (i, k, held) for i, sample in enumerate(self._samples) for k, held in enumerate(sample.in_memory)
        ]
        memory = {found[i][k]: image_size(self._samples[i].images[k]) for i, k, held in places if held}
        sizes, same = set(memory.values()), dict[str, str]()
        files = {found[i][k]: (self._samples[i], k) for i, k, held in places if not held} if memory else {}
        for name, (sample, k) in files.items():
            pixels = _pixels(sample, k, sizes)
            if pixels in memory:
                same.setdefault(pixels, name)
        return tuple(tuple(same.get(name, name) for name in names) for names in found)

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """The group of each sample: its own, else its first image by content. Statistics resample these.

        Questions about one image are not independent, so they form a group, also where the image has several paths or
        is in memory.
        """
        own = tuple(sample.group for sample in self._samples)
        if None not in own:
            return tuple(map(str, own))
        return tuple(
            sample.group if sample.group is not None else f"image {names[0][:16] if names else sample.id}"
            for sample, names in zip(self._samples, self.pictures, strict=True)
        )

    @cached_property
    def group_names(self) -> Mapping[str, str]:
        """Group → how frames and pages show it.

        A group that the data name stays as it is. That of an image is its file's name, and the beginning of its
        content's hash, which tells apart files of one name: "image 7f8b37c99ae494ef" of `a/scan.png` is "scan.png
        (7f8b37c9)".
        """
        names: dict[str, str] = {}
        for sample, group in zip(self._samples, self.groups, strict=True):
            file = None if sample.group is not None else _file_name(sample)
            names.setdefault(group, group if file is None else f"{file} ({group.removeprefix('image ')[:8]})")
        return names

    def warn_of_boxes(self) -> None:
        """Warns, once, if most boxes end beyond their image: they may be (x, y, width, height). Reads file headers."""
        self._warned = self._warned or _warn_of_boxes(self._samples, self._name, files=True)

    @property
    def split(self) -> str | None:
        """The split in the samples' `meta["split"]`: "train", "validation", "test" or another; None without one.

        Several splits are joined like names: "test + validation". Code that chooses a layer, heads or a threshold
        checks this first.
        """
        said = {str(sample.meta["split"]) for sample in self._samples if sample.meta.get("split")}
        return " + ".join(sorted(said)) or None

    def filter(self, keep: Callable[[Sample], bool]) -> Samples:
        """Returns the samples for which `keep` is true, in the same order and under the same name.

        Raises:
            DataError: `keep` is no function.
        """
        if not callable(keep):
            raise DataError(
                f"filter takes a function of a sample; got {keep!r}. Write filter(lambda sample: …)."
            )
        return self.like(sample for sample in self._samples if keep(sample))

    @overload
    def __getitem__(self, at: int) -> Sample: ...
    @overload
    def __getitem__(self, at: slice) -> Samples: ...
    def __getitem__(self, at: int | slice) -> Sample | Samples:
        if isinstance(at, slice):
            return self.like(self._samples[at])
        return self._samples[at]

    def __len__(self) -> int:
        return len(self._samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self._samples)

    def __add__(self, other: Samples) -> Samples:
        if not isinstance(other, Samples):
            return NotImplemented
        name = self._name if self._name == other._name else f"{self._name} + {other._name}"
        made = self.like(self._samples + other._samples, name)
        made._skipped = dict(Counter(self._skipped) + Counter(other._skipped))
        return made

    def __eq__(self, other: object) -> bool:
        return self._samples == other._samples if isinstance(other, Samples) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._samples)

    def __repr__(self) -> str:
        groups = {sample.group for sample in self._samples}
        many = "sample" if len(self) == 1 else "samples"
        named = "" if None in groups else f" in {len(groups)} {'group' if len(groups) == 1 else 'groups'}"
        left = "".join(f"; left out: {n} × {reason}" for reason, n in self._skipped.items())
        return f"Samples({self._name!r}: {len(self)} {many}{named}{left})"


def _file_name(sample: Sample) -> str | None:
    """The name of the file of a sample's first image, or of its video; None for what is in memory."""
    spec = getattr(sample.video, "spec", None)
    held = spec.get("video") if isinstance(spec, Mapping) else next(iter(sample.images), None)
    return storable(Path(held).name) if isinstance(held, str | os.PathLike) else None


def _counts(skipped: Any) -> dict[str, int]:
    found = {} if skipped is None else skipped
    if not isinstance(found, Mapping) or not all(
        isinstance(why, str) and isinstance(n, int) for why, n in found.items()
    ):
        raise DataError(
            f"skipped says why rows were left out and how many, such as {{'no box': 3}}; got {brief(skipped)}."
        )
    return {storable(why): n for why, n in found.items() if n}


def _names(sample: Sample) -> tuple[str, ...]:
    """The content of each image of a sample; hashes of the real paths where one cannot be read."""
    try:
        return sample.image_fingerprints
    except InterpError:
        paths = (
            storable(os.path.realpath(raw)) if isinstance(raw, str | os.PathLike) else sample.id
            for raw in sample.images
        )
        return tuple(hashlib.sha256(f"unreadable {path}".encode()).hexdigest() for path in paths)


def _pixels(sample: Sample, i: int, sizes: set[tuple[int, int]]) -> str | None:
    """The hash of a file's pixels, as for an image in memory; None if its size is not one of these."""
    try:
        return content(sample.load(i), i) if sample.sizes[i] in sizes else None
    except InterpError:
        return None


def _warn_of_boxes(samples: Iterable[Sample], name: str, *, files: bool) -> bool:
    """Warns if most boxes end beyond their image; returns whether it did. Without `files` it sees images in memory."""
    n, beyond, of = 0, 0, 0
    for sample in samples:
        outside = _outside(sample, files)
        n, beyond, of = n + len(outside), beyond + sum(outside), of + any(outside)
    if 2 * beyond <= n:
        return False
    warnings.warn(
        f"Boxes of {name!r} that end beyond their image: {beyond} of {n}, on {count(of, 'sample')}. Boxes are "
        '(x0, y0, x1, y1) in pixels: if these are (x, y, width, height), pass box_format="xywh" to the samples or the '
        "reader; else the boxes that happen to fit are scored at wrong places.",
        UserWarning,
        stacklevel=3,
    )
    return True


def _outside(sample: Sample, files: bool) -> list[bool]:
    """Whether each box of a sample ends beyond its image; empty if an image cannot be read."""
    try:
        return [
            box.is_beyond(sample.sizes[box.image])
            for box in sample.boxes
            if box.image < len(sample.images) and (files or all(sample.in_memory))
        ]
    except InterpError:
        return []
