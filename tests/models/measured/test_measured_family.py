"""A measured model against the adapters: the same positions, order and places, on tiny random towers."""

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import interp
from benchmarks.measured_footprints import SIZES, measured_rows
from interp.conformance import check
from interp.conformance.tiny import families, tiny
from interp.errors import ModelError
from interp.inputs.footprints import squash
from interp.models.adapter import find
from interp.models.measured import Measured, measured_family, measurement
from interp.models.measured.behaviour import Behaviour
from interp.models.measured.consistency import overlap
from interp.models.measured.lattice import Lattice
from interp.models.measured.measured_views import View
from interp.tracing import Mllm

REFUSED = {
    *(("deepseek_vl_hybrid", size) for size in SIZES),
    ("llama4", (320, 180)),
    ("llama4", (150, 290)),
    ("fast_vlm", (320, 180)),
    ("got_ocr2", (256, 256)),
    ("llava_onevision", (256, 256)),
    *(("organism", size) for size in SIZES[2:]),
    *(("shortcut-organism", size) for size in SIZES[1:]),
}
"""A token of DeepSeek-VL's hybrid joins two towers, of which the second sees an area shifted against the first's. Most
tokens of two of Llama 4's tiles see only padding, and the others a strip of three pixels. FastVLM's convolutions show
padding what is beside it, and a grid of that is found. Two placements of GOT-OCR's cells, which reach over their
neighbours', of OneVision's, which bilinear interpolation mixes, and of the organisms' disagree."""


def both(family: str) -> tuple[Mllm, Mllm]:
    """The model by its adapter and by measurement."""
    return interp.wrap(*tiny(family), family), interp.wrap(*tiny(family), "measured")


def sample(*sizes: tuple[int, int]) -> interp.Sample:
    return interp.Sample(images=[np.full((h, w, 3), 90, np.uint8) for w, h in sizes], question="where is it?")


def agrees(known: Mllm, found: Mllm, *sizes: tuple[int, int]) -> float:
    """The median overlap of footprints; positions must be the same, tokens without area the same."""
    true, measured = (m.encode(sample(*sizes)).tokens[0] for m in (known, found))
    np.testing.assert_array_equal(measured.image, true.image)
    np.testing.assert_array_equal(measured.image_index, true.image_index)
    area = ~np.isnan(true.footprints[:, 0])
    np.testing.assert_array_equal(~np.isnan(measured.footprints[:, 0]), area)
    shared = overlap(true.footprints[area], measured.footprints[area])
    centres = [(b[area][:, :2] + b[area][:, 2:]) / 2 for b in (true.footprints, measured.footprints)]
    cell = np.maximum(*((b[area][:, 2:] - b[area][:, :2]) for b in (true.footprints, measured.footprints)))
    assert (
        np.abs(centres[0] - centres[1]) < 0.75 * cell
    ).all()  # the right order: each token at its own place
    return float(np.median(shared))


@pytest.mark.parametrize(("family", "size"), [("llava", (320, 180)), ("vila", (150, 290))])
def test_a_measured_map_is_the_adapters(family: str, size: tuple[int, int]) -> None:
    known, found = both(family)
    assert agrees(known, found, size) > 0.85
    assert found.family == "measured"
    assert found.adapter.describe().startswith("footprints were measured at 1 image size,")  # type: ignore[attr-defined]


def test_tokens_that_join_two_towers_are_refused() -> None:
    """Each by itself would pass: confident, in one grid, in the right order, but 0.2 to 0.4 of a cell off."""
    mllm = interp.wrap(*tiny("deepseek_vl_hybrid"), "measured")
    with pytest.raises(
        ModelError, match=r"sees 1[2-9]% more on one side .*\(less than 12% .* join two towers"
    ):
        mllm.encode(sample((256, 256)))


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("family", [*families("self"), "organism", "shortcut-organism"])
def test_every_family_is_measured_right_or_refused(family: str, size: tuple[int, int]) -> None:
    (row,) = measured_rows(family, size)
    assert row.verdict.split()[0] == ("refused" if (family, size) in REFUSED else "right"), row


@pytest.mark.slow
def test_latents_without_a_place_are_refused() -> None:
    """Idefics2's resampler: every image token looks at the whole image."""
    mllm = interp.wrap(*tiny("idefics2"), "measured")
    with pytest.raises(ModelError, match="could not be measured reliably"):
        mllm.encode(sample((256, 256)))


@pytest.mark.parametrize(
    ("family", "attends", "first"), [("gemma3", "image_blocks", 0), ("paligemma", "prefix", 1)]
)
def test_attention_and_positions_are_observed(family: str, attends: str, first: int) -> None:
    adapter = interp.wrap(*tiny(family), "measured").adapter
    assert (adapter.attends, adapter.first_position) == (attends, first)  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llava", "paligemma", "internvl", "qwen2_5_vl"])
