"""Patchscopes: the stream at an image token is put into a text prompt, and the model itself continues it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import PromptError
from interp.inputs.argument_checks import check_whole
from interp.tracing.cost import Meter
from interp.tracing.layers.residual import side_by_side, stacked
from interp.tracing.lens.logit_lens import WordScores, score_words, spellings, token_text
from interp.tracing.variants.cached_pass import KeptPass, Replaced
from interp.tracing.word_lenses.corpus import encoded_texts
from interp.tracing.word_lenses.word_lens import as_layers, need_weights_here
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["Patchscope"]

IDENTITY = "cat->cat; 1135->1135; hello->hello; ?"


@dataclass(frozen=True)
class Patchscope:
    """The log-probability of a word after a prompt of text in which an image token's vector stands at one position.

    The vector is the residual stream at the image token after a layer; it replaces the stream at the position after
    the same layer (or `target_layer`), and the later layers run on from there. The score is the log-probability, in
    nats, of the word as the next token after the prompt. After the last layer, at the last position, it equals the
    logit lens.

    For each image token and layer, one vector runs through the later layers: about (layers / 2) × tokens rows for a
    sample, as much as layers / 2 passes over the image alone. Fewer `layers` or `n_tokens` reduce the cost.

    Args:
        prompt: The target prompt, used verbatim. By default the identity prompt of the source, which asks for the
            patched token again.
        position: The token of the prompt that is replaced; negative numbers count from the end.
        target_layer: The layer after which the vector is put, whichever layer it comes from; −1 puts it before the
            first. None puts it after the layer it comes from.
        layers: The layers that are read: "all" for every layer from −1 on, or a list of layers.
        n_tokens: The most image tokens of a sample that are read, evenly spaced; None for all.

    Raises:
        PromptError: An empty prompt, something other than layers, or numbers that are not whole.

    Source: Ghandeharioun et al., Patchscopes, arXiv 2401.06102 (token identity).
    """

    prompt: str = IDENTITY
    position: int = -1
    target_layer: int | None = None
    layers: Literal["all"] | Sequence[int] = "all"
    n_tokens: int | None = None

    kind = "patchscope"

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str) or not self.prompt.strip():
            raise PromptError(f"prompt is a text, such as {IDENTITY!r}; got {self.prompt!r:.100}.")
        if isinstance(self.position, bool) or not isinstance(self.position, int):
            raise PromptError(
                f"position is the number of a token of the prompt, such as −1; got {self.position!r:.100}."
            )
        if self.target_layer is not None:
            check_whole("target_layer", self.target_layer, -1, PromptError)
        if self.n_tokens is not None:
            check_whole("n_tokens", self.n_tokens, 1, PromptError)
        object.__setattr__(self, "layers", as_layers("layers", self.layers))

    def open(self, mllm: WrappedModel, words: Sequence[str], meter: Meter) -> _OpenedPatchscope:
        """Runs the target prompt once; the words have no effect.

        Raises:
            PromptError: A prompt that cannot be encoded, a position that it does not have, or layers that the model
                does not have.
            ModelError: A model on a server.
        """
        del words
        need_weights_here(mllm, self.kind)
        every = tuple(range(-1, mllm.n_layers))
        layers = every if isinstance(self.layers, str) else self.layers
        put = () if self.target_layer is None else (self.target_layer,)
        if (set(layers) | set(put)) - set(every):
            raise PromptError(
                f"this model has layers −1 to {mllm.n_layers - 1}; got layers={list(layers)} and "
                f"target_layer={self.target_layer}. Leave the others out."
            )
        batch = encoded_texts(mllm, [self.prompt], [[self.position]])
        kept = KeptPass.of(mllm, batch, meter, layers=range(mllm.n_layers))
        return _OpenedPatchscope(replace(self, layers=layers), kept, meter)

    def to_dict(self) -> dict[str, Any]:
        """The lens as JSON values."""
        layers = self.layers if isinstance(self.layers, str) else list(self.layers)
        own = {"prompt": self.prompt, "position": self.position, "target_layer": self.target_layer}
        return {self.kind: {**own, "layers": layers, "n_tokens": self.n_tokens}}

    def __str__(self) -> str:
        return self.kind


class _OpenedPatchscope:
    """A patchscope on one model. An `OpenedLens`; the ids of its words are tokens."""

    unit = "log probability, nats"

    def __init__(self, spec: Patchscope, kept: KeptPass, meter: Meter) -> None:
        self.spec, self.kept, self.meter = spec, kept, meter
        self.layers, self.every = tuple(spec.layers), spec.n_tokens  # type: ignore[arg-type] - a tuple by now
        self.position = int(kept.tokens.image[0])
        self.text = token_text(kept.mllm.processor.tokenizer)

    def find(self, words: Sequence[str], top: int) -> list[Tensor]:
        """The tokens of the words.

        Raises:
            PromptError: A word that no single token spells, or `top` out of range.
        """
        return spellings(self.kept.mllm.processor.tokenizer, self.kept.logits.shape[-1], words, top)

    def at(
        self, layer: int, stream: Float[Tensor, "token hidden"], found: Sequence[Tensor], top: int
    ) -> WordScores:
        """Log-probabilities after the target prompt."""
        put = layer if self.spec.target_layer is None else self.spec.target_layer
        return score_words(lambda vectors: self.logits(vectors, put), stream, found, top)

    def logits(self, vectors: Float[Tensor, "token hidden"], layer: int) -> Float[Tensor, "token token_id"]:
        """The logits after the target prompt, with each vector put at the position after a layer."""
        n, stop = len(vectors), self.kept.stop(self.position)
        if layer + 1 < self.kept.mllm.n_layers:
            put = Replaced(torch.ones(n, 1, dtype=torch.bool), vectors[:, None])
            return self.kept.run(n, stop, self.meter, start=layer + 1, entering=put)[:, -1]
        last = self.kept.mllm.adapter.layers(self.kept.mllm.hf)[layer]
        with _returning(last, vectors, self.position - stop):
            return self.kept.run(n, stop, self.meter, start=layer)[:, -1]


@contextmanager
def _returning(layer: nn.Module, vectors: Float[Tensor, "variant hidden"], row: int) -> Iterator[None]:
    """In the block, a layer returns the vectors at one row of the first variants."""
    handle = layer.register_forward_hook(_put(vectors, row))
    try:
        yield
    finally:
        handle.remove()


def _put(vectors: Tensor, row: int) -> Callable[[nn.Module, Any, Any], Any]:
    def put(_: nn.Module, arguments: Any, output: Any) -> Any:
        hidden = output if isinstance(output, Tensor) else output[0]
        stream = side_by_side(hidden).clone()
        stream[: len(vectors), row] = vectors.to(stream)
        changed = stacked(stream, hidden)
        return changed if isinstance(output, Tensor) else (changed, *output[1:])

    return put
