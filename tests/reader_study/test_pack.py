"""The page of a reader study tells nothing but the maps: not by names, order, sides, sizes, colours or metadata."""

from __future__ import annotations

import base64
import html
import json
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from PIL import Image

from interp import methods
from interp.data import Samples, bundled
from interp.errors import DataError, MapError, StudyError
from interp.indicators import Maps
from interp.inputs.footprints import squash
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.reader_study import Pack, read_key, stored_maps, write_pack
from interp.reader_study.pack import _maps, draw_items
from interp.study import LayerSweep, Refinement
from interp.study.refinement.result import RefinementCell
from interp.tracing import Cost, load
from tests.reader_study.cases import cases, maps

FIRST, SECOND = "plain-condition", "refined-condition"


def pack(folder: Path, found: dict[str, Maps] | None = None, n: int = 9, **options: Any) -> Pack:
    given = {FIRST: maps(n, 1), SECOND: maps(n, 2, power=6.0)} if found is None else found
    chosen = {"n_duplicates": 3, "seed": 11, "side": 64, **options}
    return write_pack(cases(n), given, page=folder / "page.html", key=folder / "key.json", **chosen)


def items(page: Path) -> list[dict[str, Any]]:
    text = page.read_text()
    found = re.search(r'<script type="application/json" id="form">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])["items"]


def sheet(item: dict[str, Any]) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(item["pictures"][0]["src"].partition(",")[2])))


def halves(item: dict[str, Any]) -> tuple[bytes, bytes, bytes]:
    """The pixels of the image, of map A and of map B."""
    whole = np.asarray(sheet(item))
    return tuple(part.tobytes() for part in np.split(whole, 3, axis=1))  # pyright: ignore[reportReturnType]


def test_the_page_names_no_condition_sample_group_or_seed(tmp_path: Path) -> None:
    made = pack(tmp_path, seed=918273645)
    text = html.unescape(made.page.read_text())
    for secret in (FIRST, SECOND, "secret-", "patient", "918273645", str(tmp_path), "duplicate"):
        assert secret not in re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", text), secret
    assert [one["key"] for one in items(made.page)] == [str(place + 1) for place in range(12)]


def test_exchanged_names_give_the_same_page(tmp_path: Path) -> None:
    one, two = maps(9, 1), maps(9, 2, power=6.0)
    straight = pack(tmp_path / "a", {"x": one, "y": two}).page.read_bytes()
    assert (
        pack(tmp_path / "b", {"y": two, "x": one}).page.read_bytes() == straight
    )  # the order of the arguments
    assert pack(tmp_path / "c", {"one": one, "two": two}).page.read_bytes() == straight  # the names


def test_exchanged_maps_change_the_pictures_alone(tmp_path: Path) -> None:
    one, two = maps(9, 1), maps(9, 2, power=6.0)
    straight = items(pack(tmp_path / "a", {"x": one, "y": two}).page)
    crossed = items(pack(tmp_path / "b", {"x": two, "y": one}).page)
    for item, other in zip(straight, crossed, strict=True):
        image, a, b = halves(item)
        assert halves(other) == (image, b, a)
        item["pictures"][0].pop("src"), other["pictures"][0].pop("src")
        assert item == other


def test_both_maps_are_in_one_png_without_metadata(tmp_path: Path) -> None:
    found = items(pack(tmp_path).page)
    sizes = set()
    for item in found:
        assert len(item["pictures"]) == 1
        raw = base64.b64decode(item["pictures"][0]["src"].partition(",")[2])
        image = sheet(item)
        sizes.add((image.size, image.mode))
        kinds, at = [], 8
        while at < len(raw):
            length = int.from_bytes(raw[at : at + 4])
            kinds.append(raw[at + 4 : at + 8])
            at += length + 12
        assert set(kinds) == {b"IHDR", b"IDAT", b"IEND"}
    assert sizes == {((3 * 64, 48), "RGB")}


def test_the_scale_of_a_condition_does_not_show(tmp_path: Path) -> None:
    one, two = maps(9, 1), maps(9, 2)
    faint = Maps(tuple(1e-6 * array for array in two.arrays), two.tokens, two.cost)
    assert pack(tmp_path / "a", {"x": one, "y": two}).page.read_bytes() == (
        pack(tmp_path / "b", {"x": one, "y": faint}).page.read_bytes()
    )


