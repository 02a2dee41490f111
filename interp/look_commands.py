"""`interp look` and `interp explore`: pages that show where a model looks for one question."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from interp.terminal import naming_options

if TYPE_CHECKING:
    from interp.study import Look

__all__ = ["explore", "look"]


Box = tuple[float, float, float, float]


def look(
    image: Annotated[Path, tyro.conf.Positional],
    question: Annotated[str, tyro.conf.Positional],
    *,
    model: str = "organism",
    box: tyro.conf.UseAppendAction[tuple[Box, ...]] = (),
    box_format: Literal["xyxy", "xywh", "cxcywh", "fraction"] | None = None,
    more: tuple[Path, ...] = (),
    indicator: tuple[str, ...] = (),
    layer: str = "auto",
    trust: str = "quick",
    generate: int = 16,
    out: Path = Path("look.html"),
    device: str = "cpu",
    dtype: str = "float32",
    revision: str | None = None,
    processor: str | None = None,
    adapter: str | None = None,
    open_page: Annotated[bool, tyro.conf.arg(name="open")] = True,
) -> int:
    """Show where a model looks when it answers a question on an image: write a page and open it.

    The page has the maps of several indicators, every layer, the heads of one layer, the answer and its probability,
    and checks of how far the map can be trusted.

    Args:
        image: the image file.
        question: the question.
        model: "organism" (bundled, small, offline), a folder or a hub id.
        box: where the evidence lies, as x0 y0 x1 y1 in pixels of the image; repeat --box for several. The outline is
            drawn, and the layer with the largest share of its weight inside is shown.
        box_format: how boxes are written: corners (xyxy), a corner and the size (xywh), the centre and the size
            (cxcywh), or corners as fractions of the image; by default corners.
        more: further images of the same question.
        indicator: names of indicators, the one to be shown large first, such as attention token-knockout; by default
            relative-attention attention attention-gradient.
        layer: a decoder layer, or auto: with boxes the layer with the largest share of its weight inside, else the one
            with the most concentrated map.
        trust: quick, or full for deletion against random orders and shuffled weights too.
        generate: tokens of the answer at most.
        out: the page.
        device: device that the model runs on.
        dtype: dtype of the weights.
        revision: revision of a hub id.
        processor: folder or hub id of the processor, if the checkpoint has none.
        adapter: name of the adapter; by default the one that matches the config, "measured" for a family without one.
        open_page: open the page in a browser, where a terminal and a display are there.
    """
    import transformers

    from interp.study import look as looked
    from interp.tracing import load

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    mllm = load(model, device=device, dtype=dtype, revision=revision, processor=processor, adapter=adapter)
    with naming_options():
        found = looked(
            mllm,
            [image, *more] if more else image,
            question,
            boxes=box or None,
            box_format=box_format,
            indicator=list(indicator) or None,
            layer=int(layer) if layer.isdecimal() else layer,  # pyright: ignore[reportArgumentType] - checked there
            trust=trust,  # pyright: ignore[reportArgumentType] - checked there
            generate=generate,
        )
    _show(found, found.save(out).resolve(), open_page)
    return 0


def _show(found: Look, path: Path, open_page: bool) -> None:
    _say(found, path)
    if open_page and _has_display():
        webbrowser.open(path.as_uri())


def _say(found: Look, path: Path) -> None:
    """Print the answer, the map that is shown large, how far it can be trusted, and the page's path."""
    print(f"answer: {found.said} (probability {found.probability:.2f})")
    if found.note:
        print(f"note: {found.note}")
    print(f"map: {found.first.name}. {found.first.rule}")
    print(f"trust: {found.trust.summary}")
    for name, why in found.missing.items():
        print(f"not shown: {name}: {why}")
    print(f"page: {path}")


def _has_display() -> bool:
    """Whether this is a terminal with a display."""
    shown = (
        os.name == "nt"
        or sys.platform == "darwin"
        or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    )
    return sys.stdout.isatty() and bool(shown)


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
        host: the address to listen at. Anyone who can reach it can run the model.
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
        _ = sample.sizes  # opens each image, before the model is loaded
    mllm: Any = load(model, **given)
    shown = open_page and sys.stdout.isatty()
    serve(mllm, sample, model=named, generate=generate, host=host, port=port, open_page=shown)
    return 0
