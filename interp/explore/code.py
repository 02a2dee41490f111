"""The Python that reproduces what the explorer shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from interp.explore.change import Change
from interp.inputs.prompt import Prompt
from interp.inputs.sample import Sample

__all__ = ["reproduction"]


def reproduction(
    model: Mapping[str, Any],
    sample: Sample,
    images: Sequence[str],
    prompt: Prompt,
    generate: int,
    *,
    step: int,
    layer: int,
    head: int | None,
    change: Change | None = None,
    n_tokens: int = 0,
) -> str:
    """A script that loads the model, reads the row that is shown into `row`, and makes the edit where there is one.

    It ends with `answers`, and with `edited` under an edit. It needs the image files under the names given.

    Args:
        model: The arguments of `interp.load`; the first is the model.
        sample: The question, its images and boxes.
        images: The image files' names.
        prompt: How the question is put.
        generate: How many tokens are generated at most.
        step: The generated token whose row is shown.
        layer: The layer shown.
        head: The head shown; None for the mean of all heads.
        change: The edit.
        n_tokens: Number of image tokens, which an edit of some of them needs.
    """
    opened = ", ".join([repr(model["model"]), *(f"{k}={v!r}" for k, v in model.items() if k != "model")])
    shown = f"image={images[0]!r}" if len(images) == 1 else f"images={list(images)!r}"
    boxes = f", boxes={[(b.x0, b.y0, b.x1, b.y1) for b in sample.boxes]!r}" if sample.boxes else ""
    edited = change is not None
    lines = [
        *(["import numpy as np", ""] if edited and change.tokens else []),
        "import interp",
        "",
        f"mllm = interp.load({opened})",
        f"sample = interp.Sample({shown}, question={sample.question!r}{boxes})",
        f"prompt = interp.{prompt!r}",
        'reads = [interp.Rows(interp.Site(queries="last", keys="image"))]',
        f"trace = mllm.trace([sample], prompt=prompt, reads=reads, generate={generate})",
        f"row = trace[0].rows.isel(step={step}, query=0).sel(layer={layer})  # (head, token)",
        'row = row.mean("head")' if head is None else f"row = row.sel(head={head})",
        "answers = trace.answers",
    ]
    if change is not None:
        lines += [
            "",
            *change.code(n_tokens),
            f"edited = mllm.answers([sample], prompt=prompt, edits=[edit], generate={generate})",
        ]
    return "\n".join(lines) + "\n"
