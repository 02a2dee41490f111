"""What the studies through TransformerLens check of their fields, and the lens that their tasks share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from interp.data import Samples
from interp.errors import StudyError
from interp.inputs.prompt import Prompt
from interp.study.model_spec import as_model
from interp.study.task import StudyTask

if TYPE_CHECKING:
    from interp.tracing.lens import Lens

__all__ = ["LensTask", "check_fields"]


def check_fields(study: Any, choices: Mapping[str, Sequence[str]]) -> None:
    """Normalises the `model` and `data` of a study and checks its `prompt`, `batch`, `seed` and `choices`.

    Raises:
        StudyError: One of them makes no sense.
    """
    object.__setattr__(study, "model", as_model(study.model))
    data = study.data
    if not isinstance(data, Samples | Sequence) or isinstance(data, str):
        raise StudyError(
            f'data is Samples or a list of Sample, such as interp.data.bundled("natural"); got {type(data).__name__}.'
        )
    object.__setattr__(study, "data", data if isinstance(data, Samples) else Samples(data))
    if len(study.data) == 0:
        raise StudyError(f"the data {study.data.name!r} hold no sample. Was a filter too strict?")
    for name, known in choices.items():
        if getattr(study, name) not in known:
            raise StudyError(f"{name} is one of {', '.join(known)}; got {getattr(study, name)!r}.")
    if not isinstance(study.prompt, Prompt):
        raise StudyError(f"prompt is an interp.Prompt; got {study.prompt!r}. Write Prompt(template=…).")
    for name, least in (("batch", 1), ("seed", 0)):
        value = getattr(study, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise StudyError(f"{name} is a whole number ≥ {least}; got {value!r}.")


class LensTask(StudyTask):
    """A task that reads the model through TransformerLens; each process makes its lens once."""

    def __init__(self, study: Any, mllm: Any) -> None:
        super().__init__(study, mllm)
        self._made: Lens | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_made": None}

    @property
    def lens(self) -> Lens:
        """The model through TransformerLens."""
        made = self.mllm.to_lens() if self._made is None else self._made
        self._made = made
        return made

    def to_dict(self) -> dict[str, Any]:
        """What the numbers depend on: attention is eager, and no prefix is shared."""
        found = super().to_dict()
        return {**found, "plan": {**found["plan"], "prefix": "none"}, "through": "transformer_lens"}
