"""A wrapped model, as the functions behind `Mllm` take it: the model, its processor, its adapter, its installation."""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal, NoReturn, TypeVar, get_args

import torch

from interp.errors import ModelError
from interp.inputs.prompt import PAPER_PROMPT, Prompt
from interp.inputs.sample import Sample
from interp.models.adapter import Adapter, attends_in
from interp.models.base import Attends, Maps
from interp.models.configs import layer_configs
from interp.models.vision_patches import tower_attention, tower_heads, tower_layers
from interp.tracing.encoding.batch import Batch
from interp.tracing.encoding.encoder import Encoder
from interp.tracing.executors.hooks import Installation, takes_masks
from interp.tracing.layers.decoder_layers import Decoder, Shape, key_layers
from interp.tracing.layers.mlp_and_experts import router_paths
from interp.tracing.layers.rope import Rope, position_ids
from interp.tracing.layers.visibility import Visibility, chunks, windows
from interp.tracing.parameters.fingerprint import fingerprint, hook_names, identity, identity_elsewhere
from interp.tracing.parameters.weights import execution_device, versions
from interp.tracing.prefix import Prefixes
from interp.tracing.site import LayerKind

__all__ = ["WrappedModel"]

Own = TypeVar("Own", bound="WrappedModel")


@dataclass(frozen=True, eq=False)
class WrappedModel:
    """A model with everything that tracing needs. `Mllm` is a subclass.

    Attributes:
        hf: the transformers model.
        processor: the model's processor (a copy of the one given; the tokenizer pads on the left).
        adapter: describes the model's family.
        installation: what wrapping changed in the model.
        executor: how traces read and edit: "tap" (inside the model's attention function) or "source" (with nnsight, at
            the attention call in each layer's source code). Both give the same results; see `Mllm.using`.
        prefixes: the store of image prefixes; None if there is none. See `Mllm.sharing`.
        batches: whether samples run in micro-batches of `batch_size`; see `at_once`.
        server: runs the model on an NDIF server (an `interp.tracing.remote.server.Server`); None if the weights are on
            this machine.
    """

    hf: Any
    processor: Any
    adapter: Adapter
    installation: Installation
    executor: Literal["tap", "source"] = "tap"
    prefixes: Prefixes | None = None
    batches: bool = True
    server: Any = None

    def __repr__(self) -> str:
        kind, own = type(self).__name__, type(self.hf).__name__
        where = f"{self.dtype}, {self.device}" if self.server is None else self.place
        return f"{kind}({own}, {self.n_layers} layers, {self.n_heads} heads, {where})"

    def __deepcopy__(self, memo: Any) -> NoReturn:
        """Refuses a deep copy, whose hooks and nnsight views would still belong to the original model.

        Raises:
            ModelError: Always.
        """
        raise ModelError(
            "a wrapped model cannot be deep-copied: its hooks and nnsight's views belong to one transformers model. "
            "Load it again with interp.load, or wrap a copy of the model that mllm.unwrap() returns."
        )

    @property
    def nn(self) -> Any:
        """The nnsight `TransformersModel` around the model: `mllm.nn.trace(**batch.inputs)`."""
        return self.installation.nn

    @property
    def family(self) -> str:
        """The name of the model's family, which is the adapter's name."""
        return self.adapter.name

    @cached_property
    def layers(self) -> list[Any]:
        """nnsight's views of the decoder layers; `tap` offers rows at `.self_attn.pattern`."""
        paths = {module: path for path, module in self.hf.named_modules()}
        return [self.nn.get(paths[layer]) for layer in self.adapter.layers(self.hf)]

    @property
    def layer_kinds(self) -> tuple[LayerKind, ...]:
        """What mixes the tokens of each decoder layer.

        "attention" is a softmax over the layer's own sequence, "linear" a gated DeltaNet, "cross" a softmax over the
        image's keys alone, "convolution" a short convolution.
        """
        return self.installation.kinds

    @property
    def attention_layers(self) -> tuple[int, ...]:
        """The decoder layers of kind "attention"; in most models, all layers."""
        return tuple(i for i, kind in enumerate(self.layer_kinds) if kind == "attention")

    @property
    def cross_layers(self) -> tuple[int, ...]:
        """The cross-attention layers, whose keys come from the image; in most models, none."""
        return tuple(i for i, kind in enumerate(self.layer_kinds) if kind == "cross")

    @property
    def linear_heads(self) -> dict[int, int]:
        """The layers of a hybrid model without a softmax → the number of their (value) heads; 0 for a convolution."""
        modules = enumerate(self.installation.attentions)
        kinds = self.layer_kinds
        return {
            i: int(getattr(one, "num_v_heads", 0))
            for i, one in modules
            if kinds[i] in ("linear", "convolution")
        }

    @property
    def decoder(self) -> Decoder:
        """The decoder's layers by kind, with their heads."""
        return Decoder(self.n_layers, self.n_heads, self.linear_heads, self.cross_layers)

    @property
    def n_layers(self) -> int:
        """The number of decoder layers, of every kind."""
        return len(self.installation.attentions)

    @property
    def maps(self) -> Maps:
        """Which attention a map is made of (`interp.models.base.Maps`)."""
        return getattr(self.adapter, "maps", "self")

    def need_image_rows(self, what: str) -> None:
        """Raise `ModelError` unless image tokens are positions of the sequence and stand for places in the image.

        Args:
            what: A noun in the plural that names, in the error, the things that need such tokens.
        """
        if self.maps == "composed":
            raise ModelError(
                f"{what} need image tokens that stand for places in the image; the image tokens of {self.family} are "
                "latents of a resampler. Read or edit the latents, or use interp.indicators.Attention(), which "
                "composes maps over patches."
            )
        if self.maps == "cross":
            raise ModelError(
                f"{what} need image tokens that are positions of the sequence; the image tokens of {self.family} are "
                "keys of cross-attention layers. Read or edit these layers with interp.Site(layers='cross'), or use "
                "interp.indicators.Attention(layers='cross')."
            )

    @property
    def n_heads(self) -> int:
        """The number of query heads of each attention layer."""
        return int(self._text_config.num_attention_heads)

    @property
    def n_key_value_heads(self) -> int:
        """The number of key-value heads of each decoder layer; where layers differ (Gemma 4), the largest."""
        configs = layer_configs(self._text_config)
        return max(int(getattr(one, "num_key_value_heads", None) or self.n_heads) for one in configs)

    @property
    def key_layers(self) -> tuple[int, ...]:
        """For each decoder layer, the layer whose keys and values it attends to: itself, unless layers share keys."""
        return key_layers(self._text_config, self.n_layers)

    @cached_property
    def routers(self) -> dict[int, str]:
        """Layer with experts → the path of the router in it; empty for a model without experts.

        Raises:
            ModelError: A layer with experts whose router is not known.
        """
        return router_paths(self.adapter.layers(self.hf))

    @cached_property
    def vision_attentions(self) -> list[Any]:
        """The attention module of each layer of the vision tower.

        Raises:
            ModelError: The model has no vision tower whose attention goes through transformers' attention interface.
        """
        find = getattr(self.adapter, "vision_layers", tower_layers)
        return [tower_attention(layer) for layer in find(self.hf)]

    @cached_property
    def vision_views(self) -> list[Any]:
        """nnsight's views of `vision_attentions`."""
        paths = {module: path for path, module in self.hf.named_modules()}
        return [self.nn.get(paths[attention]) for attention in self.vision_attentions]

    @property
    def n_vision_layers(self) -> int:
        """The number of layers of the vision tower.

        Raises:
            ModelError: As in `vision_attentions`.
        """
        return len(self.vision_attentions)

    @property
    def n_vision_heads(self) -> int:
        """The number of heads of each layer of the vision tower.

        Raises:
            ModelError: As in `vision_attentions`.
        """
        found = tower_heads(self.vision_attentions[0])
        assert found is not None  # vision_attentions holds attention modules only
        return found

    @property
    def vocabulary_size(self) -> int:
        """The size of the vocabulary: the number of token ids."""
        return int(self._text_config.vocab_size)

    @property
    def image_token_id(self) -> int:
        """The id that stands for an image token in `input_ids`."""
        found = getattr(self.hf.config, "image_token_id", None)
        return int(self.hf.config.image_token_index if found is None else found)

    @property
    def device(self) -> torch.device:
        """The device that the inputs must be on."""
        return execution_device(self.hf) if self.server is None else torch.device("cpu")

    @property
    def place(self) -> str:
        """Where the model runs: the device, or "remote"."""
        return str(self.device) if self.server is None else "remote"

    @property
    def layer_devices(self) -> tuple[torch.device, ...]:
        """The device of each decoder layer's attention; "cpu" for a model on a server, which moves what it gets."""
        if self.server is not None:
            return (self.device,) * self.n_layers
        return tuple(map(execution_device, self.installation.attentions))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights; for a model on a server, the dtype in its config."""
        return self.hf.dtype

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the `identity`; the same on every device. Every call reads all weights."""
        return fingerprint(self.identity)

    @property
    def identity(self) -> dict[str, str]:
        """Everything in the model that its results depend on, by name: weights, settings, hooks, adapters, processor.

        It is computed at each call, since any part may have changed.
        """
        return self._identity()

    def identity_since(self) -> dict[str, str]:
        """The `identity`, without reading weights and hooks again that seem unchanged since the last call.

        It is for checks while a study runs. It does not notice weights that were changed without torch's version
        counters, through `.data` or numpy, or changes inside the objects that a hook holds.
        """
        if self.installation.known is None or self.server is not None:
            return self._identity()
        weights, hooks, known = self.installation.known
        same = versions(self.hf), hook_names(self.hf, self.installation.forwards)
        return self._identity(
            same,
            weights=known["weights"] if weights is not None and weights == same[0] else None,
            hooks=known["hooks"] if hooks == same[1] else None,
        )

    def _identity(self, seen: tuple[Any, Any] | None = None, **known: str | None) -> dict[str, str]:
        """The identity.

        Args:
            seen: The weights' versions and the hooks' names, if the caller has just read them.
            known: Parts of the identity that need not be computed again.
        """
        if self.server is not None:
            return identity_elsewhere(self.server.identity, self.processor, self.adapter)
        forwards = self.installation.forwards
        weights, hooks = (versions(self.hf), hook_names(self.hf, forwards)) if seen is None else seen
        found = identity(self.hf, self.processor, self.adapter, forwards, **known)
        self.installation.known = weights, hooks, found
        return found

    @property
    def shape(self) -> Shape:
        """The properties of the model that plans of reads and edits depend on."""
        heads = (self.n_heads, self.n_key_value_heads)
        masks = takes_masks(self.installation.implementation)
        devices = self.layer_devices
        linear, cross = self.linear_heads, bool(self.cross_layers)
        return Shape(
            self.n_layers, *heads, self.device, masks, self.visibility.limits, devices, linear, cross
        )

    @cached_property
    def visibility(self) -> Visibility:
        """Which tokens the rows of a prompt see.

        Raises:
            ModelError: The adapter has an unknown `attends`.
        """
        attends: Any = attends_in(self.adapter, self.hf.config)
        if attends not in get_args(Attends):
            raise ModelError(
                f"an adapter's attends is one of {', '.join(get_args(Attends))}; {self.family} has {attends!r}."
            )
        text, n, recurrent = self._text_config, self.n_layers, bool(self.linear_heads)
        return Visibility(attends, windows(text, n), self.rope, chunks(text, n), recurrent)

    @property
    def rope(self) -> Rope:
        """The rotary positions: how far they reach, and what they depend on."""
        return Rope.of(self._text_config)

    @property
    def encoder(self) -> Encoder:
        """Turns samples into batches for this model."""
        self.installation.check()
        first = getattr(self.adapter, "first_position", 0)
        positions = partial(position_ids, self.hf, first=first)
        settings = (self.processor, self.adapter, self.hf.config, self.device, self.dtype, positions)
        n_embedded = getattr(self.hf.get_input_embeddings(), "num_embeddings", None)
        return Encoder(*settings, self.installation.processed, n_embedded, self.rope.limit)

    def encode(self, samples: Sample | Iterable[Sample], prompt: Prompt = PAPER_PROMPT) -> Batch:
        """The samples as one left-padded batch.

        Raises:
            SampleError: No samples, or something that is not a `Sample`.
            PromptError: A prompt that cannot be rendered or holds the image placeholder.
            ImageTokenMismatch: A number of image tokens that is not the number of footprints.
        """
        return self.encoder(samples, prompt)

    def at_once(self: Own) -> Own:
        """The same model, set to run all samples of a call as one batch, whatever `batch_size=` says.

        It is for callers that cut samples into micro-batches themselves and split these when memory runs out, as
        studies do.
        """
        if not self.batches:
            return self
        found = copy(self)  # a copy keeps cached properties, such as the layers
        object.__setattr__(found, "batches", False)
        return found

    @property
    def _text_config(self) -> Any:
        return self.hf.config.get_text_config(decoder=True)
