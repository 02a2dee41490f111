"""Published heads belong to a checkpoint, not to a folder of its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from interp.study import ModelSpec
from interp.study.head_ranking.head_set import CHECKPOINTS, published_checkpoint

HUB = "FreedomIntelligence/HuatuoGPT-Vision-7B"


@pytest.mark.parametrize("hub_id", CHECKPOINTS)
def test_the_hub_id_is_the_checkpoint(hub_id: str) -> None:
    assert published_checkpoint(ModelSpec(hub_id)) == hub_id
    assert published_checkpoint(ModelSpec(hub_id, revision="main", dtype="bfloat16")) == hub_id


@pytest.mark.parametrize(
    "spec",
    [
        ModelSpec("someone/HuatuoGPT-Vision-7B"),
        ModelSpec(HUB + "-Qwen2.5VL"),
        ModelSpec(HUB, lora="adapters/radiology"),
        ModelSpec(HUB, vision_tower="another/tower"),
        ModelSpec("organism"),
    ],
)
def test_others_are_not(spec: ModelSpec) -> None:
    assert published_checkpoint(spec) is None


def test_a_folder_of_its_name_is_not_known_to_be_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / HUB
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(f"---\nbase_model: {HUB}\n---\nA fine-tuned copy of `{HUB}`.")
    assert published_checkpoint(ModelSpec(str(folder))) is None
    monkeypatch.chdir(tmp_path)
    assert published_checkpoint(ModelSpec(HUB)) is None  # a local folder, whatever the id looks like


def test_a_snapshot_of_the_cache_and_a_converted_copy_are(tmp_path: Path) -> None:
    snapshot = tmp_path / f"models--{HUB.replace('/', '--')}-hf" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    assert published_checkpoint(ModelSpec(str(snapshot))) == f"{HUB}-hf"
    other = tmp_path / "models--someone--HuatuoGPT-Vision-7B" / "snapshots" / "0123"
    other.mkdir(parents=True)
    assert published_checkpoint(ModelSpec(str(other))) is None
    copy = tmp_path / "my-copy"
    copy.mkdir()
    card = "# HuatuoGPT\n\nConverted from `{}` (LLaVA layout) by interp 0.1.0 for transformers 5.23."
    (copy / "README.md").write_text(card.format(HUB))
    assert published_checkpoint(ModelSpec(str(copy))) == HUB
    (copy / "README.md").write_text(card.format("HuatuoGPT-Vision-7B"))  # of a folder, which proves nothing
    assert published_checkpoint(ModelSpec(str(copy))) is None
