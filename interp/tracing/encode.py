"""Samples → the tensors a model takes, and where each token is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from interp.errors import ImageTokenMismatch, ModelError, SampleError
from interp.footprints import check_count
from interp.models.adapter import Adapter
from interp.prompt import Prompt
from interp.sample import Sample
from interp.tokens import TokenMap
from interp.tracing.wording import Wording, expand, question_tokens, render

__all__ = ["PER_TOKEN", "Batch", "Encoder", "left_padded"]

PER_TOKEN = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
"""Inputs with one value per token; they are padded on the left. Others are joined along their first axis."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Encoded samples, left-padded to the longest.

    Attributes:
        inputs: the model's arguments, among them `input_ids`, `attention_mask` and explicit `position_ids`.
        tokens: where each sample's tokens are, in unpadded positions.
        pad: how many padding tokens come before each sample's own.
        prompts: the rendered prompts, image placeholders not expanded.
        samples: the samples.
        prompt: the prompt they were rendered with.
        singles: each sample's own unpadded encoding, for what needs to encode again.
        pad_id: the id in the padding.
    """

    inputs: dict[str, Tensor]
    tokens: tuple[TokenMap, ...]
    pad: Int[np.ndarray, " sample"]
    prompts: tuple[str, ...]
    samples: tuple[Sample, ...]
    prompt: Prompt
    singles: tuple[Encoded, ...]
    pad_id: int

    def __len__(self) -> int:
        return len(self.samples)


@dataclass(frozen=True, eq=False)
class Encoded:
    """One sample alone. `expansions`: what its image placeholders were expanded to, where that is known."""

    text: str
    inputs: Mapping[str, Tensor]
    tokens: TokenMap
    expansions: tuple[str, ...] | None


@dataclass(frozen=True, eq=False)
class Encoder:
    """Encodes samples for one model: its processor, its family's adapter, its config."""

    processor: Any
    adapter: Adapter
    config: Any
    device: torch.device
    dtype: torch.dtype

    def __call__(self, samples: Sample | Iterable[Sample], prompt: Prompt) -> Batch:
        """The samples as one left-padded batch.

        Raises:
            SampleError: No samples, or something that is not a `Sample`.
            PromptError: A prompt that cannot be rendered or holds the image placeholder.
            ImageTokenMismatch: Not as many image tokens as footprints.
        """
        chosen = as_samples(samples)
        return self._batch(chosen, prompt, [self._encode(sample, prompt) for sample in chosen])

    def again(self, batch: Batch, prompt: Prompt) -> Batch:
        """The batch's samples under another prompt. With a fast tokenizer, images are not processed again."""
        singles = [
            self._encode(sample, prompt)
            if old.expansions is None
            else self._reworded(sample, prompt, old, old.expansions)
            for sample, old in zip(batch.samples, batch.singles, strict=True)
        ]
        return self._batch(batch.samples, prompt, singles)

    def _encode(self, sample: Sample, prompt: Prompt) -> Encoded:
        wording = render(sample, prompt, self.processor, self.adapter)
        found = self._process(wording, sample)
        spans = found.pop("text_replacement_offsets", None)
        offsets = found.pop("offset_mapping", None)
        positions = self.adapter.image_positions(found["input_ids"][0].numpy(), self.config)
        footprints = self.adapter.footprints(sample.sizes, found, self.processor, self.config)
        check_count(len(positions), footprints, family=self.adapter.name, sizes=sample.sizes)
        located: dict[str, Any] = {}
        if spans is not None and offsets is not None:
            located = question_tokens(wording, spans[0], offsets[0].numpy())
        tokens = TokenMap(
            image=positions,
            footprints=footprints.boxes,
            grid=footprints.grid,
            views=footprints.views,
            image_index=footprints.image,
            sizes=sample.sizes,
            length=found["input_ids"].shape[1],
            **located,
        )
        expansions = tuple(span["replacement"] for span in spans[0]) if located and spans else None
        return Encoded(wording.text, found, tokens, expansions)

    def _process(self, wording: Wording, sample: Sample) -> dict[str, Any]:
        """What the processor makes of one sample."""
        if getattr(self.processor, "patch_size", 0) is None:
            raise ModelError(
                f"{type(self.processor).__name__}.patch_size is not set, so image tokens cannot be counted. "
                f"Set processor.patch_size (the vision tower's is {self.config.vision_config.patch_size}) "
                "and processor.num_additional_image_tokens, and pass processor=."
            )
        fast = getattr(self.processor.tokenizer, "is_fast", False)
        try:
            found = self.processor(
                text=[wording.text],
                images=[sample.load(i) for i in range(len(sample.images))],
                return_tensors="pt",
                return_text_replacement_offsets=True,
                text_kwargs={"return_offsets_mapping": fast, **self._tokenizer_options(wording)},
            )
        except ValueError as error:
            if "token count" not in str(error):
                raise
            raise ImageTokenMismatch(
                f"the prompt of sample {sample.id} lost image tokens on the way ({error}). Did the tokenizer "
                "truncate? Raise its model_max_length or pass a processor that does not truncate."
            ) from error
        return dict(found)

    def _reworded(self, sample: Sample, prompt: Prompt, old: Encoded, expansions: tuple[str, ...]) -> Encoded:
        """A sample under another prompt, with its images as they were processed before."""
        wording = render(sample, prompt, self.processor, self.adapter)
        expanded, spans = expand(wording.text, self.processor.image_token, expansions)
        found = dict(
            self.processor.tokenizer(
                expanded, return_tensors="pt", return_offsets_mapping=True, **self._tokenizer_options(wording)
            )
        )
        offsets = found.pop("offset_mapping")[0].numpy()
        positions = self.adapter.image_positions(found["input_ids"][0].numpy(), self.config)
        located = question_tokens(wording, spans, offsets)
        tokens = replace(old.tokens, image=positions, length=found["input_ids"].shape[1], **located)
        kept = {name: old.inputs[name] for name in old.inputs if name not in PER_TOKEN}
        return Encoded(wording.text, {**found, **kept}, tokens, expansions)

    def _tokenizer_options(self, wording: Wording) -> dict[str, Any]:
        """A template that writes the beginning-of-sequence token must not get a second one."""
        bos = getattr(self.processor.tokenizer, "bos_token", None)
        return {"add_special_tokens": False} if bos and wording.text.startswith(bos) else {}

    def _batch(self, samples: Sequence[Sample], prompt: Prompt, singles: Sequence[Encoded]) -> Batch:
        lengths = [single.tokens.length for single in singles]
        pad = max(lengths) - np.array(lengths)
        pad_id = getattr(self.processor.tokenizer, "pad_token_id", None) or 0
        inputs: dict[str, Tensor] = {}
        for name in singles[0].inputs:
            values = [single.inputs[name] for single in singles]
            if name in PER_TOKEN:
                joined = left_padded([value[0] for value in values], pad_id if name == "input_ids" else 0)
            else:
                joined = torch.cat(values)
            dtype = self.dtype if joined.is_floating_point() else joined.dtype
            inputs[name] = joined.to(device=self.device, dtype=dtype)
        inputs["position_ids"] = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        return Batch(
            inputs=inputs,
            tokens=tuple(single.tokens for single in singles),
            pad=pad,
            prompts=tuple(single.text for single in singles),
            samples=tuple(samples),
            prompt=prompt,
            singles=tuple(singles),
            pad_id=pad_id,
        )


def left_padded(lines: Sequence[Tensor], fill: int) -> Tensor:
    """(line, longest) from 1-d tensors, padded on the left."""
    width = max(len(line) for line in lines)
    pad = torch.nn.functional.pad
    return torch.stack([pad(line, (width - len(line), 0), value=fill) for line in lines])


def as_samples(samples: Sample | Iterable[Sample]) -> tuple[Sample, ...]:
    """The samples as a tuple; one sample is a batch of one.

    Raises:
        SampleError: None, or something that is not a `Sample`.
    """
    if not isinstance(samples, Iterable | Sample):
        raise SampleError(f"expected samples; got {samples!r}.")
    found = (samples,) if isinstance(samples, Sample) else tuple(samples)
    if not found:
        raise SampleError("expected at least one sample; got none.")
    for one in found:
        if not isinstance(one, Sample):
            raise SampleError(
                f"expected interp.Sample values; got {one!r}. Write interp.Sample(image, question)."
            )
    return found
