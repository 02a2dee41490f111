"""Figure 2b: what a data set is made of: shares of modality and body region; tables B.1 and C.2.

    python studies/fig2_dataset.py                            # the bundled medical slices, offline
    python studies/fig2_dataset.py --data VGMED_FOLDER built  # VGMED's files, what `interp data build` wrote

No model runs. Shares are of samples. Modality and region are those in each sample's `meta`; where it names no region,
the label decides (`interp.data.build.body_region`). Beside them stand the 44 source sets of VGMED by the paper's table
C.2: shares of sets, not of samples. `fig2.html` and `fig2.csv` under `--out` are the result.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup

from interp.cli import run_script
from interp.data import Samples, named
from interp.data.build import RELATED, SOURCES
from interp.data.build.sources import OF, PAPER, shares_of, shares_of_sources
from interp.data.open import label
from interp.data.readers.bundled import SPLITS
from interp.errors import DataError
from interp.report.figures import GREY, laid_out, panels, plain, series_colour
from interp.report.html import card, figure_card, grid, join, paragraph, save_page, section, table
from interp.report.tables import count, percent, write_csv
from interp.study.dataframes import records, where


def main(data: tuple[str, ...] = ("medical",), out: Path = Path("runs"), seed: int = 0) -> None:
    """Show what data sets are made of.

    Args:
        data: "medical", "natural", .jsonl files, or folders that a reader knows; all splits are read.
        out: Folder for fig2.html and fig2.csv.
        seed: Seed of the natural scenes.
    """
    names = [label(name) for name in data]
    if not data or len(set(names)) < len(names):
        raise DataError(f"expected one or more data sets with different labels, got {names}. Rename a file.")
    read = {label(name): everything(name, seed) for name in data}
    shares = pd.concat([shares_of_sources(), *(shares_of(samples, name) for name, samples in read.items())])
    for name, samples in read.items():
        mine = where(shares, shares["data"] == name)
        for kind in OF:
            rows = records(where(mine, mine["of"] == kind))
            said = ", ".join(f"{row['value']} {percent(row['share'])}" for row in rows)
            print(f"{name}: {count(len(samples), 'sample')}; {kind}: {said}")
    write_csv(shares, out / "fig2.csv")
    print(f"Page: {write_page(out / 'fig2.html', read, shares)}")


def everything(name: str, seed: int) -> Samples:
    """The samples of all splits."""
    first, *others = (named(name, split=split, seed=seed) for split in SPLITS)
    found = sum(others, first)
    if not len(found):
        raise DataError(f"{name} holds no samples. Check it with: interp data check {name}")
    return found


def figure(shares: pd.DataFrame) -> go.Figure:
    """Bars of shares, modality beside region, one colour a data set."""
    made = panels(["modality", "body region"])
    for place, name in enumerate(shares["data"].unique()):
        colour = GREY if name == PAPER else series_colour(place - 1)
        for column, kind in enumerate(OF, start=1):
            mine = shares[(shares["data"] == name) & (shares["of"] == kind)]
            bars = go.Bar(
                x=[plain(value) for value in mine["value"]],
                y=mine["share"],
                name=plain(name),
                marker_color=colour,
                showlegend=column == 1,
                hovertemplate="%{x}: %{y:.1%}<extra>" + plain(name) + "</extra>",
            )
            made.add_trace(bars, row=1, col=column)
    made.update_yaxes(tickformat=".0%", rangemode="tozero")
    made.update_yaxes(title_text="share of samples,<br>in grey: of sets", col=1)
    return laid_out(made, 420, columns=2, barmode="group")


def write_page(path: Path, read: dict[str, Samples], shares: pd.DataFrame) -> Path:
    """Writes the page and returns its path."""
    lead = paragraph(
        "Shares of samples: ",
        "; ".join(f"{name}, {count(len(samples), 'sample')}" for name, samples in read.items()),
        f". In grey {PAPER} (table C.2): shares of sets, not of samples; a set of two kinds counts half for each.",
        kind="lead",
    )
    parts: list[Markup] = [
        section("Figure 2b", figure_card("shares")),
        section("Numbers", grid(card(counts(shares, kind), title=kind) for kind in OF)),
        section("Table B.1: samples that related works looked at", card(related(read))),
        section(f"Table C.2: {PAPER}", card(c2())),
    ]
    title = "What the data are made of"
    question = "Which modalities and body regions do the samples show?"
    return save_page(
        path, title=title, question=question, lead=lead, body=parts, figures={"shares": figure(shares)}
    )


def counts(shares: pd.DataFrame, kind: str) -> Markup:
    """Number and share of each value, by data set."""
    rows = records(where(shares, shares["of"] == kind))
    return table(
        ("data", kind, "n", "share"),
        [(r["data"], r["value"], f"{r['n']:,}", percent(r["share"], 1)) for r in rows],
    )


def related(read: dict[str, Samples]) -> Markup:
    """Table B.1 with the data at hand below it."""
    known = [(one.name, f"{one.n_samples:,}", one.data) for one in RELATED]
    own = [(join("these data: ", name), f"{len(samples):,}", name) for name, samples in read.items()]
    return table(("work", "samples", "data"), [*known, *own])


def c2() -> Markup:
    """Table C.2."""
    rows = [(one.name, ", ".join(one.modalities), ", ".join(one.regions)) for one in SOURCES]
    return table(("set", "modality", "anatomical structures"), rows)


if __name__ == "__main__":
    run_script(main)
