"""Every notebook names what there is and is stored with small static outputs; with `-m slow` it runs, offline."""

import ast
import json
import pkgutil
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = [pytest.param(path, id=path.stem) for path in sorted(FOLDER.glob("*.ipynb"))]


def code(path: Path) -> ast.Module:
    """A notebook's code, without lines for IPython."""
    cells = [cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    text = "\n".join("".join(cell["source"]) for cell in cells)
    lines = [line for line in text.splitlines() if not line.lstrip().startswith(("%", "!"))]
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


@pytest.mark.parametrize("path", NOTEBOOKS)
def test_a_notebook_is_stored_as_it_can_be_read(path: Path) -> None:
    from notebooks.stored_outputs import faults

    assert faults(path) == []


def test_faults_of_a_stored_notebook_are_found(tmp_path: Path) -> None:
    import nbformat.v4 as make

    from notebooks.stored_outputs import PLOTLY, faults

    cells = [
        make.new_code_cell(
            "1",
            execution_count=1,
            outputs=[
                make.new_output("stream", name="stdout", text="saved /tmp/x1/run"),
                make.new_output("stream", name="stderr", text="UserWarning: look"),
                make.new_output("display_data", data={PLOTLY: {"data": []}}),
                make.new_output("display_data", data={"text/plain": "<object at 0x7f01>"}),
            ],
        ),
        make.new_code_cell("2"),
    ]
    path = tmp_path / "wrong.ipynb"
    path.write_text(json.dumps(make.new_notebook(cells=cells)))
    found = "\n".join(faults(path))
    for said in (
        "an absolute path",
        "a warning or error",
        "needs JavaScript",
        "the address",
        "cell 1 was not",
    ):
        assert said in found
    assert "no picture is stored" in found


def test_figures_become_pictures_and_bars_vanish() -> None:
    import nbformat.v4 as make

    from notebooks.stored_outputs import PLOTLY, PNG, WIDGET, make_static

    outputs = [
        make.new_output("display_data", data={PLOTLY: {"data": []}, "text/html": "<script>"}),
        make.new_output("display_data", data={WIDGET: {}, "text/plain": "Loading: 100%"}),
        make.new_output("display_data", data={"text/html": "<script>plotly.js</script>"}),
        make.new_output("stream", name="stderr", text="\rload: 0%| 0/9 [?it/s]\rload: 9/9 [8.1it/s]\n"),
        make.new_output("stream", name="stderr", text="UserWarning: a bar of 9 it/s]\nlook"),
        make.new_output("display_data", data={"text/plain": "\x1b[1msaid\x1b[0m"}),
    ]
    notebook = make.new_notebook(cells=[make.new_code_cell("1", outputs=outputs)], metadata={"widgets": {}})
    make_static(notebook, lambda figure: b"drawn")
    figure, warning, said = notebook.cells[0].outputs
    assert figure.data == {PNG: "ZHJhd24="}
    assert (warning.text, said.data["text/plain"]) == ("UserWarning: a bar of 9 it/s]\nlook", "said")
    assert "widgets" not in notebook.metadata


@pytest.mark.slow
@pytest.mark.notebook
@pytest.mark.parametrize("path", NOTEBOOKS)
def test_notebook_runs_top_to_bottom(path: Path) -> None:
    from notebooks.stored_outputs import PLOTLY, executed, outputs

    figures = [output for output in outputs(executed(path)) if PLOTLY in output.get("data", {})]
    assert len(figures) >= 3
