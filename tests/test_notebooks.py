"""Every notebook names what there is and, with `-m slow`, runs top to bottom, offline, and shows what it promises."""

import ast
import pkgutil
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = [pytest.param(path, id=path.stem) for path in sorted(FOLDER.glob("*.ipynb"))]


def code(path: Path) -> ast.Module:
    """A notebook's code, without lines for IPython."""
    import nbformat  # takes seconds, so the workers that read no notebook do without

    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    lines = [line for cell in cells for line in cell.splitlines() if not line.lstrip().startswith(("%", "!"))]
    return ast.parse("\n".join(lines))


def named(path: Path) -> list[str]:
    """The names of `interp` in a notebook's code, such as "interp.data.bundled", imported ones too."""
    found = []
    for node in ast.walk(code(path)):
        if isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{one.name}" for one in node.names]
        if isinstance(node, ast.Attribute):
            found.append(ast.unparse(node))
    return [name for name in found if re.fullmatch(r"interp(\.\w+)+", name)]


@pytest.mark.parametrize("path", NOTEBOOKS)
def test_a_notebook_names_what_there_is(path: Path) -> None:
    assert len(named(path)) > 5
    for name in named(path):
        pkgutil.resolve_name(name)


@pytest.mark.slow
@pytest.mark.notebook
@pytest.mark.parametrize("path", NOTEBOOKS)
def test_notebook_runs_top_to_bottom(path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells if cell.cell_type == "code"), (
        "commit it cleared"
    )
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    ).execute()
    figures = [
        output
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "application/vnd.plotly.v1+json" in output.get("data", {})
    ]
    assert len(figures) >= 3
