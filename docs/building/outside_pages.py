"""A hook of mkdocs: pages from outside of docs (README, notebooks, …), and links as a repository page follows them.

A page of docs links to files of the repository by their paths, so that the links work where the repository is browsed.
Here a link to a file that is a page of the site leads to that page. A link to another file becomes its path as text,
because the site does not hold it. A link to a file that does not exist is a warning, so `mkdocs build --strict` fails.
"""

from __future__ import annotations

import base64
import logging
import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import nbformat
from mkdocs.structure.files import File, Files

LOG = logging.getLogger("mkdocs.hooks.outside_pages")
ROOT = Path(__file__).parents[2]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "studies/README.md": "studies.md",
    "interp/data/bundled_medical/SOURCES.md": "sources.md",
    **{
        f"notebooks/{path.name}": f"notebooks/{path.stem}.md" for path in (ROOT / "notebooks").glob("*.ipynb")
    },
}
"""File of the repository → page of the site."""
SOURCES = {page: source for source, page in PAGES.items()}
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
FENCE = re.compile(r"^(```|~~~).*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)
UNSPACED_LIST = re.compile(r"^(?!\s*(?:[-*|>#]|\d+\.|  )|\s*$)(.+)\n(?=(?:-|\d+\.) )", re.MULTILINE)
"""A line of text right before a list: a repository page shows a list there, Python-Markdown a paragraph."""


WIDE = ("glossary.md",)
"""Pages whose tables need the room of the table of contents."""


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages from outside of docs, and the pictures of the notebooks."""
    for source, page in PAGES.items():
        text = ROOT / source
        if text.suffix == ".ipynb":
            for name, content in pages_of(text):
                files.append(File.generated(config, f"notebooks/{name}", content=content))
        else:
            files.append(File.generated(config, page, content=text.read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turns links between files of the repository into links between pages."""
    uri = page.file.src_uri
    if uri in WIDE:
        page.meta["hide"] = ["toc"]
    source = SOURCES.get(uri, f"docs/{uri}")
    return _outside_fences(
        markdown,
        lambda text: LINK.sub(lambda found: _link(found, source, uri), UNSPACED_LIST.sub(r"\1\n\n", text)),
    )


def _outside_fences(text: str, change: Callable[[str], str]) -> str:
    """The text after a change of all that stands outside of fenced code."""
    pieces, end = [], 0
    for fence in FENCE.finditer(text):
        pieces += [change(text[end : fence.start()]), fence.group()]
        end = fence.end()
    return "".join([*pieces, change(text[end:])])


def _link(found: re.Match[str], source: str, uri: str) -> str:
    """One link, as the site needs it."""
    image, text, target = found.groups()
    path, _, anchor = target.partition("#")
    if not path or re.match(r"[a-z]+:", target):
        return found.group()
    wanted = posixpath.normpath(posixpath.join(posixpath.dirname(source), unquote(path)))
    wanted = posixpath.join(wanted, "README.md") if (ROOT / wanted / "README.md").is_file() else wanted
    if not (ROOT / wanted).exists() and not (uri.startswith("notebooks/") and image):
        LOG.warning("%s links to %s, which does not exist.", source, target)
    if wanted in PAGES or wanted.startswith("docs/"):
        there = PAGES.get(wanted, wanted.removeprefix("docs/"))
        near = posixpath.relpath(there, posixpath.dirname(uri) or ".")
        return f"{image}[{text}]({near}{'#' if anchor else ''}{anchor})"
    return found.group() if image else f"{text} (`{wanted}`)" if wanted not in text else text


def pages_of(path: Path) -> Iterator[tuple[str, str | bytes]]:
    """The page of a notebook with its stored outputs, after its pictures: name and content of each file."""
    pieces: list[str] = []
    for number, cell in enumerate(nbformat.read(path, as_version=4).cells):
        if cell.cell_type != "code":
            pieces.append(cell.source)
            continue
        pieces.append(f"```python\n{cell.source}\n```")
        for place, output in enumerate(cell.outputs):
            name = f"{path.stem}-{number:02d}-{place}.png"
            if picture := output.get("data", {}).get("image/png"):
                yield name, base64.b64decode(picture)
            pieces.append(f'<div class="cell-output" markdown="1">\n\n{_shown(output, name)}\n\n</div>')
    yield f"{path.stem}.md", "\n\n".join(pieces)


def _shown(output: Any, picture: str) -> str:
    """One output in Markdown."""
    data = output.get("data", {})
    if "image/png" in data:
        return f"![]({picture})"
    if "text/html" in data:
        return re.sub(r"<style.*?</style>", "", data["text/html"], flags=re.DOTALL)
    return f"```text\n{output.get('text', data.get('text/plain', '')).rstrip()}\n```"
