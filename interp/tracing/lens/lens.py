"""The lenses of a model: through TransformerLens on this machine, or in a job on an NDIF server.

In a job, the norms, projections and the unembedding are the served model's own modules. A job has no weights: it reads
the matrix of a module from what the module makes of unit vectors.
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
from interp.tracing.derived.ov_circuits import matrix_of
from interp.tracing.lens.attribution import (
    PARTS,
    Attribution,
    attribution,
    components,
    first_tokens,
    labelled_shares,
    make_attribution,
)
from interp.tracing.lens.bridge import (
    SUPPORTED,
    BridgedModel,
    Samples,
    build_bridge,
    encoded,
    frozen_by,
    no_rms_norm,
    places,
)
from interp.tracing.lens.logit_lens import (
    LogitLens,
    label_scores,
    logit_lens,
    score_words,
    spellings,
    token_text,
)
from interp.tracing.passes.non_finite import check_logits
from interp.tracing.site import Selector
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["Lens", "ServedLens", "make_lens"]


class Lens(BridgedModel):
    """A TransformerLens bridge on a second instance of a model, on the same weights. Made by `mllm.to_lens()`.

    The language model uses eager attention, so memory grows with the square of the prompt's length; the vision tower
    uses the model's own attention. Gradients are off. It has the attributes of `BridgedModel`, `bridge` and `mllm`.
    """

    def logit_lens(
        self,
        samples: Samples,
        words: Sequence[str] = (),
        *,
        prompt: Prompt | None = None,
        positions: Selector | Sequence[Selector] = "image",
        top: int = 5,
    ) -> LogitLens:
        """The tokens that the final norm and the unembedding read from the stream after each layer.

        Args:
            samples: Samples or an encoded batch.
            words: The words to score; each must have a spelling of one token. Probabilities of spellings are summed.
            prompt: The prompt; by default that of the batch, or `PAPER_PROMPT`.
            positions: The tokens to read: a group such as "image" or "last", or `interp.positions([…])`.
            top: The number of likeliest tokens to keep at each place.

        Raises:
            PromptError: A word that no single token spells, or `top` out of range.
            SiteError: Positions that a sample does not have.

        Source: nostalgebraist 2020, interpreting GPT: the logit lens (LessWrong).
        """
        hooks = ("hook_resid_pre", "hook_resid_post")
        logits, cache = self.run_with_cache(samples, prompt, hooks=hooks)
        return logit_lens(self, logits, cache, words, positions, top)

    def components(
        self,
        samples: Samples,
        *,
        prompt: Prompt | None = None,
        positions: Selector | Sequence[Selector] = "last",
    ) -> list[xr.DataArray]:
        """The residual stream before the final norm as a sum, per sample: (component, position, hidden), float32.

        "kind" of a component: "embedding" (what enters the first layer; an image token's features), "head", "attention
        bias", "mlp", or "added" (what a family adds between two layers, as Qwen3-VL does at image tokens). Coordinates
        "layer" and "head" are −1 where a component has none. Gemma's norms after attention and MLP are applied with
        frozen scales.

        Args:
            samples: Samples or an encoded batch.
            prompt: The prompt; by default that of the batch, or `PAPER_PROMPT`.
            positions: The tokens to read: a group such as "image" or "last", or `interp.positions([…])`.

        Raises:
            SiteError: Positions that a sample does not have.
        """
        _, cache = self.run_with_cache(samples, prompt, hooks=PARTS)
        return [components(self, cache, i, own) for i, own in enumerate(places(cache.batch, positions))]

    def attribution(
        self,
        samples: Samples,
        target: Target = Target("greedy"),  # noqa: B008 - frozen
        *,
        prompt: Prompt | None = None,
        relative_to: Literal["zero", "mean"] = "zero",
    ) -> Attribution:
        """Each component's direct effect on the logit of the answer's first token, with the final norm's scale frozen.

        The direct effect goes through the stream to the unembedding and through no later layer. The parts add up to the
        logit, or to the difference of two logits; a part above 0 raises it.

        Args:
            samples: Samples or an encoded batch.
            target: The answer whose first token is meant: "greedy", a text, or a difference of two.
            prompt: The prompt; by default that of the batch, or `PAPER_PROMPT`.
            relative_to: "mean" subtracts the mean logit of the vocabulary, which is common to all tokens and does not
                change the answer; "zero" does not.

        Raises:
            PromptError: A target without tokens, two answers with the same first token, or an unknown `relative_to`.
            ModelError: A final norm that is no RMS norm, or parts that do not add up to the model's logits.

        Source: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits.
        """
        return attribution(self, self.encode(samples, prompt), target, relative_to)


def make_lens(mllm: WrappedModel) -> Lens:
    """The model through TransformerLens; see `Mllm.to_lens`."""
    mllm.installation.check()
    if mllm.linear_heads:
        raise ModelError(
            f"the lens needs an attention pattern in every layer; layers {list(mllm.linear_heads)} of this "
            f"{mllm.family} are gated DeltaNets or convolutions and have none. Use mllm.trace, which reads the other "
            "layers."
        )
    return Lens(build_bridge(mllm.hf, mllm.family), mllm)


_CHUNK = 128  # unit vectors whose logits are in memory at a time
_AFTER = ("post_attention_layernorm", "post_feedforward_layernorm")
"""Gemma's norms of what attention and MLP add to the stream. In other families the first name is a norm before the MLP,
and the second does not exist."""


@dataclass(frozen=True, eq=False)
class ServedLens:
    """The logit lens and direct attribution of a model on a server, as `Lens` gives them for a model on this machine.

    Attributes:
        mllm: The model on the server.
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
        """The tokens that the final norm and the unembedding read from the stream after each layer.

        It works for any family whose decoder has a `norm`. The job returns only log-probabilities and ranks of the
        words, and the likeliest tokens. The arguments are those of `Lens.logit_lens`.

        Raises:
            PromptError, SiteError: As in `Lens.logit_lens`.
            ModelError: A decoder without `norm`.
        """
        mllm, batch = self.mllm, encoded(self.mllm, samples, prompt)
        mllm.server.need_norm()
        tokenizer, n_ids = mllm.processor.tokenizer, int(mllm.hf.get_output_embeddings().weight.shape[0])
        spelt, own = spellings(tokenizer, n_ids, words, top), places(batch, positions)
        rows = [torch.from_numpy(one + int(pad)) for one, pad in zip(own, batch.pad, strict=True)]
        job = {"rows": rows, "spelt": spelt, "top": top}
        found = mllm.server.compute(batch, _words_in_job, job, Meter(mllm.device))
        check_logits(mllm, batch, found["logits"])
        each = zip(found["said"], own, batch.tokens, strict=True)
        made = [label_scores(said, words, at, tokens, token_text(tokenizer)) for said, at, tokens in each]
        return LogitLens(tuple(made), batch.tokens, _after_prompt(found["logits"]))

    def attribution(
        self,
        samples: Samples,
        target: Target = Target("greedy"),  # noqa: B008 - frozen
        *,
        prompt: Prompt | None = None,
        relative_to: Literal["zero", "mean"] = "zero",
    ) -> Attribution:
        """Each component's direct effect on the logit of the answer's first token.

        The arguments are those of `Lens.attribution`.

        Raises:
            PromptError: As in `Lens.attribution`.
            ModelError: A model whose class TransformerLens does not know, a final norm that is no RMS norm, or parts
                that do not add up to the model's logits.
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
        found = mllm.server.compute(batch, _shares_in_job, job, Meter(mllm.device))
        check_logits(mllm, batch, found["logits"])
        shares = [
            labelled_shares({kind: values[i].numpy() for kind, values in found["shares"].items()}, constant)
            for i, constant in enumerate(found["constants"])
        ]
        return make_attribution(
            mllm, batch.tokens, shares, asked, _after_prompt(found["logits"]), relative_to
        )

    def _check_attribution(self) -> None:
        self.mllm.server.need_norm()
        hf = self.mllm.hf
        if not {kind.__name__ for kind in type(hf).__mro__} & set(SUPPORTED.values()):
            raise ModelError(
                f"interp does not know how the layers of {type(hf).__name__} add to the residual stream, so it cannot "
                f"attribute logits on a server. It can for these families: {', '.join(SUPPORTED)}. Use knockouts "
                "instead."
            )
        norm = self.mllm.server.norm._module
        if isinstance(norm, nn.LayerNorm):
            raise no_rms_norm(norm)


def _after_prompt(logits: Float[Tensor, "sample position token_id"]) -> xr.DataArray:
    return xr.DataArray(logits[:, -1].float().cpu().numpy(), dims=["sample", "token_id"], name="logits")


def _words_in_job(there: Any, job: dict[str, Any]) -> dict[str, Any]:
    """The scores at each sample's stream, in a job; `there` is an `interp.tracing.remote.job_passes.Views`."""

    def read(stream: Tensor) -> list[Any]:
        chosen = [one[rows.to(stream.device)] for one, rows in zip(stream, job["rows"], strict=True)]
        return [score_words(there.read, one, job["spelt"], job["top"]) for one in chosen]

    by_layer = [read(there.entering(0)), *(read(there.leaving(i)) for i in range(len(there.layers)))]
    return {"said": [list(one) for one in zip(*by_layer, strict=True)], "logits": there.logits()}


def _shares_in_job(there: Any, job: dict[str, Any]) -> dict[str, Any]:
    """The parts' shares at the last row, float64, as `labelled_shares` takes them; `there` as in `_words_in_job`."""
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
    """Heads' outputs with the factor of the norm after them, by layer; other parts; the stream before the last norm.

    Args:
        there: As in `_words_in_job`.
        behind: The names of the norms after attention and MLP; None without such norms.
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
    """The direction that each sample's normed stream is projected on, and what the unembedding's bias adds.

    Args:
        head: The view of the output layer.
        like: (sample, hidden), a tensor that the output layer takes.
        asked: Each sample's token ids and their signs.
        mean: Whether the vocabulary's mean logit is subtracted.
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
