"""Steering vectors: the mean difference of the residual stream between two sets of samples."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from interp.errors import MapError, ModelError, SiteError
from interp.inputs import archive
from interp.inputs.prompt import Prompt
from interp.inputs.sample import Sample
from interp.inputs.sample_list import as_samples
from interp.tracing.activation_edits import AddResidual
from interp.tracing.edits import Steps
from interp.tracing.passes.micro_batches import BATCH_SIZE
from interp.tracing.reads import Residual
from interp.tracing.site import Layers, Selector
from interp.tracing.trace import trace
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["SteeringVector", "load_steering_vector", "steering_vector"]

_KIND = "steering_vector"


@dataclass(frozen=True, eq=False)
class SteeringVector:
    """A direction of the residual stream for each of some layers. Made by `interp.steering_vector`.

    Attributes:
        vectors: float32 (layer, hidden), the mean over pairs of the positive sample's stream minus the negative one's.
        layers: The layers of `vectors`, in order.
        agreement: float64 (layer,), the mean cosine between each pair's difference and the mean difference of the
            *other* pairs, in [−1, 1]. Near 0 the pairs share no direction, and the vector is noise. NaN for a single
            pair, and where a difference is 0.
        stream_norm: float64 (layer,), the mean L2 norm of the stream at these positions, over all samples. The vector's
            norm divided by it says how large a step alpha=1 is.
        n_pairs: The number of pairs.
        positions: The positions that were read, as `Site.to_dict` writes its queries.
        model: The model's family and name, as a label; nothing checks it.
    """

    vectors: Float[np.ndarray, "layer hidden"]
    layers: tuple[int, ...]
    agreement: Float[np.ndarray, " layer"]
    stream_norm: Float[np.ndarray, " layer"]
    n_pairs: int
    positions: list[Any]
    model: str

    def at(self, layer: int) -> Float[np.ndarray, " hidden"]:
        """The vector of one layer.

        Raises:
            SiteError: A layer that is not among `layers`.
        """
        if layer not in self.layers:
            raise SiteError(f"this steering vector has layers {list(self.layers)}; got {layer!r}.")
        return self.vectors[self.layers.index(layer)]

    def edit(
        self,
        layer: int,
        alpha: float = 1.0,
        positions: Selector | Sequence[Selector] = "last",
        steps: Steps = "prefill",
    ) -> AddResidual:
        """The edit that adds α times the vector of one layer after that layer.

        Args:
            layer: One of `layers`.
            alpha, positions, steps: As in `AddResidual`.

        Raises:
            SiteError: A layer that is not among `layers`.
            EditError: As in `AddResidual`.
        """
        return AddResidual([layer], positions, self.at(layer), alpha, steps)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes a safetensors file, atomically and without code in it; `interp.load_steering_vector` reads it.

        Raises:
            RunError: The file cannot be written.
        """
        return archive.write(path, _KIND, {name: getattr(self, name) for name in self.__dataclass_fields__})

    def __repr__(self) -> str:
        return (
            f"SteeringVector({self.n_pairs} pairs, layers {list(self.layers)}, {self.vectors.shape[1]} values, "
            f"agreement {np.round(self.agreement, 2).tolist()})"
        )


def load_steering_vector(path: str | os.PathLike[str]) -> SteeringVector:
    """The steering vector that `SteeringVector.save` wrote.

    Raises:
        MapError: No such file, or one that is damaged or holds something else.
    """
    found = archive.read(path, _KIND)
    try:
        made = SteeringVector(**{**found, "layers": tuple(found["layers"])})
        fits = made.vectors.shape[0] == len(made.layers) == len(made.agreement) == len(made.stream_norm)
    except (AttributeError, KeyError, TypeError) as error:
        raise MapError(
            f"{os.fspath(path)!r:.200} lacks parts of a steering vector ({error}). Save it again."
        ) from error
    if not fits:
        raise MapError(
            f"{os.fspath(path)!r:.200} must hold one vector per layer; their numbers differ. Save it again."
        )
    return made


def steering_vector(
    mllm: WrappedModel,
    positive: Sample | Iterable[Sample],
    negative: Sample | Iterable[Sample],
    *,
    layers: Layers = "all",
    positions: Selector | Sequence[Selector] = "last",
    prompt: Prompt | None = None,
    batch_size: int = BATCH_SIZE,
    progress: bool = True,
) -> SteeringVector:
    """The mean difference of the residual stream between paired samples: v_l = mean over pairs of h_l(+) − h_l(−).

    h_l is the stream after layer l, averaged over the positions of a sample. Pair i is positive[i] and negative[i]. The
    two should differ only in what is to be steered (the same question on an image and on the same image recoloured):
    anything else that differs on average is in the vector too. Test the vector on other pairs than those it is made of.

    Cost: one trace over all samples, `len(positive) + len(negative)` forwards without generation.

    Args:
        mllm: The model.
        positive: The samples with the property to be added.
        negative: The samples without that property, as many as `positive` and in the same order.
        layers: The layers whose stream is read, as in `interp.Residual`.
        positions: The positions whose stream is averaged, as in `interp.Residual`.
        prompt, batch_size, progress: As in `Mllm.trace`.

    Raises:
        ModelError: Not a model, or different numbers of positive and negative samples.
        SiteError: Layers or positions that are not there.
        SampleError, PromptError, ImageTokenMismatch: As in `Mllm.encode`.

    Source: Rimsky et al. 2023, contrastive activation addition (arXiv 2312.06681).
    """
    if not isinstance(mllm, WrappedModel):
        raise ModelError(f"steering_vector takes a model of interp.load or interp.wrap; got {mllm!r:.100}.")
    with_it, without = as_samples(positive), as_samples(negative)
    if len(with_it) != len(without):
        raise ModelError(
            f"steering_vector takes pairs: as many positive as negative samples, in the same order; got "
            f"{len(with_it)} and {len(without)}."
        )
    read = Residual(layers, positions)
    how: dict[str, Any] = {"batch_size": batch_size, "progress": progress}
    found = trace(mllm, (*with_it, *without), prompt, reads=[read], **how)
    means = np.stack(
        [one.residual.values.astype(float).mean(axis=1) for one in found]
    )  # sample, layer, hidden
    norms = np.stack(
        [np.linalg.norm(one.residual.values.astype(float), axis=2).mean(axis=1) for one in found]
    )
    differences = means[: len(with_it)] - means[len(with_it) :]
    site = read.site.to_dict()
    return SteeringVector(
        vectors=differences.mean(axis=0).astype(np.float32),
        layers=tuple(map(int, found[0].residual["layer"].values)),
        agreement=_agreement(differences),
        stream_norm=norms.mean(axis=0),
        n_pairs=len(with_it),
        positions=site["queries"],
        model=f"{mllm.family} {getattr(mllm.hf.config, '_name_or_path', '')}".strip(),
    )


def _agreement(differences: Float[np.ndarray, "pair layer hidden"]) -> Float[np.ndarray, " layer"]:
    """The mean cosine between each pair's difference and the mean difference of the other pairs; NaN for one pair."""
    n = len(differences)
    if n < 2:
        return np.full(differences.shape[1], np.nan)
    others = (differences.sum(axis=0) - differences) / (n - 1)
    products = (differences * others).sum(axis=2)
    lengths = np.linalg.norm(differences, axis=2) * np.linalg.norm(others, axis=2)
    return np.divide(products, lengths, out=np.full_like(products, np.nan), where=lengths > 0).mean(axis=0)
