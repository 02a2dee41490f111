"""`import interp` is quick, and every public name is there."""

import subprocess
import sys

import pytest

import interp
import interp.tracing


@pytest.mark.parametrize("name", interp.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(interp, name) is not None
    assert name in dir(interp)


def test_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(AttributeError, match=r"interp has no 'Smaple'; its public names are .*Sample"):
        interp.Smaple  # noqa: B018


def test_a_misspelt_name_of_the_tracing_room_is_refused() -> None:
    with pytest.raises(AttributeError, match=r"interp.tracing has no 'Rowz'; its public names are .*Rows"):
        _ = interp.tracing.Rowz
    assert set(interp.tracing.__all__) <= set(dir(interp.tracing))


def test_geometry_and_metrics_import_neither_torch_nor_nnsight() -> None:
    code = (
        "import sys, interp; interp.Sample, interp.Box, interp.TokenMap, interp.metrics, interp.data\n"
        "sys.exit(' '.join({'torch', 'nnsight', 'transformers'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
    assert done.returncode == 0
