"""A checkpoint in an original layout: how it is downloaded, and how its transformers model is built and filled.

A conversion reads the files of its source alone, and follows no link that leads out of it.
"""

from __future__ import annotations

import os
import re
import socket
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import huggingface_hub
import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from interp.errors import ModelError
from interp.models.checkpoints.tensors import Part

__all__ = [
    "HUB_ID",
    "Checkpoint",
    "check_source_files",
    "check_vocabulary",
    "empty_model",
    "fetched",
    "fill",
    "find_part",
    "lora_files",
    "reachable",
    "small_files",
]


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
        stock: Whether transformers alone can load the converted checkpoint; False if it needs a class of `interp`.
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
        if isinstance(layers, int) and layers > n_tensors:  # building so many takes hours or all memory
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
    """Checks that a folder holds a vocabulary: without one, some tokenizers are built with an empty one.

    Raises:
        ModelError: The folder holds none of the files that tokenizers read.
    """
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise ModelError(
            f"{folder} holds none of {', '.join(VOCABULARIES)}, so it has no tokenizer. Is the download complete? "
            "Else copy the files of its tokenizer into it."
        )


HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_SMALL = ("*.json", "*.txt", "*.model", "*.jinja", "LICENSE*", "README.md")
"""Configs, tokenizers, indexes and licences; no code and no weights."""


_SECONDS = 3.0
"""How long the hub may take to answer, in seconds."""


def reachable() -> bool:
    """Whether the hub can be reached: offline mode is off, and the hub answers within three seconds.

    huggingface_hub itself would try for minutes. Behind a proxy this cannot be tested, so the answer is True.
    """
    if huggingface_hub.is_offline_mode():
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    hub = urlsplit(huggingface_hub.constants.ENDPOINT)
    try:
        with socket.create_connection((hub.hostname or "", hub.port or 443), timeout=_SECONDS):
            return True
    except OSError:
        return False


def small_files(hub_id: str, revision: str | None = None) -> Path:
    """Returns a local folder with a repository's small files: configs, tokenizers, indexes.

    Raises:
        ModelError: The repository cannot be reached.
    """
    return _snapshot(hub_id, revision, _SMALL)


def lora_files(hub_id: str) -> Path:
    """Returns a local folder with the settings and weights of a LoRA adapter on the hub.

    Raises:
        ModelError: The repository cannot be reached.
    """
    return _snapshot(hub_id, None, ("adapter_config.json", "adapter_model.safetensors"))


def fetched(hub_id: str, revision: str | None = None) -> Path:
    """Returns a local folder with a repository's small files and weights; if it has safetensors, no other shards.

    Raises:
        ModelError: The repository cannot be reached.
    """
    if not reachable():
        return _snapshot(hub_id, revision, (*_SMALL, "*.safetensors", "*.bin"))
    try:
        files = huggingface_hub.HfApi().list_repo_files(hub_id, revision=revision)
    except Exception as error:  # whatever the hub's client raises
        raise _unreachable(hub_id, error) from error
    safe = any(name.endswith(".safetensors") for name in files)
    ignored = ("*pytorch_model*.bin",) if safe else ()
    return _snapshot(hub_id, revision, (*_SMALL, "*.safetensors", "*.bin"), ignored)


def find_part(
    what: str,
    named: str | None,
    folder: Path,
    given: str | Path | None,
    *,
    download: bool,
    option: str | None = None,
) -> Path:
    """Returns the folder of a part that lies outside a checkpoint, such as its vision tower.

    It is the given part, or else the one that the config names. The latter is looked for in the checkpoint's folder, as
    a folder of its own, in the hub's cache and, if allowed, on the hub. If a path does not exist, its last component is
    looked for in the checkpoint's folder.

    Args:
        what: The name of the part, for messages.
        named: The path or hub id in the config.
        folder: The checkpoint's folder.
        given: Folder or hub id to use instead.
        download: Whether the part that the config names may be downloaded.
        option: The argument of `interp.load` for this part, if there is one.

    Raises:
        ModelError: The part is not available.
    """
    if given is not None:
        if Path(given).expanduser().is_dir():
            return Path(given).expanduser()
        if HUB_ID.fullmatch(str(given)):
            return fetched(str(given))
        raise ModelError(f"{option}={str(given)!r} is neither a folder nor a hub id (organisation/name).")
    beside = folder / Path(named or "").name
    for place in (folder / named, Path(named), beside) if named else ():
        if place.is_dir():
            return place
    if named and HUB_ID.fullmatch(named):
        if download:
            return fetched(named)
        cached = _cached(named)
        if cached is not None:
            return cached
    copied = f"Put a copy at {beside} (a link there serves interp.load, but not interp convert)"
    way = f"Pass {option}= with the folder of a copy, or with a hub id to download it"
    raise ModelError(
        f"{folder} comes without its {what}: its config names {named!r}, which is not available, and nothing is "
        f"downloaded for a local folder. {way if option else copied}."
    )


def _cached(hub_id: str) -> Path | None:
    try:
        return Path(huggingface_hub.snapshot_download(hub_id, local_files_only=True))
    except Exception:  # not in the cache, or no such id
        return None


def _snapshot(
    hub_id: str, revision: str | None, patterns: Sequence[str], ignored: Sequence[str] = ()
) -> Path:
    options: dict[str, Any] = {"allow_patterns": list(patterns), "ignore_patterns": list(ignored) or None}
    options["local_files_only"] = not reachable()
    try:
        return Path(huggingface_hub.snapshot_download(hub_id, revision=revision, **options))
    except Exception as error:  # whatever the hub's client raises
        raise _unreachable(hub_id, error) from error


def _unreachable(hub_id: str, error: Exception) -> ModelError:
    return ModelError(
        f"{hub_id} cannot be downloaded from the hub ({type(error).__name__}: {error}). Is the hub "
        "reachable, is the name right, and do you have access? Offline, pass the folder of a copy."
    )
