"""The documentation site: every public name has its place, links lead where they do in the repository."""

from __future__ import annotations

import base64
import json
import logging
import re
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

import interp
from docs.building import outside_pages

ROOT = Path(__file__).parents[1]
API = ROOT / "docs" / "api"
ROOMS = (
    "curation",
    "conformance",
    "data",
    "data_build",
    "data_check",
    "indicators",
    "methods",
    "metrics",
    "metrics.scorers",
    "models",
)
ROOMS += ("reader_study", "report", "run", "stats", "study", "tracing", "tracing.word_lenses")


def documented() -> list[str]:
    """The last part of each name that an API page shows."""
    pages = "\n".join(page.read_text("utf-8") for page in API.glob("*.md"))
    return [name.rpartition(".")[2] for name in re.findall(r"^::: (\S+)", pages, re.MULTILINE)]


def shown(markdown: str, page: str) -> str:
    about = SimpleNamespace(file=SimpleNamespace(src_uri=page), meta={})
    return outside_pages.on_page_markdown(markdown, about, None, None)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("room", ["", *ROOMS])
def test_every_public_name_is_on_an_api_page(room: str) -> None:
    owner = import_module(f"interp.{room}".rstrip("."))
    modules = {name for name in interp.__all__ if (ROOT / "interp" / name).is_dir()}
    missing = set(owner.__all__) - modules - set(documented())
    assert not missing, f"put them on a page of docs/api: {sorted(missing)}"


def test_every_api_page_is_of_names_that_there_are() -> None:
    for page in API.glob("*.md"):
        for name in re.findall(r"^::: (\S+)", page.read_text("utf-8"), re.MULTILINE):
            owner, _, last = name.rpartition(".")
            assert hasattr(import_module(owner), last), name


@pytest.mark.parametrize(
    ("page", "link", "there"),
    [
        ("index.md", "[d](docs/data.md#tables)", "[d](data.md#tables)"),
        ("index.md", "![p](docs/report.png)", "![p](report.png)"),
        ("data.md", "[c](../CONTRIBUTING.md)", "[c](contributing.md)"),
        ("data.md", "[s](../studies/README.md)", "[s](studies.md)"),
        ("notebooks/index.md", "[n](../../notebooks/01_look.ipynb)", "[n](01_look.md)"),
        ("notebooks/01_look.md", "[e](../docs/editing.md)", "[e](../editing.md)"),
        ("data.md", "[the code](../interp/data/readers/csv.py)", "the code (`interp/data/readers/csv.py`)"),
        ("data.md", "[o](https://example.org/a.md)", "[o](https://example.org/a.md)"),
        ("data.md", "[here](#tables)", "[here](#tables)"),
        ("data.md", "```\n[x](nowhere.md)\n```", "```\n[x](nowhere.md)\n```"),
    ],
)
def test_links_of_the_repository_lead_to_pages(
    page: str, link: str, there: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert shown(link, page) == there
    assert not caplog.records


def test_a_link_to_nowhere_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        shown("[x](gone.md)", "data.md")
    assert "docs/data.md links to gone.md, which does not exist" in caplog.text


def test_a_list_right_after_text_becomes_a_list() -> None:
    assert shown("These:\n- one\n- two\n", "data.md") == "These:\n\n- one\n- two\n"


def test_a_notebook_becomes_a_page_with_its_outputs(tmp_path: Path) -> None:
    import nbformat.v4 as make  # takes seconds, so the workers that run other tests do without

    picture = base64.b64encode(b"a picture").decode()
    outputs = [
        make.new_output("display_data", data={"image/png": picture, "text/plain": "<Image>"}),
        make.new_output("execute_result", data={"text/html": "<style>td {}</style><table></table>"}),
        make.new_output("stream", text="says: yellow\n"),
    ]
    cells = [make.new_markdown_cell("# Look"), make.new_code_cell("look()", outputs=outputs)]
    path = tmp_path / "10_look.ipynb"
    path.write_text(json.dumps(make.new_notebook(cells=cells)))
    (name, content), (page, text) = outside_pages.pages_of(path)
    assert (name, content, page) == ("10_look-01-0.png", b"a picture", "10_look.md")
    assert isinstance(text, str)
    for part in (
        "# Look",
        "```python\nlook()\n```",
        f"![]({name})",
        "\n<table></table>",
        "says: yellow\n```",
    ):
        assert part in text
    assert "style" not in text


def test_links_of_every_page_lead_somewhere(caplog: pytest.LogCaptureFixture) -> None:
    pages = {str(path.relative_to(ROOT / "docs")): path for path in (ROOT / "docs").rglob("*.md")}
    texts = {page: path.read_text("utf-8") for page, path in pages.items()}
    texts |= {
        page: (ROOT / source).read_text("utf-8")
        for source, page in outside_pages.PAGES.items()
        if source.endswith(".md")
    }
    with caplog.at_level(logging.WARNING):
        for page, text in texts.items():
            shown(text, page)
    assert caplog.text == ""


def test_the_navigation_holds_every_page() -> None:
    listed = (ROOT / "mkdocs.yml").read_text("utf-8")
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert {page for page in pages | set(outside_pages.PAGES.values()) if page not in listed} == set()
