"""Opens a model on an NDIF server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interp.errors import ModelError
from interp.models.adapter import Adapter
from interp.tracing.layers.decoder_layers import key_layers
from interp.tracing.layers.visibility import chunks, windows
from interp.tracing.model import Mllm
from interp.tracing.remote.connection import Connection
from interp.tracing.remote.server import Server
from interp.tracing.remote.skeleton import Skeleton, skeleton_model

__all__ = ["open_remote", "refuse_shared_keys"]


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
