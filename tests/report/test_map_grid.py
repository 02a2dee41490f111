"""Small multiples show every map at its own place, labelled by layer or head."""

import numpy as np
import pytest
import xarray as xr

from interp.errors import MapError
from interp.inputs.footprints import squash
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.report import show_maps


def tokens_of(grid: tuple[int, int], size: tuple[int, int]) -> TokenMap:
    laid = squash(size, grid)
    n = grid[0] * grid[1]
    return TokenMap(np.arange(2, 2 + n), laid.boxes, grid, laid.views, laid.image, (size,), n + 4)


@pytest.fixture
def sample() -> Sample:
    return Sample(image=np.zeros((40, 60, 3), np.uint8), question="where?", boxes=[(0, 0, 15, 10)])


def test_each_map_lights_its_own_token_and_carries_its_name(sample: Sample) -> None:
    values = np.zeros((3, 24))
    values[[0, 1, 2], [0, 9, 23]] = 1.0
    maps = xr.DataArray(values, dims=("layer", "token"), coords={"layer": [3, 4, 7]})
    figure = show_maps(sample, maps, tokens_of((4, 6), (60, 40)), scores={"AR": np.array([1.0, 2.5, 0.25])})
    titles = [a.text for a in figure.layout.annotations]
    assert titles == ["image", "layer 3<br>AR 1.00", "layer 4<br>AR 2.50", "layer 7<br>AR 0.25"]
    assert len(figure.data) == 4
    for shown, token in zip(figure.data[1:], (0, 9, 23), strict=True):
        pixels = np.asarray(shown.z, float)
        cells = (
            pixels.reshape(4, pixels.shape[0] // 4, 6, pixels.shape[1] // 6, 3).mean((1, 3, 4)).reshape(-1)
        )
        others = np.delete(cells, [token, *([0] if token else [])])  # the box is drawn around token 0
        assert cells[token] > others.max() + 50


def test_single_map_needs_no_layer(sample: Sample) -> None:
    figure = show_maps(sample, xr.DataArray(np.ones(24), dims="token"), tokens_of((4, 6), (60, 40)))
    assert [a.text for a in figure.layout.annotations] == ["image", "map"]
    assert (figure.layout.width, figure.layout.margin.t) == (4 * 190 + 40, 40)
    left = [figure.layout[name].domain[0] for name in ("xaxis", "xaxis2")]
    assert left[1] - left[0] == pytest.approx((1 + 0.015) / 4)  # four beside one another, gaps of 0.015
    many = show_maps(sample, xr.DataArray(np.ones((39, 24)), dims=("layer", "token"), coords={"layer": range(39)}),
                     tokens_of((4, 6), (60, 40)))  # fmt: skip
    tops = [many.layout[name].domain for name in ("yaxis", "yaxis5")]
    assert tops[0][0] - tops[1][1] == pytest.approx(0.3 / 10)  # ten rows: less than the tenth that two have


def test_each_image_is_followed_by_its_own_maps() -> None:
    images = [np.full((40, 60, 3), value, np.uint8) for value in (0, 200)]
    pair, laid = Sample(images=images, question="?"), squash((60, 40), (1, 1))
    places = np.array([0, 1])
    tokens = TokenMap(
        np.arange(2),
        np.repeat(laid.boxes, 2, 0),
        (1, 2),
        np.repeat(laid.views, 2),
        places,
        ((60, 40),) * 2,
        4,
    )
    figure = show_maps(pair, xr.DataArray([1.0, 0.0], dims="token"), tokens, columns=2, title="both")
    of = [" · image 1 of 2", " · image 2 of 2"]
    assert [note.text for note in figure.layout.annotations] == [
        f"{name}{one}" for one in of for name in ("image", "map")
    ]
    axes = [(trace.xaxis, trace.yaxis) for trace in figure.data]
    assert axes == [(f"x{number}", f"y{number}") for number in ("", 2, 3, 4)]
    plain = [np.asarray(figure.data[place].z)[20, 30].tolist() for place in (0, 2)]
    assert plain == [[0] * 3, [200] * 3]
    assert figure.layout.title.text == "both"
    lowered = show_maps(pair, xr.DataArray([1.0, 0.0], dims="token"), tokens, columns=2)
    assert figure.layout.height - lowered.layout.height == 30  # the room of the title
    assert (lowered.layout.width, lowered.layout.height) == (2 * 190 + 40, 2 * (190 + 42) + 30)


@pytest.mark.parametrize("shape", [(2, 3, 24), (2, 23)])
def test_maps_of_another_shape_teach(sample: Sample, shape: tuple[int, ...]) -> None:
    maps = xr.DataArray(np.ones(shape), dims=("layer", "head", "token")[-len(shape) :])
    with pytest.raises(MapError, match=r"with 24 tokens; got .* Choose one layer first"):
        show_maps(sample, maps, tokens_of((4, 6), (60, 40)))
