from __future__ import annotations

from pathlib import Path

import pytest

from interp.errors import RunError
from interp.run import run_task
from interp.run.workers import dispatch
from tests.run.fake_task import Roots
from tests.run.run_fingerprints import fingerprints
from tests.run.workers.placed_task import Placed


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers need not import torch."""
    monkeypatch.setattr(dispatch, "n_threads", lambda: None)


def test_a_killed_workers_shard_goes_to_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_task(Roots(), tmp_path / "whole", progress=False)
    first = Roots().plan().shards[0][-1][-1]
    log = tmp_path / "log"
    run_task(
        Roots(deadly=(first, str(tmp_path / "died")), log=str(log)),
        tmp_path / "out",
        workers=2,
        label="roots",
    )
    assert (tmp_path / "died").exists()
    assert fingerprints(tmp_path / "out") == fingerprints(tmp_path / "whole")
    said = capsys.readouterr().err.splitlines()
    assert "a worker died (it was killed by SIGKILL); its shard goes to another worker." in said
    assert said[-1].startswith("roots: 30/30 samples")
    assert len(log.read_text().splitlines()) == 15 + 1  # only the lost shard's first batch twice


def test_samples_that_kill_every_worker_are_named(tmp_path: Path) -> None:
    poison = Roots().plan().shards[3][0][0]
    with pytest.raises(
        RunError, match=rf"shard 3 of .*sample-{poison}\b.*3 workers died.*fewer workers"
    ) as caught:
        run_task(Roots(poison=poison), tmp_path / "out", workers=2, progress=False)
    assert "killed by SIGKILL" in str(caught.value)
    (folder,) = (tmp_path / "out").iterdir()
    assert len(list((folder / "shards").glob("*.json"))) == 7  # all the others
    run_task(Roots(), tmp_path / "out", progress=False)
    run_task(Roots(), tmp_path / "whole", progress=False)
    assert fingerprints(tmp_path / "out") == fingerprints(tmp_path / "whole")


def test_local_workers_take_the_devices_in_turn(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    task = Placed(diary=str(diary), pause=0.1)
    run_task(task, tmp_path / "two", devices=["fake:0", "fake:1"], progress=False)
    assert set(diary.read_text().split()) == {"fake:0", "fake:1"}
    run_task(Placed(), tmp_path / "one", progress=False)
    assert fingerprints(tmp_path / "two") == fingerprints(tmp_path / "one")
    with pytest.raises(RunError, match="of the type of the study's model, fake, got other:0"):
        run_task(Placed(), tmp_path / "three", devices=["other:0"], progress=False)
