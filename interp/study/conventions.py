"""What the paper did where our studies do something else by default, as one value: `--paper` in the scripts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from interp.data import Samples
from interp.data.open import label, sets
from interp.errors import StudyError
from interp.inputs.argument_checks import check_bool
from interp.models.checkpoints import reachable
from interp.models.configs import raw_config
from interp.study.head_ranking.head_set import published_checkpoint
from interp.study.layer_choice import metrics_to_choose_by
from interp.study.model_spec import ModelSpec, is_organism

__all__ = [
    "OURS", "PAPER", "PAPER_PIXELS", "Conventions", "choice_data", "choice_samples", "conventions", "held_out_sets",
    "paper_model",
]  # fmt: skip

PAPER_PIXELS: Mapping[str, int] = MappingProxyType({"max_pixels": 50176, "min_pixels": 784})
"""The official code's limits of an image in Qwen's layout, for `processor=` of `interp.load` and `ModelSpec`.

At most 50,176 pixels, which are 64 tokens of 28×28 pixels (Qwen2.5-VL, Lingshu) or 49 of 32×32 (Qwen3-VL).
"""
LIMITED = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
"""The `model_type` of configs in Qwen's layout, Lingshu's among them."""


@dataclass(frozen=True)
class Conventions:
    """Choices in which the paper and our defaults differ.

    Attributes:
        metrics: What a layer sweep measures.
        choose_by: The metric by which a layer is chosen; its own direction decides, so "kl" is the lowest.
        rule: When a token belongs to a box. The official code stretches boxes over the grid ("stretch").
        variant: Which of VGRefine's two sources sets what is not given.
    """

    metrics: tuple[str, ...] = ("ar", "kl_gain", "js")
    choose_by: str = "ar"
    rule: str = "touch"
    variant: Literal["code", "paper"] = "code"

    @property
    def measured(self) -> tuple[str, ...]:
        """The metrics, with those that a choice of the layer needs."""
        return tuple(dict.fromkeys((*self.metrics, *metrics_to_choose_by(self.choose_by))))


OURS = Conventions()
PAPER = Conventions(metrics=("ar", "kl", "js"), choose_by="kl", rule="stretch", variant="paper")


def conventions(paper: bool = False, **given: Any) -> Conventions:
    """The paper's conventions or ours, with what is given in their place; "", () and None stand for not given.

    >>> conventions(True, rule="touch").choose_by, conventions(choose_by="").choose_by
    ('kl', 'ar')
    """
    chosen = {name: value for name, value in given.items() if value}
    return dataclasses.replace(PAPER if paper else OURS, **chosen)


def paper_model(model: ModelSpec, paper: bool = True) -> ModelSpec:
    """The model with the official code's limits of pixels, where it has Qwen's layout; other models as they are.

    Args:
        model: A model without a processor of its own: one that has one is left as it is.
        paper: Whether to change anything.

    Raises:
        StudyError: A model that is no `ModelSpec`.
        ModelError: The config of the model cannot be read.
    """
    if not isinstance(model, ModelSpec):
        raise StudyError(f"model is a ModelSpec; got {model!r:.100}. Write ModelSpec({str(model)!r:.60}).")
    check_bool("paper", paper, StudyError)
    if not paper or model.processor is not None or is_organism(model):
        return model
    options: dict[str, Any] = {"local_files_only": not reachable()}
    if model.revision is not None:
        options["revision"] = model.revision
    limited = raw_config(model.id, options).get("model_type") in LIMITED
    return dataclasses.replace(model, processor=dict(PAPER_PIXELS)) if limited else model


def held_out_sets(
    data: Sequence[str],
    choose_on: Sequence[str] = (),
    *,
    n: int | None,
    seed: int = 0,
    paper_model: ModelSpec | None = None,
) -> dict[str, Samples]:
    """The validation samples to choose heads, layers and parameters on, by the label of the data they are chosen for.

    Each data set's own by default. The paper chooses on COCO what it applies to medical images: `choose_on` names such
    data, whose validation samples, of several sets together, then serve all of `data`. Sets without validation samples
    are left out.

    Args:
        data: Bundled names or paths of the data that are reported on.
        choose_on: Bundled names or paths of the data to choose on.
        n: The largest number of samples of each set.
        seed: Draws the samples.
        paper_model: A model whose heads and layer are chosen as in the paper: then `choose_on` is needed, unless its
            heads are published; the organism's are chosen on the bundled natural scenes, which stand for COCO.

    Raises:
        StudyError: The paper's way without data to choose on.
        DataError: As `interp.data.open.sets`, and where `choose_on` has no validation samples.
    """
    choose_on = choice_data(choose_on, paper_model)
    if not choose_on:
        return sets(data, split="validation", n=n, seed=seed)
    return dict.fromkeys(map(label, data), choice_samples(choose_on, n=n, seed=seed))


def choice_samples(choose_on: Sequence[str], *, n: int | None, seed: int = 0) -> Samples:
    """The validation samples of several data sets together; arguments as of `held_out_sets`."""
    first, *others = sets(choose_on, split="validation", n=n, seed=seed, needed=True).values()
    return sum(others, first)


def choice_data(choose_on: Sequence[str], paper_model: ModelSpec | None) -> tuple[str, ...]:
    """The names of the data to choose on; arguments and errors as of `held_out_sets`."""
    if choose_on or paper_model is None or published_checkpoint(paper_model) is not None:
        return tuple(choose_on)
    if is_organism(paper_model):
        return ("natural",)
    raise StudyError(
        f"the paper chooses heads and layer on COCO, and none are published for {paper_model.id}. Name the data to "
        "choose on: --choose-on COCO_FOLDER."
    )
