"""The logit lens and direct attribution of a model on an NDIF server, in a job there; without TransformerLens.

The norms, projections and the unembedding are the served model's own modules. A matrix is read off what its module
makes of unit vectors, so that a job needs no weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import ModelError
from interp.inputs.prompt import Prompt, Target
from interp.tracing.cost import Meter
from interp.tracing.derived.value_norms import matrix_of
from interp.tracing.lens.attribution import Attribution, completed, first_tokens, labelled_shares
from interp.tracing.lens.bridge import SUPPORTED
from interp.tracing.lens.bridged import Samples, encoded, frozen_by, no_rms_norm
from interp.tracing.lens.components import places
from interp.tracing.lens.logit_lens import LogitLens, decoder, labelled, said_at, spellings
from interp.tracing.passes.run import check_logits
from interp.tracing.site import Selector
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["ServedLens"]

_CHUNK = 128  # unit vectors whose logits are in memory at a time
_AFTER = ("post_attention_layernorm", "post_feedforward_layernorm")
"""Gemma's norms of what attention and MLP add to the stream; elsewhere the first name is that of a norm before the
MLP, and the second does not exist."""


@dataclass(frozen=True, eq=False)
class ServedLens:
    """What `interp.tracing.lens.Lens` gives of a model here, of a model on a server.

    Attributes:
        mllm: the model.
    """

    mllm: WrappedModel

    def logit_lens(
        self,
        samples: Samples,
        words: Sequence[str] = (),
        *,
        prompt: Prompt | None = None,
        positions: Selector | Sequence[Selector] = "image",
        top: int = 5,
    ) -> LogitLens:
        """What final norm and unembedding make of the stream after each layer; see `Lens.logit_lens`.

        Any family has it whose decoder has a `norm`. Only log-probabilities and ranks of the words, and the likeliest
        tokens, come back.

        Raises:
            PromptError, SiteError: As for `Lens.logit_lens`.
            ModelError: A decoder without `norm`.
        """
        mllm, batch = self.mllm, encoded(self.mllm, samples, prompt)
        mllm.server.need_norm()
        tokenizer, n_ids = mllm.processor.tokenizer, int(mllm.hf.get_output_embeddings().weight.shape[0])
        spelt, own = spellings(tokenizer, n_ids, words, top), places(batch, positions)
        rows = [torch.from_numpy(one + int(pad)) for one, pad in zip(own, batch.pad, strict=True)]
        job = {"rows": rows, "spelt": spelt, "top": top}
        found = mllm.server.compute(batch, _said, job, Meter(mllm.device))
        check_logits(mllm, batch, found["logits"])
        each = zip(found["said"], own, batch.tokens, strict=True)
        made = [labelled(said, words, at, tokens, decoder(tokenizer)) for said, at, tokens in each]
        return LogitLens(tuple(made), batch.tokens, _after_prompt(found["logits"]))

    def attribution(
        self,
        samples: Samples,
        target: Target = Target("greedy"),  # noqa: B008 - frozen
        *,
        prompt: Prompt | None = None,
        relative_to: Literal["zero", "mean"] = "zero",
    ) -> Attribution:
        """Each component's direct effect on the logit of the answer's first token; see `Lens.attribution`.

        Raises:
            PromptError: As for `Lens.attribution`.
            ModelError: A model of no class that TransformerLens knows, a final norm that is no RMS norm, or parts that
                do not add up to the model's logits.
        """
        mllm, batch = self.mllm, encoded(self.mllm, samples, prompt)
        self._check_attribution()
        asked = first_tokens(mllm, batch, target, relative_to)
        layer = mllm.installation.layers[0]
        behind = hasattr(layer, "pre_feedforward_layernorm") and all(hasattr(layer, name) for name in _AFTER)
        job = {
            "asked for": [(list(ids), list(weights)) for ids, weights in asked],
            "mean": relative_to == "mean",
            "heads": mllm.n_heads,
            "norms behind": _AFTER if behind else None,
        }
        found = mllm.server.compute(batch, _shares, job, Meter(mllm.device))
        check_logits(mllm, batch, found["logits"])
        shares = [
            labelled_shares({kind: values[i].numpy() for kind, values in found["shares"].items()}, constant)
            for i, constant in enumerate(found["constants"])
        ]
        return completed(mllm, batch.tokens, shares, asked, _after_prompt(found["logits"]), relative_to)

    def _check_attribution(self) -> None:
        self.mllm.server.need_norm()
        hf = self.mllm.hf
        if not {kind.__name__ for kind in type(hf).__mro__} & set(SUPPORTED.values()):
            raise ModelError(
                f"how the layers of {type(hf).__name__} add to the residual stream is not known here, so nothing can "
                f"be attributed on a server. It is for these families: {', '.join(SUPPORTED)}. Use knockouts instead."
            )
        norm = self.mllm.server.norm._module
        if isinstance(norm, nn.LayerNorm):
            raise no_rms_norm(norm)


def _after_prompt(logits: Float[Tensor, "sample position token_id"]) -> xr.DataArray:
    return xr.DataArray(logits[:, -1].float().cpu().numpy(), dims=["sample", "token_id"], name="logits")


def _said(there: Any, job: dict[str, Any]) -> dict[str, Any]:
    """What each sample's stream says, in a job; `there` is an `interp.tracing.remote.job_passes.Views`."""

    def read(stream: Tensor) -> list[Any]:
        chosen = [one[rows.to(stream.device)] for one, rows in zip(stream, job["rows"], strict=True)]
        return [said_at(there.read, one, job["spelt"], job["top"]) for one in chosen]

    by_layer = [read(there.entering(0)), *(read(there.leaving(i)) for i in range(len(there.layers)))]
    return {"said": [list(one) for one in zip(*by_layer, strict=True)], "logits": there.logits()}


