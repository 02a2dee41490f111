"""The list of checks, and `check`, which runs them on a model."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import torch

from interp.conformance import edit_checks, footprint_checks, read_checks
from interp.conformance.check_result import CheckResult, Conformance, Measured
from interp.conformance.faulty_adapters import broken_adapter
from interp.conformance.subject import Subject
from interp.conformance.tiny import families, tiny
from interp.errors import InterpError, ModelError
from interp.indicators.indicator_checks import check_whole
from interp.inputs.images import ImageLike
from interp.inputs.sample import Sample
from interp.inputs.text import meant
from interp.models.adapter import Adapter, installed
from interp.models.refusals import refusal
from interp.tracing import Mllm, load, wrap

__all__ = ["CHECKS", "Check", "check", "moved"]

Check = Callable[[Subject], Measured]
"""A check: a function of the model under test that returns what it measured."""

CHECKS: MappingProxyType[str, Check] = MappingProxyType(
    {
        "image tokens": footprint_checks.image_tokens,
        "tiling": footprint_checks.tiling,
        "locality": footprint_checks.locality,
        "several images": footprint_checks.several_images,
        "attends": read_checks.attends,
        "idle tap": read_checks.idle_tap,
        "rows": read_checks.rows,
        "batching": read_checks.batching,
        "decoding": read_checks.decoding,
        "no-op edits": edit_checks.no_op_edits,
        "knockout mass": edit_checks.knockout_mass,
        "knockout arithmetic": edit_checks.knockout_arithmetic,
        "row gradients": read_checks.row_gradients,
        "image prefix": read_checks.image_prefix,
        "executors": edit_checks.executors,
    }
)
"""Every check by name, in the order they run."""


@dataclass(frozen=True)
class _Model:
    """A model to check and its name for readers."""

    mllm: Mllm
    title: str
    trained: bool


def check(
    model: Mllm | str | Path,
    *,
    checks: Sequence[str] | None = None,
    images: Sequence[ImageLike] = (),
    break_as: str | None = None,
    probes: int = 64,
    seed: int = 0,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "float32",
    revision: str | None = None,
    adapter: Adapter | str | None = None,
    processor: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
    finished: Callable[[CheckResult, float], None] | None = None,
) -> Conformance:
    """Checks a model's adapter and everything that is read through it.

    A check that fails or raises does not stop the others. Pictures are smooth random colours for random weights and
    pieces of photographs for trained ones. Where rounding decides, eager attention on a copy of the weights in the next
    wider type is the yardstick; the copy takes twice the memory of the weights.

    Args:
        model: The name of a family, a folder, a hub id (as for `interp.load`), or an `Mllm`. For a family, its tiny
            model with random weights is checked: this takes seconds and downloads nothing. The tiny model of an
            installed adapter comes from its `tiny()`.
        checks: Names in `CHECKS`; by default all.
        images: Pictures to use instead of generated ones.
        break_as: A fault to give the adapter first (`interp.conformance.BREAKS`), to test the suite.
        probes: The largest number of tokens that `locality` probes in each view of a picture.
        seed: The seed of a tiny model's weights, of pictures and of probes.
        device: The device of a model given by name.
        dtype: The dtype of a model given by name.
        revision: The revision of a hub id.
        adapter: The adapter of a family that `interp` does not know, or the name of a known one.
        processor: Folder or hub id of the processor, if the checkpoint has none.
        progress: A function that is called with the name of each check before it runs.
        finished: A function that is called with each result as it comes, and an estimate of the seconds left.

    Raises:
        ModelError: The model cannot be loaded, or a name is not in `CHECKS` or `BREAKS`.
        ImageError: An image cannot be read.
    """
    chosen = _chosen(checks)
    _check_options(images, probes, seed, progress, finished)
    pictures = tuple(np.asarray(Sample(image, "?").load()) for image in images)
    found = _model(model, seed, device, dtype, revision, adapter, processor)
    mllm = found.mllm if break_as is None else _with_broken_adapter(found.mllm, break_as)
    subject = Subject(mllm, pictures, probes, seed, found.trained)
    rows = []
    for name in chosen:
        if progress is not None:
            progress(name)
        rows.append(_run(name, subject))
        if finished is not None:
            finished(rows[-1], seconds_left(rows, chosen))
    title = found.title if break_as is None else f"{found.title}, faulty adapter: {break_as}"
    return Conformance(mllm.family, title, tuple(rows))


_SHARES = {
    "image tokens": 2,
    "locality": 60,
    "several images": 8,
}
"""Share of the time that a check takes on trained weights; 3 for the others."""


def seconds_left(done: Sequence[CheckResult], chosen: Sequence[str]) -> float:
    """Returns how long the rest of the checks will take, by the time of those that are done.

    Args:
        done: The results so far, at least one.
        chosen: The names of all checks, in their order.
    """
    shares = [_SHARES.get(name, 3) for name in chosen]
    return sum(row.seconds for row in done) * sum(shares[len(done) :]) / sum(shares[: len(done)])


def _chosen(checks: Sequence[str] | None) -> list[str]:
    given: Any = list(CHECKS) if checks is None else checks
    names: list[Any] = list(given) if isinstance(given, list | tuple) else [given]
    unknown = [name for name in names if not isinstance(name, str) or name not in CHECKS]
    if unknown or not names:
        raise ModelError(
            f"checks are named {', '.join(CHECKS)}; got {unknown or 'none'}.{meant(unknown, CHECKS)}"
        )
    return names


def _check_options(images: Any, probes: Any, seed: Any, progress: Any, finished: Any) -> None:
    """Raise `ModelError` for options of `check` that are of another type."""
    check_whole("probes", probes, 1, ModelError)
    check_whole("seed", seed, 0, ModelError, most=2**63 - 1)
    if progress is not None and not callable(progress):
        raise ModelError(f"progress is a function of a check's name, or None; got {progress!r}.")
    if finished is not None and not callable(finished):
        raise ModelError(
            f"finished is a function of a result and the seconds left, or None; got {finished!r}."
        )
    if isinstance(images, str | bytes) or not isinstance(images, Sequence):
        raise ModelError(f"images is a list of pictures; got {images!r}. Write images=[picture].")


def moved(hf: Any, device: str | torch.device, dtype: str | torch.dtype) -> Any:
    """The model on a device in a dtype. torch would make complex buffers real (Llama 4's tower has its rope in one).

    Raises:
        ModelError: No device, or no floating dtype.
    """
    kind = dtype if isinstance(dtype, torch.dtype) else getattr(torch, str(dtype), None)
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise ModelError(f'dtype is a name such as "bfloat16", or a floating torch.dtype; got {dtype!r}.')
    own = [(module, *named) for module in hf.modules() for named in module.named_buffers(recurse=False)]
    turns = [(module, name, value) for module, name, value in own if value.is_complex()]
    for module, name, _ in turns:
        setattr(module, name, None)
    try:
        found = hf.to(device=device, dtype=kind)
        for module, name, value in turns:
            setattr(module, name, value.to(device))
    except (
        AssertionError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:  # torch's words for a device it lacks
        raise ModelError(f'device is a name such as "cpu" or "cuda"; got {device!r} ({error}).') from error
    return found


def _model(
    model: Any,
    seed: int,
    device: str | torch.device,
    dtype: str | torch.dtype,
    revision: str | None,
    adapter: Adapter | str | None,
    processor: str | Path | None,
) -> _Model:
    if isinstance(model, Mllm):
        return _Model(model, repr(model), _is_trained(model))
    made = _tiny(model, seed)
    if made is not None:
        mllm = wrap(moved(made[0], device, dtype), made[1], model if adapter is None else adapter)
        return _Model(mllm, f"{model}, tiny random weights", False)
    try:
        loaded = load(
            model, device=device, dtype=dtype, revision=revision, adapter=adapter, processor=processor
        )
    except ModelError as error:
        why = refusal(SimpleNamespace(model_type=model, visual=True)) if isinstance(model, str) else None
        a_name = isinstance(model, str) and "/" not in model and not os.path.exists(model)
        known = f" Families with a tiny model: {', '.join(families())}." if a_name else ""
        raise ModelError(f"{why or error}{known}") from error
    if not loaded.adapter.matches(loaded.hf.config):
        raise ModelError(
            f"adapter {loaded.family!r} does not match {model}, whose model type is "
            f"{loaded.hf.config.model_type!r}: its matches(config) is false. Pass the adapter of that family."
        )
    return _Model(loaded, f"{model} ({loaded.family})", True)


def _tiny(model: str | Path, seed: int) -> tuple[Any, Any] | None:
    """Returns the tiny model and processor of a family: `interp`'s own, or an installed adapter's."""
    if not isinstance(model, str):
        return None
    if model in families():
        return tiny(model, seed=seed)
    found: list[Any] = [adapter for adapter in installed().values() if adapter.name == model]
    return found[0].tiny() if found and hasattr(found[0], "tiny") else None


def _is_trained(mllm: Mllm) -> bool:
    """Whether the weights come from a checkpoint; models built from a config carry no name."""
    return bool(getattr(mllm.hf, "name_or_path", ""))


def _with_broken_adapter(mllm: Mllm, how: str) -> Mllm:
    return replace(mllm, adapter=broken_adapter(mllm.adapter, how))


def _run(name: str, subject: Subject) -> CheckResult:
    """Runs one check; any exception becomes a failed result with its message."""
    start = time.perf_counter()
    try:
        found = CHECKS[name](subject)
    except Exception as error:  # a check must not stop the others
        kind = "" if isinstance(error, InterpError) else f"{type(error).__name__}: "
        detail = f"{kind}{str(error).strip() or 'no message'}"
        return CheckResult(name, False, None, "", None, False, detail, time.perf_counter() - start)
    seconds = time.perf_counter() - start
    return CheckResult(
        name, found.passed, found.value, found.what, found.limit, found.at_least, found.detail, seconds
    )
