"""Encoded samples: the tensors that a model takes, where each token is, and how samples are padded into one batch.

`ProcessedImages` keeps the latest images as processed, so that another prompt for them does not process them again.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from interp.errors import ModelError, PromptError
from interp.inputs.patch_map import PatchMap
from interp.inputs.prompt import Prompt
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.tracing.encoding.rendering import (
    Rendered,
)

__all__ = [
    "PER_ROW",
    "PER_TOKEN",
    "Batch",
    "Encoded",
    "Identity",
    "Images",
    "ImagesKey",
    "Layout",
    "ProcessedImages",
    "alike",
    "check_joinable",
    "joined_images",
    "joined_inputs",
    "left_padded",
    "longer",
    "sliced",
]


PER_TOKEN = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
"""Inputs with one value per token; they are padded on the left. Others are joined along their first axis."""


PER_ROW = ("cross_attention_mask",)
"""Inputs with a row per token, padded on the left too; each generated token gets the row of the prompt's last one. Only
the processor can make them, so a prompt that has any is encoded anew when its words change."""


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
        """Refuses tokens of the text that the model has no embedding of.

        Args:
            n_embedded: How many token ids the model has an embedding of; None refuses nothing.

        Raises:
            ModelError: A token id of `n_embedded` or more.
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
            PromptError: A prompt that takes more. The last generated token takes no position, because it is not run.
        """
        run = max(following - 1, 0)
        if limit is None or max(tokens.length for tokens in self.tokens) + run <= limit:
            return
        for sample, tokens, extent in zip(self.samples, self.tokens, self.extents, strict=True):
            if extent + run > limit:
                more = f" and the {following} tokens to generate take" if following else " takes"
                raise PromptError(
                    f"the prompt of sample {sample.id} ({tokens.length} tokens, {tokens.n} of them image tokens)"
                    f"{more} {extent + run} positions, but the model has {limit} (max_position_embeddings): it was not "
                    "trained on later positions, so its results there mean nothing. Shorten the text, give fewer or "
                    "smaller images, or generate fewer tokens."
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


@dataclass(frozen=True, eq=False)
class Layout:
    """Unpadded positions → padded rows and columns of the prompt's forward pass.

    Attributes:
        columns: for each sample, the key column of each of its positions.
        n_columns: keys of the pass, padding included.
        offset: columns before the first query row; 0 unless a prefix was run earlier.
    """

    columns: tuple[Int[np.ndarray, " _"], ...]
    n_columns: int
    offset: int = 0

    @classmethod
    def whole(cls, lengths: Sequence[int]) -> Layout:
        """Whole prompts in a left-padded batch."""
        longest = max(lengths)
        return cls(tuple(np.arange(longest - n, longest) for n in lengths), longest)

    @classmethod
    def suffix(cls, heads: Sequence[int], lengths: Sequence[int]) -> Layout:
        """Prompts whose first `heads` positions were run before; heads and rests are each left-padded."""
        longest_head = max(heads)
        rests = [n - head for n, head in zip(lengths, heads, strict=True)]
        total = longest_head + max(rests)
        columns = tuple(
            np.concatenate([np.arange(longest_head - head, longest_head), np.arange(total - rest, total)])
            for head, rest in zip(heads, rests, strict=True)
        )
        return cls(columns, total, longest_head)

    @property
    def n_samples(self) -> int:
        """Samples of the batch."""
        return len(self.columns)

    @property
    def n_queries(self) -> int:
        """Query rows of the pass, padding included."""
        return self.n_columns - self.offset

    @property
    def n_keys(self) -> int:
        """Keys of a layer, padding included."""
        return self.n_columns

    def keys(self, positions: Sequence[Int[np.ndarray, " _"]]) -> list[Int[np.ndarray, " _"]]:
        """The key columns of each sample's positions."""
        return [columns[at] for columns, at in zip(self.columns, positions, strict=True)]

    def rows(self, positions: Sequence[Int[np.ndarray, " _"]]) -> list[Int[np.ndarray, " _"]]:
        """The query rows of each sample's positions; negative for positions that were run before."""
        return [columns[at] - self.offset for columns, at in zip(self.columns, positions, strict=True)]


def left_padded(lines: Sequence[Tensor], fill: int) -> Tensor:
    """(line, longest, …) from tensors (n, …), padded on the left."""
    return pad_sequence(list(lines), batch_first=True, padding_value=fill, padding_side="left")


def joined_images(values: Sequence[Tensor]) -> Tensor:
    """The values along their first axis; shorter other axes are filled up with zeros at their end.

    That is how processors join images of different sizes or numbers of tiles; the models are told the true
    sizes.
    """
    return torch.cat(alike(values))


def alike(values: Sequence[Tensor]) -> list[Tensor]:
    """The values, their axes but the first filled up with zeros to the widest."""
    widest = [max(value.shape[d] for value in values) for d in range(1, values[0].ndim)]
    pad = torch.nn.functional.pad
    filled = []
    for value in values:
        missing = [w - n for w, n in zip(widest, value.shape[1:], strict=True)]
        filled.append(pad(value, [n for m in reversed(missing) for n in (0, m)]) if any(missing) else value)
    return filled


def sliced(
    values: Int[Tensor, "*axis sample position"], starts: Sequence[int], stops: Sequence[int], fill: int = 0
) -> Int[Tensor, "*axis sample longest"]:
    """Columns starts[i] to stops[i] of each sample i, padded on the left with `fill` to the longest."""
    samples = values.movedim(0, -1) if values.ndim == 3 else values
    lines = [one[start:stop] for one, start, stop in zip(samples, starts, stops, strict=True)]
    padded = left_padded(lines, fill)
    return padded.movedim(-1, 0) if values.ndim == 3 else padded


