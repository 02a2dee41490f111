"""A checkpoint in an original layout: everything needed to build and fill its transformers model.

A conversion reads the files of its source alone, and follows no link that leads out of it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from interp.errors import ModelError
from interp.models.checkpoints.tensors import Part

__all__ = ["Checkpoint", "check_source_files", "check_vocabulary", "empty_model", "fill"]


VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """An original checkpoint, described as a transformers model.

    Attributes:
        layout: The layout's name.
        where: The folder, for messages.
        config: The transformers config, made from the folder's config.
        model_class: The class to build; its `config_class` is the class of the config.
        parts: The files with the rules for their names; those of the language model come first.
        make_processor: A function that builds the processor, chat template included.
        prompt: The prompt that the chat template writes, with `{question}` for the user's words, `<image>` for the
            image and `{system}` for a system message.
        licence: The licence that the folder states; None if it states none.
        notes: Notes for the user: parts left out, guesses, differences from the original code.
        stock: Whether plain transformers can load the converted checkpoint; False if it needs a class of `interp`.
    """

    layout: str
    where: str
    config: PreTrainedConfig
    model_class: Any
    parts: tuple[Part, ...]
    make_processor: Callable[[], Any]
    prompt: str
    licence: str | None = None
    notes: tuple[str, ...] = ()
    stock: bool = True

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yields transformers' names and tensors, one source tensor after another; each file is opened once.

        A tensor may share memory with its file: copy it before requesting the next one. It has the file's dtype.
        """
        for part in self.parts:
            for step in part.steps():
                if step.names:
                    yield from part.values(step)

    def shapes(self) -> Iterator[tuple[str, str, Tensor]]:
        """Yields (source name, transformers' name, tensor on the meta device) for everything that `tensors` yields."""
        for part in self.parts:
            for step in part.steps():
                if step.names:
                    yield from ((step.source, name, meta) for name, meta in part.metas(step))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of most of the language model's numbers."""
        counts: dict[torch.dtype, int] = {}
        for name in self.parts[0].tensors.names():
            meta = self.parts[0].tensors.meta(name)
            if meta.is_floating_point():
                counts[meta.dtype] = counts.get(meta.dtype, 0) + meta.numel()
        return max(counts, key=lambda kind: counts[kind]) if counts else torch.float32

    def check(self, expected: dict[str, Tensor], tied: Sequence[str] = ()) -> None:
        """Raises `ModelError` unless the files hold each expected tensor once, in its shape, and no other tensor.

        Args:
            expected: The model's tensors by name, such as its `state_dict()`; only shapes are read.
            tied: Names that may be missing because they are tied to other names.
        """
        unknown = [s.source for p in self.parts for s in p.steps() if s.names is None]
        found: dict[str, str] = {}
        misshaped, twice = [], []
        for source, name, meta in self.shapes():
            if name not in expected:
                unknown.append(source if source == name else f"{source} (as {name})")
            elif name in found:
                twice.append(f"{name} (from {found[name]} and {source})")
            elif expected[name].shape != meta.shape:
                want, got = tuple(expected[name].shape), tuple(meta.shape)
                misshaped.append(f"{name} (expected {want}, got {got}, from {source})")
            found.setdefault(name, source)
        missing = [name for name in expected if name not in found and name not in tied]
        problems = {"missing": missing, "unexpected": unknown, "of another shape": misshaped, "twice": twice}
        if any(problems.values()):
            raise ModelError(self._complaint(problems))

    def _complaint(self, problems: dict[str, list[str]]) -> str:
        listed = "; ".join(
            f"{len(names)} {what}: {', '.join(names[:8])}{' …' if len(names) > 8 else ''}"
            for what, names in problems.items()
            if names
        )
        return (
            f"the tensors in {self.where} ({self.layout} layout) do not fit the {self.model_class.__name__} that its "
            f"config.json describes: {listed}. The model would run with random weights in their place. Are the "
            "config.json and the weights of the same checkpoint, and is the download complete?"
        )


def empty_model(checkpoint: Checkpoint, dtype: torch.dtype = torch.float32) -> Any:
    """Returns the checkpoint's model with its parameters on the meta device, without data. Buffers are real.

    Raises:
        ModelError: The config describes more layers than there are tensors, or sizes of which no model can be built.
    """
    n_tensors = sum(len(part.tensors.names()) for part in checkpoint.parts)
    for part in (
        checkpoint.config,
        *(getattr(checkpoint.config, name) for name in checkpoint.config.sub_configs),
    ):
        layers = getattr(part, "num_hidden_layers", 0)
        if isinstance(layers, int) and layers > n_tensors:  # building them would never end
            raise ModelError(
                f"the config.json of {checkpoint.where} describes {layers} layers, but the files hold {n_tensors} "
                "tensors. Are they of the same checkpoint, and is the download complete?"
            )
    try:
        with _parameters_on_meta():
            return checkpoint.model_class._from_config(checkpoint.config, dtype=dtype).eval()
    except Exception as error:  # whatever a config with wrong values raises
        raise ModelError(
            f"no {checkpoint.model_class.__name__} can be built from the config.json of {checkpoint.where} "
            f"({type(error).__name__}: {error}). Was it changed by hand? Copy it again."
        ) from error


