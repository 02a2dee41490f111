from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from interp.errors import MapError
from interp.indicators import Maps
from interp.inputs.tokens import TokenMap
from interp.tracing import Cost


def tokens(n: int) -> TokenMap:
    return TokenMap(
        image=np.arange(1, n + 1),
        footprints=np.full((n, 4), np.nan),
        grid=None,
        views=np.array(["base"] * n),
        image_index=np.zeros(n, int),
        sizes=((8, 8),),
        length=n + 2,
        spans={},
    )


def array(*shape: int, dims: tuple[str, ...] = ("layer", "token")) -> xr.DataArray:
    return xr.DataArray(np.zeros(shape, np.float32), dims=dims)


def test_maps_are_a_sequence_that_slices_everything_together():
    arrays = (array(2, 3), array(2, 4), array(2, 4))
    logits = xr.DataArray(np.arange(6.0).reshape(3, 2), dims=("sample", "token_id"))
    maps = Maps(arrays, tuple(tokens(n) for n in (3, 4, 4)), Cost(1.0), logits)
    assert len(maps) == 3
    assert maps[-1] is arrays[2]
    assert list(maps)[1] is arrays[1]
    later = maps[1:]
    assert isinstance(later, Maps)
    assert [one.sizes["token"] for one in later] == [t.n for t in later.tokens] == [4, 4]
    np.testing.assert_array_equal(later.logits, [[2, 3], [4, 5]])
    assert later.cost == Cost(1.0)
    assert repr(maps) == "Maps(3 × [layer 2 × token 3; layer 2 × token 4])"


def test_a_map_needs_one_value_per_image_token():
    for good in (array(4, dims=("token",)), array(2, 5, 4, dims=("layer", "head", "token"))):
        assert len(Maps((good,), (tokens(4),), Cost())) == 1
    for wrong in (array(2, 3), array(2, 4, dims=("token", "layer")), array(1, 4, dims=("query", "token"))):
        with pytest.raises(MapError, match=r"map 1 must be .* each of the 4 image tokens; got"):
            Maps((array(2, 4), wrong), (tokens(4), tokens(4)), Cost())


def test_as_many_token_maps_and_logits_as_maps_are_needed():
    with pytest.raises(MapError, match="each map needs its TokenMap; got 1 maps and 2 TokenMaps"):
        Maps((array(2, 4),), (tokens(4), tokens(4)), Cost())
    with pytest.raises(MapError, match="1 maps need as many rows of logits"):
        Maps(
            (array(2, 4),), (tokens(4),), Cost(), xr.DataArray(np.zeros((2, 9)), dims=("sample", "token_id"))
        )
