"""Encodes samples: makes the tensors that a model takes, and finds each token's place in the prompt and the image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from interp.errors import ImageError, ImageTokenMismatch, ModelError, SampleError
from interp.inputs.footprints import Footprints, check_count
from interp.inputs.prompt import Prompt
from interp.inputs.sample import Sample
from interp.inputs.sample_list import as_samples
from interp.inputs.text import word_spans
from interp.inputs.tokens import TokenMap
from interp.models.adapter import Adapter
from interp.models.vision_patches import patch_map
from interp.tracing.encoding.batch import (
    PER_ROW,
    PER_TOKEN,
    Batch,
    Encoded,
    Identity,
    Images,
    ImagesKey,
    ProcessedImages,
    joined_inputs,
)
from interp.tracing.encoding.rendering import Rendered, Span, placeholder, render

__all__ = [
    "Encoder",
    "check_takes_video",
    "expand",
    "footprints_of",
    "grown_at_once",
    "located_in_time",
    "question_tokens",
    "shown",
]


_UNUSED = ("labels",)
"""What some processors return for training."""


_Text = tuple[dict[str, Tensor], Int[np.ndarray, " token"], Int[np.ndarray, "position 2"]]
_Expanded = tuple[
    dict[str, Tensor], Int[np.ndarray, " token"], list[dict[str, Any]], Int[np.ndarray, "position 2"]
]


@dataclass(frozen=True, eq=False)
class _Seen:
    """What a call has rendered and tokenised: a generic prompt is the same for all samples of a batch.

    Attributes:
        asks: Whether the prompt of the call holds each sample's question.
        rendered: All that a rendered prompt depends on → the rendered prompt.
        texts: Text, and what its placeholders expand to → inputs per token, image positions, the placeholders' spans,
            and offsets.
    """

    asks: bool
    rendered: dict[tuple[Any, ...], Rendered] = field(default_factory=dict)
    texts: dict[tuple[str, tuple[str, ...] | None], _Expanded] = field(default_factory=dict)

    @classmethod
    def under(cls, prompt: Prompt) -> _Seen:
        """An empty record for a call with this prompt."""
        return cls(isinstance(prompt, Prompt) and prompt.has_question)


@dataclass(frozen=True, eq=False)
class Encoder:
    """Encodes samples for one model: its processor, its family's adapter, its config."""

    processor: Any
    adapter: Adapter
    config: Any
    device: torch.device
    dtype: torch.dtype
    positions: Callable[[Mapping[str, Tensor]], Tensor]
    processed: ProcessedImages = field(default_factory=ProcessedImages)
    n_embedded: int | None = None
    """How many token ids the model has an embedding of; None where that is not known."""
    n_positions: int | None = None
    """How many positions the model takes; None where its config does not say."""

    def __call__(self, samples: Sample | Iterable[Sample], prompt: Prompt) -> Batch:
        """The samples as one left-padded batch. The same images are processed once, while `processed` keeps them.

        Raises:
            SampleError: No samples, or something that is not a `Sample`.
            ModelError: Torch's default device is meta.
            BoxError: Boxes that look like fractions of their image.
            PromptError: A prompt that cannot be rendered, holds the image placeholder, or is longer than the model's
                positions.
            ImageTokenMismatch: Not as many image tokens as footprints.
            ModelError: A token that the model has no embedding of.
        """
        chosen = as_samples(samples)
        if torch.get_default_device().type == "meta":
            raise ModelError(
                "torch's default device is meta, where tensors have no values. Encode samples outside the block that "
                "sets it, or set the default device back to the CPU."
            )
        settings, seen = _settings(self.processor), _Seen.under(prompt)
        return self.joined(chosen, prompt, [self._single(one, prompt, settings, seen) for one in chosen])

    def prepare(self, samples: Sequence[Sample], prompt: Prompt, settings: str) -> None:
        """Encodes samples for the next call that has them under this prompt; another thread may do it.

        Args:
            samples: The samples. The next call finds these objects, not others equal to them.
            prompt: The prompt.
            settings: `settings` of the encoder of that call. The processor of this encoder may be a copy of that one's.

        Raises:
            InterpError: As the call would raise.
        """
        seen = _Seen.under(prompt)
        for sample in samples:
            single = self._single(sample, prompt, settings, seen)
            self.processed.ready[id(sample), prompt] = self._key(sample, settings), single

    def text(self, sample: Sample, prompt: Prompt) -> str:
        """The rendered prompt of a sample, image placeholders not expanded; its images are not processed.

        Raises:
            PromptError: A prompt that cannot be rendered or holds the image placeholder.
        """
        return render(sample, prompt, self.processor, self.adapter).text

    @property
    def settings(self) -> str:
        """All settings of the processor, as text."""
        return _settings(self.processor)

    def _key(self, sample: Sample, settings: str) -> ImagesKey:
        return ImagesKey(settings, _fingerprints(sample), Identity(self.adapter))

    def _single(self, sample: Sample, prompt: Prompt, settings: str, seen: _Seen) -> Encoded:
        """One sample's encoding: one that is ready, one of its images with other words, or a new one."""
        sample.check_units()
        key = self._key(sample, settings)
        ready = self.processed.take(sample, prompt, key) if self.processed.ready else None
        if ready is not None:
            return ready
        old = self.processed.get(key)
        single = (
            self._encode(sample, prompt, seen, settings)
            if old is None
            else self._reworded(sample, prompt, old, seen)
        )
        self.processed.keep(key, single)
        return single

    def again(self, batch: Batch, prompt: Prompt) -> Batch:
        """The batch's samples under another prompt. With a fast tokenizer, images are not processed again."""
        pairs = zip(batch.samples, batch.singles, strict=True)
        seen = _Seen.under(prompt)
        singles = [self._reworded(sample, prompt, old, seen) for sample, old in pairs]
        same = all(new.images is old.images for new, old in zip(singles, batch.singles, strict=True))
        images = {n: value for n, value in batch.inputs.items() if n not in (*PER_TOKEN, "position_ids")}
        return self.joined(batch.samples, prompt, singles, images if same else None)

    def part(self, batch: Batch, at: Sequence[int]) -> Batch:
        """Some samples of a batch, as a batch of their own; nothing is processed again."""
        if list(at) == list(range(len(batch))):
            return batch
        return self.joined([batch.samples[i] for i in at], batch.prompt, [batch.singles[i] for i in at])

    def _rendered(self, sample: Sample, prompt: Prompt, seen: _Seen) -> Rendered:
        """The rendered prompt; the same words around as many images are not rendered again."""
        asked = (sample.question, sample.options) if seen.asks else ()
        key = (asked, len(sample.images), sample.video is None)
        if key not in seen.rendered:
            seen.rendered[key] = render(sample, prompt, self.processor, self.adapter)
        return seen.rendered[key]

    def _encode(self, sample: Sample, prompt: Prompt, seen: _Seen, settings: str | None = None) -> Encoded:
        check_takes_video(sample, self.adapter, self.processor)
        rendered = self._rendered(sample, prompt, seen)
        found = self._process(rendered.text, sample)
        spans = found.pop("text_replacement_offsets", None)
        offsets = found.pop("offset_mapping", None)
        found = {name: value for name, value in found.items() if isinstance(value, Tensor)}
        positions = self.adapter.image_positions(found["input_ids"][0].numpy(), self.config)
        cross = None
        if getattr(self.adapter, "maps", "self") == "cross":
            positions, cross = self.adapter.cross_keys(found, positions, self.config)  # pyright: ignore
            spans = [[]]  # a placeholder stays one token
        told = spans is not None
        if getattr(self.adapter, "leading_images", False) and offsets is not None:
            offsets[0, positions] = 0  # the rest is the text as it was
            spans = [[]]
        elif spans is None and offsets is not None and getattr(self.adapter, "maps", "self") == "composed":
            spans = grown_at_once(
                rendered.laid, getattr(self.processor, "image_token", None), offsets[0].numpy()
            )
        footprints = footprints_of(sample, found, self.adapter, self.processor, self.config)
        check_count(len(positions), footprints, family=self.adapter.name, sizes=sample.sizes)
        located: dict[str, Any] = {}
        if spans is not None and offsets is not None:
            located = question_tokens(rendered, spans[0], offsets[0].numpy())
        tokens = TokenMap(
            image=positions,
            footprints=footprints.boxes,
            grid=footprints.grid,
            views=footprints.views,
            image_index=footprints.image,
            sizes=sample.sizes,
            length=found["input_ids"].shape[1],
            cross=cross,
            **located,
            **located_in_time(sample, footprints),
        )
        known: Any = spans if located and told and cross is None else None
        expansions = tuple(span["replacement"] for span in known[0]) if known else None
        return Encoded(rendered, found, tokens, expansions, self._images_of(sample, found, settings))

    def _images_of(self, sample: Sample, found: Mapping[str, Tensor], settings: str | None) -> Images:
        """The part of a sample's inputs that stays when only the words change."""
        made = {name: value for name, value in found.items() if name not in PER_TOKEN}
        prints = _fingerprints(sample)
        return Images(made, None if prints is None else (settings or _settings(self.processor), prints))

    def _repeats(self, whole: Encoded) -> bool:
        """Whether the words alone give the same encoding again, without the processor and its images.

        Not every processor says what it expands its placeholders to, or tokenises the text as it stands.
        """
        fast = getattr(self.processor.tokenizer, "is_fast", False) and not set(whole.inputs) & set(PER_ROW)
        if whole.expansions is None or not fast or whole.rewordable is not None:
            return bool(fast and whole.rewordable)
        laid = whole.rendered.laid
        found = self._expanded(laid, whole)
        if found is None:
            return False
        ids = self.processor.tokenizer(found[0], **self._tokenizer_options(laid))["input_ids"]
        return ids == whole.inputs["input_ids"][0].tolist()

    def _process(self, text: str, sample: Sample) -> dict[str, Any]:
        """What the processor makes of one sample."""
        if not getattr(self.processor, "patch_size", 1):
            of_tower = getattr(self.config.vision_config, "patch_size", "a property of the model")
            patch = getattr(self.adapter, "token_stride", of_tower)
            raise ModelError(
                f"{type(self.processor).__name__}.patch_size is {self.processor.patch_size}, so image tokens cannot be "
                f"counted. Set processor.patch_size (the vision tower's is {patch}) "
                "and processor.num_additional_image_tokens, and pass processor=."
            )
        fast = getattr(self.processor.tokenizer, "is_fast", False)
        pictures = shown(sample, self.adapter, self.processor)
        try:
            found = self.processor(
                text=[text],
                **pictures,
                return_tensors="pt",
                return_text_replacement_offsets=True,
                text_kwargs={"return_offsets_mapping": fast, **self._tokenizer_options(text)},
            )
        except (ValueError, ZeroDivisionError) as error:
            if "token count" not in str(error):
                raise SampleError(
                    f"the processor refuses sample {sample.id} ({error}). Its images are "
                    f"{', '.join(f'{width}×{height}' for width, height in sample.sizes)} (width×height)."
                ) from error
            raise ImageTokenMismatch(
                f"the prompt of sample {sample.id} lost image tokens on the way ({error}). Did the tokenizer "
                "truncate? Raise its model_max_length or pass a processor that does not truncate."
            ) from error
        return {name: value for name, value in found.items() if name not in _UNUSED}

    def _reworded(self, sample: Sample, prompt: Prompt, old: Encoded, seen: _Seen) -> Encoded:
        """A sample under another prompt, with its images as they were processed before, where that is exact."""
        if not self._repeats(old):
            return self._encode(sample, prompt, seen)
        rendered = self._rendered(sample, prompt, seen)
        again = self._tokenised(rendered.laid, old, seen)
        if again is None:
            return self._encode(sample, prompt, seen)
        found, positions, spans, offsets = again
        located = question_tokens(rendered, spans, offsets)
        tokens = old.tokens.reworded(positions, found["input_ids"].shape[1], **located)
        return Encoded(rendered, {**found, **old.images.inputs}, tokens, old.expansions, old.images, True)

    def _tokenised(self, text: str, old: Encoded, seen: _Seen) -> _Expanded | None:
        """A text whose placeholders are expanded as `old`'s were: inputs per token, image positions, spans, offsets.

        None when an input per token cannot be told from `old`. Texts in `seen` are not tokenised again.
        """
        key = (text, old.expansions)
        if key not in seen.texts:
            made = self._expanded(text, old)
            if made is None:
                return None
            inputs, positions, offsets = self._from_tokenizer(made[0], self._tokenizer_options(text))
            seen.texts[key] = inputs, positions, made[1], offsets
        inputs, positions, spans, offsets = seen.texts[key]
        found = dict(inputs)
        for name in (n for n in PER_TOKEN if n in old.inputs and n not in ("input_ids", "attention_mask")):
            carried = _carried(old.inputs[name][0], old.tokens, positions, found["input_ids"].shape[1])
            if carried is None:
                return None
            found[name] = carried[None]
        return {n: v for n, v in found.items() if n in old.inputs}, positions, spans, offsets

    def _from_tokenizer(self, text: str, options: Mapping[str, Any]) -> _Text:
        lists = dict(self.processor.tokenizer(text, return_offsets_mapping=True, **options))
        offsets = np.array(lists.pop("offset_mapping")).reshape(-1, 2)
        found = {name: torch.from_numpy(np.array([values])) for name, values in lists.items()}
        positions = self.adapter.image_positions(found["input_ids"][0].numpy(), self.config)
        return found, positions, offsets

    def _expanded(self, text: str, old: Encoded) -> tuple[str, list[dict[str, Any]]] | None:
        """The text with its placeholders expanded as `old`'s were, and where they are; None with other placeholders."""
        token = placeholder(self.processor, video=old.tokens.is_video)
        if token is None or text.count(token) != len(old.expansions or ()):
            return None
        return expand(text, token, old.expansions or ())

    def _tokenizer_options(self, text: str) -> dict[str, Any]:
        """Nothing is cut off; a template that writes the beginning-of-sequence token must not get a second one."""
        bos = getattr(self.processor.tokenizer, "bos_token", None)
        whole = {"truncation": False, "padding": False}
        return {**whole, "add_special_tokens": False} if bos and text.startswith(bos) else whole

    def joined(
        self,
        samples: Sequence[Sample],
        prompt: Prompt,
        singles: Sequence[Encoded],
        images: Mapping[str, Tensor] | None = None,
    ) -> Batch:
        """Samples that were encoded one by one, as a left-padded batch.

        `images`: the inputs that do not have one value per token, where they are joined already.
        """
        lengths = [single.tokens.length for single in singles]
        pad = max(lengths) - np.array(lengths)
        pad_id = getattr(self.processor.tokenizer, "pad_token_id", None) or 0
        inputs = joined_inputs(samples, singles, self.adapter, pad_id, self.device, self.dtype, images or {})
        positions = self.positions(inputs)
        if positions.ndim == 2:
            inputs["position_ids"] = positions
        batch = Batch(
            inputs=inputs,
            positions=positions,
            tokens=tuple(single.tokens for single in singles),
            pad=pad,
            prompts=tuple(single.text for single in singles),
            samples=tuple(samples),
            prompt=prompt,
            singles=tuple(singles),
            pad_id=pad_id,
            patches_of=lambda one: patch_map(
                self.adapter, one.tokens.sizes, one.inputs, self.processor, self.config
            ),
        )
        batch.check_words(self.n_embedded)
        batch.check_reach(self.n_positions)
        return batch


