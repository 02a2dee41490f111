"""The latest images as processed, kept so that other words about them do not process them again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, NamedTuple

from interp.inputs.prompt import Prompt
from interp.inputs.sample import Sample
from interp.tracing.encoding.batch import Encoded

__all__ = ["Identity", "ImagesKey", "ProcessedImages"]


class ImagesKey(NamedTuple):
    """What an encoding depends on but the prompt. The adapter is compared by identity: it may be unhashable."""

    settings: str
    contents: tuple[str, ...] | None
    adapter: Identity


@dataclass(frozen=True, eq=False)
class Identity:
    """An object that equals nothing but itself; it is kept alive, so that its id is not given to another."""

    of: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and self.of is other.of

    def __hash__(self) -> int:
        return id(self.of)


class ProcessedImages:
    """The latest images as processed, within `budget` bytes.

    A key holds all that an encoding depends on but the prompt, the adapter too: its footprints are kept. Threads may
    use it at the same time.

    Attributes:
        budget: The most bytes that the images take.
        ready: Encodings that were made before they are needed, each for one use.
    """

    def __init__(self, budget: int = 2**28) -> None:
        self.budget = budget
        self.ready: dict[tuple[int, Prompt], tuple[ImagesKey, Encoded]] = {}
        self._kept: OrderedDict[ImagesKey, Encoded] = OrderedDict()
        self._n_bytes = 0
        self._lock = Lock()

    def get(self, key: ImagesKey) -> Encoded | None:
        """An encoding of these images, under whatever prompt; None where there is none."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key]

    def take(self, sample: Sample, prompt: Prompt, key: ImagesKey) -> Encoded | None:
        """The encoding of this very sample that is ready; None where there is none, or it is not of this key."""
        found = self.ready.pop((id(sample), prompt), None)
        return found[1] if found is not None and found[0] == key else None

    def forget_ready(self, samples: Sequence[Sample]) -> None:
        """Let go of the encodings of these samples that are ready and were not taken."""
        done = {id(sample) for sample in samples}
        for key in [key for key in list(self.ready) if key[0] in done]:
            self.ready.pop(key, None)

    def forget_but(self, latest: int) -> None:
        """Let go of all but the latest images, for work that never comes back to earlier ones."""
        with self._lock:
            while len(self._kept) > latest:
                self._n_bytes -= self._kept.popitem(last=False)[1].images.n_bytes

    def keep(self, key: ImagesKey, single: Encoded) -> None:
        """Keep an encoding, and let go of the images that were not wanted for longest."""
        if key.contents is None or single.expansions is None:
            return
        with self._lock:
            old = self._kept.pop(key, None)
            self._n_bytes += single.images.n_bytes - (0 if old is None else old.images.n_bytes)
            self._kept[key] = single
            while self._n_bytes > self.budget:
                self._n_bytes -= self._kept.popitem(last=False)[1].images.n_bytes
