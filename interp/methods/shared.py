"""One pass over the images for all prompts of a method."""

from __future__ import annotations

from interp.methods.method import Samples
from interp.prompt import Prompt
from interp.sample import Sample
from interp.tracing import Batch, Cost, Mllm, Prefix
from interp.tracing.encode import as_samples

__all__ = ["shared_prefix"]


def shared_prefix(mllm: Mllm, samples: Samples, *prompts: Prompt) -> tuple[list[Sample] | Prefix, Cost]:
    """What to run each of the prompts on, and what it took so far.

    That is the samples' prefix where one pass over the images serves every prompt: one prompt alone, or prompts
    that begin with the same system message and the images. Else it is the samples. A prefix that is given was
    paid for by its maker.
    """
    if isinstance(samples, Prefix):
        return samples, Cost()
    listed = _listed(samples)
    first, *others = prompts
    if any(
        not (p.image_first and first.image_first) or p.system != first.system for p in others if p != first
    ):
        return listed, Cost()
    prefix = mllm.prefix(listed, prompt=first)
    return prefix, prefix.cost


def _listed(samples: Samples) -> list[Sample]:
    if isinstance(samples, Batch | Prefix):
        return list(samples.samples)
    return list(as_samples(samples))
