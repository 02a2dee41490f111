"""A target as a function of what the model sees: the pixel values, or the image tokens' embeddings."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ModelError
from interp.prompt import Prompt, Target
from interp.sample import Sample
from interp.tracing.cost import Meter
from interp.tracing.differentiate import differentiable, entering, normal, recording, run_objective
from interp.tracing.encode import Batch
from interp.tracing.objectives import Objective, likeliest, objectives
from interp.tracing.prefix import Prefix
from interp.tracing.scores import given_as
from interp.tracing.targets import aims

if TYPE_CHECKING:
    from interp.tracing.mllm import Mllm

__all__ = ["InputFunction", "Inputs", "input_function"]

Inputs = Literal["pixels", "embeddings"]


@dataclass(frozen=True, eq=False)
class InputFunction:
    """Each sample's target value, and its gradient, at changed inputs. Made by `input_function`.

    Attributes:
        mllm: the model.
        of: "pixels": the batch's `pixel_values`, as the processor makes them; "embeddings": what enters the first
            decoder layer at image tokens, (token, hidden), the samples' one after the other.
        batch: the samples.
        passes: the passes whose values add up to the target.
        start: the inputs as they are, float32 (or float64).
        places: for each sample, the part of the inputs that is its own.
        meter: told of every pass.
    """

    mllm: Mllm
    of: Inputs
    batch: Batch
    passes: tuple[Objective, ...]
    start: Tensor
    places: tuple[tuple[slice, ...], ...]
    meter: Meter

    def values(self, inputs: Tensor) -> Float[Tensor, " sample"]:
        """The target's values; inside `recording`, they carry their graph."""
        return torch.stack([self._values(one, inputs) for one in self.passes]).sum(dim=0)

    def gradient(self, inputs: Tensor) -> Tensor:
        """∂ value / ∂ inputs; a sample's part is the gradient of its own value."""
        with recording(self.mllm):
            total = torch.zeros_like(self.start)
            for one in self.passes:
                leaf = inputs.detach().clone().requires_grad_(True)
                total += torch.autograd.grad(self._values(one, leaf).sum(), leaf)[0]
                self.meter.backwards += 1
        return total

    def own(self, inputs: Tensor, sample: int) -> Tensor:
        """A sample's part of the inputs, or of a gradient; a view."""
        return inputs[self.places[sample]]

    def _values(self, objective: Objective, inputs: Tensor) -> Float[Tensor, " sample"]:
        given = inputs.to(self.mllm.dtype)
        changed, hooked = {"pixel_values": given}, nullcontext()
        if self.of == "embeddings":
            sample, column = _columns(objective.batch)

            def change(hidden: Tensor) -> Tensor:
                return hidden.index_put((sample.to(hidden.device), column.to(hidden.device)), given)

            changed, hooked = {}, entering(self.mllm.installation.layers[0], change)
        with hooked:
            return objective.values(run_objective(self.mllm, objective, self.meter, changed=changed))


def input_function(
    mllm: Mllm,
    samples: Sample | Iterable[Sample] | Batch | Prefix,
    target: Target,
    prompt: Prompt,
    meter: Meter,
    *,
    of: Inputs,
    fixed: bool = True,
) -> InputFunction:
    """The target as a function of the inputs, for one batch; every evaluation is a whole pass.

    Args:
        mllm: the model.
        samples: the batch; of a prefix, its samples.
        target: the target.
        prompt: how the question is put.
        meter: told of every pass.
        of: which inputs.
        fixed: "greedy" is the answer to the inputs as they are. Otherwise the likeliest next token is taken at each
            evaluation: the same thing at the inputs as they are, and a pass less.

    Raises:
        ModelError: answers of several tokens after a prompt whose rows see all of it; weights that were loaded
            under `torch.inference_mode`; samples without images.
        SampleError, PromptError, ImageTokenMismatch: as in `Mllm.encode`.
    """
    differentiable(mllm)
    with torch.inference_mode(False):
        given = normal(given_as(mllm, samples, prompt))
        batch = given.batch if isinstance(given, Prefix) else given
        if "pixel_values" not in batch.inputs:
            raise ModelError("gradients of inputs need images; these samples have none.")
        found = None
        if fixed or not likeliest(target):
            found = aims(mllm, given, target)
            meter.count(found.cost)
        passes = tuple(objectives(mllm, batch, found))
        start = batch.inputs["pixel_values"] if of == "pixels" else _embedded(mllm, batch, meter)
        wide = start if start.dtype == torch.float64 else start.float()
    places = _pixel_places(batch) if of == "pixels" else _token_places(batch)
    return InputFunction(mllm, of, batch, passes, wide, places, meter)


def _embedded(mllm: Mllm, batch: Batch, meter: Meter) -> Float[Tensor, "token hidden"]:
    """What enters the first layer at image tokens: a pass through the vision tower, none through the decoder."""
    meter.forwards += 1
    hidden = mllm.embeddings(batch)
    sample, column = (at.to(hidden.device) for at in _columns(batch))
    return hidden[sample, column]


def _columns(batch: Batch) -> tuple[Tensor, Tensor]:
    """(sample, padded column) of every image token, sample by sample."""
    counts = [tokens.n for tokens in batch.tokens]
    columns = [tokens.image + int(pad) for tokens, pad in zip(batch.tokens, batch.pad, strict=True)]
    return torch.from_numpy(np.repeat(np.arange(len(counts)), counts)), torch.from_numpy(
        np.concatenate(columns)
    )


def _token_places(batch: Batch) -> tuple[tuple[slice, ...], ...]:
    stops = np.cumsum([0, *(tokens.n for tokens in batch.tokens)]).tolist()
    return tuple((slice(start, stop),) for start, stop in pairwise(stops))


def _pixel_places(batch: Batch) -> tuple[tuple[slice, ...], ...]:
    """Samples follow each other along the first axis; along others, shorter ones are filled up at their ends."""
    shapes: list[Any] = [tuple(one.inputs["pixel_values"].shape) for one in batch.singles]
    stops = np.cumsum([0, *(shape[0] for shape in shapes)]).tolist()
    return tuple(
        (slice(start, start + shape[0]), *(slice(0, n) for n in shape[1:]))
        for start, shape in zip(stops, shapes, strict=False)
    )