def test_each_condition_is_a_on_half_of_the_cases(tmp_path: Path) -> None:
    key = read_key(pack(tmp_path).key)
    first = [one for one in key.items if one.duplicate_of is None]
    assert sum(one.a == FIRST for one in first) in (4, 5)
    assert len({one.case for one in first}) == 9
    assert [one.case for one in first] != sorted(one.case for one in first)


def test_sides_and_order_vary_with_the_seed() -> None:
    samples, seen, orders = cases(12), np.zeros(15), set()
    for seed in range(100):
        found = draw_items(samples, ("x", "y"), 12, 3, np.random.default_rng(seed))
        seen += [one.a == "x" for one in found]
        orders.add(tuple(one.case for one in found))
    assert len(orders) == 100
    assert seen.min() > 30  # each place has x as A in about 50 of 100, give or take 5
    assert seen.max() < 70


def test_duplicates_come_later_with_sides_exchanged(tmp_path: Path) -> None:
    made = pack(tmp_path, n_duplicates=3)
    key, shown = read_key(made.key, page=made.page), items(made.page)
    again = [one for one in key.items if one.duplicate_of]
    assert len(again) == 3
    assert made.n_items == len(shown) == 12
    for one in again:
        first = key.items[int(str(one.duplicate_of)) - 1]
        assert (first.case, first.a, first.b) == (one.case, one.b, one.a)
        assert int(one.item) - int(first.item) >= 2
        image, a, b = halves(shown[int(first.item) - 1])
        assert halves(shown[int(one.item) - 1]) == (image, b, a)


def test_the_key_says_what_each_side_shows(tmp_path: Path) -> None:
    only = maps(9, 1)
    dark = Maps(tuple(0 * array for array in only.arrays), only.tokens, only.cost)
    made = pack(tmp_path, {"bright": only, "dark": dark})
    for one, item in zip(read_key(made.key).items, items(made.page), strict=True):
        _, a, b = halves(item)
        bright, other = (a, b) if one.a == "bright" else (b, a)
        assert (
            np.frombuffer(bright, np.uint8).astype(float).std()
            > np.frombuffer(other, np.uint8).astype(float).std()
        )
        assert item["text"] == f"question {one.case}?"


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    one, two, other = pack(tmp_path / "a"), pack(tmp_path / "b"), pack(tmp_path / "c", seed=12)
    assert one.page.read_bytes() == two.page.read_bytes()
    assert one.key.read_bytes() == two.key.read_bytes()
    assert one.page.read_bytes() != other.page.read_bytes()


def test_without_a_seed_a_large_random_one_is_drawn(tmp_path: Path) -> None:
    seeds = {read_key(pack(tmp_path / name, seed=None).key).seed for name in "abc"}
    assert len(seeds) == 3
    assert max(seeds) > 2**32


def test_boxes_are_drawn_only_on_demand(tmp_path: Path) -> None:
    plain, boxed = items(pack(tmp_path / "a").page), items(pack(tmp_path / "b", boxes=True).page)
    assert halves(plain[0])[0] != halves(boxed[0])[0]


def test_outlines_of_masks_are_not_drawn_either(tmp_path: Path) -> None:
    mask = np.zeros((36, 48), np.uint8)
    mask[5:20, 5:20] = 1
    found = {}
    for name, masks in (("plain", ()), ("masked", [mask])):
        samples = Samples([one.replace(boxes=(), masks=masks) for one in cases(2)])
        given = {"x": maps(2, 1), "y": maps(2, 2)}
        made = write_pack(
            samples, given, page=tmp_path / f"{name}.html", key=tmp_path / f"{name}.json", seed=1, side=64
        )
        found[name] = made.page.read_bytes()
    assert found["plain"] == found["masked"]


