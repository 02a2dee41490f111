"""Circuits: the edges between heads, MLPs, the image and the answer, and what each carries.

What a node reads is a sum over what was written before: with an edge's weight κ, κ·(what the source writes in this
pass) + (1 − κ)·(what it writes in the reference). All κ = 1 is the plain pass, one κ = 0 is path patching of one edge,
and the gradient at 1 is edge attribution patching.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from interp.errors import ModelError
from interp.inputs.text import brief
from interp.tracing.cost import Meter
from interp.tracing.encoding.batch import Batch
from interp.tracing.gradients import differentiable, recording
from interp.tracing.layers.rope import settle
from interp.tracing.lens.bridge import build_bridge
from interp.tracing.passes.run import run_pass
from interp.tracing.prefix import pass_inputs
from interp.tracing.wrapped_model import WrappedModel

__all__ = [
    "EdgeGraph",
    "EdgePass",
    "EdgeStream",
    "PlainPass",
    "Reference",
    "RunLayers",
    "check_layers",
    "lens_layers",
    "node_name",
    "repeat_keys",
]


class EdgeStream:
    """What the sources have written so far, and what a receiver reads: Σ_source κ·own + (1 − κ)·reference, plus biases.

    Args:
        graph: The nodes and edges.
        embeddings: What "image" and "text" write.
        reference: What each source writes in the reference, float32.
        weights: κ of each edge.
    """

    def __init__(
        self,
        graph: EdgeGraph,
        embeddings: Float[Tensor, "two row hidden"],
        reference: Float[Tensor, "source row hidden"],
        weights: Float[Tensor, "source receiver"],
    ) -> None:
        self.graph, self.reference, self.weights = graph, reference, weights
        self._writes = list(embeddings)
        self._constant: Tensor = torch.zeros_like(embeddings[0][:1])

    @property
    def written(self) -> Float[Tensor, "source row hidden"]:
        """What each source wrote."""
        return torch.stack(self._writes)

    def heads_read(self, layer: int) -> Float[Tensor, "head row hidden"]:
        """What each head of a layer reads."""
        return self._read(layer * (self.graph.n_heads + 1), self.graph.n_heads)

    def mlp_reads(self, layer: int) -> Float[Tensor, "row hidden"]:
        """What the MLP of a layer reads."""
        return self._read(layer * (self.graph.n_heads + 1) + self.graph.n_heads, 1)[0]

    def answer_reads(self) -> Float[Tensor, "row hidden"]:
        """What the final norm reads."""
        return self._read(len(self.graph.receivers) - 1, 1)[0]

    def write_heads(self, heads: Float[Tensor, "head row hidden"], bias: Tensor | float = 0.0) -> None:
        """Adds what a layer's heads write, and the bias of its output projection, which belongs to no head."""
        self._writes += list(heads.float())
        self._constant = self._constant + bias

    def write_mlp(self, output: Float[Tensor, "row hidden"]) -> None:
        """Adds what a layer's MLP writes."""
        self._writes.append(output.float())

    def _read(self, first: int, n: int) -> Float[Tensor, "receiver row hidden"]:
        known = len(self._writes)
        own = self.weights[:known, first : first + n]
        base = self.reference[:known].sum(dim=0) + self._constant
        return torch.einsum("sv,srh->vrh", own, self.written - self.reference[:known]) + base


Reference = Literal["image", "mean", "zero"]
PARTS = ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp")
GAP = 1e-3
"""How far the sum of the nodes may be from the model's own logits, as a share of the largest."""


@dataclass(eq=False)
class PlainPass:
    """A sample's plain pass: what enters the first layer, how each layer's attention was called, the last logits."""

    batch: Batch
    embedding: Tensor = field(default_factory=lambda: torch.empty(0))
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    logits: Tensor = field(default_factory=lambda: torch.empty(0))


RunLayers: TypeAlias = Callable[[WrappedModel, PlainPass, EdgeStream], Float[Tensor, " token_id"]]
"""Runs the decoder: each receiver reads from an `EdgeStream`, each source writes into it. Returns the logits after the
last token."""


