"""Maps that runs stored: of a sweep by layer, of a refinement by name, for the samples that all measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interp import methods
from interp.data import Samples, bundled
from interp.errors import DataError, StudyError
from interp.inputs.sample import Sample
from interp.reader_study import read_key, stored_maps, write_pack
from interp.study import LayerSweep, Refinement
from interp.tracing import load


@pytest.fixture(scope="module")
def mllm() -> Any:
    return load("organism")


@pytest.fixture(scope="module")
def swept(mllm: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A sweep over three scenes; a fourth sample cannot be read."""
    broken = Sample.unusable("broken on purpose", id="broken")
    data = Samples([*bundled("natural", n=2), broken, *bundled("natural", n=3)[2:]], "scenes")
    return LayerSweep(data=data, metrics=("ar",)).run(
        tmp_path_factory.mktemp("runs"), mllm=mllm, progress=False
    )


def test_two_layers_of_a_sweep_are_their_maps(swept: Any, mllm: Any, tmp_path: Path) -> None:
    samples, maps = stored_maps({"low": (swept, 1), "high": (swept, 3)})
    assert [one.id for one in samples] == [one.id for one in bundled("natural", n=3)]
    direct = swept.study.indicator(mllm, samples)
    for name, layer in (("low", 1), ("high", 3)):
        for i in range(3):
            assert np.allclose(maps[name][i].values, direct[i].sel(layer=layer).values, atol=1e-6)
            assert np.allclose(maps[name].tokens[i].footprints, direct.tokens[i].footprints, atol=1e-3)
    made = write_pack(samples, maps, page=tmp_path / "p.html", key=tmp_path / "k.json", seed=0, side=64)
    assert {one.sample for one in read_key(made.key).items} == set(samples.sample_ids)


@pytest.mark.slow
def test_a_refinements_maps_are_called_by_name(mllm: Any, tmp_path: Path) -> None:
    study = Refinement(data=bundled("natural", n=2), method=methods.PAI(layers=[2, 3]), read_layer=2)
    result = study.run(tmp_path, mllm=mllm, progress=False)
    samples, maps = stored_maps({"plain": (result, "before"), "PAI": (result, "after")})
    assert len(samples) == 2
    assert not np.allclose(maps["plain"][0].values, maps["PAI"][0].values)
    with pytest.raises(StudyError, match="this Refinement stored the maps after, before; got 'kept'"):
        stored_maps({"x": (result, "kept"), "y": (result, "after")})


def test_runs_that_do_not_fit_are_refused(swept: Any, mllm: Any, tmp_path: Path, unchecked: None) -> None:
    other = LayerSweep(data=bundled("natural", n=2), metrics=("ar",)).run(tmp_path, mllm=mllm, progress=False)
    with pytest.raises(DataError, match=r"are on different samples: \[4, 2\] of them"):
        stored_maps({"a": (swept, 1), "b": (other, 1)})
    with pytest.raises(StudyError, match="have no map at layer 99"):
        stored_maps({"a": (swept, 99)})
    with pytest.raises(StudyError, match=r"needs \(result, which\)"):
        stored_maps({"a": swept})  # pyright: ignore[reportArgumentType]
    with pytest.raises(StudyError, match="maps are stored by a LayerSweep, by layer"):
        stored_maps({"a": (swept, "before")})
    both = type(swept)(swept.study, (swept.cells[0], other.cells[0]), swept.folder)
    with pytest.raises(StudyError, match="has 2 runs"):
        stored_maps({"a": (both, 1)})
