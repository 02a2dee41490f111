"""What is asked of `interp reproduce`, and what each script is called with for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from interp.errors import RunError
from interp.inputs.text import meant
from interp.organism.places import ORGANISMS
from interp.reproduce.registry import DATA, Figure

__all__ = ["Request"]

ALL = 10**9
"""More samples than there are."""


@dataclass(frozen=True)
class Request:
    """The models, data and settings of a reproduction.

    Attributes:
        out: Folder for runs, pages and the index.
        models: Ids or folders; "organism" stands for none of the paper's.
        folders: Name of `DATA` → its folder.
        paper: Whether the scripts do as the paper does, where the two differ.
        n: The number of samples of a data set; None for each script's own default, 0 for all there are where data were
            given and not all of them are drawn on a page.
        published_heads: A published set of heads for a copy of its checkpoint.
        options: Options that every script with a model takes, such as "device".

    Raises:
        RunError: No model, a folder that does not exist, or data of an unknown name.
    """

    out: Path
    models: tuple[str, ...] = ("organism",)
    folders: Mapping[str, Path] = field(default_factory=dict)
    paper: bool = True
    n: int | None = None
    published_heads: str = ""
    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.models:
            raise RunError('expected at least one model, such as "organism" or a folder; got none.')
        for name, folder in self.folders.items():
            if name not in DATA:
                raise RunError(f"expected data named {', '.join(DATA)}; got {name!r}.{meant(name, DATA)}")
            if not folder.exists():
                raise RunError(
                    f"no {DATA[name].label} at {folder}: the folder does not exist. How to get it: {DATA[name].how}."
                )
        if self.n is not None and self.n < 0:
            raise RunError(f"n is a number of samples, or 0 for all; got {self.n}.")

    @property
    def on_organism(self) -> bool:
        """Whether one of the models is a bundled organism, whose numbers are not the paper's."""
        return any(map(_is_organism, self.models))

    def models_of(self, figure: Figure) -> tuple[str, ...]:
        """The models that the script of a figure gets: of several the first, where it takes one."""
        return {"none": (), "one": self.models[:1], "many": self.models}[figure.models]

    def data_of(self, figure: Figure) -> tuple[str, ...]:
        """Those of the figure's data that are at hand."""
        return tuple(name for name in figure.data if name in self.folders)

    def missing(self, figure: Figure) -> str:
        """What keeps a figure from being run, in a sentence; empty where nothing does.

        On the organism every script has data of its own. With another model a benchmark's script needs at least one of
        its benchmarks, and a choice of heads in the paper's way needs COCO, unless heads are published for the model.
        """
        real = [one for one in self.models_of(figure) if not _is_organism(one)]
        if not real:
            return ""
        if figure.benchmark and figure.data and not self.data_of(figure):
            options = ", ".join(DATA[name].option for name in figure.data)
            return f"None of its data was given: {options}."
        known = all(map(_has_published_heads, real)) or self.published_heads
        if figure.chooses and self.paper and not known and "coco" not in self.folders:
            return (
                f"The paper chooses heads and layer on COCO, which was not given: {DATA['coco'].option}. Or choose on "
                "the data themselves: --no-paper."
            )
        return ""

    def arguments(self, figure: Figure) -> list[str]:
        """The arguments of the figure's script."""
        models, data = self.models_of(figure), self.data_of(figure)
        found = ["--out", str(self.out)]
        found += ["--model", *models] if models and models != ("organism",) else []
        if data:
            found += self._data(figure, data)
        found += ["--paper"] if figure.paper_mode and self.paper else []
        found += ["--tokens", "1"] if figure.one_token and self.paper else []
        if figure.chooses and self.paper and "coco" in self.folders and not self._published(models):
            found += ["--choose-on", str(self.folders["coco"])]
        found += (
            ["--published-heads", self.published_heads] if figure.chooses and self.published_heads else []
        )
        if self.n or (self.n == 0 and data and not figure.shows_all):
            found += [part for option in figure.n for part in (f"--{option}", str(self.n or ALL))]
        if models:
            found += [part for name, value in self.options.items() for part in (f"--{name}", value)]
        return found

    def _data(self, figure: Figure, names: tuple[str, ...]) -> list[str]:
        """The arguments that name these data."""
        if not figure.benchmark:
            return ["--data", *(str(self.folders[name]) for name in (names[:1] if figure.one_set else names))]
        asked = [f"{name},questions=open" if figure.open_questions else DATA[name].name for name in names]
        splits = ["test" if figure.open_questions else DATA[name].split for name in names]
        folders = (self.folders[name] for name in names)
        return [
            "--data",
            *(f"{one}:{folder}" for one, folder in zip(asked, folders, strict=True)),
            "--split",
            *splits,
        ]

    def _published(self, models: tuple[str, ...]) -> bool:
        """Whether the heads of these models are published, so that nothing is chosen."""
        known = all(map(_has_published_heads, models))
        return bool(self.published_heads) or known


def _is_organism(model: str) -> bool:
    """Whether a name or a folder is one of the bundled organisms; their names are known without the studies."""
    if model in ORGANISMS:
        return True
    from interp.study.model_spec import ModelSpec, is_organism

    return is_organism(ModelSpec(model))


def _has_published_heads(model: str) -> bool:
    """Whether a set of heads is published for a model; for no organism."""
    if model in ORGANISMS:
        return False
    from interp.study.head_ranking.published_heads import published_checkpoint
    from interp.study.model_spec import ModelSpec

    return published_checkpoint(ModelSpec(model)) is not None