def fill(
    checkpoint: Checkpoint, dtype: str | torch.dtype = "auto", device: str | torch.device = "cpu"
) -> Any:
    """Returns the checkpoint's model with its weights.

    Names and shapes are checked before anything is read. Then tensors are read, cast and moved one by one, so that only
    one tensor is in memory besides the model.

    Args:
        checkpoint: An opened checkpoint.
        dtype: The dtype of the weights; "auto" keeps that of the language model in the files.
        device: The device of the weights.

    Raises:
        ModelError: Tensors are missing, unexpected or of the wrong shape; the message lists them.
    """
    kind = checkpoint.dtype if not isinstance(dtype, torch.dtype) else dtype
    model = empty_model(checkpoint, kind)
    tied = check(checkpoint, model)
    for name, tensor in checkpoint.tensors():
        if name not in tied:
            _put(model, name, tensor, kind, device)
    model.tie_weights()
    model.name_or_path = checkpoint.where
    return model.to(device)


def check(checkpoint: Checkpoint, model: Any) -> frozenset[str]:
    """Checks that the checkpoint fits the model; returns the names that are tied to others and are not read.

    Raises:
        ModelError: Tensors are missing, unexpected or of the wrong shape.
    """
    tied = frozenset(getattr(model, "all_tied_weights_keys", {}))
    checkpoint.check(dict(model.state_dict()), tuple(tied))
    return tied


def _put(model: nn.Module, name: str, tensor: torch.Tensor, dtype: torch.dtype, device: Any) -> None:
    path, _, leaf = name.rpartition(".")
    owner = model.get_submodule(path)
    kind = dtype if tensor.is_floating_point() else tensor.dtype
    value = tensor.detach().to(device=device, dtype=kind, copy=True).contiguous()
    if leaf in owner._parameters:
        owner._parameters[leaf] = nn.Parameter(value, requires_grad=value.is_floating_point())
    else:
        owner._buffers[leaf] = value


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Within the block, modules create their parameters without data; buffers, which no file holds, are computed."""
    register = nn.Module.register_parameter

    def on_meta(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None and param.device.type != "meta":
            param = nn.Parameter(param.detach().to("meta"), requires_grad=param.requires_grad)
        register(self, name, param)

    nn.Module.register_parameter = on_meta
    try:
        yield
    finally:
        nn.Module.register_parameter = register


def check_source_files(folder: Path) -> None:
    """Checks that nothing in a folder leads out of it, so that a copy of it can be passed on.

    Links to places inside the folder may be followed. So may those of a snapshot in the hub's cache to the blobs of the
    same repository, of which such a snapshot consists.

    Raises:
        ModelError: A link leads elsewhere, or something is neither a file nor a folder, such as a pipe.
    """
    root = folder.resolve()
    homes = (root, *_blobs(root))
    whole = (root / "config.json").exists()  # else it is no checkpoint, and may be a whole disk
    for path in _entries(root, whole):
        kind = path.lstat().st_mode
        if stat.S_ISLNK(kind):
            _check_link(path, homes)
        elif not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
            raise ModelError(f"{path} is neither a file nor a folder, so it is not read. Remove it.")


def _entries(root: Path, whole: bool) -> Iterator[Path]:
    """Yields what a folder holds; with `whole`, what the folders in it hold too."""
    for place, folders, files in os.walk(root):
        yield from (Path(place) / name for name in (*folders, *files))
        if not whole:
            return


def _check_link(path: Path, homes: tuple[Path, ...]) -> None:
    try:
        target = path.resolve()
    except (OSError, RuntimeError) as error:  # a circle of links
        raise ModelError(
            f"{path} is a link that leads nowhere ({error}). Remove it, or copy its file."
        ) from error
    if not any(target.is_relative_to(home) for home in homes):
        raise ModelError(
            f"{path} is a link to {target}, outside {homes[0]}. Links out of the source are not followed, because what "
            "they show would be copied to the target. If it belongs to the model, replace the link by a copy."
        )
    if target.exists() and not (target.is_file() or target.is_dir()):
        raise ModelError(f"{path} is a link to {target}, which is neither a file nor a folder. Remove it.")


def _blobs(root: Path) -> Iterator[Path]:
    """Yields the folder that a snapshot in the hub's cache links to: models--x/blobs for models--x/snapshots/y."""
    for parent in root.parents:
        if parent.name.startswith("models--") and root.is_relative_to(parent / "snapshots"):
            yield parent / "blobs"


def check_vocabulary(folder: Path) -> None:
    """Raise ModelError for a folder without a vocabulary: some tokenizers then make an empty one.

    Raises:
        ModelError: None of the files that tokenizers read is there.
    """
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise ModelError(
            f"{folder} holds none of {', '.join(VOCABULARIES)}, so it has no tokenizer. Is the download complete? "
            "Else copy the files of its tokenizer into it."
        )
