from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import interp
from interp.conformance.tiny import tiny
from interp.data.scenes import Scene
from interp.inputs.images import LazyImage


def test_a_sweep_keeps_no_drawn_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[weakref.ref[np.ndarray]] = []
    alive: list[int] = []
    render = Scene.render

    def counting(scene: Scene) -> np.ndarray:
        alive.append(sum(one() is not None for one in drawn))
        pixels = render(scene)
        drawn.append(weakref.ref(pixels))
        return pixels

    monkeypatch.setattr(Scene, "render", counting)
    mllm = interp.wrap(*tiny("llava"))
    interp.LayerSweep(model=mllm, data=interp.data.bundled("natural", n=16), batch=2).run(
        tmp_path, progress=False
    )
    assert len(drawn) >= 32  # for the fingerprint and for the model
    assert max(alive) <= 2


def test_only_the_latest_images_stay_processed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mllm = interp.wrap(*tiny("llava"))
    kept = mllm.installation.processed
    sizes, keep = [], kept.keep

    def counting(key: object, single: object) -> None:
        keep(key, single)  # type: ignore[arg-type]
        sizes.append(len(kept._kept))

    monkeypatch.setattr(kept, "keep", counting)
    interp.LayerSweep(model=mllm, data=interp.data.bundled("natural", n=16), batch=2).run(
        tmp_path, progress=False
    )
    assert len(sizes) == 16
    assert max(sizes) <= 6  # two micro-batches before, and the one being encoded


def test_a_drawn_image_is_read_as_an_array() -> None:
    scene = interp.data.bundled("natural", n=1)[0]
    pixels = np.asarray(scene.image)
    assert isinstance(scene.image, LazyImage)
    assert pixels.shape == (192, 192, 3)
    np.testing.assert_array_equal(np.asarray(Image.fromarray(scene.image)), pixels)  # type: ignore[arg-type]
    np.testing.assert_array_equal(np.asarray(scene.load()), pixels)
    assert interp.Sample(pixels, scene.question).image_fingerprints == scene.image_fingerprints
