"""What each session records about a run: machine and versions, cost, and the micro-batches that were split.

    sessions/<session>/manifest.json             when, where, with which versions
    sessions/<session>/<process>/cost.json       the cost of each shard that this process computed
    sessions/<session>/<process>/manifest.json   the micro-batches it had to split

Each file has one writer, so that no process overwrites another's. `publish` joins the files into the run's own
`manifest.json` and `cost.json`. No stored number depends on any of them: a record that is damaged or of another form
counts as absent.
"""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import platform
import shlex
import subprocess
import sys
import uuid
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from interp.inputs.files import read_json
from interp.run.store import RunFolder

__all__ = [
    "PACKAGES",
    "Ledger",
    "begin_session",
    "code_fingerprint",
    "command",
    "cost_of",
    "git_commit",
    "manifest_of",
    "n_threads",
    "publish",
    "sum_costs",
    "versions",
]

MOST_COST = 1e300
"""A cost above this is no cost: a damaged record."""
PACKAGES = ("interp", "torch", "transformers", "nnsight", "numpy", "pyarrow", "pillow")


@cache
def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that numbers may depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


@cache
def code_fingerprint() -> str:
    """Returns the sha256 of this package's Python files, in hex: two copies of one version may differ by an edit."""
    package = Path(__file__).parents[1]
    hashed = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        hashed.update(f"{file.relative_to(package).as_posix()}\0".encode())
        hashed.update(hashlib.sha256(file.read_bytes()).digest())
    return hashed.hexdigest()


@cache
def git_commit(folder: Path) -> str | None:
    """Returns the git commit of a folder, with "+changes" if files differ from it; None outside a repository.

    The value is read once per process, because the code that runs is the code that was imported.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return None
    return commit + ("+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def n_threads() -> int | None:
    """Returns the number of threads that torch uses; None if torch is not imported."""
    torch = sys.modules.get("torch")
    return None if torch is None else torch.get_num_threads()


def command() -> str | None:
    """Returns the command that started this process, to run it again; None in a notebook or an interactive session."""
    given = sys.orig_argv
    typed = len(given) < 2 or sys.argv[:1] == ["-c"] or any("ipykernel" in word for word in given)
    return None if typed else shlex.join([Path(given[0]).name, *given[1:]])


def begin_session(folder: RunFolder, provenance: Mapping[str, Any], **counts: Any) -> str:
    """Records the start of a session and returns its name; names sort by time.

    Args:
        folder: The run's folder.
        provenance: Information about the run for its readers.
        **counts: The work of the session, such as the number of missing shards.
    """
    now = datetime.datetime.now(datetime.UTC)
    name = f"{now:%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:8]}"
    session = {
        "started": now.isoformat(timespec="seconds"),
        "machine": f"{platform.system()} {platform.machine()}, {n_threads() or 1} threads",
        "versions": versions(),
        "commit": git_commit(Path(__file__).parent),
        "command": command(),
        "shards": counts,
    }
    folder.write_json(f"sessions/{name}/manifest.json", {"provenance": dict(provenance), "session": session})
    publish(folder)
    return name


class Ledger:
    """The record of one process: the shards that it computed in a session."""

    def __init__(self, folder: RunFolder, session: str) -> None:
        self._folder, self._place = folder, f"sessions/{session}/{uuid.uuid4().hex[:8]}"
        self._costs: dict[str, Mapping[str, float]] = {}
        self._splits: list[Mapping[str, Any]] = []

    def add(self, shard: int, cost: Mapping[str, float], splits: Sequence[Mapping[str, Any]]) -> None:
        """Records a shard after it is computed and before it is stored, so that a kill loses no cost."""
        self._costs[str(shard)] = dict(cost)
        self._folder.write_json(f"{self._place}/cost.json", {"shards": self._costs})
        if splits:
            self._splits += [{"shard": shard, **split} for split in splits]
            self._folder.write_json(f"{self._place}/manifest.json", {"splits": self._splits})


def publish(folder: RunFolder) -> None:
    """Joins the sessions' records into `manifest.json` and `cost.json`.

    It reads the records again after writing, so that when several processes end together, the last one to write
    has seen all of them.
    """
    while True:
        before = _accounts(folder)
        for name, value in (("manifest.json", _manifest(folder, before)), ("cost.json", _cost(before))):
            if value and folder.read_json(name, None) != value:
                folder.write_json(name, value)
        if repr(_accounts(folder)) == repr(before):  # NaN is no equal of itself
            return


def manifest_of(folder: RunFolder) -> dict[str, Any]:
    """Returns the content of `manifest.json`; where it is damaged, what the sessions' records say."""
    value = folder.read_json("manifest.json", {})
    sessions = value.get("sessions")
    begun = [{"provenance": value, "session": one} for one in sessions] if isinstance(sessions, list) else []
    return value if begun and all(map(_is_begun, begun)) else _manifest(folder, _accounts(folder))


