from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from interp.errors import RunError
from interp.run import Workers, run_task
from interp.run.prepare import Unit
from interp.run.workers import dispatch
from interp.run.workers.dispatch import Processes, dispatched
from interp.run.workers.worker import Message, about_this_process
from tests.run.fake_task import Roots
from tests.run.run_fingerprints import fingerprints
from tests.run.workers.placed_task import Placed
from tests.run.workers.simulated_pool import SimulatedPool

UNITS = [Unit(0, (0,), shard) for shard in range(5)] + [Unit(1, (0,), shard) for shard in range(3)]


def run(pool: SimulatedPool, n: int = 2, said: list[str] | None = None) -> list[Unit]:
    lines = [] if said is None else said
    found = dispatched(
        pool, UNITS, n, say=lines.append, describe=lambda unit: f"shard {unit.shard} (ids a, b)"
    )
    return [unit for unit, _ in found]


def test_each_unit_is_computed_once_with_one_in_flight_a_worker() -> None:
    pool = SimulatedPool()
    assert run(pool, 3) == UNITS
    assert [unit for _, unit in pool.sent] == UNITS
    assert {worker for worker, _ in pool.sent} == {0, 1, 2}
    assert pool.most_in_flight == 3
    assert pool.closed == [False]


def test_a_dead_workers_unit_follows_the_rest_of_its_group() -> None:
    lost = UNITS[1]
    pool = SimulatedPool(lambda worker, slot, unit: "died" if (unit, worker) == (lost, 1) else "done")
    said: list[str] = []
    assert sorted(run(pool, 2, said), key=UNITS.index) == UNITS
    order = [unit for _, unit in pool.sent]
    assert order == [*UNITS[:5], lost, *UNITS[5:]]
    assert max(pool.slots) == 2  # one worker was replaced
    assert said == ["a worker died (it was killed by SIGKILL); its shard goes to another worker."]


def test_an_idle_worker_takes_over_without_a_new_one() -> None:
    last = UNITS[-1]
    pool = SimulatedPool(lambda worker, slot, unit: "died" if (unit, worker) == (last, 1) else "done")
    assert set(run(pool)) == set(UNITS)
    assert max(pool.slots) == 1


def test_a_unit_that_kills_three_workers_ends_the_run() -> None:
    deadly = UNITS[2]
    pool = SimulatedPool(lambda worker, slot, unit: "died" if unit == deadly else "done")
    done: list[Unit] = []
    found = dispatched(
        pool, UNITS, 2, say=lambda _: None, describe=lambda unit: f"shard {unit.shard} (ids a, b)"
    )
    with pytest.raises(
        RunError, match=r"compute shard 2 \(ids a, b\), but 3 workers died.*killed by SIGKILL"
    ):
        done.extend(unit for unit, _ in found)
    assert [unit for _, unit in pool.sent].count(deadly) == 3
    assert set(UNITS[:5]) - {deadly} <= {unit for _, unit in pool.sent}
    assert pool.closed == [False]


def test_a_slot_whose_workers_always_die_is_given_up() -> None:
    pool = SimulatedPool(lambda worker, slot, unit: "died" if slot == 1 else "done")
    said: list[str] = []
    assert set(run(pool, 2, said)) == set(UNITS)
    assert list(pool.slots.values()).count(1) == 2
    assert said[-1] == "a worker died again (it was killed by SIGKILL); the run goes on without it."


def test_who_finished_a_unit_before_it_died_is_replaced() -> None:
    given, said = Counter[int](), list[str]()

    def fate(worker: int, slot: int, unit: Unit) -> str:
        given[worker] += 1
        return "died" if slot == 1 and given[worker] == 2 else "done"

    pool = SimulatedPool(fate)
    assert set(run(pool, 2, said)) == set(UNITS)
    assert len(said) >= 2
    assert not any("again" in line for line in said)  # each of them did something


def test_the_last_worker_is_replaced_until_its_unit_is_done() -> None:
    pool = SimulatedPool(lambda worker, slot, unit: "died" if worker < 2 else "done")
    assert set(run(pool, 1)) == set(UNITS)
    assert set(pool.slots) == {0, 1, 2}


def test_workers_that_never_start_end_the_run() -> None:
    pool = SimulatedPool(starts=lambda worker, slot: False)
    with pytest.raises(RunError, match=r"expected workers to start, but 3 in a row.*__main__"):
        run(pool)
    assert pool.sent == []
    alone = SimulatedPool(starts=lambda worker, slot: False)
    with pytest.raises(RunError, match="3 in a row"):
        run(alone, 1)
    assert len(alone.slots) == 3


def test_a_worker_that_starts_begins_the_count_anew() -> None:
    pool = SimulatedPool(
        lambda worker, slot, unit: "died" if worker == 2 else "done",
        starts=lambda worker, slot: worker not in (0, 1, 3, 4),
    )
    assert set(run(pool, 1)) == set(UNITS)
    assert set(pool.slots) == set(range(6))


def test_failing_starts_do_not_matter_while_others_work() -> None:
    pool = SimulatedPool(starts=lambda worker, slot: slot == 0)
    assert set(run(pool, 4)) == set(UNITS)


