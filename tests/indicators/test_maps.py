from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from PIL import Image

import interp
from interp.errors import MapError, ModelError, PromptError
from interp.indicators import Maps, RandomMap, TokenKnockout
from interp.indicators.maps import _joined, label_map
from interp.inputs.footprints import concatenate, squash
from interp.inputs.sample import Sample
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
    head, *lines = repr(maps).splitlines()
    assert len(repr(maps[:1]).splitlines()) == 2
    head, *lines = repr(Maps((*arrays, arrays[0]), (*maps.tokens, maps.tokens[0]), Cost())).splitlines()
    assert head.startswith("Maps(4 ×")
    assert lines[3:] == ["  and 1 more"]
    head, *lines = repr(maps).splitlines()
    assert head == "Maps(3 × [layer 2 × token 3; layer 2 × token 4])"
    assert lines == [f"  [{i}] 0 0 0 0 …" for i in range(3)]


def test_a_map_needs_one_value_per_image_token():
    for good in (array(4, dims=("token",)), array(2, 5, 4, dims=("layer", "head", "token"))):
        assert len(Maps((good,), (tokens(4),), Cost())) == 1
    for wrong in (array(2, 3), array(2, 4, dims=("token", "layer")), array(1, 4, dims=("query", "token"))):
        with pytest.raises(MapError, match=r"map 1 must be .* each of the 4 image tokens; got"):
            Maps((array(2, 4), wrong), (tokens(4), tokens(4)), Cost())


def test_as_many_token_maps_and_logits_as_maps_are_needed():
    with pytest.raises(MapError, match="each map needs its TokenMap; got 1 map and 2 TokenMaps"):
        Maps((array(2, 4),), (tokens(4), tokens(4)), Cost())
    with pytest.raises(MapError, match="logits has one row per map"):
        Maps(
            (array(2, 4),), (tokens(4),), Cost(), xr.DataArray(np.zeros((2, 9)), dims=("sample", "token_id"))
        )


def placed() -> TokenMap:
    found = squash((60, 40), (2, 3))
    return TokenMap(np.arange(4, 10), found.boxes, (2, 3), found.views, found.image, ((60, 40),), 12)


def labelled() -> Maps:
    values = np.arange(12, dtype=np.float32).reshape(2, 6)
    coords = {"layer": [3, 7], "token": np.arange(6), "position": ("token", np.arange(4, 10))}
    own = xr.DataArray(values, dims=("layer", "token"), coords=coords, name="attention")
    logits = xr.DataArray(np.ones((1, 5), np.float32), dims=("sample", "token_id"))
    sample = Sample(np.zeros((40, 60, 3), np.uint8), "where?", boxes=[(0, 0, 20, 20)])
    return Maps((own,), (placed(),), Cost(1.5, 10, 2, 1, 99), logits, (sample,))


def test_a_frame_holds_each_value_with_its_place() -> None:
    frame = labelled().to_dataframe()
    assert list(frame) == [
        *("sample", "layer", "token", "position", "image", "x0", "y0", "x1", "y1", "view", "value"),
    ]
    assert len(frame) == 12
    maps = labelled()
    two = Maps(maps.arrays * 2, maps.tokens * 2, Cost()).to_dataframe()
    assert two["sample"].tolist() == [0] * 12 + [1] * 12
    row = frame[(frame.layer == 7) & (frame.token == 4)].iloc[
        0
    ]  # row 1, column 1 of a 2 × 3 grid over 60 × 40
    assert (row.value, row.position, row.x0, row.y0, row.x1, row.y1) == (10.0, 8, 20.0, 20.0, 40.0, 40.0)


def test_saved_maps_come_back_without_their_samples(tmp_path: Path) -> None:
    maps = labelled()
    found = interp.load_maps(maps.save(tmp_path / "m.safetensors"))
    xr.testing.assert_identical(found[0], maps[0])
    xr.testing.assert_identical(found.logits, maps.logits)
    assert found.cost == maps.cost
    assert found.samples == ()
    np.testing.assert_array_equal(found.tokens[0].footprints, placed().footprints)
    assert found.tokens[0].grid == (2, 3)
    with pytest.raises(MapError, match=r"got no path. Write .save\("):
        maps.save()


def test_a_notebook_shows_each_layer_over_the_image() -> None:
    found = labelled()._repr_html_()
    assert re.findall("<figcaption>(.*?)<", found) == ["sample 0, layer 3", "sample 0, layer 7"]
    alone = Maps(labelled().arrays, labelled().tokens, Cost())._repr_html_()  # no image: on paper
    assert alone.count("<img") == 2
    assert alone != found


