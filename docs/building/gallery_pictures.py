"""Makes the pictures of docs/gallery.md from real runs of the bundled organism.

    python docs/building/gallery_pictures.py            # all of them
    python docs/building/gallery_pictures.py heads

Figures and pages are photographed in chromium (playwright, extra dev). The runs are made in a folder that is deleted.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from PIL import Image
from playwright.sync_api import sync_playwright

import interp
from interp.data_check import inspect
from interp.data_check.page import write
from interp.indicators import Attention, AttentionGradient, InputGradient, TokenKnockout
from interp.methods import Plain, VGRefine
from interp.report import show_maps

INTO = Path(__file__).parents[1] / "gallery"
WIDE, COLOURS = 960, 200


def maps_by_layer(mllm: interp.Mllm, out: Path) -> go.Figure:
    """One sample's relative attention, layer by layer."""
    sample = interp.data.bundled("natural")[6]
    maps = Attention(relative_to=interp.GENERIC_PROMPT)(mllm, [sample])
    ratio = interp.metrics.attention_ratio(maps[0].values, maps.tokens[0].mask(sample.boxes))
    return show_maps(sample, maps[0], maps.tokens[0], columns=4, scores={"AR": ratio}, title=sample.question)


def indicators(mllm: interp.Mllm, out: Path) -> go.Figure:
    """Four indicators on one sample, each by its own largest value."""
    sample = interp.data.bundled("natural")[6]
    chosen = {
        "attention": Attention(layers=[1]),
        "attention × gradient": AttentionGradient(layers=[1]),
        "pixel gradient": InputGradient(of="pixels"),
        "token knockout": TokenKnockout(),
    }
    found = {name: one(mllm, [sample]) for name, one in chosen.items()}
    flat = [np.ravel(one[0].values) / np.abs(one[0].values).max() for one in found.values()]
    stacked = xr.DataArray(np.stack(flat), dims=["by", "token"], coords={"by": list(found)})
    return show_maps(sample, stacked, found["attention"].tokens[0], columns=5, title=sample.question)


def layer_sweep(mllm: interp.Mllm, out: Path) -> go.Figure:
    """A sweep of test scenes at the layer chosen on validation scenes."""
    sweep = interp.LayerSweep(model=mllm, data=_scenes("validation", 32), metrics=("ar",))
    choice = interp.choose_layer(sweep.run(out, progress=False))
    return sweep.replace(data=_scenes("test", 64)).run(out, progress=False).figures(choice)["ar"]


def heads(mllm: interp.Mllm, out: Path) -> go.Figure:
    """Every head's score."""
    ranking = interp.HeadRanking(model=mllm, data=_scenes("validation", 32), metric="ar")
    return ranking.run(out, progress=False).figures(k=6)["heads"]


def information_flow(mllm: interp.Mllm, out: Path) -> go.Figure:
    """What the answer loses when attention between groups of tokens is blocked."""
    sweep = interp.KnockoutSweep(model=mllm, data=_scenes("test", 32), by="layer")
    return sweep.run(out, progress=False).figures()["flow"]


def _scenes(split: str, n: int) -> interp.data.Samples:
    return interp.data.bundled("natural", split=split, n=n)


FIGURES: dict[str, Callable[[interp.Mllm, Path], go.Figure]] = {
    one.__name__: one for one in (maps_by_layer, indicators, layer_sweep, heads, information_flow)
}


def report(out: Path) -> Path:
    """The report of a sweep over two kinds of images."""
    both = {name: interp.data.bundled(name, split="test", n=48) for name in ("natural", "medical")}
    grid = interp.Grid(interp.LayerSweep(model="organism", data=both["natural"]), data=both)
    return grid.run(out, progress=False).report(out / "report.html")


def data_check(out: Path) -> Path:
    """The check of the bundled medical slices."""
    medical = interp.data.bundled("medical", split="test")
    return Path(
        write(out / "check.html", medical, inspect(medical), source="medical", reader="bundled", seed=0)
    )


def benchmark(out: Path) -> Path:
    """A table of answers before and after a method that hides most of the image, beside a published table."""
    hidden = VGRefine(heads=((0, 1), (3, 1), (4, 5)), layers=tuple(range(6)), percentile=90)
    data = {name: interp.data.bundled(name, split="test", n=48) for name in ("natural", "medical")}
    study = interp.Benchmark(data=data["natural"], max_new_tokens=4)
    grid = interp.Grid(study, data=data, method={"Plain": Plain(), "VGRefine": hidden})
    return grid.run(out, progress=False).report(out / "benchmark.html", beside=["1"])


PAGES: dict[str, Callable[[Path], Path]] = {one.__name__: one for one in (report, benchmark, data_check)}


def save(shot: bytes, path: Path) -> None:
    """Writes a screenshot in few colours, at most `WIDE` pixels wide."""
    image = Image.open(BytesIO(shot)).convert("RGB")
    if image.width > WIDE:
        image = image.resize((WIDE, round(image.height * WIDE / image.width)), Image.Resampling.LANCZOS)
    image.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)


def main(names: Sequence[str]) -> None:
    """Makes the pictures of these names anew, by default all."""
    INTO.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp())
    mllm = interp.load("organism")
    drawn = {name: draw(mllm, folder) for name, draw in FIGURES.items() if name in names or not names}
    shown = {name: make(folder) for name, make in PAGES.items() if name in names or not names}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, figure in drawn.items():
            width = int(figure.layout.width or WIDE)
            tab = browser.new_page(
                viewport={"width": width + 16, "height": int(figure.layout.height or 480) + 16}
            )
            page = folder / f"{name}.html"
            page.write_text(figure.to_html(include_plotlyjs=True), "utf-8")
            tab.goto(page.as_uri())
            tab.wait_for_selector(".main-svg")
            save(tab.screenshot(), INTO / f"{name}.png")
        for name, page in shown.items():
            for width in (1280, 390):
                tab = browser.new_page(viewport={"width": width, "height": 900})
                tab.goto(page.as_uri())
                tab.wait_for_timeout(1500)
                save(tab.screenshot(), INTO / f"{name}_{width}.png")
        browser.close()
    shutil.rmtree(folder)


if __name__ == "__main__":
    main(sys.argv[1:])