@dataclass(frozen=True, eq=False)
class EdgePass:
    """A sample, compared with the same question on another image. Made by `EdgePass.of`.

    Attributes:
        mllm: The model.
        graph: Its nodes and edges.
        seen: The sample's plain pass.
        reference: (source, row, hidden) float32, what each source writes in the reference.
        image: The rows that are image tokens.
        answers: Two token ids; the value of a pass is log p of the first minus log p of the second.
        run_layers: The function that runs the decoder.
    """

    mllm: WrappedModel
    graph: EdgeGraph
    plain: PlainPass
    reference: Float[Tensor, "source row hidden"]
    image: Tensor
    answers: tuple[int, int]
    run_layers: RunLayers

    @classmethod
    def of(
        cls,
        mllm: WrappedModel,
        batch: Batch,
        other: Batch,
        against: Reference,
        meter: Meter,
        *,
        more: Sequence[Batch] = (),
        run_layers: RunLayers | None = None,
    ) -> EdgePass:
        """The pass of a sample, and its reference.

        Args:
            mllm: The model.
            batch: The sample, encoded alone.
            other: The same question on another image, encoded alone.
            against: "image": every source's reference is what it writes for `other`. "mean": the mean, token by token,
                of what it writes for `other` and `more`. "zero": heads and MLPs write nothing, and the embeddings are
                the sample's own.
            meter: Counts the passes.
            more: For `against="mean"`, the same question on further images, each encoded alone.
            run_layers: The function that runs the decoder; by default it runs transformers' own layers.

        Raises:
            ModelError: Prompts of different lengths, the same answer on both images, or a model whose layers are not
                "stream + attention(norm) + MLP(norm)".
        """
        check_layers(mllm)
        own, its = _run_plain(mllm, batch, meter), _run_plain(mllm, other, meter)
        _check_length(own, its)
        answers = (int(own.logits.argmax()), int(its.logits.argmax()))
        if answers[0] == answers[1]:
            raise ModelError(
                "circuits explain the difference between two answers, but the model gives the same answer on both "
                "images. Use another image, on which its answer differs."
            )
        graph = EdgeGraph(mllm.n_layers, mllm.n_heads)
        image = torch.tensor(batch.tokens[0].image.tolist()).to(own.embedding.device)
        shape = (len(graph.sources), *own.embedding.shape[1:])
        nothing = own.embedding.new_zeros(shape, dtype=torch.float32)
        found = cls(mllm, graph, own, nothing, image, answers, run_layers or transformers_layers)
        there = [its, *(_run_plain(mllm, one, meter) for one in more if against == "mean")]
        for one in there:
            _check_length(own, one)
        with torch.no_grad():
            found = replace(found, reference=found._reference(against, there))
            _check_sum(found._run(found.ones)[0], own.logits)
        return found

    def _reference(
        self, against: Reference, there: Sequence[PlainPass]
    ) -> Float[Tensor, "source row hidden"]:
        """What each source writes in the reference."""
        if against == "zero":
            found = self.reference.clone()
            found[:2] = self._embeddings(self.plain.embedding)
            return found
        total = torch.zeros_like(self.reference)
        for one in there:
            logits, writes = replace(self, plain=one)._run(self.ones)
            _check_sum(logits, one.logits)
            total += writes
        return total / len(there)

    @cached_property
    def ones(self) -> Float[Tensor, "source receiver"]:
        """The weights of the plain pass: 1 for every edge."""
        return torch.ones(self.graph.edges.shape, device=self.reference.device)

    def value(self, kept: Float[np.ndarray, "source receiver"] | np.ndarray) -> float:
        """log p(own answer) − log p(the other image's answer), in nats, under given weights of the edges.

        Args:
            kept: κ of each edge, in [0, 1]: 1 or True carries this pass, 0 or False the reference.
        """
        with torch.no_grad():
            weights = torch.as_tensor(np.asarray(kept, np.float32), device=self.reference.device)
            return float(self._value(weights))

    def attribution(self) -> Float[np.ndarray, "source receiver"]:
        """The first-order effect of each edge, in nats: how far the value falls when the edge carries the reference.

        Edge attribution patching: Σ_rows (own − reference) · ∂value/∂(what the receiver reads), all edges in one
        forward and one backward pass; 0 where there is no edge. An edge above 0 supports the sample's own answer.

        Raises:
            ModelError: Weights through which no gradient flows.

        Source: Syed et al. 2023, attribution patching outperforms automated circuit discovery (arXiv 2310.10348).
        """
        differentiable(self.mllm)
        with recording(self.mllm):
            weights = self.ones.clone().requires_grad_()
            (found,) = torch.autograd.grad(self._value(weights), [weights])
        return found.double().cpu().numpy() * self.graph.edges

    def path_patch(self, edges: Sequence[tuple[int, int]]) -> Float[np.ndarray, " edge"]:
        """The exact effect of each edge alone, in nats: the value minus the value when this edge carries the reference.

        Later nodes see the receiver's changed output. Each edge takes one forward pass.

        Args:
            edges: (source, receiver) pairs, as indices into the graph's `sources` and `receivers`.

        Source: Wang et al. 2022 (arXiv 2211.00593); Goldowsky-Dill et al. 2023 (arXiv 2304.05969).
        """
        plain, found = self.value(self.graph.edges), []
        for source, receiver in edges:
            kept = self.graph.edges.copy()
            kept[source, receiver] = False
            found.append(plain - self.value(kept))
        return np.array(found)

    def _value(self, weights: Tensor) -> Tensor:
        logits = self._run(weights)[0].float()
        scores = logits.log_softmax(dim=-1)
        return scores[self.answers[0]] - scores[self.answers[1]]

    def _embeddings(self, given: Tensor) -> Float[Tensor, "two row hidden"]:
        """The embeddings that "image" and "text" write at their own tokens; 0 elsewhere."""
        mask = torch.zeros(given.shape[1], 1, device=given.device)
        mask[self.image] = 1
        return torch.stack([given[0].float() * mask, given[0].float() * (1 - mask)])

    def _run(self, weights: Tensor) -> tuple[Float[Tensor, " token_id"], Float[Tensor, "source row hidden"]]:
        """The last row's logits, and what each source wrote."""
        stream = EdgeStream(self.graph, self._embeddings(self.plain.embedding), self.reference, weights)
        logits = self.run_layers(self.mllm, self.plain, stream)
        return logits, stream.written