def _shares(there: Any, job: dict[str, Any]) -> dict[str, Any]:
    """Shares of parts at the last row, float64, as `labelled_shares` takes them, in a job; `there` as for `_said`."""
    heads, others, stream = _last_row(there, job["norms behind"])
    logits = there.logits()
    directions, constants = _directions(there.head, stream, job["asked for"], job["mean"])
    turned = (frozen_by(there.norm, stream) * directions.to(stream.device)).double()
    n, n_layers = len(stream), len(there.layers)
    shares = {
        kind: torch.zeros(n, n_layers + 1, dtype=torch.float64) for kind in ("mlp", "embedding", "added")
    }
    for kind, layer, vector in others:
        shares[kind][:, layer] = (vector.double() * turned.to(vector.device)).sum(dim=1).cpu()
    shares["attention bias"] = torch.zeros(n, n_layers + 1, dtype=torch.float64)
    shares["head"] = torch.zeros(n, n_layers, job["heads"], dtype=torch.float64)
    for layer, (given, factor) in enumerate(heads):
        project = there.layers[layer].self_attn.o_proj
        along = turned.to(given.device) * factor
        weighted = (along @ matrix_of(project, given).double()) * given.double()
        shares["head"][:, layer] = weighted.unflatten(1, (job["heads"], -1)).sum(dim=2).cpu()
        bias = project(torch.zeros_like(given)).double()
        shares["attention bias"][:, layer] = (along * bias).sum(dim=1).cpu()
    return {"shares": shares, "constants": constants, "logits": logits}


def _last_row(there: Any, behind: tuple[str, str] | None) -> tuple[list[Any], list[Any], Tensor]:
    """What `o_proj` is given in each layer, and the factor behind it; the other parts; the stream before the last norm.

    Args:
        there: as for `_said`.
        behind: names of the norms behind attention and MLP, where there are any.
    """
    heads, others, stream = [], [], None
    for i, layer in enumerate(there.layers):
        entering = there.entering(i)[:, -1]
        if stream is None:
            others.append(("embedding", -1, entering.float()))
        elif not torch.equal(stream.to(entering.device), entering):
            others.append(("added", i - 1, entering.float() - stream.to(entering.device).float()))
        given, factor = layer.self_attn.o_proj.input[:, -1], 1.0
        if behind is not None:
            norm = getattr(layer, behind[0])
            factor = frozen_by(norm, layer.self_attn.o_proj(given)).double()
        heads.append((given, factor))
        written = (layer.mlp if behind is None else getattr(layer, behind[1])).output[:, -1]
        others.append(("mlp", i, written.float()))
        stream = there.leaving(i)[:, -1]
    assert stream is not None
    return heads, others, stream


def _directions(
    head: Any, like: Tensor, asked: Sequence[tuple[list[int], list[float]]], mean: bool
) -> tuple[Float[Tensor, "sample hidden"], list[float]]:
    """What each sample's normed stream is projected on, and what the unembedding's bias adds.

    Args:
        head: the view of the output layer.
        like: (sample, hidden), as the output layer takes it.
        asked: each sample's tokens and their signs.
        mean: whether the vocabulary's mean logit is taken off.
    """
    bias = head(torch.zeros_like(like[:1])).float()

    def along(logits: Tensor) -> Tensor:
        found = [logits[:, ids].float() @ torch.tensor(signs, device=logits.device) for ids, signs in asked]
        if mean:
            off = logits.float().mean(dim=1)
            found = [one - sum(signs) * off for one, (_, signs) in zip(found, asked, strict=True)]
        return torch.stack(found)

    eye = torch.eye(like.shape[1], device=like.device, dtype=like.dtype)
    columns = [along(head(chunk).float() - bias) for chunk in eye.split(_CHUNK)]
    return torch.cat(columns, dim=1), along(bias)[:, 0].tolist()