def test_each_case_has_the_size_and_the_tokens_of_its_own_image(tmp_path: Path) -> None:
    sizes = [(48, 36), (30, 60), (64, 16)]
    samples = Samples(
        [Sample(np.zeros((h, w, 3), np.uint8), "?", id=str(i)) for i, (w, h) in enumerate(sizes)]
    )
    own, grids = [], [(1, 2), (2, 1), (1, 2)]  # beside one another, or one above the other
    for size, grid in zip(sizes, grids, strict=True):
        laid = squash(size, grid)
        own.append(TokenMap(np.arange(2), laid.boxes, grid, laid.views, laid.image, (size,), 2))
    both = {
        name: Maps(tuple(xr.DataArray(values, dims=["token"]) for _ in sizes), tuple(own), Cost())
        for name, values in (("first", [1.0, 0.0]), ("second", [0.0, 1.0]))
    }
    made = write_pack(samples, both, page=tmp_path / "p.html", key=tmp_path / "k.json", side=64, seed=0)
    for item, held in zip(items(made.page), read_key(made.key).items, strict=True):
        width, height = sizes[held.case]
        whole = np.asarray(sheet(item)).astype(int).sum(-1)
        assert whole.shape[1] / whole.shape[0] == pytest.approx(3 * width / height, rel=0.05)
        for name, part in zip((held.a, held.b), np.split(whole, 3, axis=1)[1:], strict=True):
            first, second = (half.mean() for half in np.array_split(part, 2, axis=grids[held.case].index(2)))
            assert (first > second) == (name == "first")
            assert abs(first - second) > 100


def test_a_key_that_is_needed_is_not_overwritten(tmp_path: Path) -> None:
    made = pack(tmp_path)
    before = made.page.read_bytes()
    with pytest.raises(DataError, match="is the key of another page, whose answers need it"):
        pack(tmp_path, seed=12)
    assert made.page.read_bytes() == before
    pack(tmp_path)  # the very same study may be written again


def layered(own: Maps) -> Maps:
    """The maps, of which the first has a layer."""
    return Maps((own.arrays[0].expand_dims("layer"), *own.arrays[1:]), own.tokens, own.cost)


def test_other_answers_make_another_form(tmp_path: Path) -> None:
    plain, ties = read_key(pack(tmp_path / "a").key), read_key(pack(tmp_path / "b", ties=True).key)
    assert plain.form != ties.form
    assert (plain.ties, ties.ties) == (False, True)
    few = pack(tmp_path / "c", n_cases=6, n_duplicates=0)
    assert few.n_items == len({one.case for one in read_key(few.key).items}) == 6


