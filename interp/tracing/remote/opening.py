"""Opens a model on an NDIF server: this machine holds its config and its modules without values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnsight import TransformersModel
from nnsight.modeling import huggingface

from interp.errors import ModelError, ServerError
from interp.models.adapter import Adapter
from interp.tracing.encoding.batch import ProcessedImages
from interp.tracing.executors.hooks import Installation
from interp.tracing.layers.decoder_layers import key_layers, layer_kinds, mixer
from interp.tracing.layers.visibility import chunks, windows
from interp.tracing.model import Mllm
from interp.tracing.remote.connection import Connection
from interp.tracing.remote.server import Server

__all__ = ["Skeleton", "open_remote", "refuse_shared_keys", "skeleton_model"]


def open_remote(where: str, adapter: Adapter, processor: Any, options: Mapping[str, Any]) -> Mllm:
    """The model of that name on the server of nnsight's settings, which is asked for its versions and models first.

    Args:
        where: a hub id, or the local folder that the server knows by the same path.
        adapter: what is known of the family.
        processor: a processor of the caller's own making, which is kept.
        options: the revision and the attention implementation, where they are given.

    Raises:
        ServerError: The server cannot be reached, does not serve the model, or runs versions that cannot read what is
            sent.
        ModelError: transformers cannot build the model.
    """
    connection = Connection.configured()
    connection.check_versions()
    nn = skeleton_model(where, processor, options)
    connection.check_served(nn.to_model_key())
    hf: Any = nn._module
    layers = adapter.layers(hf)
    paths = {module: path for path, module in hf.named_modules()}
    head = hf.get_output_embeddings()
    if head is None or not all(hasattr(layer, "self_attn") for layer in layers):
        raise ModelError(
            f"{type(hf).__name__} has no output layer or layers without self-attention, which a job reads."
        )
    beside = hf.get_submodule(paths[layers[0]].rpartition(".layers.")[0])
    text = hf.config.get_text_config(decoder=True)
    refuse_shared_keys(hf, len(layers))
    server = Server(
        nn=nn,
        layers=[nn.get(paths[layer]) for layer in layers],
        head=nn.get(paths[head]),
        cap=getattr(text, "final_logit_softcapping", None),
        windows=any(one is not None for of in (windows, chunks) for one in of(text, len(layers))),
        norm=nn.get(paths[beside.norm]) if hasattr(beside, "norm") else None,
        decoder=nn.get(paths[beside]),
        connection=connection,
    )
    return Mllm(hf, processor, adapter, Skeleton(nn, layers), executor="source", server=server)


def refuse_shared_keys(hf: Any, n_layers: int) -> None:
    """Refuses a model whose last layers have no keys of their own: their rows cannot be had from a server.

    Raises:
        ModelError: As said.
    """
    if key_layers(hf.config.get_text_config(decoder=True), n_layers) != tuple(range(n_layers)):
        raise ModelError(
            f"layers of {type(hf).__name__} share keys, and on a server transformers leaves out their rows but the "
            "last. Load the model here, without remote=True."
        )


def skeleton_model(where: str, processor: Any, options: Mapping[str, Any]) -> Any:
    """nnsight's model of a checkpoint on the meta device, as the server names it; no weights are read.

    Args:
        where: a hub id, or the local folder that the server knows by the same path.
        processor: its processor.
        options: its revision and attention implementation, where they are given.

    Raises:
        ServerError: The hub cannot be asked for the id's spelling.
        ModelError: transformers cannot build the model.
    """
    if Path(where).is_dir():
        huggingface._ID_CACHE[where] = where  # nnsight would ask the hub
    try:
        made = TransformersModel(where, task="image-text-to-text", processor=processor, **options)
    except Exception as error:  # whatever building a foreign config raises
        raise ModelError(
            f"transformers cannot build {where} without its weights ({type(error).__name__}: {error}). Is it an "
            "image-text-to-text model in transformers' own layout? Others are not served."
        ) from error
    try:
        made.to_model_key()
    except Exception as error:  # the hub client's own, and its transport's
        raise ServerError(
            f"the hub cannot be asked how {where} is spelled ({type(error).__name__}: {error}), by which the server "
            "knows it. Is this machine offline?"
        ) from error
    for name in ("tokenizer", "processor", "image_processor", "feature_extractor"):
        setattr(made, name, None)  # jobs send tensors, and the server need not have the same parts
    made.dispatched = True  # else a trace of it without remote=True would fetch the weights and run here
    return made


class Skeleton(Installation):
    """What stands in for an installation where the model runs on a server: nothing is wrapped and nothing armed."""

    def __init__(self, nn: Any, layers: Sequence[Any]) -> None:
        self.nn = nn
        self.hf = self.given = nn._module
        self.layers = list(layers)
        self.kinds = layer_kinds(layers)
        self.attentions = [mixer(layer) for layer in layers]
        self.implementation = str(nn.attn_implementation)
        self.forwards: dict[Any, Any] = {}
        self.processed = ProcessedImages()
        self.known = None
        self.active = True

    def check(self) -> None:
        """Nothing to check: it is never unwrapped."""

    @contextmanager
    def armed(
        self, work: Any = None, streams: Any = None, routing: Any = None, mlps: Any = None
    ) -> Iterator[None]:
        """Refuse what works on the modules themselves.

        Raises:
            ServerError: Always.
        """
        self.need_weights()
        yield

    def need_weights(self) -> None:
        """Refuse what needs the weights on this machine.

        Raises:
            ServerError: Always. So a study stops, instead of counting every sample as a failure.
        """
        raise ServerError(
            "this needs the model's weights on this machine, and they are on an NDIF server. Such a model runs "
            "mllm.trace, mllm.score, gradients of rows and of inputs, and what is made of these; docs/remote.md says "
            "what is. Load the model without remote=True for the rest."
        )

    def remove(self) -> Any:
        """Refuse to unwrap what was never wrapped.

        Raises:
            ModelError: Always.
        """
        raise ModelError("a model on an NDIF server is not wrapped, so there is nothing to give back.")
