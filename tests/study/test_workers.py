from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import interp
from interp.errors import RunError
from interp.run import Portable, Workers, digest
from interp.study import Grid, LayerSweep, ModelSpec
from interp.study.task import check_files, file_keys
from tests.run.run_fingerprints import fingerprints


def samples(folder: Path, n: int = 12) -> interp.data.Samples:
    """Samples whose images are files, two questions on each."""
    found = []
    for index, sample in enumerate(interp.data.bundled("natural", n=n)):
        path = folder / f"{index // 2}.png"
        if not path.exists():
            sample.load().save(path)
        found.append(sample.replace(image=str(path)))
    return interp.data.Samples(found, "files")


def test_a_task_of_another_device_number_is_the_same_study(tmp_path: Path) -> None:
    study = LayerSweep(data=samples(tmp_path, 2), metrics=("ar",))
    task: Any = study.task(study.model.load())  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(task, Portable)
    assert task.device == "cpu"
    moved = pickle.loads(pickle.dumps(task))
    moved.move("cpu:0")
    assert moved.device == "cpu:0"  # torch itself calls it "cpu" once the model is there
    assert digest(moved.to_dict()) == digest(task.to_dict())
    moved.check_unchanged()


def test_an_image_file_must_be_the_one_that_was_planned(tmp_path: Path) -> None:
    path, lost = tmp_path / "a.png", tmp_path / "lost.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    sample, absent = interp.Sample(path, "where?", id="one"), interp.Sample(lost, "where?", id="two")
    key, none = file_keys(sample), file_keys(absent)
    check_files(sample, key)
    check_files(absent, none)  # unreadable there and here: a failure in any process
    path.rename(lost)
    for changed, known in ((sample, key), (absent, none)):
        with pytest.raises(
            RunError, match=rf"files of sample {changed.id} on .* is missing, unreadable or different"
        ):
            check_files(changed, known)
    Image.fromarray(np.ones((8, 8, 3), np.uint8)).save(path)
    with pytest.raises(RunError, match=rf"{path}\. Put the files under the same paths"):
        check_files(sample, key)


def test_a_mask_file_must_be_the_one_that_was_planned(tmp_path: Path) -> None:
    path, pixels = tmp_path / "mask.png", np.zeros((8, 8), np.uint8)
    pixels[2:4, 2:4] = 255
    Image.fromarray(pixels).save(path)
    sample = interp.Sample(np.zeros((8, 8, 3), np.uint8), "where?", masks=[path], id="one")
    keys = file_keys(sample)
    check_files(sample, keys)
    Image.fromarray(255 - pixels).save(path)
    with pytest.raises(RunError, match=r"files of sample one .*mask\.png"):
        check_files(sample, keys)


@pytest.mark.slow
@pytest.mark.parametrize(
    "workers", [Workers(devices=("cpu", "cpu:0")), Workers(2, address="local")], ids=["here", "ray"]
)
def test_a_grid_over_two_workers_has_the_bytes_of_one_process(tmp_path: Path, workers: Workers) -> None:
    if workers.address:
        pytest.importorskip("ray")
    data = samples(tmp_path)
    models = {"one": ModelSpec("organism"), "other": ModelSpec("organism-1")}
    grid = Grid(LayerSweep(data=data, batch=1), model=models)
    grid.run(tmp_path / "two", workers=workers, progress=False)
    grid.run(tmp_path / "one", progress=False)
    assert fingerprints(tmp_path / "two") == fingerprints(tmp_path / "one")


@pytest.mark.slow
def test_a_file_that_changed_meanwhile_ends_a_run_on_ray(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    study = LayerSweep(data=samples(tmp_path), batch=1)
    _ = study.data.fingerprint
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "3.png")
    with pytest.raises(RunError, match=r"files of sample .* different there: .*3\.png"):
        study.run(tmp_path / "out", workers=2, address="local", progress=False)
