"""Refuses logits and readings that are not finite, and names the module where they begin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from interp.errors import EditError, ModelError
from interp.tracing.cost import Meter
from interp.tracing.edits import Edit
from interp.tracing.encoding.batch import Batch
from interp.tracing.passes.run import PassCompleteError, run_pass, without_choice
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["check_logits", "check_prefix", "check_reads", "refuse"]


def check_logits(
    mllm: WrappedModel, batch: Batch, logits: Float[Tensor, "sample *position token_id"]
) -> None:
    """Raise `ModelError` for logits with NaN, with +∞, or of nothing but −∞; some −∞ are masks and pass."""
    refuse(mllm, batch, without_choice(logits))


def refuse(
    mllm: WrappedModel,
    batch: Batch,
    lost: Bool[Tensor, " sample"],
    edits: Sequence[Edit] = (),
    what: str = "logits",
) -> None:
    """Raise for the first sample that is lost, with the module where its plain pass stops being finite.

    Args:
        mllm: the model.
        batch: the samples.
        lost: which of them have values that are not numbers.
        edits: what was changed.
        what: the values, for the message.

    Raises:
        ModelError: Without edits, or where the unedited pass is not finite either.
        EditError: Where only the edits can be the cause.
    """
    if not bool(lost.any()):
        return
    at = int(lost.nonzero()[0, 0])
    elsewhere = mllm.server is not None
    found = None if elsewhere else _first_not_finite(mllm, mllm.encoder.part(batch, [at]))
    sample = batch.samples[at].id
    if found is None and edits:
        raise EditError(
            f"the edits leave {what} that are not numbers (NaN) in {mllm.dtype}: {list(edits)!r}. Are factors or "
            "values too large for this dtype?"
        )
    begin = f"they begin in {found}" if found else "a pass over this prompt alone gives finite values"
    begin = "the model runs on a server, so where they begin is not known" if elsewhere else begin
    raise ModelError(
        f"the {what} of sample {sample} hold NaN or infinity in {mllm.dtype}: {begin}. {_advice(mllm.dtype)}"
    )


_WHAT = {
    "attention": "rows",
    "residual": "residual streams",
    "experts": "weights of experts",
    "mlp_input": "inputs of MLPs",
    "mlp_output": "outputs of MLPs",
}


def check_reads(
    mllm: WrappedModel, batch: Batch, reads: Sequence[Sequence[Any]], edits: Sequence[Edit]
) -> None:
    """Raise as `refuse` does for the first sample with rows or vectors that are not finite."""
    for at, own in enumerate(reads):
        for array in own:
            values = array.values
            # minimum and maximum are NaN where any value is, and need no second array
            if values.size and not (np.isfinite(values.min()) and np.isfinite(values.max())):
                lost = torch.arange(len(batch)) == at
                refuse(mllm, batch, lost, edits, _WHAT[str(array.name)])


def check_prefix(
    mllm: WrappedModel, batch: Batch, lengths: Sequence[int], layers: Sequence[tuple[Tensor, Tensor]]
) -> None:
    """Raise `ModelError` for keys or values of the last layer that are not finite; any fault below reaches them."""
    if not layers or all(bool(one.sum(dtype=torch.float32).isfinite()) for one in layers[-1]):
        return  # a finite sum has finite terms; one that overflows is looked at more closely
    state = mllm.layer_kinds[-1] != "attention"
    lost = torch.stack(
        [
            torch.stack(
                [~_of_line(one, i, None if state else n).isfinite().all() for one in layers[-1]]
            ).any()
            for i, n in enumerate(lengths)
        ]
    )
    refuse(mllm, batch, lost, (), "keys and values")


def _of_line(held: Tensor, line: int, n: int | None) -> Tensor:
    """What is held of a line's `n` tokens; all of it for None, as of a state."""
    return held[line] if n is None else held[line, :, held.shape[2] - n :]


def _advice(dtype: torch.dtype) -> str:
    if dtype in (torch.float32, torch.float64):
        return "Are the model's weights damaged, or its inputs scaled by a processor of another model?"
    return "Does the model overflow in this dtype? Load it with dtype='float32', or 'bfloat16' instead of 'float16'."


def _first_not_finite(mllm: WrappedModel, batch: Batch) -> str | None:
    """The name of the first module whose output is not finite in a plain pass of one sample; None for none."""
    names = {module: name for name, module in mllm.hf.named_modules()}
    found: list[str] = []
    last = (mllm.hf, mllm.hf.get_output_embeddings())

    def watch(module: nn.Module) -> Callable[..., None]:
        """A hook that ends the pass at a module's output that is not finite, and keeps its name."""
        name = names[module] or type(mllm.hf).__name__

        def after(_: nn.Module, arguments: Any, output: Any) -> None:
            for one in _tensors(output):
                # logits may hold −∞, where a token is masked
                if not bool((one < torch.inf).all() if module in last else one.isfinite().all()):
                    found.append(f"{name} ({type(module).__name__})")
                    raise PassCompleteError

        return after

    inputs = batch.inputs | {"position_ids": batch.positions}
    with mllm.installation.armed({}), torch.no_grad(), suppress(PassCompleteError), ExitStack() as stack:
        for module in names:
            stack.callback(module.register_forward_hook(watch(module)).remove)
        run_pass(mllm.hf, inputs, Meter(mllm.device))
    return found[0] if found else None


def _tensors(output: Any) -> list[Tensor]:
    """The floating tensors in what a module returned."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    parts = (
        output.values() if isinstance(output, dict) else output if isinstance(output, list | tuple) else ()
    )
    return [one for part in parts for one in _tensors(part)]
