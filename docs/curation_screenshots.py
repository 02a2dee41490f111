"""Makes the pictures of docs/curation.md: pages of bundled samples in a browser, 1280 and 390 pixels wide.

    python docs/curation_screenshots.py        # needs chromium and playwright (extra dev)

The maps are random: they show the page, not a model.
"""

from __future__ import annotations

import shutil
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from PIL import Image
from playwright.sync_api import sync_playwright

from interp.curation import rating_page
from interp.data import Samples, bundled
from interp.indicators import Maps
from interp.inputs.footprints import squash
from interp.inputs.tokens import TokenMap
from interp.reader_study import write_pack
from interp.tracing import Cost

DOCS = Path(__file__).parent
GRID = (12, 12)
RATED = ("4", "5", "4", "n", "5", "4")
COMPARED = ("a", "n", "b")


def main() -> None:
    """Writes the four pictures beside the page."""
    folder = Path(tempfile.mkdtemp())
    samples = bundled("medical", n=8, seed=1)
    pages = {
        "rating": (rating_page(samples, folder / "rate.html"), RATED),
        "reader_study": (pack(samples, folder), COMPARED),
    }
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (page, keys) in pages.items():
            for width, height in ((1280, 860), (390, 844)):
                tab = browser.new_page(viewport={"width": width, "height": height})
                tab.goto(page.as_uri())
                for key in keys:
                    tab.keyboard.press(key)
                save(tab.screenshot(), DOCS / f"{name}_{width}.png")
                tab.close()
        browser.close()
    shutil.rmtree(folder)


def pack(samples: Samples, folder: Path) -> Path:
    """A reader study of random maps, of which one is drawn towards the boxes."""
    rng, drawn = np.random.default_rng(0), {"one": [], "other": []}
    tokens = []
    for sample in samples:
        found = squash(sample.sizes[0], GRID)
        n = len(found)
        tokens.append(TokenMap(np.arange(n), found.boxes, GRID, found.views, found.image, sample.sizes, n))
        noise: Any = rng.random((2, n)) ** 6
        drawn["one"].append(xr.DataArray(noise[0] + 0.8 * tokens[-1].coverage(sample.boxes), dims=["token"]))
        drawn["other"].append(xr.DataArray(noise[1], dims=["token"]))
    maps = {name: Maps(tuple(arrays), tuple(tokens), Cost()) for name, arrays in drawn.items()}
    page, key = folder / "page.html", folder / "key.json"
    return write_pack(samples, maps, page=page, key=key, n_duplicates=2, ties=True, seed=4).page


def save(shot: bytes, path: Path) -> None:
    """Writes a screenshot in 128 colours, large ones at 70 %."""
    image = Image.open(BytesIO(shot)).convert("RGB")
    if image.width > 1000:
        image = image.resize((round(0.7 * image.width), round(0.7 * image.height)), Image.Resampling.LANCZOS)
    image.quantize(128).save(path, optimize=True)


if __name__ == "__main__":
    main()