def test_a_notebook_shows_four_layers_and_the_mean_of_heads() -> None:
    """Of 9 layers 0, 8 and two between; of 5 samples the first 3, and how many more there are."""
    own = array(9, 2, 6, dims=("layer", "head", "token"))
    found = Maps((own,), (placed(),), Cost())._repr_html_()
    assert re.findall("<figcaption>(.*?)<", found) == [
        f"sample 0, layer {layer} (mean of heads)" for layer in (0, 3, 5, 8)
    ]
    flat = array(6, dims=("token",))
    many = Maps((flat,) * 5, (placed(),) * 5, Cost())._repr_html_()
    assert re.findall("<figcaption>(.*?)<", many) == [f"sample {i}, map" for i in range(3)]
    assert "2 more samples" in many


def test_a_slice_keeps_its_own_samples() -> None:
    maps = labelled()
    other = maps.samples[0].replace(id="other")
    two = Maps(maps.arrays * 2, maps.tokens * 2, Cost(), None, (maps.samples[0], other))
    assert [one.id for one in two[1:].samples] == ["other"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_map_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(MapError, match="the map of attention holds NaN or infinity"):
        label_map(np.array([[0.0, value, 0.0, 0.0]]), tokens(4), "attention", [0])


@pytest.mark.usefixtures("unchecked")
def test_parts_of_another_kind_are_refused() -> None:
    maps = labelled()
    for parts, said in (
        ({"arrays": iter(maps.arrays)}, "arrays is a tuple of DataArray, one per sample"),
        ({"arrays": (np.zeros((2, 6)),)}, "arrays is a tuple of DataArray, one per sample"),
        ({"tokens": (None,)}, "tokens is a tuple of TokenMap, one per sample"),
        ({"samples": ("a",)}, "samples is a tuple of Sample, one per sample"),
        ({"logits": np.zeros((1, 5))}, "logits is a DataArray"),
    ):
        with pytest.raises(MapError, match=said):
            replace(maps, **parts)  # pyright: ignore[reportArgumentType]


@pytest.mark.usefixtures("unchecked")
def test_a_call_needs_a_model_a_prompt_and_a_target() -> None:
    sample, model = labelled().samples[0], SimpleNamespace(encode=None, family="any")
    for indicator in (RandomMap(), TokenKnockout()):
        for given in (None, object(), SimpleNamespace(encode=None), SimpleNamespace(family="any")):
            with pytest.raises(ModelError, match=r"expected a model first, as interp.load"):
                indicator(given, sample)
        with pytest.raises(PromptError, match=r"prompt is an interp.Prompt; got 'text'"):
            indicator(model, sample, prompt="text")  # pyright: ignore[reportArgumentType]
        with pytest.raises(PromptError, match=r"target is an interp.Target; got 'yes'"):
            indicator(model, sample, target="yes")  # pyright: ignore[reportArgumentType]


def test_samples_are_one_per_map() -> None:
    maps = labelled()
    with pytest.raises(MapError, match=r"one Sample per map, or none; got 2 samples for 1 map"):
        Maps(maps.arrays, maps.tokens, Cost(), None, maps.samples * 2)


def test_maps_of_parts_come_back_in_the_order_of_samples() -> None:
    def part(*numbers: int, with_logits: bool = True) -> Maps:
        logits = xr.DataArray([[10.0 * n] for n in numbers], dims=["sample", "token_id"])
        arrays, own = tuple(array(1, n + 1) for n in numbers), tuple(tokens(n + 1) for n in numbers)
        return Maps(arrays, own, Cost(forwards=len(numbers)), logits if with_logits else None)

    found = _joined([((2, 0), part(2, 0)), ((1,), part(1))])
    assert [one.sizes["token"] for one in found] == [one.n for one in found.tokens] == [1, 2, 3]
    assert found.cost.forwards == 3
    assert found.logits is not None
    assert found.logits.values.tolist() == [[0], [10], [20]]
    assert _joined([((1,), part(1, with_logits=False)), ((0,), part(0, with_logits=False))]).logits is None
    alone = part(0)
    assert _joined([((0,), alone)]) is alone


def test_maps_show_as_many_values_and_maps_as_fit() -> None:
    flat = [array(n, dims=("token",)) for n in (4, 5)]
    head, *lines = repr(Maps(tuple(flat), (tokens(4), tokens(5)), Cost())).splitlines()
    assert lines == ["  [0] 0 0 0 0", "  [1] 0 0 0 0 …"]
    assert head == "Maps(2 × [token 4; token 5])"


def test_values_beyond_float32_stay_finite_and_in_order() -> None:
    own = label_map(np.array([1e300, -1e300, 0.5, 1e30]), tokens(4), "gradient", attrs={"plain": 2.0})
    assert own.dtype == np.float32
    assert np.isfinite(own.values).all()
    assert own.values.argsort().tolist() == [1, 2, 3, 0]
    assert (own.name, own.dims, dict(own.attrs)) == ("gradient", ("token",), {"plain": 2.0})


def test_a_map_is_labelled_by_layer_head_and_position() -> None:
    own = label_map(np.arange(12.0).reshape(2, 3, 2), tokens(2), "attention", [7, 3])
    assert own.dims == ("layer", "head", "token")
    assert own.sel(layer=3, head=1).values.tolist() == [8, 9]
    assert own["position"].values.tolist() == [1, 2]
    assert "layer" not in label_map(np.zeros((2, 2)), tokens(2), "attention").coords


def test_a_frame_counts_layers_and_heads_as_they_are_named() -> None:
    own = label_map(np.arange(8.0).reshape(2, 2, 2), tokens(2), "attention", [7, 3])
    frame = Maps((own,), (tokens(2),), Cost()).to_dataframe()
    assert frame[["layer", "head", "token", "value"]].values.tolist()[4:6] == [[3, 0, 0, 4], [3, 0, 1, 5]]
    bare = Maps((array(2, 2),), (tokens(2),), Cost()).to_dataframe()
    assert bare["layer"].tolist() == [0, 0, 1, 1]
    assert bare[["x0", "y1"]].isna().all(axis=None)
    nothing = Maps((), (), Cost()).to_dataframe()
    assert len(nothing) == 0
    assert {"sample", "token", "position", "image", "x0", "y0", "x1", "y1", "view", "value"} == set(nothing)


def test_a_frame_and_a_notebook_tell_images_apart() -> None:
    cells = concatenate([squash((8, 8), (1, 1)), squash((6, 4), (1, 2))])
    views = np.array(["base", "base", "tile"])
    own = TokenMap(np.array([2, 5, 6]), cells.boxes, None, views, cells.image, ((8, 8), (6, 4)), 9)
    maps = Maps((array(3, dims=("token",)),), (own,), Cost())
    frame = maps.to_dataframe()
    assert frame["image"].tolist() == [0, 1, 1]
    assert frame["view"].tolist() == ["base", "base", "tile"]
    assert frame["position"].tolist() == [2, 5, 6]
    assert frame["x1"].tolist() == [8, 3, 6]
    assert re.findall("<figcaption>(.*?)<", maps._repr_html_()) == [
        "sample 0, image 1, map",
        "sample 0, image 2, map",
    ]


def shown(maps: Maps) -> list[Image.Image]:
    """The pictures that a notebook shows."""
    coded = re.findall(r"base64,([^\"']+)", maps._repr_html_())
    return [Image.open(io.BytesIO(base64.b64decode(one))).convert("RGB") for one in coded]


def test_a_notebook_shows_each_sample_and_image_as_its_own() -> None:
    """Black, white and grey pictures of three shapes under a map of zeros: one sample of two images, one of one."""
    cells = concatenate([squash((60, 20), (1, 1)), squash((20, 40), (1, 1))])
    pair = TokenMap(np.array([2, 5]), cells.boxes, None, cells.views, cells.image, ((60, 20), (20, 40)), 9)
    one = squash((40, 40), (1, 1))
    single = TokenMap(np.array([2]), one.boxes, (1, 1), one.views, one.image, ((40, 40),), 5)
    grey = [
        np.full((height, width), value, np.uint8)
        for width, height, value in ((60, 20, 0), (20, 40, 255), (40, 40, 128))
    ]
    samples = (Sample(images=grey[:2], question="?"), Sample(grey[2], "?"))
    arrays = (array(2, dims=("token",)), array(1, dims=("token",)))
    pictures = shown(Maps(arrays, (pair, single), Cost(), None, samples))
    assert [one.size for one in pictures] == [(180, 60), (90, 180), (180, 180)]
    means = [float(np.asarray(one).mean()) for one in pictures]
    assert means[0] < means[2] < means[1]
    assert [one.size for one in shown(Maps(arrays, (pair, single), Cost()))] == [
        (180, 60),
        (90, 180),
        (180, 180),
    ]


def test_a_named_map_says_its_name() -> None:
    assert repr(labelled()).startswith("Maps(1 × [layer 2 × token 6] of attention)\n  [0] 0 1 2 3 …")