def test_an_error_lets_the_units_in_flight_finish() -> None:
    pool = SimulatedPool(lambda worker, slot, unit: "failed" if unit == UNITS[2] else "done")
    done: list[Unit] = []
    with pytest.raises(ValueError, match="a bug in 2") as caught:
        done.extend(unit for unit, _ in dispatched(pool, UNITS, 2, say=print, describe=str))
    assert done == [UNITS[0], UNITS[1], UNITS[3]]
    assert [unit for _, unit in pool.sent] == UNITS[:4]
    assert "Traceback of the worker" in str(caught.value.__cause__)
    assert pool.closed == [False]


@pytest.mark.parametrize("name", ["torch", "interp's code"])
def test_a_worker_of_another_version_is_refused(name: str) -> None:
    pool = SimulatedPool(versions={**about_this_process(), name: "other"})
    with pytest.raises(RunError, match=rf"have the versions of this process.*one has {name} other and not"):
        run(pool)
    assert pool.sent == []


def test_a_library_that_a_worker_lacks_is_named() -> None:
    own = {name: version for name, version in about_this_process().items() if name != "torch"}
    pool = SimulatedPool(versions=own)
    with pytest.raises(RunError, match="one has torch none and not"):
        run(pool)


def test_a_run_that_is_given_up_kills_its_workers() -> None:
    pool = SimulatedPool()
    found: Any = dispatched(pool, UNITS, 2, say=print, describe=str)
    next(found)
    found.close()
    assert pool.closed == [True]


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


@pytest.mark.parametrize(("n", "n_started"), [(1, 1), (8, 8), (20, 8)])
def test_no_more_workers_start_than_there_are_units(
    monkeypatch: pytest.MonkeyPatch, n: int, n_started: int
) -> None:
    pool = SimulatedPool()
    monkeypatch.setattr(dispatch, "Processes", lambda *_: pool)
    found = dispatch.compute_units([b""], UNITS, Workers(n), say=print, describe=str)
    assert [unit for unit, _ in found] == UNITS
    assert len(pool.slots) == n_started


class StandInProcess:
    """A process that never runs, and so has closed its pipe."""

    exitcode: int | None = 0
    lives = False
    made: list[StandInProcess] = []  # noqa: RUF012

    def __init__(self, *, target: Any, args: tuple[Any, ...], name: str) -> None:
        self.args, self.waited, self.killed = args, list[float | None](), False
        self.made.append(self)

    def start(self) -> None:
        pass

    def join(self, timeout: float | None = None) -> None:
        self.waited.append(timeout)

    def is_alive(self) -> bool:
        return self.lives and not self.killed

    def kill(self) -> None:
        self.killed = True


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[StandInProcess]:
    """The processes that a pool would have started."""
    context = SimpleNamespace(Pipe=multiprocessing.Pipe, Process=StandInProcess)
    monkeypatch.setattr(multiprocessing, "get_context", lambda kind: context)
    monkeypatch.setattr(StandInProcess, "made", [])
    return StandInProcess.made


def test_processes_take_devices_by_their_slot(processes: list[StandInProcess]) -> None:
    pool = Processes([b"jobs"], Workers(3, devices=("fake:0", "fake:1")), 5)
    for worker, slot in enumerate((0, 1, 2, 1)):  # the last one replaces a worker
        pool.start(worker, slot)
    assert [one.args[3] for one in StandInProcess.made] == ["fake:0", "fake:1", "fake:0", "fake:1"]
    assert {(one.args[1][0], one.args[2]) for one in StandInProcess.made} == {(b"jobs", 5)}
    pool.close(kill=True)
    Processes([], Workers(2), None).start(0, 0)
    assert StandInProcess.made[-1].args[2:] == (None, None)


@pytest.mark.parametrize(
    ("code", "reason"),
    [(None, "it closed its pipe"), (-9, "it was killed by SIGKILL"), (3, "it ended with exit code 3")],
)
def test_what_ended_a_process_is_told(
    processes: list[StandInProcess], monkeypatch: pytest.MonkeyPatch, code: int | None, reason: str
) -> None:
    monkeypatch.setattr(StandInProcess, "exitcode", code)
    pool = Processes([], Workers(2), None)
    pool.start(4, 0)
    pool.send(4, UNITS[0])  # it is gone already
    assert pool.wait() == [Message(4, "died", reason)]
    pool.close(kill=False)


def test_an_idle_process_is_asked_to_end(
    processes: list[StandInProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Connection] = []

    def listen(self: StandInProcess) -> None:
        heard.append(Connection(os.dup(self.args[0].fileno())))

    monkeypatch.setattr(StandInProcess, "start", listen)
    pool = Processes([], Workers(2), None)
    for worker in (0, 1):
        pool.start(worker, worker)
    pool.send(1, UNITS[3])
    pool.close(kill=False)
    assert heard[0].recv() is None
    assert (heard[1].recv(), heard[1].recv()) == (UNITS[3], None)
    for end in heard:
        end.close()


@pytest.mark.parametrize(("kill", "waited"), [(False, 5.0), (True, 0)])
def test_a_process_that_does_not_end_is_killed(
    processes: list[StandInProcess], monkeypatch: pytest.MonkeyPatch, kill: bool, waited: float
) -> None:
    pool = Processes([], Workers(2), None)
    for worker in (0, 1):
        pool.start(worker, worker)
    monkeypatch.setattr(StandInProcess.made[1], "lives", True)
    pool.close(kill=kill)
    assert [one.killed for one in StandInProcess.made] == [False, True]
    assert [one.waited for one in StandInProcess.made] == [[waited], [waited, None]]