def transformers_layers(
    mllm: WrappedModel, plain: PlainPass, stream: EdgeStream
) -> Float[Tensor, " token_id"]:
    """Runs transformers' own layers on what each receiver reads; a `RunLayers`."""
    layers: list[Any] = list(mllm.adapter.layers(mllm.hf))
    for i, layer in enumerate(layers):
        stream.write_heads(*_heads(layer, stream.heads_read(i).to(mllm.dtype), plain.calls[i]))
        given = stream.mlp_reads(i)[None].to(mllm.dtype)
        stream.write_mlp(layer.mlp(layer.post_attention_layernorm(given))[0])
    last = stream.answer_reads()[None, -1:].to(mllm.dtype)
    return mllm.hf.get_output_embeddings()(_final_norm(mllm)(last))[0, 0]


def _heads(
    layer: Any, given: Float[Tensor, "head row hidden"], call: Mapping[str, Any]
) -> tuple[Float[Tensor, "head row hidden"], Tensor | float]:
    """What each head of a layer writes when it reads its own stream, and the bias of the output projection."""
    outputs: list[Tensor] = []
    module = layer.self_attn
    handle = module.o_proj.register_forward_pre_hook(lambda _, args: outputs.append(args[0]))
    try:
        module(hidden_states=layer.input_layernorm(given), **call)
    finally:
        handle.remove()
    n = len(given)
    split = outputs[0].unflatten(-1, (n, -1))  # copy, row, head, dim
    own = split[torch.arange(n), :, torch.arange(n)].float()
    weight = module.o_proj.weight.float().unflatten(1, (n, -1))  # hidden, head, dim
    bias = 0.0 if module.o_proj.bias is None else module.o_proj.bias.float()
    return torch.einsum("nrd,hnd->nrh", own, weight), bias


def check_layers(mllm: WrappedModel) -> None:
    """Refuses a model whose layers are not "stream + attention(norm) + MLP(norm)".

    Raises:
        ModelError: Such a model, with what its layers lack; or a model that is not on this machine.
    """
    mllm.need_image_rows("circuits")
    if mllm.server is not None:
        raise ModelError("circuits need the model on this machine; load it without remote=True.")
    for i, layer in enumerate(mllm.adapter.layers(mllm.hf)):
        lacks = [name for name in PARTS if not hasattr(layer, name)]
        more = [
            name for name in ("pre_feedforward_layernorm", "per_layer_input_gate") if hasattr(layer, name)
        ]
        plain = not lacks and type(getattr(layer.self_attn, "o_proj", None)) is nn.Linear
        if not plain or more:
            raise ModelError(
                f"circuits are for layers of the form stream + attention(norm) + MLP(norm), as Llama, Mistral and Qwen "
                f"2 and 3 have them; layer {i} of this {mllm.family} is {type(layer).__name__}"
                f"{f', without {lacks}' if lacks else ''}{f', with {more}' if more else ''}."
            )