def test_a_measured_model_passes_every_check(family: str) -> None:
    result = check(interp.wrap(*tiny(family), "measured"))
    assert result.passed, result.failures


@pytest.mark.slow
def test_images_processed_together_are_measured_together() -> None:
    known, found = both("llava_onevision")
    assert agrees(known, found, (96, 96), (120, 80)) > 0.7


def cells_of(size: tuple[int, int], n: int, positions: list[int]) -> measurement.Measurement:
    """A measurement of n tokens side by side, which is sure."""
    laid = squash(size, (1, n))
    lattice = Lattice(0, n, n, "rows", np.zeros(2), np.array([size[0] / n, size[1]]), np.zeros(n))
    view = View(np.arange(n), lattice.places, lattice.origin, lattice.pitch, (lattice,))
    return measurement.Measurement(size, np.array(positions), laid, np.ones(n), laid.boxes, (view,), 0.0, 1)


@pytest.mark.parametrize("together", [False, True])
def test_images_of_two_sizes_are_measured_as_they_are_processed(
    monkeypatch: pytest.MonkeyPatch, unchecked: None, together: bool
) -> None:
    """A wide image has three tokens and a high one two by themselves; shown together each has one, and a newline."""
    wide, high = (60, 20), (10, 40)
    asked: list[Any] = []

    def measured(_: Any, sizes: tuple[tuple[int, int], ...], i: int) -> measurement.Measurement:
        asked.append((sizes, i))
        if len(sizes) == 2:
            return cells_of(sizes[i], 1, [1 + 2 * i])
        n = 3 if sizes == (wide,) else 2
        return cells_of(sizes[0], n, list(range(1, 1 + n)))

    def ids(pictures: list[np.ndarray]) -> np.ndarray:
        if len(pictures) == 2:
            assert [one.shape for one in pictures] == [(20, 60, 3), (40, 10, 3)]
            return np.array([0, 5, 0, 5, 5])
        return np.array([0, *[5] * (3 if pictures[0].shape[1] == 60 else 2)])

    monkeypatch.setattr(measured_family, "measure", measured)
    monkeypatch.setattr(measured_family, "_embedder", lambda *_: SimpleNamespace(ids=ids))
    model = SimpleNamespace(config=None)
    adapter = Measured(measured_family._Bound(model, None, None, Behaviour((5,), "causal", 0)))
    prompt = [0, 5, 0, 5, 5] if together else [0, 5, 5, 5, 0, 5, 5]
    found = adapter.footprints([wide, high], {"input_ids": np.array([prompt])}, SimpleNamespace(), None)
    alone = [((wide,), 0), ((high,), 0)]
    assert asked == ([*alone, ((wide, high), 0), ((wide, high), 1)] if together else alone)
    if together:
        assert found.image.tolist() == [0, 1, 1]
        assert found.boxes[:2].tolist() == [[0, 0, 60, 20], [0, 0, 10, 40]]
        assert np.isnan(found.boxes[2]).all()
    else:
        assert found.image.tolist() == [0, 0, 0, 1, 1]
        assert found.boxes[[1, 4]].tolist() == [[20, 0, 40, 20], [5, 0, 10, 40]]
    adapter.footprints([wide, high], {"input_ids": np.array([prompt])}, SimpleNamespace(), None)
    assert len(asked) == (4 if together else 2)  # each size once
    other = SimpleNamespace(image_processor=SimpleNamespace(size=3))
    adapter.footprints([wide], {"input_ids": np.array([[0, 5, 5, 5]])}, other, None)
    assert asked[-1] == ((wide,), 0)  # and once more for another processor
    assert len(asked) == (5 if together else 3)


def test_an_unsure_measurement_is_refused_with_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "LEAST", 1.01)
    mllm = interp.wrap(*tiny("llava"), "measured")
    with pytest.raises(
        ModelError, match=r"could not be measured reliably: \d+% of its 16 tokens are expected to be right"
    ):
        mllm.encode(sample((128, 128)))
    sure = mllm.adapter.measured((128, 128), mllm.processor)  # type: ignore[attr-defined]
    assert sure.n_images == 2 * (2 + 16 + 16)


def test_the_identity_says_that_footprints_are_measured() -> None:
    mllm = interp.wrap(*tiny("llava"), "measured")
    before = mllm.identity["family"]
    assert re.search(r"Measured \(measured v2, image ids \[160\], attends causal\)", before)
    mllm.encode(sample((96, 96)))
    assert mllm.identity["family"] == before  # measuring another size is not another model


def test_an_unbound_adapter_says_how_it_is_used() -> None:
    with pytest.raises(ModelError, match=r'use interp.load\(…, adapter="measured"\)'):
        find(None, "measured").image_positions([1], None)