def cost_of(folder: RunFolder) -> dict[str, float]:
    """Returns the run's total cost; where `cost.json` is damaged, what the sessions' records add up to."""
    value = folder.read_json("cost.json", {})
    total = value.get("total") if _is_cost(value.get("total")) else _cost(_accounts(folder)).get("total", {})
    return dict(total)


def _accounts(folder: RunFolder) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Returns the content of every session's files by session and path within it, in the order of time."""
    place = folder.path / "sessions"
    found = {}
    for file in sorted(place.glob("*/**/*.json")):
        session, *rest = file.relative_to(place).parts
        value = read_json(file)
        if _is_account(value):
            found[session, "/".join(rest)] = value
    return found


def _is_account(value: Any) -> bool:
    """Whether a record has the form that this module writes."""
    if not isinstance(value, dict):
        return False
    shards, splits = value.get("shards", {}), value.get("splits", [])
    costs = isinstance(shards, dict) and all(map(_is_cost, shards.values()))
    halved = isinstance(splits, list) and all(isinstance(one, dict) for one in splits)
    return costs and halved and ("session" not in value or _is_begun(value))


def _is_begun(value: Mapping[str, Any]) -> bool:
    """Whether the start of a session is described by the parts that reports read."""
    session, provenance = value.get("session"), value.get("provenance")
    if not isinstance(session, dict) or not isinstance(provenance, dict):
        return False
    parts = (provenance.get(name, {}) for name in ("model", "data", "layers"))
    more = (session.get(name, {}) for name in ("versions", "shards"))
    if not all(isinstance(one, dict) for one in (*parts, *more)):
        return False
    layers, n_layers = provenance.get("layers", {}), provenance.get("model", {}).get("n_layers", 0)
    if not isinstance(n_layers, int) or not all(isinstance(one, str) for one in layers.values()):
        return False
    part = session.get("shards", {}).get("part", [1, 1])
    return isinstance(part, list) and len(part) == 2 and all(isinstance(one, int) and one > 0 for one in part)


def _is_cost(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(one, int | float) and abs(one) < MOST_COST for one in value.values()
    )


def _manifest(folder: RunFolder, accounts: Mapping[tuple[str, str], Mapping[str, Any]]) -> dict[str, Any]:
    begun = [value for value in accounts.values() if "session" in value and "provenance" in value]
    if not begun:
        return {}
    splits = [
        {"session": session, **split}
        for (session, _), value in accounts.items()
        for split in value.get("splits", ())
    ]
    provenance = begun[-1]["provenance"]
    listed = {"sessions": [value["session"] for value in begun], **({"splits": splits} if splits else {})}
    return {**provenance, "run": folder.digest, **listed}


def _cost(accounts: Mapping[tuple[str, str], Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the latest cost of each shard, the sum of these, and the sum of everything ever spent."""
    each = [value["shards"] for value in accounts.values() if "shards" in value]
    shards = {shard: cost for costs in each for shard, cost in costs.items()}
    if not shards:
        return {}
    spent = sum_costs(cost for costs in each for cost in costs.values())
    return {"shards": shards, "total": sum_costs(shards.values()), "spent": spent}


def sum_costs(costs: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Returns the sum of each cost; for peaks the maximum."""
    total: dict[str, float] = {}
    for cost in costs:
        for name, value in cost.items():
            join = max if name.startswith("peak") else float.__add__
            total[name] = join(total[name], float(value)) if name in total else float(value)
    return total
