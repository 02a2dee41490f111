"""The lenses by name, and `read_words`, which reads words through any of them."""

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
"""Name → class of the lens, for all lenses but "logit"; each can be made without arguments."""


def as_lens(lens: Any) -> Any:
    """A `WordLens` or "logit", from its name or from {name: settings}, as a command line gives it.

    A lens, or "logit", is returned unchanged.

    Raises:
        PromptError: Something else, or settings that the lens does not take.
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
    """The score of each word at each layer and image token, through a lens.

    Each call makes the lens ready again: read many samples in one call, or run a `LensSweep`.

    Args:
        mllm: The model.
        samples: Samples or an encoded batch; they run as one batch.
        words: The words. `LatentLens` reads any word that its corpus holds; the other lenses read words of one token.
        lens: "logit", "contextual" (`LatentLens`), "jacobian" (`JacobianLens`) or "patchscope" (`Patchscope`), or one
            of these classes with settings.
        prompt: The prompt; by default that of the batch, or `PAPER_PROMPT`.
        top: The number of highest-scoring words to keep at each place.

    Raises:
        PromptError: An unknown lens, a word that the lens cannot read, or `top` out of range.
        ModelError: Not a model, or a model that the lens cannot read.
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
    """The readings of a logit lens in the form of the other lenses."""
    names = {"logprob": "score", "top_logprob": "top_score"}
    samples = tuple(one.rename(names).drop_vars("top") for one in found.samples)
    return WordReadings(samples, found.tokens, found.logits, "log probability, nats")
