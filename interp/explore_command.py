"""`interp explore`: a page on this machine to click tokens, layers and heads on, and to edit attention with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import tyro

__all__ = ["explore"]


def explore(
    image: Annotated[tuple[Path, ...], tyro.conf.Positional] = (),
    *,
    question: str = "",
    model: str = "organism",
    device: str = "cpu",
    dtype: str = "float32",
    revision: str | None = None,
    processor: str | None = None,
    adapter: str | None = None,
    generate: int = 8,
    host: str = "127.0.0.1",
    port: int = 8050,
    open_page: Annotated[bool, tyro.conf.arg(name="open")] = True,
) -> int:
    """Explore where a model looks, in a browser: click tokens, layers and heads, edit attention, compare the answers.

    It serves this machine alone unless --host says otherwise, and loads nothing from elsewhere.

    Args:
        image: image files to begin with; others can be chosen on the page.
        question: the question to begin with.
        model: "organism" (bundled, small, offline), a folder or a hub id.
        device: device that the model runs on.
        dtype: dtype of the weights.
        revision: revision of a hub id.
        processor: folder or hub id of the processor, if the checkpoint has none.
        adapter: name of the adapter; by default the one that matches the config.
        generate: tokens of an answer at most.
        host: the address to listen at. Whoever reaches it can run the model.
        port: the port; 0 for any that is free.
        open_page: open the page in a browser, where a terminal is there.
    """
    from interp.explore.local_server import check_installed, serve
    from interp.inputs.sample import Sample
    from interp.tracing import load

    given: dict[str, Any] = {
        "device": device, "dtype": dtype, "revision": revision, "processor": processor, "adapter": adapter
    }  # fmt: skip
    default = {"device": "cpu", "dtype": "float32"}
    named = {"model": model, **{k: v for k, v in given.items() if v is not None and v != default.get(k)}}
    check_installed()  # before the model is loaded
    sample = Sample(images=image, question=question or "What is in the image?") if image else None
    if sample is not None:
        sample.check()
    mllm: Any = load(model, **given)
    shown = open_page and sys.stdout.isatty()
    serve(mllm, sample, model=named, generate=generate, host=host, port=port, open_page=shown)
    return 0
