"""The options of scripts that say whether they do as the paper does, and what heads and layers are chosen on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from interp.errors import StudyError
from interp.study.conventions import (
    PAPER_PIXELS,
    Conventions,
    choice_data,
    conventions,
    held_out_sets,
    paper_model,
)
from interp.study.model_spec import ModelSpec

if TYPE_CHECKING:
    from interp.data import Samples
    from interp.study.refinement.method_choice import Grounding

__all__ = ["HeadChoice", "HeadOptions", "PaperChoice", "PaperOptions"]


@dataclass(frozen=True)
class PaperChoice:
    """The choices in which the paper and this toolkit differ.

    Attributes:
        paper: Whether to do as the paper and its code do: KL, the layer where it is lowest, boxes stretched over the
            grid, and the official code's limits of pixels for Qwen models.
        choose_by: The metric that chooses a layer, by its own direction; by default ar, with --paper kl.
        rule: When a token belongs to a box; by default touch, with --paper stretch.
        pixels: The largest number of pixels of an image, for models in Qwen's layout; with several, a script of several
            models runs each at every size, as appendix K compares sizes of images.
    """

    paper: bool = False
    choose_by: str = ""
    rule: str = ""
    pixels: tuple[int, ...] = ()

    def conventions(self, **given: Any) -> Conventions:
        """The conventions given by name, else by these options, else the paper's or the toolkit's."""
        return conventions(self.paper, choose_by=self.choose_by, rule=self.rule, **given)

    def model(self, name: str, **options: Any) -> ModelSpec:
        """The model, with the official code's limits of pixels where they hold; options as for `ModelSpec`.

        Raises:
            StudyError: Several sizes, for a script of one model.
        """
        if len(self.pixels) > 1:
            raise StudyError(f"this script runs one model, so --pixels takes one number; got {self.pixels}.")
        return self.models([name], **options)[0]

    def models(self, names: Sequence[str], **options: Any) -> list[ModelSpec]:
        """The models, each at every size of `pixels`."""
        found = []
        for spec in (ModelSpec(name, **options) for name in names):
            sizes = [{**PAPER_PIXELS, "max_pixels": size} for size in self.pixels]
            sized = [replace(spec, processor=size) for size in sizes]
            found += sized or [paper_model(spec, self.paper)]
        return found


@dataclass(frozen=True)
class HeadChoice(PaperChoice):
    """`PaperChoice`, with the data that VGRefine's heads and layer are chosen on.

    Attributes:
        choose_on: Data to choose heads and layer on for all of --data, as the paper does on COCO; by default each
            one's own validation split. --paper needs it where no heads are published.
        published_heads: The published set of heads for a copy of its checkpoint: huatuogpt-vision-7b.
        metric: The metric that ranks heads: a short name of interp.metrics.METRICS.
    """

    choose_on: tuple[str, ...] = ()
    published_heads: str = ""
    metric: str = "kl"

    def held_out(
        self, data: Sequence[str], model: ModelSpec, *, n: int | None, seed: int
    ) -> dict[str, Samples]:
        """The samples to choose on, by the label of the data they are chosen for; as `held_out_sets`."""
        reference = model if self.paper and not self.published_heads else None
        return held_out_sets(data, self.choose_on, n=n, seed=seed, paper_model=reference)

    def grounding(self, model: ModelSpec, validation: Samples | None, **options: Any) -> Grounding:
        """The heads and the layer for VGRefine; options as for `grounding`."""
        from interp.study.refinement.method_choice import grounding

        return grounding(model, validation, **self._ways, **options)

    def choosing(self, model: ModelSpec, default: str = "natural") -> dict[str, Any]:
        """The options of `refined_row` that choose heads and layer for questions, which have no boxes.

        Args:
            model: The model.
            default: The data to choose on where none are named.
        """
        reference = model if self.paper and not self.published_heads else None
        return {"choose_on": choice_data(self.choose_on, reference) or (default,), **self._ways}

    @property
    def _ways(self) -> dict[str, Any]:
        """Options of `grounding`."""
        way = self.conventions()
        return {
            "metric": self.metric,
            "layer_by": way.choose_by,
            "rule": way.rule,
            "rank": bool(self.choose_on),
            "published": self.published_heads,
        }


PaperOptions = Annotated[PaperChoice, tyro.conf.OmitArgPrefixes]
"""The parameter `way` of a `main`: the options --paper, --choose-by, --rule and --pixels."""
HeadOptions = Annotated[HeadChoice, tyro.conf.OmitArgPrefixes]
"""The same with --choose-on, --published-heads and --metric."""
