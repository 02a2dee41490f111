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
    "is_remote",
    "model_label",
    "model_provenance",
    "open_model",
    "short_label",
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
        device: The device that the model runs on.
        dtype: The dtype of the weights, part of a study's hash because results depend on it.
        vision_tower: Id or folder that replaces the tower a checkpoint's config names.
        attn_implementation: The attention implementation, such as "sdpa" or "flash_attention_2".
        processor: Id or folder of another processor, or settings such as {"max_pixels": 50176, "min_pixels": 784}.
        quantization: "int8", "int4", "fp8", or the settings of one as a dict with a "quant_method".
        lora: Id or folder of a LoRA adapter.
        device_map: The device of each part of the model, in place of `device`: "auto" and so on, or a dict of parts.
        offload_folder: The folder for the weights that the map leaves on the disk.
        remote: Whether the model runs on the NDIF server of nnsight's settings, with the server's device and dtype. A
            study's hash holds the model's id and revision, its config and processor and the server's versions of
            Python, nnsight, transformers and torch; the weights cannot be hashed, and the host is not part of it.
        adapter: The name of an adapter; "answers_only" opens a model without a map, for tables of answers.

    Each is as in `interp.load`, and values are those that JSON can hold.
    """

    id: str
    revision: str | None = None
    device: str = "cpu"
    dtype: str = "float32"
    vision_tower: str | None = None
    attn_implementation: str | None = None
    processor: str | Mapping[str, Any] | None = None
    quantization: str | Mapping[str, Any] | None = None
    lora: str | None = None
    device_map: str | Mapping[str, Any] | None = None
    offload_folder: str | None = None
    remote: bool = False
    adapter: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not self.id.strip():
            raise StudyError(f'a model\'s id is a text such as "organism" or a folder; got {self.id!r}.')
        if self.adapter is not None and not isinstance(self.adapter, str):
            raise StudyError(
                f"adapter of a ModelSpec is a name, so that other processes can open it; got {self.adapter!r:.200}. "
                "For an Adapter of your own, load the model with it and pass that."
            )
        for name in ("processor", "quantization", "device_map"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                object.__setattr__(self, name, _Settings.of(name, value))
        if not isinstance(self.remote, bool):
            raise StudyError(f"remote is True or False; got {self.remote!r}.")

    def load(self) -> Mllm:
        """The model itself."""
        from interp.tracing import load

        options: dict[str, Any] = {key: value for key, value in asdict(self).items() if key != "id"}
        return load(self.id, **options)


class _Settings(dict[str, Any]):
    """Settings that JSON can hold, as part of a value that is compared and hashed. Never changed."""

    @classmethod
    def of(cls, name: str, value: Any) -> _Settings:
        """The settings of a field of that name.

        Raises:
            StudyError: No settings, or values that JSON cannot hold.
        """
        try:
            plain = dict(value) if isinstance(value, Mapping) else value
            text = json.dumps(plain, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise StudyError(
                f"{name} of a ModelSpec is a text or a dict of what JSON can hold, so that other processes can open "
                f"the model; got {value!r:.200} ({error}). For others, load the model and pass it as it is."
            ) from error
        if not isinstance(value, Mapping) or not all(isinstance(one, str) for one in value):
            raise StudyError(
                f"{name} of a ModelSpec is a text or a dict of names → values; got {value!r:.200}."
            )
        return cls(json.loads(text))

    def __hash__(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return hash(json.dumps(self, sort_keys=True))


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
    """A short name for tables and figures: the id or folder; of an opened model without one its family."""
    if isinstance(model, ModelSpec):
        name = model.id if model.revision is None else f"{model.id}@{model.revision}"
        return ", ".join([name, *_changes(model)])
    hf = getattr(model, "hf", None)
    known = str(getattr(hf, "name_or_path", "") or "")
    if is_organism(model):
        known = next((name for name, folder in ORGANISMS.items() if Path(known).name == folder), known)
    return known or str(getattr(model, "family", type(model).__name__))


def short_label(model: Any) -> str:
    """`model_label`, of a model in a folder the folder's name alone."""
    known = model_label(model)
    return Path(known).name if Path(known).is_dir() else known


def _changes(model: ModelSpec) -> list[str]:
    """The differences from the plain model of the id, in a few words."""
    found = [] if model.lora is None else [f"LoRA {Path(model.lora).name}"]
    found += [] if model.adapter is None else [f"adapter {model.adapter}"]
    quantization = model.quantization
    if quantization is not None:
        found.append(quantization if isinstance(quantization, str) else str(quantization.get("quant_method")))
    if isinstance(model.processor, Mapping):
        found.append(" ".join(f"{name}={value}" for name, value in sorted(model.processor.items())))
    return found


def is_remote(model: Any) -> bool:
    """Whether a study's model runs on a server, which keeps its weights."""
    return model.remote if isinstance(model, ModelSpec) else getattr(model, "server", None) is not None


def is_organism(model: Any) -> bool:
    """Whether a study's model is one of the bundled model organisms, whose numbers say nothing about real models."""
    if not isinstance(model, ModelSpec):
        return bool(getattr(getattr(getattr(model, "hf", None), "config", None), "interp_organism", False))
    config = Path(model.id) / "config.json"
    return model.id in ORGANISMS or (config.is_file() and bool(_json(config).get("interp_organism")))


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def model_provenance(model: Any, mllm: Any, fingerprint: str) -> Mapping[str, Any]:
    """The record of an opened model for readers. Its fingerprint is passed in, because computing it takes long."""
    named = asdict(model) if isinstance(model, ModelSpec) else {"id": None}
    about = getattr(getattr(mllm, "adapter", None), "describe", None)
    footprints = {} if about is None else {"footprints": about()}
    return {
        **named,
        "family": mllm.family,
        "fingerprint": fingerprint,
        "n_layers": mllm.n_layers,
        **footprints,
    }
