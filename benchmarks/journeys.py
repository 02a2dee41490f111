"""Counts the files and switches of two journeys: `mllm.trace(...)`, and a `LayerSweep` with its report.

A journey is one call. Every call of a Python function whose source lies in `interp/` is a stop (`sys.setprofile`, event
"call"; comprehensions, lambdas and resumed generators count as calls do; the code of modules that are being imported
does not). `files` is the number of distinct files among the stops. `switches` counts consecutive stops of one thread
that lie in different files, summed over threads. Each journey runs once before it is counted, so imports and what a
process keeps are not in it.

    python benchmarks/journeys.py --n 4
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import interp

HOME = str(Path(interp.__file__).parent)


def journey(walk: Callable[[], Any]) -> tuple[int, int, Counter[str]]:
    """Returns the number of files, of switches, and of stops in each file."""
    stops: Counter[str] = Counter()
    last: dict[int, str] = {}
    switches = 0

    def stop(frame: FrameType, event: str, _: Any) -> None:
        nonlocal switches
        if event != "call" or frame.f_code.co_name == "<module>":
            return
        file = frame.f_code.co_filename
        if not file.startswith(HOME):
            return
        stops[file[len(HOME) + 1 :]] += 1
        thread = threading.get_ident()
        switches += last.get(thread, file) != file
        last[thread] = file

    threading.setprofile(stop)
    sys.setprofile(stop)
    try:
        walk()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # pyright: ignore[reportArgumentType]
    return len(stops), switches, stops


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=4, help="samples")
    parser.add_argument("--files", action="store_true", help="list the stops in each file")
    given = parser.parse_args()
    mllm = interp.load("organism")
    samples = interp.data.bundled("natural", n=given.n)
    site = interp.Site(queries="last", keys="image")

    def traced() -> None:
        mllm.trace(samples, reads=[interp.Rows(site)])

    def swept() -> None:
        with tempfile.TemporaryDirectory() as folder:
            study = interp.LayerSweep(model="organism", data=samples)
            study.run(out=folder).report(Path(folder) / "page.html")

    for name, walk in (("mllm.trace", traced), ("LayerSweep with its report", swept)):
        walk()
        files, switches, stops = journey(walk)
        print(f"{name}, {given.n} samples: {files} files, {switches} switches, {sum(stops.values())} calls")
        if given.files:
            print("\n".join(f"  {n:6d} {file}" for file, n in stops.most_common()))


if __name__ == "__main__":
    main()