def _fingerprints(sample: Sample) -> tuple[str, ...] | None:
    """Those of the sample's images; None where one cannot be read, which loading it will say."""
    try:
        return sample.image_fingerprints
    except ImageError:
        return None


def _settings(processor: Any) -> str:
    """All settings of the processor and of its image and video processors, as text."""
    parts = [getattr(processor, f"{kind}_processor", None) for kind in ("image", "video")]
    plain = (str, int, float, bool, list, tuple, dict, type(None))
    own = {name: value for name, value in vars(processor).items() if isinstance(value, plain)}
    return repr((own, *((type(part).__name__, getattr(part, "__dict__", part)) for part in parts)))


def _carried(
    values: Tensor, tokens: TokenMap, positions: Int[np.ndarray, " token"], length: int
) -> Tensor | None:
    """One value per token of another prompt with the same images; None when texts have various values."""
    text = values[torch.tensor(tokens.positions("text"))].unique()
    if len(text) > 1 or len(positions) != tokens.n:
        return None
    carried = torch.full((length,), int(text[0]) if len(text) else 0, dtype=values.dtype)
    carried[torch.tensor(positions)] = values[torch.tensor(tokens.image)]
    return carried


def expand(text: str, placeholder: str, replacements: Sequence[str]) -> tuple[str, list[dict[str, Span]]]:
    """The text with its placeholders expanded in order; for each, its "span" before and "new_span" after."""
    pieces = text.split(placeholder)
    expanded, at = pieces[0], len(pieces[0])
    spans: list[dict[str, Span]] = []
    for replacement, piece in zip(replacements, pieces[1:], strict=True):
        new = (len(expanded), len(expanded) + len(replacement))
        spans.append({"span": (at, at + len(placeholder)), "new_span": new})
        expanded += replacement + piece
        at += len(placeholder) + len(piece)
    return expanded, spans