def test_answers_belong_to_what_the_readers_saw(tmp_path: Path) -> None:
    """Another order, other maps, another question: a file of answers of one page is refused by another's key."""
    given = {"x": maps(4, 1), "y": maps(4, 2)}
    asked = Samples([cases(4)[0].replace(question="?"), *cases(4)[1:]])
    drawn = {**given, "y": maps(4, 3)}
    packs = [
        (cases(4), given, 1),
        (cases(4), given, 2),
        (cases(4), drawn, 1),
        (asked, given, 1),
        (cases(4), given, 1),
    ]
    forms = []
    for place, (samples, shown, seed) in enumerate(packs):
        page, key = tmp_path / f"{place}.html", tmp_path / f"{place}.json"
        forms.append(read_key(write_pack(samples, shown, page=page, key=key, seed=seed, side=64).key).form)
    assert len(set(forms[:4])) == 4
    assert forms[4] == forms[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"found": {"x": maps(9, 1)}}, "maps are two conditions"),
        (
            {"found": {"x": maps(9, 1), "y": maps(8, 2)}},
            r"'y' needs one \(token,\) map for each of the 9 samples",
        ),
        (
            {"found": {"x": maps(9, 1), "y": maps(9, 2, grid=(6, 8))}},
            r"different footprints \(12 and 48 tokens\)",
        ),
        (
            {"found": {"x": maps(9, 1), "y": maps(9, 2, grid=(4, 3))}},
            r"different footprints \(12 and 12 tokens\)",
        ),
        ({"found": {"": maps(9, 1), "y": maps(9, 2)}}, "maps are two conditions"),
        ({"found": {"x": maps(9, 1), "y": 3}}, "maps are two conditions"),
        ({"found": {"x\0": maps(9, 1), "y": maps(9, 2)}}, "the name of a condition holds the control"),
        (
            {"found": {"x": maps(9, 1), "y": layered(maps(9, 2))}},
            r"'y' needs one \(token,\) map .* Choose a layer",
        ),
        ({"side": 63}, "side is a whole number of at least 64 and at most 2048"),
        ({"boxes": 1}, "boxes is True or False"),
        ({"n_cases": 1}, "n_cases is a whole number of at least 2"),
        ({"n_duplicates": 4}, "n_duplicates is a whole number of at least 0 and at most 3"),
        ({"n_cases": 10}, "n_cases is a whole number of at least 2 and at most 9"),
        ({"ties": 1}, "ties is True or False"),
        ({"seed": -1}, "seed is a whole number"),
    ],
)
def test_packs_that_cannot_be_made_are_refused(
    tmp_path: Path, unchecked: None, options: Any, message: str
) -> None:
    with pytest.raises((DataError, MapError), match=message):
        pack(tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


def test_page_and_key_are_two_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a reader study needs Samples, at least two"):
        write_pack(cases(1), {"x": maps(1, 1), "y": maps(1, 2)}, page=tmp_path / "p", key=tmp_path / "k")
    with pytest.raises(DataError, match="page and key are two files"):
        write_pack(cases(4), {"x": maps(4, 1), "y": maps(4, 2)}, page=tmp_path / "p", key=tmp_path / "p")


def test_a_case_shows_one_image(tmp_path: Path) -> None:
    two = Sample(images=[cases(1)[0].load()] * 2, question="?")
    with pytest.raises(DataError, match="has 2 images; a case shows one"):
        write_pack(
            Samples([two, cases(1)[0]]),
            {"x": maps(2, 1), "y": maps(2, 2)},
            page=tmp_path / "p.html",
            key=tmp_path / "k",
        )


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
    for given in ((3, 1), (swept, True), (swept, 1, 2)):
        with pytest.raises(StudyError, match=r"needs \(result, which\)"):
            stored_maps({"a": given})  # pyright: ignore[reportArgumentType]
    for runs in ({}, [("a", (swept, 1))]):
        with pytest.raises(DataError, match="runs are a mapping of a condition"):
            stored_maps(runs)  # pyright: ignore[reportArgumentType]
    with pytest.raises(StudyError, match="maps are stored by a LayerSweep, by layer"):
        stored_maps({"a": (swept, "before")})
    both = type(swept)(swept.study, (swept.cells[0], other.cells[0]), swept.folder)
    with pytest.raises(StudyError, match="has 2 runs"):
        stored_maps({"a": (both, 1)})


class Stored(RefinementCell):
    """What a refinement stored of three samples: two have both maps, one only that before."""

    def __init__(self) -> None:
        pass

    def frame(self, name: str) -> pd.DataFrame:
        return pd.DataFrame({"index": [4, 2, 7]})

    def maps(self, indices: Any) -> Any:
        both = {i: {"before": np.full(2, float(i)), "after": np.full(2, i + 0.5)} for i in indices}
        del both[2]["after"]
        return both


@pytest.mark.parametrize(
    ("which", "held"), [("before", {4: 4.0, 2: 2.0, 7: 7.0}), ("after", {4: 4.5, 7: 7.5})]
)
def test_a_map_of_a_refinement_is_of_the_samples_that_have_it(which: str, held: dict[int, float]) -> None:
    found = _maps(Stored(), which)
    assert {index: float(values[0]) for index, values in found.items()} == held


def test_a_map_that_a_refinement_lacks_is_named() -> None:
    with pytest.raises(StudyError, match="this Refinement stored the maps after, before; got 'method'"):
        _maps(Stored(), "method")


def test_two_conditions_show_the_samples_that_both_have(swept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second sample of four has no map in one of them, the third in none."""
    own = _maps

    def some(cell: Any, which: Any) -> Any:
        found = own(cell, which)
        return {index: values for index, values in found.items() if which != 3 or index != 1}

    monkeypatch.setattr("interp.reader_study.pack._maps", some)
    samples, found = stored_maps({"low": (swept, 1), "high": (swept, 3)})
    whole = own(swept.cells[0], 1)
    assert samples.sample_ids == tuple(swept.study.data[i].id for i in (0, 3))
    for place, index in enumerate((0, 3)):
        np.testing.assert_array_equal(found["low"].arrays[place].values, whole[index])
