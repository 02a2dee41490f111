"""The lenses by their names, and words read through any of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from interp.errors import ModelError, PromptError
from interp.inputs.prompt import Prompt
from interp.tracing.cost import Meter
from interp.tracing.lens.bridge import Samples
from interp.tracing.lens.lens import ServedLens, make_lens
from interp.tracing.lens.logit_lens import LogitLens, check_words
from interp.tracing.word_lenses.jacobian_lens import JacobianLens
from interp.tracing.word_lenses.latent_lens import LatentLens
from interp.tracing.word_lenses.patchscope import Patchscope
from interp.tracing.word_lenses.word_lens import WordLens, WordReadings, read_tokens
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["LENSES", "LOGIT", "as_lens", "as_readings", "read_words"]

LOGIT = "logit"
LENSES: Mapping[str, Any] = {one.kind: one for one in (LatentLens, JacobianLens, Patchscope)}
"""Name → the lens of that name, made without arguments; beside "logit"."""


def as_lens(lens: Any) -> Any:
    """A `WordLens` or "logit": from its name, or from {name: settings} as a command line gives it.

    "logit" and lenses are given back as they are.

    Raises:
        PromptError: Anything else, or settings that the lens does not take.
    """
    if isinstance(lens, str) and lens in LENSES:
        return LENSES[lens]()
    if isinstance(lens, Mapping) and len(lens) == 1:
        return _with_settings(*next(iter(lens.items())))
    if (isinstance(lens, str) and lens == LOGIT) or isinstance(lens, tuple(LENSES.values())):
        return lens
    raise PromptError(
        f"lens is one of {', '.join((LOGIT, *LENSES))}, or one of interp.tracing.word_lenses with settings, such as "
        f"LatentLens(corpus=[…]); got {lens!r:.100}."
    )


def _with_settings(name: Any, settings: Any) -> WordLens:
    kind = LENSES.get(name) if isinstance(name, str) else None
    known = [] if kind is None else [one.name for one in fields(kind) if one.init]
    if kind is None or not isinstance(settings, Mapping) or set(settings) - set(known):
        raise PromptError(
            f"a lens with settings is {{name: {{setting: value}}}}, the name one of {', '.join(LENSES)}"
            f"{f', the settings some of {known}' if known else ''}; got {{{name!r}: {settings!r:.100}}}."
        )
    return kind(**settings)


def read_words(
    mllm: WrappedModel,
    samples: Samples,
    words: Sequence[str],
    lens: WordLens | str = "contextual",
    *,
    prompt: Prompt | None = None,
    top: int = 1,
) -> WordReadings:
    """How much each image token says each word, at each layer, through a lens.

    The lens is made ready at every call: read many samples at once, or run a `LensSweep`.

    Args:
        mllm: the model.
        samples: samples or an encoded batch; they run as one batch.
        words: the words. `LatentLens` takes any that its corpus holds; the others take words of one token.
        lens: "logit", "contextual" (`LatentLens`), "jacobian" (`JacobianLens`) or "patchscope" (`Patchscope`), or one
            of these with settings.
        prompt: how the question is put; by default `PAPER_PROMPT`, or that of the batch.
        top: how many of the words that score highest to keep at each place.

    Raises:
        PromptError: An unknown lens, a word that it cannot read, or `top` out of range.
        ModelError: A model that the lens does not read.
        SampleError, ImageTokenMismatch: As in `Mllm.encode`.
    """
    if not isinstance(mllm, WrappedModel):
        raise ModelError(f"read_words takes a model of interp.load or interp.wrap; got {mllm!r:.100}.")
    chosen, listed = as_lens(lens), check_words(words)
    if isinstance(chosen, str):
        through = make_lens(mllm) if mllm.server is None else ServedLens(mllm)
        return as_readings(through.logit_lens(samples, listed, prompt=prompt, top=top))
    meter = Meter(mllm.device)
    return read_tokens(chosen.open(mllm, listed, meter), mllm, samples, listed, meter, prompt=prompt, top=top)


def as_readings(found: LogitLens) -> WordReadings:
    """What a logit lens found, as the other lenses give it."""
    names = {"logprob": "score", "top_logprob": "top_score"}
    samples = tuple(one.rename(names).drop_vars("top") for one in found.samples)
    return WordReadings(samples, found.tokens, found.logits, "log probability, nats")