def grown_at_once(
    text: str, placeholder: Any, offsets: Int[np.ndarray, "position 2"]
) -> list[list[dict[str, Span]]] | None:
    """The growth of a text whose placeholders were expanded by the processor, as if all of it were in the last one.

    Places after the last placeholder are then right. None where the text has no placeholder.
    """
    at = text.rfind(str(placeholder)) if placeholder else -1
    if at < 0:
        return None
    stop = at + len(str(placeholder))
    growth = int(np.max(np.asarray(offsets))) - len(text.rstrip())
    return [[{"span": (at, stop), "new_span": (at, stop + growth)}]]


def question_tokens(
    rendered: Rendered, spans: Sequence[Mapping[str, Any]], offsets: Int[np.ndarray, "position 2"]
) -> dict[str, Any]:
    """The `spans` and `words` of a `TokenMap`: the question's positions, and those of each of its words.

    Args:
        rendered: the rendered prompt.
        spans: where its placeholders were, and are once expanded (`expand`).
        offsets: (start, end) of each token in the expanded text, in characters.
    """
    if rendered.question is None:
        return {"spans": {}, "words": ()}
    start, end = rendered.question
    moved = _moved(start, spans)
    first, last = np.maximum(offsets[:, 0], moved), np.minimum(offsets[:, 1], moved + end - start)
    question = np.flatnonzero(first < last)
    begins, ends = offsets[question].T
    words = tuple(
        (
            rendered.laid[start + one : start + after],
            tuple(question[(begins < moved + after) & (ends > moved + one)].tolist()),
        )
        for one, after in word_spans(rendered.laid[start:end])
    )
    return {"spans": {"question": question}, "words": words}


