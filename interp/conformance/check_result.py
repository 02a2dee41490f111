"""The result of a check, the results of a model, and the record of results that is kept with the package."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

__all__ = ["PATH", "CheckResult", "Conformance", "Measured", "read_record", "write_record"]


@dataclass(frozen=True)
class Measured:
    """What a check measured.

    Attributes:
        value: The measured number.
        what: The meaning of the number, with its unit.
        limit: The largest allowed value; with `at_least` the smallest.
        detail: A sentence on what was examined, or on what is wrong.
        at_least: Whether the number must reach the limit instead of staying below it.
        holds: Whether the other numbers of the check, if there are any, are within their limits.
    """

    value: float
    what: str
    limit: float
    detail: str
    at_least: bool = False
    holds: bool = True

    @property
    def passed(self) -> bool:
        """Whether the number is within its limit; False for NaN."""
        within = self.value >= self.limit if self.at_least else self.value <= self.limit
        return bool(within and self.holds)


@dataclass(frozen=True)
class CheckResult:
    """The result of one check of one model. If the check raised, there is no number and the error is the detail.

    Attributes:
        name: The check's name in `CHECKS`.
        passed: Whether the check passed.
        value: The measured number, or None.
        what: The meaning of the number, with its unit.
        limit: The limit of the number, or None.
        at_least: Whether the number must reach the limit instead of staying below it.
        detail: A sentence on what was examined, or on what is wrong.
        seconds: Wall-clock time.
    """

    name: str
    passed: bool
    value: float | None
    what: str
    limit: float | None
    at_least: bool
    detail: str
    seconds: float

    @property
    def number(self) -> str:
        """The number with its limit, as text."""
        if self.value is None or self.limit is None:
            return "–"
        return f"{self.value:.3g} {'≥' if self.at_least else '≤'} {self.limit:.3g}"

    @property
    def line(self) -> str:
        """The result in a line: whether it passed, the name, the number and the time, and what is wrong."""
        wrong = "" if self.passed else f": {' '.join(self.detail.split())}"
        return f"{'pass' if self.passed else 'FAIL'}  {self.name}, {self.number}, {self.seconds:.1f} s{wrong}"


@dataclass(frozen=True)
class Conformance:
    """The results of a model's checks, in order.

    Attributes:
        family: The adapter's name.
        model: The model's name for readers.
        rows: One result per check.
    """

    family: str
    model: str
    rows: tuple[CheckResult, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed; False if there are none."""
        return bool(self.rows) and all(row.passed for row in self.rows)

    @property
    def failures(self) -> tuple[CheckResult, ...]:
        """The checks that did not pass."""
        return tuple(row for row in self.rows if not row.passed)

    def __getitem__(self, name: str) -> CheckResult:
        """Returns the result of the check of that name."""
        return {row.name: row for row in self.rows}[name]

    def to_frame(self) -> pd.DataFrame:
        """Returns one line per check: family, name, passed, value, what, limit, at_least, detail, seconds."""
        import pandas as pd

        return pd.DataFrame([{"family": self.family, **asdict(row)} for row in self.rows])

    def table(self) -> Table:
        """Returns the results as a rich table."""
        from rich.table import Table
        from rich.text import Text

        n = sum(row.passed for row in self.rows)
        table = Table(title=f"{self.model}: {n} of {len(self.rows)} checks passed", title_justify="left")
        for name, options in _COLUMNS.items():
            table.add_column(name, **options)
        for row in self.rows:
            mark = Text("pass", "green") if row.passed else Text("FAIL", "bold red")
            what = Text(row.what + ("\n" if row.what else "") + row.detail, "" if not row.passed else "dim")
            table.add_row(row.name, mark, row.number, what, f"{row.seconds:.1f}")
        return table

    def __rich__(self) -> Table:
        return self.table()


_COLUMNS: dict[str, dict[str, Any]] = {
    "check": {"no_wrap": True},
    "": {"no_wrap": True},
    "measured, limit": {"no_wrap": True},
    "what": {"ratio": 1},
    "s": {"justify": "right", "no_wrap": True},
}


PATH = Path(__file__).parent / "record.json"

_PACKAGES = ("torch", "transformers", "nnsight")


def read_record(path: Path = PATH) -> dict[str, dict[str, Any]]:
    """Returns family → its last record: passed, total, failed, date, versions, checks. Empty without a record."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write_record(results: Iterable[Conformance], path: Path = PATH) -> None:
    """Replaces the record with these results, one per family."""
    now = datetime.datetime.now(datetime.UTC).date().isoformat()
    versions = {name: version(name) for name in _PACKAGES}
    record = {
        result.family: {
            "passed": sum(row.passed for row in result.rows),
            "total": len(result.rows),
            "failed": [row.name for row in result.failures],
            "checks": [row.name for row in result.rows],
            "date": now,
            "versions": versions,
        }
        for result in results
    }
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
