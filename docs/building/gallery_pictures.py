"""Makes the pictures of docs/gallery.md from real runs of the bundled organism.

    python docs/building/gallery_pictures.py

Figures and pages are photographed in chromium (playwright, extra dev). The runs are made in a folder that is deleted.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from PIL import Image
from playwright.sync_api import sync_playwright

import interp
from interp.data_check import inspect
from interp.data_check.page import write
from interp.indicators import Attention, AttentionGradient, InputGradient, TokenKnockout
from interp.report import show_maps

INTO = Path(__file__).parents[1] / "gallery"
WIDE, COLOURS = 960, 96


def figures(out: Path) -> Iterator[tuple[str, go.Figure]]:
    """Name and figure, from the cheapest run on."""
    mllm = interp.load("organism")
    sample = interp.data.bundled("natural")[6]
    relative = Attention(relative_to=interp.GENERIC_PROMPT)
    maps = relative(mllm, [sample])
    ratio = interp.metrics.attention_ratio(maps[0].values, maps.tokens[0].mask(sample.boxes))
    yield (
        "maps_by_layer",
        show_maps(sample, maps[0], maps.tokens[0], columns=3, scores={"AR": ratio}, title=sample.question),
    )
    yield "indicators", _side_by_side(mllm, sample)
    test = interp.data.bundled("natural", split="test", n=64)
    validation = interp.data.bundled("natural", split="validation", n=32)
    sweep = interp.LayerSweep(model=mllm, data=validation, metrics=("ar",))
    choice = interp.choose_layer(sweep.run(out, progress=False))
    yield "layer_sweep", sweep.replace(data=test).run(out, progress=False).figures(choice)["ar"]
    ranked = interp.HeadRanking(model=mllm, data=validation, metric="ar").run(out, progress=False)
    yield "heads", ranked.figures(k=6)["heads"]
    flow = interp.KnockoutSweep(model=mllm, data=test[:32], by="layer").run(out, progress=False)
    yield "information_flow", flow.figures()["flow"]


def _side_by_side(mllm: interp.Mllm, sample: interp.Sample) -> go.Figure:
    """Four indicators on one sample, each by its own largest value."""
    import numpy as np
    import xarray as xr

    chosen = {
        "attention, layer 1": Attention(layers=[1]),
        "attention × gradient, layer 1": AttentionGradient(layers=[1]),
        "pixel gradient": InputGradient(of="pixels"),
        "token knockout": TokenKnockout(),
    }
    found = {name: one(mllm, [sample]) for name, one in chosen.items()}
    flat = [np.ravel(one[0].values) / np.abs(one[0].values).max() for one in found.values()]
    tokens = next(iter(found.values())).tokens[0]
    stacked = xr.DataArray(np.stack(flat), dims=["indicator", "token"], coords={"indicator": list(found)})
    return show_maps(sample, stacked, tokens, columns=4, title=f"{sample.question} Four indicators")


def pages(out: Path) -> Mapping[str, Path]:
    """Name and file of the HTML pages: a sweep's report, and the check of the bundled medical data."""
    both = {name: interp.data.bundled(name, split="test", n=48) for name in ("natural", "medical")}
    grid = interp.Grid(interp.LayerSweep(model="organism", data=both["natural"]), data=both)
    report = grid.run(out, progress=False).report(out / "report.html")
    medical = interp.data.bundled("medical", split="test")
    checked = write(out / "check.html", medical, inspect(medical), source="medical", reader="bundled", seed=0)
    return {"report": report, "data_check": Path(checked)}


def save(shot: bytes, path: Path) -> None:
    """Writes a screenshot in few colours, at most `WIDE` pixels wide."""
    image = Image.open(BytesIO(shot)).convert("RGB")
    if image.width > WIDE:
        image = image.resize((WIDE, round(image.height * WIDE / image.width)), Image.Resampling.LANCZOS)
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    """Makes all pictures anew."""
    INTO.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp())
    drawn = [(name, figure.to_html(include_plotlyjs=True)) for name, figure in figures(folder)]
    shown = pages(folder)
    with sync_playwright() as playwright:
        browser: Any = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        tab = browser.new_page(viewport={"width": WIDE, "height": 640})
        for name, html in drawn:
            (folder / f"{name}.html").write_text(html, "utf-8")
            tab.goto((folder / f"{name}.html").as_uri())
            tab.wait_for_selector(".main-svg")
            save(tab.locator(".plot-container").first.screenshot(), INTO / f"{name}.png")
        for name, page in shown.items():
            for width in (1280, 390):
                tab.set_viewport_size({"width": width, "height": 900})
                tab.goto(page.as_uri())
                tab.wait_for_timeout(1500)
                save(tab.screenshot(), INTO / f"{name}_{width}.png")
        browser.close()
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
