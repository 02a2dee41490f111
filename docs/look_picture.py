"""Draws docs/look.png and docs/look_390.png, the page of the README's first look: python docs/look_picture.py."""

from __future__ import annotations

import shutil
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

import interp

DOCS = Path(__file__).parent
SIZES = {"look": (1280, 1010), "look_390": (390, 844)}


def main() -> None:
    """Writes both pictures beside this file."""
    sample = interp.data.bundled("natural")[6]
    look = interp.load("organism").look(sample)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = look.save(Path(folder) / "look.html")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (width, height) in SIZES.items():
            tab = browser.new_page(viewport={"width": width, "height": height})
            tab.goto(page.as_uri())
            shot = Image.open(BytesIO(tab.screenshot())).convert("RGB")
            size = (round(0.7 * shot.width), round(0.7 * shot.height)) if width > 1000 else shot.size
            shot.resize(size, Image.Resampling.LANCZOS).quantize(256, method=Image.Quantize.MAXCOVERAGE).save(
                DOCS / f"{name}.png", optimize=True
            )
            tab.close()
        browser.close()


if __name__ == "__main__":
    main()
