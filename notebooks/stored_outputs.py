"""Runs the notebooks and stores their outputs, so that a repository page shows them.

    python notebooks/stored_outputs.py              # all of them
    python notebooks/stored_outputs.py 01_look

A figure is stored as a PNG, because repository pages do not run Plotly's JavaScript; chromium draws it with the
plotly.js that plotly installs.
"""

from __future__ import annotations

import base64
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).parent
LARGEST = 300_000
"""Bytes of a stored notebook."""
WIDTH, HEIGHT, COLOURS = 720, 420, 200
PLOTLY, PNG = "application/vnd.plotly.v1+json", "image/png"
WIDGET = "application/vnd.jupyter.widget-view+json"
STYLE = r"\x1b\[[0-9;]*m"
"""What makes text bold or coloured in a terminal, and is garbage elsewhere."""
CHANGES = {
    "a terminal's style": STYLE,
    "an absolute path": r"(?<![\w.:/])/(?:tmp|home|root|work|usr|opt|var|Users|private)/",
    "the address of an object": r"\bat 0x[0-9a-f]+",
}
"""What differs between machines or cannot be read on a page, and how it is recognised."""
DRAW = """async ([figure, width, height]) => {
    const div = document.getElementById('figure');
    await Plotly.newPlot(div, figure.data, {...figure.layout, width, height});
    const url = await Plotly.toImage(div, {format: 'png', width, height});
    Plotly.purge(div);
    return url;
}"""


def notebooks(names: list[str] | None = None) -> list[Path]:
    """The notebooks in the folder, or those of these names, in order."""
    found = sorted(FOLDER.glob("*.ipynb"))
    if unknown := set(names or ()) - {path.stem for path in found}:
        raise SystemExit(f"no notebook is named {', '.join(sorted(unknown))} in {FOLDER}.")
    return [path for path in found if not names or path.stem in names]


def executed(path: Path) -> Any:
    """The notebook after its cells ran top to bottom in a fresh kernel; figures are Plotly's JSON."""
    notebook = nbformat.read(path, as_version=4)
    settings = {"metadata": {"path": str(path.parent)}}
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", record_timing=False, resources=settings
    ).execute()
    return notebook


def outputs(notebook: Any) -> Iterator[Any]:
    """Every output of every code cell."""
    for cell in notebook.cells:
        yield from cell.outputs if cell.cell_type == "code" else ()


@contextmanager
def painter() -> Iterator[Any]:
    """A function that draws a figure's JSON: (figure) → bytes of a PNG."""
    from playwright.sync_api import sync_playwright
    from plotly.offline import get_plotlyjs

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page()
        tab.set_content("<div id='figure'></div>")
        tab.add_script_tag(content=get_plotlyjs())

        def draw(figure: Mapping[str, Any]) -> bytes:
            layout = figure.get("layout", {})
            size = layout.get("width") or WIDTH, layout.get("height") or HEIGHT
            url = tab.evaluate(DRAW, [figure, *size])
            return small(base64.b64decode(url.partition(",")[2]))

        yield draw
        browser.close()


def small(picture: bytes) -> bytes:
    """The same picture as a PNG of few colours on white, at most `WIDTH` pixels wide."""
    drawn = Image.open(BytesIO(picture)).convert("RGBA")
    image = Image.new("RGB", drawn.size, "white")
    image.paste(drawn, mask=drawn)
    if image.width > WIDTH:
        image = image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS)
    into = BytesIO()
    image.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        into, "PNG", optimize=True
    )
    return into.getvalue()


def make_static(notebook: Any, draw: Any) -> None:
    """Replaces figures by pictures, makes pictures small, and drops what only a live notebook can show."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        kept = [one for one in cell.outputs if not _is_progress(one)]
        for one in kept:
            for text, where in (("text", one), ("text/plain", one.get("data", {}))):
                if text in where:
                    where[text] = re.sub(STYLE, "", where[text])
        cell.outputs = [one for one in kept if "data" not in one or _static(one, draw)]


def _is_progress(output: Any) -> bool:
    """Whether an output is nothing but a bar that moved, such as that of loading weights."""
    if WIDGET in output.get("data", {}):
        return True
    lines = re.split(r"[\r\n]+", output.get("text", "").strip())
    return output.get("name") == "stderr" and all("it/s]" in line for line in lines)


def _static(output: Any, draw: Any) -> bool:
    """Makes one output static; False where nothing is left to show."""
    data = output["data"]
    if PLOTLY in data:
        output["data"] = data = {PNG: _encoded(draw(data[PLOTLY]))}
    elif PNG in data:
        output["data"] = data = {PNG: _encoded(small(base64.b64decode(data[PNG])))}
    return not ("text/html" in data and "<script" in data["text/html"])


def _encoded(picture: bytes) -> str:
    return base64.b64encode(picture).decode()


def faults(path: Path) -> list[str]:
    """What is wrong with a stored notebook: outputs missing, changing from run to run, not static or too large."""
    notebook = nbformat.read(path, as_version=4)
    found = [f"{path.stat().st_size} bytes, at most {LARGEST}"] if path.stat().st_size > LARGEST else []
    if not any(PNG in one.get("data", {}) for one in outputs(notebook)):
        found.append("no picture is stored")
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and cell.execution_count is None:
            found.append(f"cell {number} was not run")
    for one in outputs(notebook):
        if one.get("name") == "stderr" or one.output_type == "error":
            found.append(f"a warning or error is stored: {str(one)[:300]}")
        text = "".join(str(part) for kind, part in one.get("data", {}).items() if kind != PNG)
        text += one.get("text", "")
        found += [f"{what} is stored: {text[:300]}" for what, how in CHANGES.items() if re.search(how, text)]
        if {PLOTLY, WIDGET} & set(one.get("data", {})) or "<script" in text:
            found.append("an output is stored that needs JavaScript")
    return found


def main(names: list[str]) -> int:
    """Runs and stores the notebooks; returns 1 if one of them should not be committed as it is."""
    wrong = 0
    for path in notebooks(names):
        notebook = executed(path)
        with painter() as draw:
            make_static(notebook, draw)
        nbformat.write(notebook, path)
        found = faults(path)
        wrong += bool(found)
        print(f"{path.stem}: {path.stat().st_size / 1000:.0f} kB", *found, sep="\n  ", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
