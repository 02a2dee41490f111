"""Values come back from a file as they were; foreign, damaged and later files are refused with advice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from safetensors.numpy import save_file

from interp.errors import MapError
from interp.inputs.archive import read, token_map, token_record, write
from interp.inputs.footprints import CrossKeys, squash
from interp.inputs.patch_map import Patches, PatchMap, PatchWeights, TowerSequence
from interp.inputs.tokens import TokenMap


def test_values_come_back_as_they_were(tmp_path: Path) -> None:
    heads = pd.MultiIndex.from_tuples([(2, 5), (3, 1)], names=["layer", "head_in_layer"])
    pairs = xr.DataArray(
        np.arange(6, dtype=np.float32).reshape(2, 3),
        dims=("head", "token"),
        coords={**xr.Coordinates.from_pandas_multiindex(heads, "head"), "position": ("token", [4, 5, 6])},
        name="attention",
        attrs={"signed": "no"},
    )
    content = {
        "text": "β − “x”",
        "none": None,
        "numbers": [1, 2.5, True],
        "names": np.array(["a", "ü"]),
        "empty": np.empty((0, 4)),
        "array": pairs,
    }
    found = read(write(tmp_path / "a" / "x.safetensors", "maps", content), "maps")
    assert {name: found[name] for name in ("text", "none", "numbers")} == {
        "text": "β − “x”",
        "none": None,
        "numbers": [1, 2.5, True],
    }
    assert found["names"].tolist() == ["a", "ü"]
    assert found["empty"].shape == (0, 4)
    xr.testing.assert_identical(found["array"], pairs)
    assert found["array"].sel(layer=3, head_in_layer=1).values.tolist() == [3.0, 4.0, 5.0]
    assert found["array"].dtype == np.float32


def test_every_field_of_a_map_of_tokens_comes_back(tmp_path: Path) -> None:
    boxes = np.array([[0.0, 0, 4, 6], [4, 0, 8, 6]])
    plain = TokenMap(
        image=np.array([2, 4]), footprints=boxes, grid=(1, 2), views=np.array(["base", "tile"]),
        image_index=np.array([0, 0]), sizes=((8, 6), (8, 6)), length=9, spans={"question": np.array([6, 7])},
        words=(("is", (6,)), ("it", (7, 8))), frames=np.array([[0, 2], [0, 1]]), frame_times=np.array([0.0, 0.5]),
    )  # fmt: skip
    cross = TokenMap(
        image=np.array([0, 1]), footprints=boxes, grid=None, views=np.array(["", ""]), image_index=np.array([0, 0]),
        sizes=((8, 6),), length=4, cross=CrossKeys(np.array([1]), np.array([[True], [False]] * 2), 2),
    )  # fmt: skip
    assert (cross.image_end, cross.placeholders.tolist(), cross.positions("after_image").tolist()) == (
        2,
        [1],
        [2, 3],
    )
    for tokens in (plain, cross):
        found = token_map(read(write(tmp_path / "x.safetensors", "maps", token_record(tokens)), "maps"))
        for name in ("image", "footprints", "views", "image_index", "frames", "frame_times"):
            assert getattr(found, name).tolist() == getattr(tokens, name).tolist(), name
        for name in ("grid", "sizes", "length", "words"):
            assert getattr(found, name) == getattr(tokens, name), name
        assert {name: at.tolist() for name, at in found.spans.items()} == {
            name: at.tolist() for name, at in tokens.spans.items()
        }
        assert (found.cross is None) == (tokens.cross is None)
        if found.cross is not None and tokens.cross is not None:
            assert found.cross.placeholders.tolist() == [1]
            assert found.cross.blocks.tolist() == tokens.cross.blocks.tolist()
            assert found.cross.width == 2
    assert read(
        write(tmp_path / "n.safetensors", "maps", {"a": np.float64(2.5), "b": np.int64(3)}), "maps"
    ) == {
        "a": 2.5,
        "b": 3,
    }


def test_what_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MapError, match="stores texts, numbers, arrays and lists of them; got <object"):
        write(tmp_path / "x.safetensors", "maps", {"a": object()})
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_refused_with_advice(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    with pytest.raises(MapError, match=r"does not exist. Check the path"):
        read(file, "maps")
    write(file, "trace", {})
    with pytest.raises(MapError, match=r"which holds trace. Read it with interp.load_trace"):
        read(file, "maps")
    save_file({"w": np.zeros(2)}, file)
    with pytest.raises(MapError, match=r"holds something else. Name another file"):
        read(file, "maps")
    header = {"format": "interp maps", "version": "9", "content": json.dumps(None)}
    save_file({}, file, metadata=header)
    with pytest.raises(
        MapError, match=r"version 1 of the file format, got version 9 .* wrote it, or a later one"
    ):
        read(file, "maps")
    whole = write(file, "maps", {"a": np.arange(9)}).read_bytes()
    for damaged in (whole[:-8], whole[:20], b"PK\x03\x04 a pickle", b""):
        file.write_bytes(damaged)
        with pytest.raises(
            MapError, match=r"is no file of maps, or it is damaged .* Read a file that .save\(path\)"
        ):
            read(file, "maps")


@pytest.mark.parametrize("padded", [True, False])
def test_every_field_of_a_map_of_patches_comes_back(tmp_path: Path, padded: bool) -> None:
    cells = [squash((8, 4), (1, 2)), squash((4, 4), (1, 1))]
    sequences = (TowerSequence(cells[0], np.array([1, 0])), TowerSequence(cells[1]))
    weights = PatchWeights.members([[0, 1], [2], []], 3)
    patches = PatchMap.of(Patches(sequences, ("cls",), weights, padded), [(8, 4), (4, 4)])
    found = token_map(read(write(tmp_path / "x.safetensors", "trace", token_record(patches)), "trace"))
    assert isinstance(found, PatchMap)
    for name in ("image", "footprints", "sequence", "slots"):
        assert getattr(found, name).tolist() == getattr(patches, name).tolist(), name
    assert found.padded is padded
    assert found.positions("cls").tolist() == [0, 3]
    assert found.weights.matrix().tolist() == [[0.5, 0.5, 0], [0, 0, 1], [0, 0, 0]]
    assert repr(found) == repr(patches)