class ImagesKey(NamedTuple):
    """What an encoding depends on but the prompt. The adapter is compared by identity: it may be unhashable."""

    settings: str
    contents: tuple[str, ...] | None
    adapter: Identity


@dataclass(frozen=True, eq=False)
class Identity:
    """An object that equals nothing but itself; it is kept alive, so that its id is not given to another."""

    of: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and self.of is other.of

    def __hash__(self) -> int:
        return id(self.of)


class ProcessedImages:
    """The latest images as processed, within `budget` bytes.

    A key holds all that an encoding depends on but the prompt, the adapter too: its footprints are kept. Threads may
    use it at the same time.

    Attributes:
        budget: The most bytes that the images take.
        ready: Encodings that were made before they are needed, each for one use.
    """

    def __init__(self, budget: int = 2**28) -> None:
        self.budget = budget
        self.ready: dict[tuple[int, Prompt], tuple[ImagesKey, Encoded]] = {}
        self._kept: OrderedDict[ImagesKey, Encoded] = OrderedDict()
        self._n_bytes = 0
        self._lock = Lock()

    def get(self, key: ImagesKey) -> Encoded | None:
        """An encoding of these images, under whatever prompt; None where there is none."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key]

    def take(self, sample: Sample, prompt: Prompt, key: ImagesKey) -> Encoded | None:
        """The encoding of this very sample that is ready; None where there is none, or it is not of this key."""
        found = self.ready.pop((id(sample), prompt), None)
        return found[1] if found is not None and found[0] == key else None

    def forget_ready(self, samples: Sequence[Sample]) -> None:
        """Let go of the encodings of these samples that are ready and were not taken."""
        done = {id(sample) for sample in samples}
        for key in [key for key in list(self.ready) if key[0] in done]:
            self.ready.pop(key, None)

    def forget_but(self, latest: int) -> None:
        """Let go of all but the latest images, for work that never comes back to earlier ones."""
        with self._lock:
            while len(self._kept) > latest:
                self._n_bytes -= self._kept.popitem(last=False)[1].images.n_bytes

    def keep(self, key: ImagesKey, single: Encoded) -> None:
        """Keep an encoding, and let go of the images that were not wanted for longest."""
        if key.contents is None or single.expansions is None:
            return
        with self._lock:
            old = self._kept.pop(key, None)
            self._n_bytes += single.images.n_bytes - (0 if old is None else old.images.n_bytes)
            self._kept[key] = single
            while self._n_bytes > self.budget:
                self._n_bytes -= self._kept.popitem(last=False)[1].images.n_bytes


def joined_inputs(
    samples: Sequence[Sample],
    singles: Sequence[Encoded],
    adapter: Any,
    pad_id: int,
    device: torch.device,
    dtype: torch.dtype,
    known: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """The model's arguments for samples that were encoded one by one, where and as the model takes them.

    Args:
        samples: The samples.
        singles: Their encodings. Some may have images and others videos, and so other inputs.
        adapter: The family's adapter; its `joined`, where it has one, joins inputs of images in the family's way.
        pad_id: The token id in the padding.
        device: Where the model takes its inputs.
        dtype: The dtype of floating inputs, but for times.
        known: Inputs that are joined already, by name.

    Raises:
        ModelError: Videos that do not fit into one batch.
    """
    of_family = getattr(adapter, "joined", None)
    found = dict[str, Tensor]()
    for name in dict.fromkeys(name for single in singles for name in single.inputs):
        if name in known:
            found[name] = known[name]
            continue
        having = [single.inputs for single in singles if name in single.inputs]
        values = [inputs[name] for inputs in having]
        if name in PER_TOKEN:
            joined = left_padded([value[0] for value in values], pad_id if name == "input_ids" else 0)
        elif name in PER_ROW:
            joined = left_padded(alike([value[0] for value in values]), 0)
        else:
            check_joinable(name, values, samples, adapter.name)
            joined = None if of_family is None else of_family(name, having)
            joined = joined_images(values) if joined is None else joined
        cast = joined.is_floating_point() and name != _TIMES
        found[name] = joined.to(device=device, dtype=dtype if cast else joined.dtype)
    return found


_TIMES = "second_per_grid_ts"
"""The input that keeps its precision: times, from which positions are computed."""


def check_joinable(name: str, values: Sequence[Tensor], samples: Sequence[Sample], family: str) -> None:
    """Raises `ModelError` where one input of several samples cannot be joined because of their videos.

    A model that takes (sample, frame, channel, row, col) would see frames of zeros in the shorter videos, and one that
    takes frames as images would see images of another size with a border.
    """
    if all(sample.video is None for sample in samples) or values[0].ndim != 5:
        return
    own = {value.shape[1] for value in values}
    if name == "pixel_values_videos" and len(own) > 1:
        raise ModelError(
            f"in {family} all videos of a batch need the same number of frames; these have {sorted(own)}. Choose the "
            "same number for each, such as Sample(…, n_frames=8), or pass batch_size=1."
        )
    sides = {tuple(value.shape[-2:]) for value in values}
    if len(sides) > 1:
        raise ModelError(
            f"{family} shows images and frames at {' and '.join(f'{h}×{w}' for h, w in sorted(sides))} pixels "
            "(height×width), which do not fit into one batch. Pass images and videos in separate calls, or pass "
            "batch_size=1."
        )
