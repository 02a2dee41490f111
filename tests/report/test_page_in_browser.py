"""A page of results in a real browser: figures drawn when seen, tables sorted and filtered, galleries unfolded."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from markupsafe import Markup

from interp.data import bundled
from interp.report.figures import laid_out, panels
from interp.report.gallery import picture, sample_card
from interp.report.html import details, figure_cards, grid, heading, save_page, section, table
from interp.study.layer_sweep.page import SMALL_SIDE
from tests.browser import Tab, needs_browser, opened_browser

pytestmark = needs_browser
ROWS = [[f"row {i}", value] for i, value in enumerate([0.5, -1.25, None, 10, 2, *range(20, 75)])]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with opened_browser() as found:
        yield found


def figure() -> go.Figure:
    found = panels(["natural", "medical"], shared_yaxes=True)
    for column in (1, 2):
        found.add_trace(
            go.Scatter(x=[0, 1], y=[1, 2], name="mean", showlegend=column == 1), row=1, col=column
        )
    found.update_xaxes(title_text="layer")
    found.update_yaxes(title_text="AUROC ↑,<br>higher is better", col=1)
    return laid_out(found, 300, columns=2)


def write(path: Path, n_samples: int) -> str:
    """A page with a figure below the first screen, a long table and a gallery."""
    (sample,) = bundled("medical", n=1)
    pictures = [(name, picture(sample, side=SMALL_SIDE)) for name in ("image and box", "map")]
    cards = [
        sample_card(pictures, f"question {i}", [f"sample-{i}"], score=f"AR {(7 * i) % n_samples:.2f}")
        for i in range(n_samples)
    ]
    written = [[row[0], Markup("–") if row[1] is None else f"{row[1]:.2f}".replace("-", "−")] for row in ROWS]
    body = [
        heading("First"),
        table(["name", "score"], written),
        section("Samples", grid(cards, "tight")),
        section("Figures", figure_cards(["lines"])),
        details("folded", table(["what", "it is", "why"], [["one", "two words", "three"]], "text")),
    ]
    return save_page(
        path, title="t", question="q?", lead=Markup(""), body=body, figures={"lines": figure()}
    ).as_uri()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("page") / "page.html", 40)


@pytest.fixture
def tab(browser: Any, url: str) -> Iterator[Tab]:
    found = opened(browser, url)
    yield found
    found.close()
    assert found.complaints == []


def opened(browser: Any, url: str, **options: int) -> Tab:
    """A tab that waits long enough for Plotly on a busy machine."""
    found = Tab(browser, url, **options)
    found.context.set_default_timeout(60_000)
    return found


def shown(tab: Tab, selector: str) -> list[str]:
    # not inner_text, which is empty for what is skipped as long as it is off the screen
    return [one.text_content() or "" for one in tab.page.locator(selector).all() if one.is_visible()]


def test_a_figure_is_drawn_when_it_is_scrolled_to(tab: Tab) -> None:
    place = tab.page.locator("#figure-lines")
    assert not tab.page.evaluate("'Plotly' in window")
    assert place.get_attribute("role") == "img"
    said = place.get_attribute("aria-label")
    assert said is not None
    assert said.startswith("Figure. Upwards: AUROC ↑, higher is better. Across: layer. The numbers are")
    tab.page.get_by_role("link", name="Figures").click()
    tab.page.wait_for_selector("#figure-lines .xtick text")


def test_a_table_is_sorted_by_number_with_keys(tab: Tab) -> None:
    button = tab.page.get_by_role("button", name="score")
    button.focus()
    tab.press("[Enter]")
    column = tab.page.locator("thead th").nth(1)
    assert column.get_attribute("aria-sort") == "ascending"
    first = shown(tab, "tbody td:nth-child(2)")
    assert first[:3] == ["−1.25", "0.50", "2.00"]
    tab.press("[Enter]")
    assert column.get_attribute("aria-sort") == "descending"
    assert shown(tab, "tbody td:nth-child(2)")[0] == "74.00"
    tab.page.get_by_role("button", name="Show all 60").click()
    assert shown(tab, "tbody td:nth-child(2)")[-1] == "–"  # undefined values are last either way


def test_long_tables_are_folded_and_filtered(tab: Tab) -> None:
    assert len(shown(tab, "tbody tr")) == 50
    assert tab.page.get_by_text("50 of 60 rows shown").is_visible()
    tab.page.get_by_role("searchbox", name="Filter rows by text").fill("ROW 5")
    assert len(shown(tab, "tbody tr")) == 11  # 5 and 50 … 59
    assert tab.page.get_by_text("11 of 60 rows shown").is_visible()


def test_a_gallery_is_unfolded_filtered_and_sorted(tab: Tab) -> None:
    assert len(shown(tab, ".sample")) == 24
    tab.page.get_by_role("button", name="Highest first").click()
    assert "AR 39.00" in shown(tab, ".sample")[0]
    tab.page.get_by_role("button", name="Show all 40").click()
    assert len(shown(tab, ".sample")) == 40
    tab.page.get_by_role("searchbox", name="Filter samples by text").fill("sample-17")
    assert len(shown(tab, ".sample")) == 1
    alt = tab.page.locator(".sample:visible img").first.get_attribute("alt")
    assert alt == "image and box: question 17"


def test_panels_go_below_one_another_on_a_narrow_screen(browser: Any, url: str) -> None:
    tab = opened(browser, url, width=390)
    tab.page.get_by_role("link", name="Figures").click()
    tab.page.wait_for_selector("#figure-lines .xtick text")
    titles = tab.page.locator("#figure-lines .annotation").all()
    boxes = [one.bounding_box() for one in titles]
    assert [one.text_content() for one in titles] == ["natural", "medical"]
    assert boxes[0]["y"] + boxes[0]["height"] < boxes[1]["y"]
    assert tab.page.evaluate("document.documentElement.scrollWidth") == 390
    tab.close()


def test_all_is_there_on_paper(tab: Tab) -> None:
    tab.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    tab.page.emulate_media(media="print", color_scheme="dark")
    tab.page.wait_for_selector("#figure-lines .xtick text")
    assert len(shown(tab, "tbody tr")) == 60 + 1
    assert shown(tab, "details td") == ["one", "two words", "three"]
    assert len(shown(tab, ".sample")) == 40
    assert tab.page.locator(".tools:visible").count() == 0
    ink = tab.page.evaluate("getComputedStyle(document.querySelector('.sample')).color")
    assert ink == "rgb(0, 0, 0)"


def test_a_table_of_texts_is_blocks_on_a_narrow_screen(browser: Any, url: str) -> None:
    tab = opened(browser, url, width=390)
    tab.page.get_by_text("folded").click()
    places = [one.bounding_box() for one in tab.page.locator("details td").all()]
    assert all(above["y"] + above["height"] <= below["y"] for above, below in itertools.pairwise(places))
    assert {one["x"] for one in places} == {places[0]["x"]}
    named = "getComputedStyle(document.querySelectorAll('details td')[1], '::before').content"
    assert tab.page.evaluate(named) == '"it is: "'
    tab.close()


def test_what_scrolls_sideways_is_reached_with_keys(browser: Any, tmp_path: Path) -> None:
    wide = table([f"column {i}" for i in range(40)], [list(range(40))])
    path = save_page(tmp_path / "page.html", title="t", question="q?", lead=Markup(""), body=[wide])
    tab = opened(browser, path.as_uri())
    place = tab.page.locator(".scroll")
    place.focus()
    tab.page.keyboard.press("ArrowRight")
    place.evaluate(
        "e => new Promise(f => { const look = () => e.scrollLeft ? f() : setTimeout(look, 20); look(); })"
    )
    assert place.get_attribute("aria-label") == "Goes on to the right: scroll sideways"
    tab.close()


@pytest.mark.slow
def test_a_page_of_a_thousand_samples_opens_at_once(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    url = write(path, 1000)
    assert path.stat().st_size < 15e6
    tab = opened(browser, url)
    blank = "[...document.images].filter(image => !image.complete || !image.naturalWidth).length"
    assert tab.page.evaluate(blank) == 0
    timing = tab.page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    tab.close()
    assert timing < 3000
