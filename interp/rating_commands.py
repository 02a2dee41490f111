"""`interp data rate` and `interp data ratings`: make the page for raters, and read what they saved.

Outside the room of curation, so that `interp data --help` need not import it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro

__all__ = ["COMMANDS"]


def rate(
    data: Annotated[str, tyro.conf.Positional],
    *,
    out: Path = Path("rate.html"),
    split: str = "all",
    n: int | None = None,
    seed: int = 0,
    title: str = "Rating samples",
) -> int:
    """Write the page on which clinicians rate samples and correct their questions: one HTML file, to be sent to them.

    Args:
        data: "natural", "medical", or a file or folder that a reader knows, such as rows.jsonl.
        out: the page.
        split: all, train, validation or test.
        n: the largest number of samples, drawn with the seed; by default all.
        seed: draws the samples.
        title: the small line over the page's heading.
    """
    from interp.curation import rating_page
    from interp.data import named
    from interp.inputs.text import count

    samples = named(data, split=split, n=n, seed=seed)
    page = rating_page(samples, out, title=title)
    print(
        f"{page}: {count(len(samples), 'sample')}, {page.stat().st_size / 1e6:.1f} MB. Send it to the raters; they "
        "save .json files and send those back."
    )
    again = f"--split {split} --seed {seed}" + (f" --n {n}" if n is not None else "")
    print(f"To read the files: interp data ratings FILES --data {data} {again}")
    return 0


def ratings(
    files: Annotated[list[Path], tyro.conf.Positional],
    *,
    data: str,
    out: Path = Path("curated"),
    split: str = "all",
    n: int | None = None,
    seed: int = 0,
    lowest: int = 3,
    several: str = "any",
    n_raters: int = 1,
) -> int:
    """Join the files that raters saved, apply the rule, and write kept samples, decisions and a report.

    Args:
        files: the .json files that raters saved, one for each.
        data: the data given to `interp data rate`.
        out: the folder for kept.jsonl, decisions.csv and report.html.
        split: the split given to `interp data rate`.
        n: the number of samples given to `interp data rate`.
        seed: the seed given to `interp data rate`.
        lowest: a score below this drops the sample.
        several: any, if one rater's low score drops a sample; median, if the median of the raters' scores must be low.
        n_raters: raters whose three scores a sample needs.
    """
    from interp.curation import curate, read_ratings
    from interp.data import named
    from interp.report.tables import write_csv

    samples = named(data, split=split, n=n, seed=seed)
    found = curate(read_ratings(files, samples), lowest=lowest, several=several, n_raters=n_raters)
    write_csv(found.decisions, out / "decisions.csv")
    counts = found.decisions.decision.value_counts()
    print(", ".join(f"{name}: {count}" for name, count in counts.items()))
    print(found.table().round(2).to_string(index=False))
    if len(found.samples):
        print(f"kept samples: {found.save(out / 'kept.jsonl')}")
    print(f"report: {found.report(out / 'report.html')}")
    return 0


COMMANDS: dict[str, Callable[..., int]] = {"rate": rate, "ratings": ratings}
"""The commands of `interp data`."""