def _moved(place: int, spans: Sequence[Mapping[str, Any]]) -> int:
    """Where a character is once the placeholders before it are expanded."""
    growth = [(s["new_span"][1] - s["new_span"][0]) - (s["span"][1] - s["span"][0]) for s in spans]
    return place + sum(g for g, s in zip(growth, spans, strict=True) if s["span"][1] <= place)


def shown(sample: Sample, adapter: Any, processor: Any) -> dict[str, Any]:
    """The sample's images or its video, as arguments of the processor.

    The frames are those of the sample: the processor takes no fewer. It learns the time of each frame, as the number of
    a frame of a video with one frame per second.

    Raises:
        ImageError: An image or a frame that cannot be read.
    """
    if sample.video is None:
        pictures = [sample.load(i) for i in range(len(sample.images))]
        nested = [pictures] if getattr(adapter, "nested_images", True) else pictures
        return {"images": nested if pictures else None}
    frames = np.stack([np.asarray(sample.load(i)) for i in range(len(sample.images))])
    video = sample.video
    about = {
        "total_num_frames": len(video) / video.rate,  # so that the mean rate, n / total · fps, is the video's
        "fps": 1.0,
        "duration": video.duration,
        "frames_indices": list(video.times),
        "height": frames.shape[1],
        "width": frames.shape[2],
    }
    return {"videos": [[frames]], "videos_kwargs": {"do_sample_frames": False, "video_metadata": [about]}}


