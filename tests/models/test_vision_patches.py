"""Patches against the true processor, patch embedding and projector: change a place, see which patch or token moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from interp.conformance.tiny import tiny
from interp.errors import MapError, ModelError, SiteError
from interp.inputs.footprints import check_layout, concatenate, squash
from interp.inputs.patch_map import Patches, PatchMap, PatchWeights, TowerSequence
from interp.models.adapter import find
from interp.models.resizing import down_columns
from interp.models.vision_patches import (
    _grid_of,
    block_order,
    leading_tokens,
    merged,
    merged_side,
    patch_map,
    patches_of_latents,
    split_views,
    subdivided,
    tower_attention,
    tower_heads,
    tower_layers,
    turned,
    usual_patches,
)
from tests.covering import every_family
from tests.models.footprint_checks import Bench
from tests.tracing.tower_reference import UNREAD

Size = tuple[int, int]
SAMPLES: dict[str, list[Size]] = {
    "square": [(140, 140)],
    "wide": [(230, 90)],
    "tall": [(60, 190)],
    "tiny": [(30, 22)],
    "two": [(140, 84), (60, 90)],
}


def bench(family: str, sizes: Sequence[Size]) -> Bench:
    adapter: Any = find(tiny(family)[0].config)
    sizes = sizes if adapter.several_images else sizes[:1]
    return Bench(family, adapter, sizes)


def mapped(one: Bench) -> PatchMap:
    model, processor = one.parts
    found = one.adapter.patches(one.sizes, one.encode(), processor, model.config)
    return PatchMap.of(found, tuple(one.sizes))


class Reached(Exception):  # noqa: N818
    """Ends a pass."""


def entering_tower(one: Bench, box: Any = None, image: int = 0) -> torch.Tensor:
    """(place in the tower's order, hidden): what enters the tower's first layer."""
    model, seen = one.parts[0], []

    def stop(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(args[0] if args else kwargs.get("hidden_states", kwargs.get("hidden_state")))  # Llama 4
        raise Reached

    hook = one.adapter.vision_layers(model)[0].register_forward_pre_hook(stop, with_kwargs=True)
    with torch.no_grad(), pytest.raises(Reached):
        model(**one.encode(box, image))
    hook.remove()
    found = mapped(one)
    if found.padded:
        lengths = np.bincount(found.sequence).tolist()
        return torch.cat([line[:n] for line, n in zip(seen[0], lengths, strict=True)])
    return seen[0].reshape(-1, seen[0].shape[-1])


@pytest.mark.by_default(family=["llava_next", "qwen2_5_vl"], sizes=["two"])
@pytest.mark.parametrize("sizes", SAMPLES)
@pytest.mark.parametrize("family", every_family(but=UNREAD))
def test_a_footprints_pixels_change_its_patch(family, sizes):
    """Its patch moves most of its view, in other views one that meets it, and no other image's."""
    one = bench(family, SAMPLES[sizes])
    found, blank = mapped(one), entering_tower(one)
    assert len(blank) == found.length, "the tower takes as many positions as the map has"
    tried = 0
    for patch in range(0, found.n, max(1, found.n // 13)):
        box = found.footprints[patch]
        if np.isnan(box).any():
            continue
        low, high = np.ceil(box[:2] - 1e-9).astype(int), np.floor(box[2:] + 1e-9).astype(int)
        high = np.maximum(low + 1, high)
        image = int(found.image_index[patch])
        moved = (entering_tower(one, (*low, *high), image) - blank).norm(dim=-1).numpy()[found.slots]
        assert not moved[found.positions("cls")].any() if "cls" in found.spans else True
        moved = moved[found.image]
        assert not moved[found.image_index != image].any(), "a change in one image reached another's patches"
        for view in np.unique(found.views[found.image_index == image]):
            mine = np.flatnonzero((found.image_index == image) & (found.views == view))
            most = mine[moved[mine].argmax()]
            met = found.footprints[most]
            meets = np.minimum(found.footprints[mine, 2:], high) > np.maximum(found.footprints[mine, :2], low)
            if not meets.all(axis=1).any():
                continue  # the view does not see the place
            assert (np.minimum(met[2:], high) > np.maximum(met[:2], low)).all(), (patch, most, str(view))
            # the resize blurs: of patches smaller than its kernel a neighbour may move more
            if (box[2:] - box[:2] >= 3).all() and view == found.views[patch]:
                assert most == patch
        tried += 1
    assert tried > 4


@pytest.mark.parametrize("family", ["gemma4", "kimi_k25", "lfm2_vl", "lighton_ocr", "llama4", "qwen3_vl"])
def test_a_token_lies_where_its_patches_do(family):
    """Of two images of other shapes: what its patches span is its own footprint, which has another source."""
    one = bench(family, [(140, 120), (60, 90)])
    model, processor = one.parts
    found, tokens = one.adapter.patches(one.sizes, one.encode(), processor, model.config), one.footprints()
    boxes, images = (
        np.concatenate([getattr(line.cells, name) for line in found.sequences]) for name in ("boxes", "image")
    )
    matrix = found.weights.matrix()
    assert matrix.shape == (len(tokens), len(boxes))
    assert found.padded is (family in ("gemma4", "lfm2_vl"))
    for box, image, weights in zip(tokens.boxes, tokens.image, matrix, strict=True):
        own = np.flatnonzero(weights)
        assert set(images[own]) == {image}
        seen = boxes[own][~np.isnan(boxes[own, 0])]
        if np.isnan(box).any():
            assert not len(seen)
        else:
            np.testing.assert_allclose([*seen[:, :2].min(axis=0), *seen[:, 2:].max(axis=0)], box, atol=1e-6)


@pytest.mark.by_default(family=["llava_onevision", "qwen2_5_vl", "vila"], sizes=["two"])
@pytest.mark.parametrize("sizes", SAMPLES)
@pytest.mark.parametrize("family", every_family(but=UNREAD, maps="self"))  # no latent is made of some patches
def test_a_changed_patch_moves_the_tokens_that_hold_it(family, sizes):
    """Change a patch's features as they leave the tower: those tokens move that it has a weight in."""
    one = bench(family, SAMPLES[sizes])
    found, model = mapped(one), one.parts[0]
    layers = one.adapter.vision_layers(model)
    number = getattr(model.config, "vision_feature_layer", -1) if family != "internvl" else -1
    number = max(number) if isinstance(number, list) else number  # no later layer mixes it
    taken = layers[number if number < 0 else number - 1]
    last = next(part for name, part in taken.named_children() if name in ("mlp", "feed_forward", "ffn"))
    place: list[int] = []
    starts = np.cumsum([0, *np.bincount(found.sequence)])

    def change(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
        flat, at = output.reshape(-1, output.shape[-1]).clone(), place[0]
        if found.padded:  # each sequence is a line
            line = int(np.searchsorted(starts, at, side="right")) - 1
            at += line * output.shape[-2] - int(starts[line])
        flat[at] += torch.linspace(-5, 5, output.shape[-1])
        return flat.reshape(output.shape)

    plain, weights = one.entering(), found.weights.matrix()
    hook = last.register_forward_hook(change)
    assert weights.shape == (len(plain), found.n)
    for patch in range(0, found.n, max(1, found.n // 7)):
        place[:] = [int(found.slots[found.image[patch]])]
        moved = (one.entering() - plain).norm(dim=-1).numpy() > 1e-4
        assert moved.tolist() == (weights[:, patch] > 0).tolist(), (patch, np.flatnonzero(moved))
    hook.remove()


def test_shrunk_tiles_have_the_weights_of_the_mean():
    """OneVision's tokens of a shrunk grid are the sums of its patches by their weights."""
    one = bench("llava_onevision", [(230, 200)])
    found, model = mapped(one), one.parts[0]
    weights = found.weights.matrix()
    assert ((weights > 0).sum(axis=1) > 1).any(), "the grid is shrunk"
    values = torch.from_numpy(np.random.default_rng(0).random(found.n)).float()

    def fill(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
        return values.reshape(*output.shape[:2], 1).expand_as(output).clone()

    hook = model.model.multi_modal_projector.register_forward_hook(fill)
    entering = one.entering()[:, 0]
    hook.remove()
    tokens = weights.sum(axis=1) > 0
    assert_allclose(entering[tokens], (weights @ values.numpy())[tokens], atol=1e-5)
    assert_allclose(found.weights.to_tokens(values)[tokens], entering[tokens], atol=1e-5)


@pytest.mark.by_default(family=["llava_next", "gemma3", "internvl", "vila"])
@pytest.mark.parametrize("family", every_family(but=UNREAD))
def test_footprints_of_patches_are_sound(family):
    for sizes in ("tall", "two"):
        one = bench(family, SAMPLES[sizes])
        found, tokens = mapped(one), one.footprints()
        cells = squash((8, 8), (2, 2))
        check_layout(type(cells)(found.footprints, None, found.views, found.image_index), one.sizes)
        assert found.weights.shape == (len(tokens), found.n)
        area = np.nan_to_num(np.prod(found.footprints[:, 2:] - found.footprints[:, :2], axis=1))
        for token, box in enumerate(tokens.boxes):
            own = found.weights.patch[found.weights.token == token]
            if np.isnan(box).any() or not len(own) or (found.weights.matrix()[token] > 0).sum() != len(own):
                continue
            if family == "llava_onevision" and tokens.views[token] == "tile":
                continue  # a shrunk token's patches reach beyond it
            assert_allclose(area[own].sum(), np.prod(box[2:] - box[:2]), rtol=1e-6)


def patches_of(size: Size, grid: tuple[int, int], k: int) -> PatchMap:
    """Tokens of k×k patches over a squashed image, with a class token."""
    cells = subdivided(squash(size, grid), grid, k)
    return PatchMap.of(Patches((TowerSequence(cells),), ("cls",), merged(grid, k)), (size,))


def test_a_map_by_hand():
    """An image of 40×20 in 1×2 tokens of 2×2 patches of 10×10 pixels; position 0 is the class token."""
    found = patches_of((40, 20), (1, 2), 2)
    assert found.grid == (2, 4)
    assert found.image.tolist() == list(range(1, 9))
    assert found.positions("cls").tolist() == [0]
    assert found.footprints[5].tolist() == [10, 10, 20, 20]
    assert found.mask([(12, 3, 18, 7)]).nonzero()[0].tolist() == [1]
    assert found.coverage([(5, 0, 15, 10)]).tolist() == [0.5, 0.5, 0, 0, 0, 0, 0, 0]
    assert found.to_pixels(np.arange(8.0))[15, 35] == 7
    assert found.weights.matrix()[1].tolist() == [0, 0, 0.25, 0.25, 0, 0, 0.25, 0.25]
    assert found.weights.to_tokens(np.arange(8.0)).tolist() == [2.5, 4.5]
    assert found.weights.to_patches([1.0, 3.0]).tolist() == [1, 1, 3, 3, 1, 1, 3, 3]
    assert found.weights.to_tokens(np.ones((2, 3, 8))).shape == (2, 3, 2)
    assert found.labels.tolist() == ["cls", *[""] * 8]
    with pytest.raises(SiteError, match="this vision tower has the groups 'all', 'patches', 'cls'"):
        found.positions("last")
    with pytest.raises(MapError, match="one value per patch"):
        found.weights.to_tokens(np.ones(9))
    with pytest.raises(MapError, match="expected numbers"):
        found.weights.to_patches("no")  # type: ignore[arg-type]


def test_tokens_and_patches_without_each_other_are_nan():
    weights = PatchWeights.stacked([PatchWeights.members([[], [0, 1]], 3), PatchWeights.members([[0]], 1)])
    assert weights.shape == (3, 4)
    assert_allclose(weights.to_tokens([1.0, 3.0, 9.0, 5.0]), [np.nan, 2, 5])
    assert_allclose(weights.to_patches([7.0, 2.0, 5.0]), [2, 2, np.nan, 5])


def test_models_without_a_usual_tower_are_refused():
    with pytest.raises(ModelError, match="no module that transformers calls its image encoder"):
        tower_layers(torch.nn.Linear(2, 2))
    model, processor = tiny("llava")
    one = squash((10, 10), (5, 1))
    cells = replace(one, grid=None, views=np.array(["a", "a", "b", "b", "b"]))
    with pytest.raises(ModelError, match="5 image tokens are not whole grids of 4×4"):
        usual_patches(cells, {}, model.config, 1)
    with pytest.raises(ModelError, match="the patches of a video are not mapped"):
        usual_patches(cells, {"pixel_values_videos": 1}, model.config, 1)
    model.model.vision_tower = torch.nn.Sequential(torch.nn.Linear(2, 2))
    with pytest.raises(ModelError, match="has no list of layers whose attention goes through"):
        tower_layers(model)
    with pytest.raises(ModelError, match="has no attention module of transformers' form"):
        tower_attention(torch.nn.Linear(2, 2))
    model.config.scales = [56, 112]
    with pytest.raises(ModelError, match=r"S² .* read the language model's"):
        find(model.config).patches([(10, 10)], {}, processor, model.config)  # type: ignore[attr-defined]


def tower(config: dict[str, Any] | None = None, **vision: Any) -> Any:
    own = {"model_type": "siglip_vision_model", "image_size": 8, "patch_size": 2, **vision}
    return SimpleNamespace(vision_config=SimpleNamespace(**own), **(config or {}))


@pytest.mark.parametrize(
    ("vision", "leading"),
    [
        ({}, ()),
        ({"model_type": "clip_vision_model"}, ("cls",)),
        ({"model_type": "dinov2_with_registers", "num_register_tokens": 2}, ("cls", "register", "register")),
        ({"num_register_tokens": 1}, ("register",)),
        ({"num_register_tokens": None}, ()),
    ],
)
def test_what_comes_before_the_patches(vision, leading) -> None:
    assert leading_tokens(tower(**vision)) == leading


@pytest.mark.parametrize(
    ("config", "vision", "k"),
    [
        ({}, {}, 1),
        ({"downsample_ratio": 0.5}, {"spatial_merge_size": 3}, 2),
        (
            {"downsample_ratio": None, "spatial_merge_size": None, "scale_factor": 3},
            {"spatial_merge_size": 2},
            3,
        ),
        ({}, {"spatial_merge_size": 0, "hidden_stride": 2}, 2),
        ({"spatial_merge_size": 2, "scale_factor": 4}, {}, 2),
    ],
)
def test_a_configs_patches_along_a_token(config, vision, k) -> None:
    assert merged_side(tower(config, **vision)) == k


def test_patches_of_cells_and_blocks() -> None:
    """Two cells one below the other, of 2×2 patches each; and two side by side."""
    found = subdivided(squash((20, 80), (2, 1)), (2, 1), 2)
    assert found.grid == (4, 2)
    assert found.boxes.tolist() == [[x, y, x + 10, y + 20] for y in (0, 20, 40, 60) for x in (0, 10)]
    assert block_order((1, 2), 2).tolist() == [0, 1, 4, 5, 2, 3, 6, 7]
    weights = merged((1, 2), 2)
    assert weights.matrix().tolist() == [[0.25, 0.25, 0, 0] * 2, [0, 0, 0.25, 0.25] * 2]


def test_views_have_equally_many_patches() -> None:
    cells = squash((20, 20), (4, 2))
    for shape in ((2, 3, 8, 8), (1, 2, 3, 8, 8)):
        found = split_views(cells, {"pixel_values": torch.zeros(shape)})
        assert [len(one) for one in found] == [4, 4]
        assert found[1].boxes.tolist() == cells.boxes[4:].tolist()
    assert split_views(concatenate([]), {}) == []


def test_boxes_are_a_grid_row_by_row_or_none() -> None:
    boxes = squash((20, 20), (2, 3)).boxes
    assert _grid_of(boxes) == (2, 3)
    assert _grid_of(boxes[:5]) is None
    assert _grid_of(np.concatenate([boxes[:5], np.full((1, 4), np.nan)])) is None
    assert _grid_of(boxes[::-1]) is None
    assert _grid_of(boxes[[1, 0, 2, 4, 3, 5]]) is None
    assert _grid_of(boxes[[0, 3, 1, 4, 2, 5]]) is None


@pytest.mark.parametrize(
    ("vision", "tokens"),
    [
        ({}, range(8)),
        ({"window_size": 8}, range(8)),  # not a tower with windows
        ({"window_size": 8, "fullatt_block_indexes": [1]}, [0, 1, 4, 5, 2, 3, 6, 7]),
    ],
)
def test_windows_come_one_after_another(vision, tokens) -> None:
    """2×4 tokens of 2×2 patches of 2 px: a window of 8 px holds 2×2 tokens. The second image has a single token."""
    cells = concatenate([squash((40, 20), (2, 4)), squash((10, 10), (1, 1))])
    inputs = {"image_grid_thw": [[1, 4, 8], [1, 2, 2]]}
    found = usual_patches(cells, inputs, tower(**vision), 2)
    patches = [8 * (2 * (t // 4) + y) + 2 * (t % 4) + x for t in tokens for y in (0, 1) for x in (0, 1)]
    first, second = found.sequences
    assert first.order is not None
    assert first.order.tolist() == patches
    assert second.order is not None
    assert second.order.tolist() == [0, 1, 2, 3]
    assert (first.cells.grid, second.cells.grid) == ((4, 8), (2, 2))
    assert found.weights.shape == (9, 36)
    assert found.weights.matrix()[5].nonzero()[0].tolist() == [18, 19, 26, 27]
    with pytest.raises(ModelError, match="more tokens than the 9 of the prompt"):
        usual_patches(cells, {"image_grid_thw": [[1, 4, 8], [1, 4, 2]]}, tower(), 2)
    with pytest.raises(ModelError, match="with 2 frames"):
        usual_patches(cells, {"image_grid_thw": [[1, 4, 8], [2, 2, 2]]}, tower(), 2)


def test_grids_of_a_usual_tower() -> None:
    """A grid that is known, one that the boxes show, and the tower's own of 4×4 patches, here 2×2 tokens."""
    one, two = squash((20, 20), (2, 3)), squash((20, 20), (3, 1))
    twice = replace(concatenate([one, one]), grid=(2, 3))
    tiles = replace(concatenate([squash((9, 9), (2, 2))] * 2, one_image=True), grid=None)
    tiles = replace(tiles, views=np.array(["tile"] * 4 + ["thumbnail"] * 4))
    for cells, k, grids in (
        (twice, 1, [(2, 3)] * 2),
        (concatenate([one, two]), 1, [(2, 3), (3, 1)]),
        (tiles, 2, [(4, 4)] * 2),
        (concatenate([]), 1, []),
    ):
        found = usual_patches(cells, {}, tower(), k)
        assert [each.cells.grid for each in found.sequences] == grids
        assert all(each.order is None for each in found.sequences)
    with pytest.raises(ModelError, match="6 image tokens are not whole grids of 2×2"):
        usual_patches(select_six(tiles), {}, tower(), 2)


def select_six(cells: Any) -> Any:
    return replace(cells, boxes=cells.boxes[:6], views=cells.views[:6], image=cells.image[:6])


def test_tokens_down_the_columns_have_patches_by_rows() -> None:
    """Two views of 2×3 tokens: the token at row r, column c comes at 2·c + r."""
    view = squash((30, 20), (2, 3))
    cells = replace(concatenate([down_columns(view)] * 2), grid=None)
    found = turned(cells, (2, 3), {}, tower(), 1)
    assert [one.cells.boxes.tolist() for one in found.sequences] == [view.boxes.tolist()] * 2
    expected = np.zeros((12, 12))
    for start in (0, 6):
        for r in (0, 1):
            for c in range(3):
                expected[start + 2 * c + r, start + 3 * r + c] = 1
    np.testing.assert_array_equal(found.weights.matrix(), expected)


def attention(**own: Any) -> torch.nn.Module:
    made: Any = torch.nn.Linear(2, 2)
    for name, value in own.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("own", "heads"),
    [
        ({"is_causal": False, "config": SimpleNamespace(num_attention_heads=4)}, 4),
        ({"num_key_value_groups": 1, "config": SimpleNamespace(num_attention_heads=4), "num_heads": 8}, 8),
        ({"config": SimpleNamespace(num_attention_heads=4)}, None),
        ({"is_causal": False, "num_heads": 4}, None),
        ({"is_causal": False, "config": SimpleNamespace()}, None),
    ],
)
def test_attention_of_a_tower_by_its_form(own, heads) -> None:
    assert tower_heads(attention(**own)) == heads


def test_an_adapter_without_patches_is_refused() -> None:
    with pytest.raises(ModelError, match="'seer' does not say where the patches"):
        patch_map(SimpleNamespace(name="seer"), [], {}, None, None)


def test_latents_have_no_patches_of_their_own() -> None:
    views = [squash((30, 40), (1, 2)), squash((30, 40), (1, 3))]
    found = patches_of_latents(views, 4, ("cls",))
    assert [len(one.cells) for one in found.sequences] == [2, 3]
    assert found.leading == ("cls",)
    assert found.weights.shape == (4, 5)
    assert not found.weights.matrix().any()
    assert patches_of_latents([], 0).weights.shape == (0, 0)
