"""A multimodal LLM ready to be traced."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ModelError
from interp.inputs.prompt import PAPER_PROMPT, Prompt, Target
from interp.inputs.sample import Sample
from interp.models.adapter import Adapter
from interp.models.base import Attends
from interp.tracing import trace as execute
from interp.tracing.decoding import Decoding
from interp.tracing.edits import Edit
from interp.tracing.encode import Batch, Encoder
from interp.tracing.fingerprint import fingerprint
from interp.tracing.hooks import PATTERN, Door, Installation
from interp.tracing.nnsight_hook import door_rows
from interp.tracing.plan import Shape
from interp.tracing.positions import position_ids
from interp.tracing.prefix import Prefix, Stop
from interp.tracing.reads import Read
from interp.tracing.run import embeddings
from interp.tracing.sharing import Prefixes
from interp.tracing.site import Selector, Site
from interp.tracing.target import Scores, score
from interp.tracing.trace import Trace
from interp.tracing.visibility import Sight, windows

if TYPE_CHECKING:
    from interp.tracing.lens import Lens

__all__ = ["Mllm"]


@dataclass(frozen=True, eq=False)
class Mllm:
    """A multimodal LLM with its processor and its family's adapter. Made by `interp.load` or `interp.wrap`.

    Attributes:
        hf: the transformers model.
        processor: its processor (a copy of the one given; the tokenizer pads on the left).
        adapter: what is known of the family.
        installation: what wrapping changed in the model.
        executor: how traces read and edit: "tap" (the model's attention function does a little more) or
            "source" (nnsight, at the attention call in each layer's source). Same results; see `using`.
        prefixes: where traces find image prefixes; None to run whole prompts. See `sharing`.
    """

    hf: Any
    processor: Any
    adapter: Adapter
    installation: Installation
    executor: Literal["tap", "source"] = "tap"
    prefixes: Prefixes | None = None

    def __repr__(self) -> str:
        kind = type(self.hf).__name__
        return f"Mllm({kind}, {self.n_layers} layers, {self.n_heads} heads, {self.dtype}, {self.device})"

    @property
    def nn(self) -> Any:
        """The nnsight `TransformersModel` around the model: `mllm.nn.trace(**batch.inputs)`."""
        return self.installation.nn

    @property
    def family(self) -> str:
        """The adapter's name."""
        return self.adapter.name

    @cached_property
    def layers(self) -> list[Any]:
        """nnsight's views of the decoder layers; the door of `tap` is at `.self_attn.pattern`."""
        paths = {module: path for path, module in self.hf.named_modules()}
        return [self.nn.get(paths[layer]) for layer in self.adapter.layers(self.hf)]

    @property
    def n_layers(self) -> int:
        """Decoder layers."""
        return len(self.installation.attentions)

    @property
    def n_heads(self) -> int:
        """Query heads of each decoder layer."""
        return int(self._text_config.num_attention_heads)

    @property
    def n_key_value_heads(self) -> int:
        """Key-value heads of each decoder layer."""
        return int(getattr(self._text_config, "num_key_value_heads", None) or self.n_heads)

    @property
    def image_token_id(self) -> int:
        """The id that stands for an image token in `input_ids`."""
        found = getattr(self.hf.config, "image_token_id", None)
        return int(self.hf.config.image_token_index if found is None else found)

    @property
    def device(self) -> torch.device:
        """Where the inputs go."""
        return self.hf.device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' dtype."""
        return self.hf.dtype

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 of config, weights and processor; the same on every device. Reads each weight, once."""
        return fingerprint(self.hf, self.processor)

    @property
    def shape(self) -> Shape:
        """What plans of reads and edits depend on."""
        takes_masks = "flash" not in self.installation.implementation
        heads = (self.n_heads, self.n_key_value_heads)
        return Shape(self.n_layers, *heads, self.device, takes_masks, self.sight.windows)

    @cached_property
    def sight(self) -> Sight:
        """How far the rows of a prompt see.

        Raises:
            ModelError: The adapter's `attends` is none there is.
        """
        attends: Any = getattr(self.adapter, "attends", "causal")
        if attends not in get_args(Attends):
            raise ModelError(
                f"an adapter's attends is one of {', '.join(get_args(Attends))}; {self.family} has {attends!r}."
            )
        return Sight(attends, windows(self._text_config, self.n_layers))

    def using(self, executor: Literal["tap", "source"]) -> Mllm:
        """The same model under the other executor. Prefixes serve both.

        Raises:
            ModelError: An unknown executor.
        """
        if executor not in ("tap", "source"):
            raise ModelError(f'the executors are "tap" and "source"; got {executor!r}.')
        return replace(self, executor=executor)

    def sharing(self, prefixes: Prefixes | None) -> Mllm:
        """The same model, whose traces of samples go on from an image prefix wherever that is exact.

        That is: the image comes before the question, no row up to the last image token sees what follows it, and
        none is read or edited (see `Prefix`). Such a trace equals the whole pass to about 1e-5; a trace that
        found its prefix and one that made it are equal to the last bit, but for the cost.
        """
        found = copy(self)  # with what is cached, such as the fingerprint
        object.__setattr__(found, "prefixes", prefixes)
        return found

    @property
    def encoder(self) -> Encoder:
        """Turns samples into batches for this model."""
        self.installation.check()
        first = getattr(self.adapter, "first_position", 0)
        positions = partial(position_ids, self.hf, first=first)
        return Encoder(self.processor, self.adapter, self.hf.config, self.device, self.dtype, positions)

    def encode(self, samples: Sample | Iterable[Sample], prompt: Prompt = PAPER_PROMPT) -> Batch:
        """The samples as one left-padded batch.

        Raises:
            SampleError: No samples, or something that is not a `Sample`.
            PromptError: A prompt that cannot be rendered or holds the image placeholder.
            ImageTokenMismatch: Not as many image tokens as footprints.
        """
        return self.encoder(samples, prompt)

    def trace(
        self,
        samples: Sample | Iterable[Sample] | Batch | Prefix,
        prompt: Prompt | None = None,
        reads: Sequence[Read] = (),
        edits: Sequence[Edit] = (),
        generate: int = 0,
        seed: int | None = None,
        decoding: Decoding = Decoding(),  # noqa: B008 - frozen
    ) -> Trace:
        """Runs the samples as one batch, reading and editing on the way; gradients are off.

        A sample's results do not depend on the rest of its batch.

        Args:
            samples: samples, an encoded batch, or a prefix. After a prefix only what follows the image runs,
                where that is exact (see `Prefix`).
            prompt: how the question is put; by default `PAPER_PROMPT`, or that of the batch or prefix.
            reads: what to read.
            edits: what to change, in order.
            generate: how many tokens to generate at most. Rows then have a first dimension "step": 0 is the
                prompt, and reads of queries "last" go on with a row for every further token; reads of queries
                "answer" have these alone. The settings of the checkpoint's `generation_config` are not used,
                but for its end tokens.
            seed: of torch's generators during the run, and of the tokens drawn.
            decoding: how each token is chosen; by default the most likely one.

        Raises:
            SiteError: A layer, head, group or position that is not there, or a read of nothing.
            EditError: Edits out of order, values that do not fit, or a row left without keys.
            PromptError: Tokens drawn without a seed.
            ModelError: Another trace or tap of this model is open, or it was unwrapped.
            SampleError, PromptError, ImageTokenMismatch: as in `encode`.
        """
        return execute.trace(self, samples, prompt, reads, edits, generate, seed, decoding)

    def embeddings(self, batch: Batch) -> Float[Tensor, "sample position hidden"]:
        """What enters the first decoder layer, at the batch's padded positions; the decoder is not run.

        At image positions these are the image's features as the language model receives them.

        Raises:
            ModelError: Another trace or tap of this model is open, or it was unwrapped.
        """
        with self.installation.armed({}):
            return embeddings(self.nn, self.layers[0], batch)

    def score(
        self,
        samples: Sample | Iterable[Sample] | Batch | Prefix,
        target: Target = Target("greedy"),  # noqa: B008 - frozen
        *,
        prompt: Prompt | None = None,
        edits: Sequence[Edit] = (),
    ) -> Scores:
        """The target's log-probability after each prompt, under the edits.

        An answer of several tokens is fed token by token, as if it were generated, so that edits of
        steps="decode" and "all" apply to its rows. "greedy" is what the unedited model answers.

        Raises:
            SampleError, PromptError, SiteError, EditError, ModelError: as in `trace`.
        """
        return score(self, samples, target, prompt, edits)

    def prefix(
        self,
        samples: Sample | Iterable[Sample] | Batch,
        prompt: Prompt | None = None,
        stop: Stop = "image",
    ) -> Prefix:
        """Everything up to each sample's last image token, run once; accepted wherever samples are.

        With stop="last" everything but the last token of each prompt: what reads or edits of the last row alone
        go on from, at the cost of one token.

        Raises:
            ModelError: A sample without image tokens; an unknown `stop`; another trace or tap of this model is
                open.
            SampleError, PromptError, ImageTokenMismatch: as in `encode`.
        """
        return execute.prefix(self, samples, prompt, stop)

    @contextmanager
    def tap(
        self,
        queries: Selector | Sequence[Selector] = "last",
        *,
        layers: Literal["all"] | Sequence[int] = "all",
        batch: Batch | None = None,
    ) -> Iterator[None]:
        """Opens the nnsight door: layers offer their rows at `mllm.layers[i].self_attn.pattern.output`.

            with mllm.tap(queries="last"), mllm.nn.trace(**batch.inputs):
                rows = mllm.layers[14].self_attn.pattern.output.save()

        Rows are float32 (sample, head, query, key), over padded keys. Writing to them, in place or by
        assignment, edits the attention's output.

        Args:
            queries: rows to offer; "last" is the last row of every pass.
            layers: which layers offer them.
            batch: the batch that is traced; needed for queries other than "last" and "all".

        Raises:
            SiteError: Layers that are not there, queries that need a batch, or that differ in number.
            ModelError: Another trace or tap of this model is open, or it was unwrapped.
        """
        rows = door_rows(queries, batch)
        attentions = self.installation.attentions
        chosen = Site(layers=layers).resolve(self.n_layers, self.n_heads)
        doors = {i: Door(attentions[i].get_submodule(PATTERN), rows) for i in chosen}
        with self.installation.armed(doors):
            yield

    def to_lens(self) -> Lens:
        """The model through TransformerLens: caches, logit lens, direct attribution (extra `lens`).

        It is a second instance on the same weights, in eager attention; this model stays as it is and can be
        traced meanwhile. Nothing is downloaded or installed.

        Raises:
            ModelError: transformer-lens is not installed or has no adapter for this family (see
                `interp.tracing.lens.SUPPORTED`), the model is on several devices, or it was unwrapped.
        """
        from interp.tracing.lens.lens import make_lens

        return make_lens(self)

    def unwrap(self) -> Any:
        """The transformers model as it was before `wrap`: attention implementation, modules, config, mode.

        This `Mllm`, its prefixes and its nnsight model are of no use afterwards.

        Raises:
            ModelError: A trace or tap is open, or it was unwrapped already.
        """
        return self.installation.remove()

    @property
    def _text_config(self) -> Any:
        return self.hf.config.get_text_config(decoder=True)