def check_takes_video(sample: Sample, adapter: Any, processor: Any) -> None:
    """Raises `ModelError` where the sample shows a video and the family or this processor takes none."""
    if sample.video is None:
        return
    if not getattr(adapter, "video", False):
        raise ModelError(
            f"the family {adapter.name} takes images and no video. Pass the frames as images: "
            "interp.Sample(images=[…], question=…); `interp models` lists the families that take videos."
        )
    if getattr(processor, "video_processor", None) is None:
        raise ModelError(
            f"the {type(processor).__name__} of this model has no video processor, so it takes no video. Load the "
            "model with interp.load, which gives it one, or set processor.video_processor."
        )


def footprints_of(
    sample: Sample, inputs: Mapping[str, Any], adapter: Any, processor: Any, config: Any
) -> Footprints:
    """The adapter's footprints of the sample's images or of its video."""
    if sample.video is None:
        return adapter.footprints(sample.sizes, inputs, processor, config)
    return adapter.video_footprints(sample.video.size, len(sample.video), inputs, processor, config)


def located_in_time(sample: Sample, footprints: Footprints) -> dict[str, Any]:
    """The `frames` and `frame_times` of a `TokenMap`; nothing for images."""
    if sample.video is None:
        return {}
    return {"frames": footprints.frames, "frame_times": np.array(sample.video.times)}
