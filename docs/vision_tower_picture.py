"""Draws docs/vision_tower.png, where patches look in the organism's tower: `python docs/vision_tower_picture.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import interp

SIDE, GAP = 288, 12


def heat(values: np.ndarray) -> Image.Image:
    """White to dark red, the largest value darkest."""
    share = np.nan_to_num(values / np.nanmax(values))[..., None]
    colour = np.array([255.0, 255, 255]) * (1 - share) + np.array([120.0, 0, 20]) * share
    return Image.fromarray(colour.astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.NEAREST)


def main() -> None:
    """Writes the picture: the image, and the mean rows of patches inside and outside its box, layer 1."""
    mllm = interp.load("organism")
    sample = interp.data.bundled("natural", n=1)[0]
    inside = mllm.encode(sample).patches[0].mask(sample.boxes)
    panels = [(Image.fromarray(np.asarray(sample.load(0).convert("RGB"))).resize((SIDE, SIDE)), "the image")]
    for name, chosen in (("inside the box", inside), ("outside", ~inside)):
        site = interp.Site(tower="vision", layers=[1], queries=interp.image_mask(chosen), keys="patches")
        one = mllm.trace(sample, reads=[interp.Rows(site, reduce="head")])[0]
        panels.append(
            (heat(one.patches.to_pixels(one.rows.mean("query")[0].values)), f"rows of patches {name}")
        )
    page = Image.new("RGB", (len(panels) * (SIDE + GAP) + GAP, SIDE + 2 * GAP + 20), "white")
    draw, scale = ImageDraw.Draw(page), SIDE / sample.sizes[0][0]
    for i, (panel, title) in enumerate(panels):
        x = GAP + i * (SIDE + GAP)
        page.paste(panel, (x, GAP + 20))
        draw.text((x, GAP), title, fill="black")
        for box in sample.boxes:
            x0, y0, x1, y1 = (edge * scale for edge in box.as_tuple()[:4])
            draw.rectangle((x + x0, GAP + 20 + y0, x + x1, GAP + 20 + y1), outline="blue", width=2)
    page.save(Path(__file__).parent / "vision_tower.png", optimize=True)


if __name__ == "__main__":
    main()
