"""`Samples`: the sequence of samples that a study runs on, with a name and a fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import overload

from interp.errors import DataError
from interp.inputs.sample import Sample

__all__ = ["Samples"]


class Samples(Sequence[Sample]):
    """An immutable sequence of samples. Slices, filters and sums are `Samples` again.

    Args:
        samples: The samples, in order.
        name: The name in figures and reports; not part of the fingerprint.

    Raises:
        DataError: An element of `samples` is not a `Sample`.

    >>> import interp.data
    >>> medical = interp.data.bundled("medical")
    >>> ct = medical.filter(lambda sample: sample.meta["modality"] == "CT")
    >>> len(ct[:10]), ct[:10].name
    (10, 'medical')
    """

    def __init__(self, samples: Iterable[Sample], name: str = "samples") -> None:
        self._samples = tuple(samples)
        self._name = name
        for i, sample in enumerate(self._samples):
            if not isinstance(sample, Sample):
                raise DataError(f"Samples hold Sample values; element {i} is of type {type(sample).__name__}")

    @property
    def name(self) -> str:
        """The name of these samples in figures and reports."""
        return self._name

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the samples' fingerprints, in order. Reads every image file once."""
        words = "\n".join(sample.fingerprint for sample in self._samples)
        return hashlib.sha256(words.encode()).hexdigest()

    @property
    def sample_ids(self) -> tuple[str, ...]:
        """The id of each sample, in order."""
        return tuple(sample.id for sample in self._samples)

    @property
    def split(self) -> str | None:
        """The split in the samples' `meta["split"]`: "train", "validation", "test" or another; None without one.

        Several splits are joined like names: "test + validation". Code that chooses a layer, heads or a threshold
        checks this first.
        """
        said = {str(sample.meta["split"]) for sample in self._samples if sample.meta.get("split")}
        return " + ".join(sorted(said)) or None

    def filter(self, keep: Callable[[Sample], bool]) -> Samples:
        """Returns the samples for which `keep` is true, in the same order and under the same name."""
        return Samples((sample for sample in self._samples if keep(sample)), self._name)

    @overload
    def __getitem__(self, at: int) -> Sample: ...
    @overload
    def __getitem__(self, at: slice) -> Samples: ...
    def __getitem__(self, at: int | slice) -> Sample | Samples:
        if isinstance(at, slice):
            return Samples(self._samples[at], self._name)
        return self._samples[at]

    def __len__(self) -> int:
        return len(self._samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self._samples)

    def __add__(self, other: Samples) -> Samples:
        if not isinstance(other, Samples):
            return NotImplemented
        name = self._name if self._name == other._name else f"{self._name} + {other._name}"
        return Samples(self._samples + other._samples, name)

    def __eq__(self, other: object) -> bool:
        return self._samples == other._samples if isinstance(other, Samples) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._samples)

    def __repr__(self) -> str:
        groups = len({sample.group for sample in self._samples})
        return f"Samples({self._name!r}: {len(self)} samples in {groups} groups)"
