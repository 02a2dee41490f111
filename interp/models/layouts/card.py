"""The model card of a converted checkpoint: where it is from, under which licence, what was changed, how it loads."""

from __future__ import annotations

import json
import re
from importlib.metadata import version

import torch

from interp.models.layouts.checkpoint import Checkpoint

__all__ = ["model_card"]

_CODE = """```python
{lines}
```"""
_PLAIN = """from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained("this/folder", dtype="auto")
processor = AutoProcessor.from_pretrained("this/folder")"""
_OURS = """import interp

mllm = interp.load("this/folder", dtype="auto")  # the transformers model is mllm.hf"""


def model_card(checkpoint: Checkpoint, origin: str, dtype: torch.dtype) -> str:
    """The text of README.md.

    Args:
        checkpoint: what was converted.
        origin: the hub id it came from, or the name of the folder.
        dtype: of the language model's weights.
    """
    name = origin.rstrip("/").split("/")[-1]
    return "\n\n".join(
        [
            _header(checkpoint, origin),
            f"# {name}, in transformers' layout",
            f"Converted from `{origin}` ({checkpoint.layout} layout) by interp {version('interp')} for transformers "
            f"{version('transformers')}. This is not the authors' own release.",
            "## Licence\n\n" + _licence(checkpoint),
            "## What was changed\n\n" + "\n".join(f"- {line}" for line in _changes(checkpoint, dtype)),
            "## How to load it\n\n" + _loading(checkpoint),
            "## Prompt\n\nThe chat template writes, with `{system}`, `<image>` and `{question}` filled in:\n\n"
            f"```text\n{checkpoint.prompt}\n```",
        ]
    ) + "\n"  # fmt: skip


def _header(checkpoint: Checkpoint, origin: str) -> str:
    found = checkpoint.licence
    known = found is not None and re.fullmatch(r"[a-z0-9][a-z0-9.\-]*", found)
    lines = [f"license: {found if known else 'other' if found else 'unknown'}"]
    if found and not known:
        lines.append(f"license_name: {json.dumps(found)}")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", origin):
        lines.append(f"base_model: {origin}")
    library = "transformers" if checkpoint.stock else "interp"
    return "\n".join(["---", *lines, f"library_name: {library}", "pipeline_tag: image-text-to-text", "---"])


def _licence(checkpoint: Checkpoint) -> str:
    if checkpoint.licence is None:
        return (
            "The source states none. Without one you may not pass this on: ask its authors, and look at the licences "
            "of the language model and vision tower it was made from."
        )
    return (
        f"`{checkpoint.licence}`, as the source states it; it holds for this copy too. The language model and the "
        "vision tower it was made from may have terms of their own."
    )


def _changes(checkpoint: Checkpoint, dtype: torch.dtype) -> list[str]:
    return [
        f"Tensors have the names of `{checkpoint.model_class.__name__}`; fused ones are split. Their values are the "
        f"source's, in {str(dtype).removeprefix('torch.')}.",
        "`config.json`, processor and chat template were made from the source's config and its original code.",
        *checkpoint.notes,
    ]


def _loading(checkpoint: Checkpoint) -> str:
    if checkpoint.stock:
        return _CODE.format(lines=_PLAIN)
    return (
        f"transformers has no class that computes this model: `{checkpoint.model_class.__name__}` comes with interp, "
        "and transformers alone refuses the folder by its model type.\n\n" + _CODE.format(lines=_OURS)
    )
