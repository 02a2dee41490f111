"""Which model a study runs, as a value that worker processes can open again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from interp.errors import StudyError
from interp.organism.places import ORGANISMS

if TYPE_CHECKING:
    from interp.tracing import Mllm

__all__ = [
    "ModelSpec",
    "OpenModel",
    "as_model",
    "is_organism",
    "model_label",
    "model_provenance",
    "open_model",
]


@runtime_checkable
class OpenModel(Protocol):
    """An opened model, as far as studies need to know it: `interp.load(…)` or `interp.wrap(…)`."""

    @property
    def family(self) -> str:
        """The name of its adapter's family."""
        ...

    @property
    def n_layers(self) -> int:
        """How many decoder layers it has."""
        ...

    @property
    def fingerprint(self) -> str:
        """A hash of its weights and code."""
        ...


@dataclass(frozen=True)
class ModelSpec:
    """A model by id, with what `interp.load` needs to open it.

    Args:
        id: "organism", a Hugging Face id or a local folder.
        revision: Commit or tag of a Hugging Face id.
        device: Where it runs.
        dtype: Its floating-point type, part of a study's hash because results depend on it.
        vision_tower: Id or folder that replaces the tower a checkpoint's config names.
        remote: Whether it runs on the NDIF server of nnsight's settings. Then device and dtype are the server's. A
            study's hash holds the model's id and revision, its config and processor and the server's versions of
            Python, nnsight, transformers and torch; the weights cannot be hashed, and the host is not part of it.
    """

    id: str
    revision: str | None = None
    device: str = "cpu"
    dtype: str = "float32"
    vision_tower: str | None = None
    remote: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not self.id.strip():
            raise StudyError(f'a model\'s id is a text such as "organism" or a folder; got {self.id!r}.')
        if not isinstance(self.remote, bool):
            raise StudyError(f"remote is True or False; got {self.remote!r}.")

    def load(self) -> Mllm:
        """The model itself."""
        from interp.tracing import load

        options: dict[str, Any] = {key: value for key, value in asdict(self).items() if key != "id"}
        return load(self.id, **options)


def as_model(model: Any) -> ModelSpec | OpenModel:
    """A `ModelSpec` for an id; a `ModelSpec` or an opened model as it is.

    Raises:
        StudyError: Neither an id, a `ModelSpec` nor a model.
    """
    if isinstance(model, str):
        return ModelSpec(model)
    if isinstance(model, ModelSpec) or hasattr(model, "encode"):
        return model
    raise StudyError(
        f"model is an id, a ModelSpec(id, revision=…, dtype=…) or an opened model; got "
        f"{type(model).__name__}."
    )


def open_model(model: ModelSpec | OpenModel) -> Any:
    """The opened model: loaded when it is a `ModelSpec`, itself otherwise."""
    return model.load() if isinstance(model, ModelSpec) else model


def model_label(model: Any) -> str:
    """A short name for tables and figures."""
    if isinstance(model, ModelSpec):
        return model.id if model.revision is None else f"{model.id}@{model.revision}"
    return str(getattr(model, "family", type(model).__name__))


def is_organism(model: Any) -> bool:
    """Whether a study's model is one of the bundled model organisms, whose numbers say nothing about real models."""
    if not isinstance(model, ModelSpec):
        return bool(getattr(getattr(getattr(model, "hf", None), "config", None), "interp_organism", False))
    config = Path(model.id) / "config.json"
    return model.id in ORGANISMS or (config.is_file() and bool(_json(config).get("interp_organism")))


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def model_provenance(model: Any, mllm: Any, fingerprint: str) -> Mapping[str, Any]:
    """Everything worth writing down about an opened model; its fingerprint takes long and is passed on."""
    named = asdict(model) if isinstance(model, ModelSpec) else {"id": None}
    return {**named, "family": mllm.family, "fingerprint": fingerprint, "n_layers": mllm.n_layers}
