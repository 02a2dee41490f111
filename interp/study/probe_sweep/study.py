"""At which layer, and where, can a property of the sample be read linearly from the residual stream?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interp.errors import StudyError
from interp.study.probe_sweep.result import ProbeResult
from interp.study.probe_sweep.task import POSITIONS, ProbeTask
from interp.study.runs import GridCell
from interp.study.study import Study, as_tuple, field, some_of, whole_number

__all__ = ["ProbeSweep"]


def _positive(name: str, value: Any) -> None:
    real = isinstance(value, int | float) and not isinstance(value, bool)
    if not real or not 0 < value < float("inf"):
        raise StudyError(f"{name} is a finite number above 0; got {value!r}.")


def _is_name(name: str, value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise StudyError(
            f'{name} is "answer", "question", "group" or a key of each sample\'s meta; got {value!r}.'
        )


class ProbeSweep(Study[ProbeResult]):
    """Logistic probes of the residual stream after each layer, at the image tokens, the question or the last token.

    For each layer and position: the stream is averaged over the position's tokens, and a multinomial logistic
    regression (L2) learns the target from it. Groups are split into folds; each sample is scored by a probe that was
    fitted without its fold. `scores` has one row per (sample, layer, position, measure):

    - `accuracy`: 1 where the probe predicts the sample's class, else 0.
    - `control`: the same for the control task, in which each type of sample gets a random class, with the classes' own
      frequencies. By default each group is a type. No other fold has that group, so the control is at chance. Where the
      target is nearly a function of something that recurs, such as "question", name that as the type: the control then
      says how much the probe can memorise.
    - `selectivity`: accuracy − control, in [−1, 1]. Near 0: the probe does as well on random classes.
    - `majority`: 1 where the most frequent class of the other folds is the sample's class, else 0; the same at every
      layer.

    A class that lies in one fold alone cannot be predicted there: its samples count as wrong at every layer, the page
    says how many they are, and `ProbeResult.unseen` lists them.

    Means and intervals are over groups (`summary`). A probe shows what can be read, not what the model uses. Compare
    with `interp.PatchResidual` or `interp.indicators.ActivationPatching`.

    Args:
        data: Samples; a plain list becomes `Samples`. They should ask one kind of question; otherwise a probe can tell
            the kinds apart instead.
        model: Id, `ModelSpec`, or an opened model (which only one process can use).
        target: The property to predict: "answer", "question", "group", or a key of each sample's `meta`, such as
            "label".
        positions: Some of "last" (the last prompt token), "question" (the question's tokens), "image" (all image
            tokens), "box" (the image tokens in the sample's boxes).
        control: The type of a sample in the control task: "group", "question" or a key of `meta`.
        folds: The number of folds.
        penalty: λ, the weight of the L2 penalty; scikit-learn's C is 1 / λ. Features are standardised.
        prompt: How the question is put.
        seed: The seed of the folds, the control's classes and the bootstrap.
        batch: Samples per forward pass. Part of the hash.

    Raises:
        StudyError: There are no samples, fewer than two classes, fewer groups than folds, or no class with as many
            samples as folds; or a field has the wrong type.

    Source: Alain & Bengio 2016 (arXiv 1610.01644); Hewitt & Liang 2019 for control tasks (arXiv 1909.03368).
    """

    target: str = field(default="answer", validator=_is_name)
    positions: tuple[str, ...] = field(
        default=("last", "question", "image"), converter=as_tuple, validator=some_of(POSITIONS)
    )
    control: str = field(default="group", validator=_is_name)
    folds: int = field(default=5, validator=whole_number(2))
    penalty: float = field(default=1.0, validator=_positive)

    name = "probe-sweep"
    title = "Probe sweep"
    page = "interp.study.probe_sweep.page"

    @property
    def question(self) -> str:
        """What the study answers, in a sentence."""
        return f"From which layer on, and where, can the {self.target} be read linearly?"

    def task(self, mllm: Any) -> ProbeTask:
        """The study as work for the runner."""
        return ProbeTask(self, mllm)

    def collect(self, whole: Any, cells: tuple[GridCell, ...], folder: Path) -> ProbeResult:
        """The result of this study, or of a grid over it."""
        return ProbeResult.of(whole, cells, folder)
