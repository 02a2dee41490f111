"""Encoded samples: the tensors that a model takes, and where each token is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from interp.errors import ModelError, PromptError
from interp.inputs.patch_map import PatchMap
from interp.inputs.prompt import Prompt
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.tracing.encoding.rendering import (
    Rendered,
)

__all__ = ["PER_ROW", "PER_TOKEN", "Batch", "Encoded", "Images", "longer"]


PER_TOKEN = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
"""Inputs with one value per token; they are padded on the left. Others are joined along their first axis."""


PER_ROW = ("cross_attention_mask",)
"""Inputs with a line per token, which tokens that are generated go on with; they are padded on the left too. They
cannot be told without the processor, so that prompts which have any are encoded anew with other words."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Encoded samples, left-padded to the longest.

    Attributes:
        inputs: the model's arguments, among them `input_ids` and `attention_mask`, ready for
            `mllm.nn.trace(**batch.inputs)` or a plain call. `position_ids` are among them unless they have
            several axes: nnsight cannot split these into samples, and a plain call works them out.
        positions: the position ids, (sample, position) or (axis, sample, position).
        tokens: where each sample's tokens are, in unpadded positions.
        pad: how many padding tokens come before each sample's own.
        prompts: the rendered prompts, image placeholders not expanded.
        samples: the samples.
        prompt: the prompt they were rendered with.
        singles: each sample's own unpadded encoding, for what needs to encode again.
        pad_id: the id in the padding.
        patches_of: gives the patches of one encoding; see `patches`.
    """

    inputs: dict[str, Tensor]
    positions: Tensor
    tokens: tuple[TokenMap, ...]
    pad: Int[np.ndarray, " sample"]
    prompts: tuple[str, ...]
    samples: tuple[Sample, ...]
    prompt: Prompt
    singles: tuple[Encoded, ...]
    pad_id: int
    patches_of: Callable[[Encoded], PatchMap] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.samples)

    @cached_property
    def patches(self) -> tuple[PatchMap, ...]:
        """Where each sample's patches are in the vision tower, which sees them apart from the prompt.

        Raises:
            ModelError: The family's adapter does not say, or the tower is of a form that has no such map.
        """
        if self.patches_of is None:
            raise ModelError(
                "this batch was made without its model; encode the samples with mllm.encode(samples)."
            )
        return tuple(map(self.patches_of, self.singles))

    @cached_property
    def extents(self) -> tuple[int, ...]:
        """How many positions each prompt takes: fewer than its tokens where images turn along several axes."""
        if self.positions.ndim == 2:
            return tuple(tokens.length for tokens in self.tokens)
        return tuple((self.positions.amax(dim=(0, 2)) + 1).tolist())

    def check_words(self, n_embedded: int | None) -> None:
        """Refuses tokens of the text that the model has no embedding of; None refuses nothing.

        Raises:
            ModelError: As said.
        """
        for sample, single in zip(self.samples, self.singles, strict=True):
            ids = single.inputs["input_ids"][0]
            of_text = torch.ones(len(ids), dtype=torch.bool)
            if single.tokens.cross is None:  # else the image's tokens are no part of the prompt
                of_text[torch.from_numpy(np.array(single.tokens.image, int))] = False
            largest = int(ids[of_text].max()) if n_embedded is not None and of_text.any() else -1
            if n_embedded is not None and largest >= n_embedded:
                raise ModelError(
                    f"the prompt of sample {sample.id} has a token of the id {largest}, but the model embeds ids up to "
                    f"{n_embedded - 1}. Pass the processor of this checkpoint, or after tokens were added call "
                    "hf_model.resize_token_embeddings(len(processor.tokenizer))."
                )

    def check_reach(self, limit: int | None, following: int = 0) -> None:
        """Refuses prompts that, with `following` generated tokens, take more than `limit` positions.

        Raises:
            PromptError: As said. The last generated token takes none: it is not run.
        """
        run = max(following - 1, 0)
        if limit is None or max(tokens.length for tokens in self.tokens) + run <= limit:
            return
        for sample, tokens, extent in zip(self.samples, self.tokens, self.extents, strict=True):
            if extent + run > limit:
                more = f" and the {following} tokens to generate take" if following else " takes"
                raise PromptError(
                    f"the prompt of sample {sample.id} ({tokens.length} tokens, {tokens.n} of them image tokens)"
                    f"{more} {extent + run} positions, but the model has {limit} (max_position_embeddings): beyond "
                    "them it was never trained, and its numbers mean nothing. Shorten the text, give fewer or smaller "
                    "images, or generate fewer tokens."
                )


@dataclass(frozen=True, eq=False)
class Images:
    """What the processor made of one sample's images: every input that does not have one value per token.

    Attributes:
        inputs: The tensors.
        source: The processor's settings and the images' fingerprints; None where an image has none.
    """

    inputs: Mapping[str, Tensor]
    source: tuple[str, tuple[str, ...]] | None = None

    @property
    def n_bytes(self) -> int:
        """What the tensors take."""
        return sum(value.numel() * value.element_size() for value in self.inputs.values())

    @cached_property
    def digest(self) -> bytes:
        """A hash of the content, computed once however often the sample is encoded with other words.

        Pixels are known by `source`, because hashing them takes a millisecond.
        """
        content = hashlib.sha256(repr(self.source).encode())
        for name, value in sorted(self.inputs.items()):
            content.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
            if self.source is None or not value.is_floating_point():
                content.update(value.contiguous().flatten().view(torch.uint8).numpy().data)
        return content.digest()


@dataclass(frozen=True, eq=False)
class Encoded:
    """One sample alone.

    Attributes:
        rendered: the rendered prompt, image placeholders not expanded.
        inputs: the model's arguments, of a batch of one.
        tokens: where its tokens are.
        expansions: what its image placeholders were expanded to, where that is known.
        images: the part of `inputs` that stays when only the words change.
        rewordable: whether the words alone are known to give this encoding; None until that is tried.
    """

    rendered: Rendered
    inputs: Mapping[str, Tensor]
    tokens: TokenMap
    expansions: tuple[str, ...] | None
    images: Images = field(repr=False)
    rewordable: bool | None = None

    @property
    def text(self) -> str:
        """The rendered prompt, image placeholders not expanded."""
        return self.rendered.text

    def content(self, n: int) -> bytes:
        """A hash of the images and of the first `n` tokens: all that a causal model computes there depends on."""
        found = hashlib.sha256(self.images.digest)
        for name in PER_TOKEN:
            if name in self.inputs:
                own = self.inputs[name][:, :n]
                found.update(f"{name} {own.dtype} {own.shape[1]} ".encode())
                found.update(own.contiguous().numpy().tobytes())
        return found.digest()


def longer(one: Encoded, ids: Sequence[int], spans: Mapping[str, Sequence[int]]) -> Encoded:
    """A sample's encoding with more tokens at its end, all of them seen, and text by type.

    Args:
        one: The encoding.
        ids: The tokens.
        spans: Groups of tokens to name, counted from the first of the new ones.
    """
    n, length = len(ids), one.tokens.length
    fills = {"input_ids": torch.tensor(list(ids), dtype=torch.long), "attention_mask": torch.ones(n)}
    inputs = {
        name: torch.cat([value, fills.get(name, torch.zeros(n)).to(value)[None]], dim=1)
        if name in PER_TOKEN
        else value
        for name, value in one.inputs.items()
    }
    named = {name: length + np.array(at, np.int64) for name, at in spans.items()}
    tokens = replace(one.tokens, length=length + n, spans={**one.tokens.spans, **named})
    return replace(one, inputs=inputs, tokens=tokens)
