"""The rules of a build, as one value."""

from __future__ import annotations

from dataclasses import dataclass

from interp.data.build import AREA, ATTRIBUTE, LOCALIZATION, SHARE
from interp.errors import DataError
from interp.inputs.argument_checks import check_bool, check_number, check_one_of, check_whole
from interp.inputs.text import brief

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """Which structures are asked about, what is asked, and how many pairs are drawn.

    Attributes:
        n: The largest number of pairs of questions; None takes all.
        seed: Of the draw and of the choice of kinds.
        share: A structure in several pieces is its largest piece if that holds this share of the area; else it is
            dropped.
        area: The least and the largest share of the picture that a structure's box may cover.
        localization: Kinds of the first question: "presence", "identity". The kind used least so far is taken.
        attribute: Kinds of the second question: "size", "shape", "abnormality". Of those that have a clear answer, the
            kind used least so far is taken; a structure without one is dropped.
        complete: Whether the labels name every structure of a picture that is named anywhere in the data. Only then is
            a structure without a label certainly absent, which "identity" needs. Volumes list every label of a slice in
            `meta["present"]`; of other samples it must hold that the reader left none out (small pieces, crowds).
    """

    n: int | None = None
    seed: int = 0
    share: float = SHARE
    area: tuple[float, float] = AREA
    localization: tuple[str, ...] = ("presence", "identity")
    attribute: tuple[str, ...] = ("size", "shape", "abnormality")
    complete: bool = False

    def __post_init__(self) -> None:
        if self.n is not None:
            check_whole("n", self.n, 1, DataError)
        check_whole("seed", self.seed, 0, DataError)
        check_number("share", self.share, low=0.0, high=1.0, open_low=True, error=DataError)
        pair = self.area if isinstance(self.area, tuple | list) else ()
        if len(pair) != 2:
            raise DataError(f"area is (least, largest) as shares of the picture; got {brief(self.area)}.")
        low = check_number("the least area", pair[0], low=0.0, high=1.0, error=DataError)
        check_number("the largest area", pair[1], low=low, high=1.0, error=DataError)
        put = object.__setattr__  # plain numbers, as build.json takes them
        put(self, "n", None if self.n is None else int(self.n))
        put(self, "seed", int(self.seed))
        put(self, "share", float(self.share))
        put(self, "area", (float(pair[0]), float(pair[1])))
        check_bool("complete", self.complete, DataError)
        for name, known in (("localization", LOCALIZATION), ("attribute", ATTRIBUTE)):
            kinds = getattr(self, name)
            if not isinstance(kinds, tuple | list) or not kinds:
                raise DataError(f"{name} is a list of {', '.join(known)}; got {brief(kinds)}.")
            for kind in kinds:
                check_one_of(f"a kind of {name}", kind, known, DataError)
        if not self.complete and "presence" not in self.localization:
            raise DataError(
                'the question "identity" names a structure that is certainly absent. Pass complete=True if the labels '
                'name every structure, or add "presence" to localization.'
            )
