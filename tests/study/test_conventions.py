"""The paper's way and ours: what `--paper` sets, what it chooses on, and how many pixels Qwen models get."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from interp.conformance.tiny import tiny
from interp.data import named
from interp.errors import DataError, StudyError
from interp.inputs.sample import Sample
from interp.paper_options import PaperChoice
from interp.study import PAPER_PIXELS, ModelSpec, paper_model
from interp.study.conventions import OURS, PAPER, Conventions, conventions, held_out_sets
from interp.study.model_spec import model_label


def test_what_is_given_wins_over_both_ways() -> None:
    assert conventions() == OURS == Conventions(("ar", "kl_gain", "js"), "ar", "touch", "code")
    assert PAPER.metrics == ("ar", "kl", "js")
    assert dict(PAPER_PIXELS) == {"max_pixels": 50176, "min_pixels": 784}
    assert conventions(True) == PAPER
    assert (PAPER.choose_by, PAPER.rule, PAPER.variant) == ("kl", "stretch", "paper")
    mixed = conventions(True, metrics=(), rule="touch", choose_by="", variant="code")
    assert (mixed.metrics, mixed.rule, mixed.choose_by, mixed.variant) == (
        PAPER.metrics,
        "touch",
        "kl",
        "code",
    )
    assert mixed.measured == (
        "ar",
        "kl",
        "js",
        "kl_gain",
    )  # the gain says whether a layer beats a uniform map


def folder_of(tmp_path: Path, name: str, kind: str) -> str:
    (tmp_path / name).mkdir()
    (tmp_path / name / "config.json").write_text(json.dumps({"model_type": kind}))
    return str(tmp_path / name)


def test_models_in_qwens_layout_get_the_official_limits(tmp_path: Path) -> None:
    lingshu, llava = folder_of(tmp_path, "Lingshu-7B", "qwen2_5_vl"), folder_of(tmp_path, "llava", "llava")
    assert paper_model(ModelSpec(lingshu)).processor == dict(PAPER_PIXELS)
    for kind in ("qwen2_vl", "qwen3_vl", "qwen3_vl_moe"):
        assert paper_model(ModelSpec(folder_of(tmp_path, kind, kind))).processor == dict(PAPER_PIXELS)
    assert paper_model(ModelSpec(lingshu), False) == ModelSpec(lingshu)
    own = ModelSpec(lingshu, processor={"max_pixels": 12544})
    assert paper_model(own) == own
    assert paper_model(ModelSpec(llava)) == ModelSpec(llava)
    assert paper_model(ModelSpec("organism")) == ModelSpec("organism")
    assert ModelSpec(lingshu, processor=PAPER_PIXELS) == paper_model(ModelSpec(lingshu))


def test_the_limits_give_the_grid_of_the_resizing_rule(tmp_path: Path) -> None:
    model, processor = tiny("qwen2_5_vl")
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    tokens = _encoded(paper_model(ModelSpec(str(tmp_path))), 640, 480)
    images: Any = processor.image_processor
    cell = images.patch_size * images.merge_size
    shrunk = math.sqrt(
        640 * 480 / 50176
    )  # more pixels than allowed: both sides over this, down to whole cells
    assert tuple(tokens.grid) == (math.floor(480 / shrunk / cell), math.floor(640 / shrunk / cell))
    assert tokens.n * cell**2 <= 50176
    small = _encoded(ModelSpec(str(tmp_path), processor=PAPER_PIXELS), 4 * cell, 3 * cell)
    assert tuple(small.grid) == (3, 4)  # within the limits nothing changes


def test_a_model_runs_at_every_size_that_is_asked() -> None:
    """Appendix K compares sizes of images; labels tell them apart."""
    sizes = PaperChoice(pixels=(50176, 200704)).models(["a", "b"], device="cuda")
    assert [(one.id, one.processor["max_pixels"]) for one in sizes if isinstance(one.processor, dict)] == [
        ("a", 50176), ("a", 200704), ("b", 50176), ("b", 200704),
    ]  # fmt: skip
    assert model_label(sizes[1]) == "a, max_pixels=200704 min_pixels=784"
    assert PaperChoice().models(["organism"]) == [ModelSpec("organism")]
    assert PaperChoice(pixels=(12544,)).model("a").processor == {"max_pixels": 12544, "min_pixels": 784}
    with pytest.raises(StudyError, match=r"runs one model, so --pixels takes one number; got \(1, 2\)"):
        PaperChoice(pixels=(1, 2)).model("a")


def _encoded(spec: ModelSpec, width: int, height: int) -> Any:
    image = Image.new("RGB", (width, height))
    return spec.load().encode([Sample(image=image, question="is it red ?")]).tokens[0]


def test_heads_are_chosen_on_other_data_for_all(tmp_path: Path) -> None:
    own = held_out_sets(("medical",), n=3)
    assert own["medical"].fingerprint == named("medical", split="validation", n=3).fingerprint
    other = held_out_sets(("medical", "natural"), ("natural",), n=3)
    assert set(other) == {"medical", "natural"}
    expected = named("natural", split="validation", n=3).fingerprint
    assert {samples.fingerprint for samples in other.values()} == {expected}
    both = held_out_sets(("medical",), ("natural", "medical"), n=3)["medical"]
    assert len(both) == 6
    assert both.split == "validation"
    with pytest.raises(DataError, match="has validation samples"):
        held_out_sets(("medical",), (_test_only(tmp_path),), n=3)


def test_the_seed_draws_the_samples_to_choose_on() -> None:
    for data, choose_on in ((("natural",), ()), (("medical",), ("natural",))):
        drawn = [held_out_sets(data, choose_on, n=3, seed=seed)[data[0]] for seed in (0, 1)]
        expected = [named("natural", split="validation", n=3, seed=seed) for seed in (0, 1)]
        assert [one.fingerprint for one in drawn] == [one.fingerprint for one in expected]
        assert drawn[0].fingerprint != drawn[1].fingerprint


def test_the_config_is_that_of_the_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {None: "llava", "abc": "qwen2_5_vl"}
    monkeypatch.setattr(
        "interp.study.conventions.raw_config",
        lambda name, options: {"model_type": kinds[options.get("revision")]},
    )
    assert paper_model(ModelSpec("a/model")).processor is None
    assert paper_model(ModelSpec("a/model", revision="abc")).processor == dict(PAPER_PIXELS)


def _test_only(tmp_path: Path) -> str:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    row = {"image": "a.png", "question": "?", "bbox": [[1, 1, 4, 4]], "split": "test"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    return str(tmp_path / "rows.jsonl")


def test_the_papers_way_needs_data_to_choose_on() -> None:
    stand_in = held_out_sets(("medical",), n=3, paper_model=ModelSpec("organism"))["medical"]
    assert stand_in.fingerprint == named("natural", split="validation", n=3).fingerprint
    published = ModelSpec("FreedomIntelligence/HuatuoGPT-Vision-7B-hf")
    assert held_out_sets(("medical",), n=3, paper_model=published)["medical"].name == "medical"
    with pytest.raises(
        StudyError, match=r"chooses heads and layer on COCO.*a/model.*--choose-on COCO_FOLDER"
    ):
        held_out_sets(("medical",), n=3, paper_model=ModelSpec("a/model"))