def _final_norm(mllm: WrappedModel) -> Any:
    decoder = mllm.hf.get_decoder()
    return getattr(decoder, "norm", None) or decoder.model.norm


def _check_length(own: PlainPass, its: PlainPass) -> None:
    lengths = own.embedding.shape[1], its.embedding.shape[1]
    if lengths[0] != lengths[1]:
        raise ModelError(
            f"both images must give prompts of the same length; got {lengths[0]} and {lengths[1]} tokens. Use images "
            "of the same size."
        )


def _run_plain(mllm: WrappedModel, batch: Batch, meter: Meter) -> PlainPass:
    """A plain pass, with what it gives each layer."""
    plain, handles = PlainPass(batch), []
    layers: list[Any] = list(mllm.adapter.layers(mllm.hf))

    def enters(_: Any, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        plain.embedding = (args[0] if args else named["hidden_states"]).detach()

    handles.append(layers[0].register_forward_pre_hook(enters, with_kwargs=True))
    for i, layer in enumerate(layers):

        def called(_: Any, args: tuple[Any, ...], named: dict[str, Any], i: int = i) -> None:
            kept = {name: value for name, value in named.items() if name != "hidden_states"}
            plain.calls[i] = {**kept, "past_key_values": None, "use_cache": False}

        handles.append(layer.self_attn.register_forward_pre_hook(called, with_kwargs=True))
    try:
        with mllm.installation.armed({}), torch.no_grad():
            inputs, _ = pass_inputs(batch, None)
            plain.logits = run_pass(mllm.hf, inputs, meter)[0, -1].float()
    finally:
        for handle in handles:
            handle.remove()
    return plain


def _check_sum(found: Tensor, wanted: Tensor) -> None:
    gap = float((found.float() - wanted).abs().max() / wanted.abs().max().clamp(min=1e-9))
    if not gap < GAP:
        raise ModelError(
            f"the nodes do not add up to the model: logits differ by {gap:.1e} of the largest (at most {GAP:g}). The "
            'family adds something between layers, or the dtype rounds too much: load the model with dtype="float32".'
        )


def node_name(kind: str, layer: int = -1, head: int = -1) -> str:
    """A node's name: "image", "text", "answer", a head such as "L01H03", an MLP such as "L01MLP"; 0-based.

    >>> node_name("head", 14, 3), node_name("mlp", 2)
    ('L14H03', 'L02MLP')
    """
    return {"head": f"L{layer:02d}H{head:02d}", "mlp": f"L{layer:02d}MLP"}.get(kind, kind)


@dataclass(frozen=True)
class EdgeGraph:
    """The sources (image, text, each layer's heads and MLP) and the receivers (each layer's heads and MLP, the answer).

    Attributes:
        n_layers: The number of layers.
        n_heads: The number of heads in each layer.
    """

    n_layers: int
    n_heads: int

    @property
    def inner(self) -> tuple[str, ...]:
        """The heads and MLPs, in the order in which they run."""
        found = []
        for layer in range(self.n_layers):
            found += [node_name("head", layer, head) for head in range(self.n_heads)]
            found.append(node_name("mlp", layer))
        return tuple(found)

    @property
    def sources(self) -> tuple[str, ...]:
        """The nodes that write into the residual stream. "image" and "text" are the embeddings of those tokens."""
        return ("image", "text", *self.inner)

    @property
    def receivers(self) -> tuple[str, ...]:
        """The nodes that read the residual stream."""
        return (*self.inner, "answer")

    def n_before(self, layer: int, *, mlp: bool = False) -> int:
        """The number of sources that write before the heads of a layer read, or before its MLP reads."""
        return 2 + layer * (self.n_heads + 1) + (self.n_heads if mlp else 0)

    @property
    def edges(self) -> Bool[np.ndarray, "source receiver"]:
        """Which pairs are edges: the source writes before the receiver reads. Heads of one layer read side by side."""
        found = np.zeros((len(self.sources), len(self.receivers)), bool)
        for layer in range(self.n_layers):
            first = layer * (self.n_heads + 1)
            found[: self.n_before(layer), first : first + self.n_heads] = True
            found[: self.n_before(layer, mlp=True), first + self.n_heads] = True
        found[:, -1] = True
        return found


def lens_layers(mllm: WrappedModel) -> RunLayers:
    """A `RunLayers` that runs the decoder in TransformerLens and replaces each receiver's input at its hooks.

    Heads read at `hook_q_input`, `hook_k_input` and `hook_v_input`, MLPs at `hook_mlp_in`, the answer at the last
    `hook_resid_post`; heads write at `hook_result` and MLPs at `hook_mlp_out`. The bridge wraps a second instance on
    the same weights. There each query head has a key head of its own (`repeat_keys`), since TransformerLens splits keys
    and values by key head.

    Raises:
        ModelError: A model that `check_layers` refuses, that TransformerLens has no adapter for, or whose heads its
            bridge does not split (such as Qwen2.5-VL's).
    """
    check_layers(mllm)

    def change(second: Any) -> None:
        repeat_keys(second, mllm.adapter.layers(second), mllm.n_heads)

    bridge = build_bridge(mllm.hf, mllm.family, change)
    try:
        bridge.set_use_attn_result(True)
        bridge.set_use_split_qkv_input(True)
        bridge.set_use_hook_mlp_in(True)
    except NotImplementedError as error:
        raise ModelError(
            f"TransformerLens splits no inputs by head in {mllm.family} ({brief(str(error))}). Take "
            'executor="transformers", which runs the model\'s own layers.'
        ) from error
    layers: list[Any] = list(mllm.adapter.layers(mllm.hf))
    biases: list[Tensor | None] = [layer.self_attn.o_proj.bias for layer in layers]

    def run(model: WrappedModel, plain: PlainPass, stream: EdgeStream) -> Float[Tensor, " token_id"]:
        inputs = {**plain.batch.inputs, "position_ids": plain.batch.positions}
        settle(bridge.original_model, inputs)
        ids = inputs.pop("input_ids")
        with bridge.hooks(fwd_hooks=_hooks(stream, biases)):
            logits = bridge(ids, **inputs, use_cache=False, logits_to_keep=1)
        return logits[0, -1]

    return run


def repeat_keys(hf: Any, layers: Any, n_heads: int) -> None:
    """Gives each query head a key head and a value head of its own, equal to those it shared. Attention stays the same.

    The key and value projections then take as much memory as the query projection.

    Args:
        hf: The model, changed in place; its tensors are replaced, not written into.
        layers: The decoder layers of the model.
        n_heads: The number of query heads in each layer.
    """
    for layer in layers:
        attention = layer.self_attn
        for name in ("k_proj", "v_proj"):
            _repeat(getattr(attention, name), attention.head_dim, n_heads)
        attention.num_key_value_groups = 1
    hf.config.get_text_config(decoder=True).num_key_value_heads = n_heads


def _repeat(projection: Any, dim: int, n_heads: int) -> None:
    times = n_heads * dim // projection.weight.shape[0]
    for name, value in tuple(projection.named_parameters(recurse=False)):
        repeated = value.detach().unflatten(0, (-1, dim)).repeat_interleave(times, dim=0).flatten(0, 1)
        setattr(projection, name, nn.Parameter(repeated, requires_grad=False))
    projection.out_features = n_heads * dim


def _hooks(stream: EdgeStream, biases: list[Tensor | None]) -> list[tuple[str, Callable[..., Any]]]:
    found: list[tuple[str, Callable[..., Any]]] = []
    for i, bias in enumerate(biases):
        block = f"blocks.{i}"
        given: list[Tensor] = []

        def heads_read(value: Tensor, hook: Any, i: int = i, given: list[Tensor] = given) -> Tensor:
            if not given:
                given.append(stream.heads_read(i).transpose(0, 1)[None].to(value))
            return given[0]

        def heads_write(value: Tensor, hook: Any, bias: Tensor | None = bias) -> None:
            stream.write_heads(value[0].transpose(0, 1), 0.0 if bias is None else bias.float())

        def mlp_reads(value: Tensor, hook: Any, i: int = i) -> Tensor:
            return stream.mlp_reads(i)[None].to(value)

        def mlp_writes(value: Tensor, hook: Any) -> None:
            stream.write_mlp(value[0])

        found += [(f"{block}.attn.hook_{one}_input", heads_read) for one in "qkv"]
        found += [
            (f"{block}.attn.hook_result", heads_write),
            (f"{block}.hook_mlp_in", mlp_reads),
            (f"{block}.hook_mlp_out", mlp_writes),
        ]

    def answer_reads(value: Tensor, hook: Any) -> Tensor:
        return stream.answer_reads()[None].to(value)

    return [*found, (f"blocks.{len(biases) - 1}.hook_resid_post", answer_reads)]
