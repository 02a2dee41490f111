from __future__ import annotations

import importlib
import json
import pickle
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from interp.data import hub
from interp.data.table_rows import plain
from interp.errors import BoxError, DataError


def pictures(n: int = 3) -> list[Image.Image]:
    return [Image.fromarray(np.full((8, 9, 3), 40 * i, np.uint8)) for i in range(n)]


def dataset(**columns: Any) -> datasets.Dataset:
    kinds = {
        "scan": datasets.Image(),
        "question": datasets.Value("string"),
        "label": datasets.ClassLabel(names=["no", "yes"]),
    }
    found = datasets.Dataset.from_dict(
        {"scan": pictures(), "question": ["a?", "b?", "c?"], "label": [0, 1, 0]},
        features=datasets.Features(kinds),
    )
    for name, values in columns.items():
        found = found.add_column(name, values)
    return found


def test_rows_become_samples_and_images_are_read_when_used() -> None:
    samples = hub(dataset(bbox=[[1, 1, 4, 5]] * 3), columns={"answer": "label"})
    assert [sample.answer for sample in samples] == ["no", "yes", "no"]
    assert [box.as_tuple() for box in samples[0].boxes] == [(1, 1, 4, 5)]
    assert samples[1].sizes == ((9, 8),)
    assert np.asarray(samples[2].load()).max() == 80
    assert type(samples[0].image).__name__ == "LazyImage"
    copied = pickle.loads(pickle.dumps(samples[1]))
    assert copied.fingerprint == samples[1].fingerprint != samples[2].fingerprint
    assert samples[1:].filter(lambda sample: sample.answer == "no")[0] == samples[2]


def test_no_pixel_is_read_before_a_sample_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []
    known = Image.open
    monkeypatch.setattr(Image, "open", lambda *args, **more: read.append(1) or known(*args, **more))
    samples = hub(dataset(bbox=[[1, 1, 4, 5]] * 3), box_format="xyxy")
    n_headers = len(read)
    assert n_headers <= 3  # sizes, to see whether the boxes fit
    assert hub(dataset())[0].question == "a?"
    assert len(read) == n_headers
    samples[0].load()
    assert len(read) == n_headers + 1


def test_splits_folders_and_files(tmp_path: Path) -> None:
    both = datasets.DatasetDict({"train": dataset(), "test": dataset().select([0])})
    assert [sample.meta["split"] for sample in hub(both, "test")] == ["test"]
    with pytest.raises(
        DataError, match=r"the data set has the splits train, test; got None\. Pass one as split="
    ):
        hub(both)
    both.save_to_disk(tmp_path / "saved")
    assert len(hub(tmp_path / "saved", "train")) == 3
    dataset().to_parquet(tmp_path / "a.parquet")
    assert hub(tmp_path / "a.parquet")[2].sizes == ((9, 8),)
    with pytest.raises(DataError, match="is no folder that save_to_disk wrote"):
        hub(tmp_path)


def test_an_id_is_read_from_the_cache_and_not_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(DataError, match=r"no data set of that id in the cache .*pass download=True"):
        hub("someone/scans")
    dataset().to_parquet(tmp_path / "a.parquet")
    datasets.load_dataset("parquet", data_files=str(tmp_path / "a.parquet"), cache_dir=str(tmp_path / "made"))
    (made,) = (tmp_path / "made/parquet").glob("*/0.0.0/*/")
    for file in made.iterdir():
        text = file.read_bytes()
        place = tmp_path / "someone___scans/default/0.0.0/abc" / file.name.replace("parquet-", "scans-")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(
            text.replace(made.parts[-3].encode(), b"default") if file.suffix == ".json" else text
        )
    assert [sample.question for sample in hub("someone/scans", "train")] == ["a?", "b?", "c?"]


def test_a_list_of_dicts_and_several_images() -> None:
    rows = [{"images": pictures(2), "question": "?", "boxes": [[1, 1, 3, 3, 1]]}]
    assert hub(rows)[0].boxes[0].image == 1
    kinds = datasets.Features(
        {"images": datasets.List(datasets.Image()), "question": datasets.Value("string")}
    )
    (sample,) = hub(datasets.Dataset.from_dict({"images": [pictures(2)], "question": ["?"]}, features=kinds))
    assert sample.sizes == ((9, 8), (9, 8))
    assert np.asarray(sample.load(1)).max() == 40


def test_names_splits_and_the_image_column(unchecked: None) -> None:
    both = datasets.DatasetDict({"train": dataset(), "test": dataset(split=["own", "own", "own"])})
    train = hub(both, "train", "mine", columns={"answer": "label"})
    assert train.name == "mine"
    assert dict(train[0].meta) == {"split": "train"}
    assert hub(both, "test")[0].meta["split"] == "own"  # a column says more
    assert "split" not in hub(dataset())[0].meta
    kinds = {"scan": datasets.Image(), "other": datasets.Image(), "question": datasets.Value("string")}
    held = {"scan": pictures(), "other": pictures()[::-1], "question": ["?"] * 3}
    second = datasets.Dataset.from_dict(held, features=datasets.Features(kinds))
    assert hub(second)[0].fingerprint != hub(second, columns={"image": "other"})[0].fingerprint
    assert np.asarray(hub(second, columns={"image": "other"})[0].load()).max() == 80
    for wrong in (3, ["image"]):
        with pytest.raises(DataError, match="columns maps fields to columns"):
            hub([{"image": pictures()[0], "question": "?"}], columns=wrong)  # type: ignore[arg-type]
    with pytest.raises(BoxError, match="box_format is one of"):
        hub(dataset(), box_format="yolo")


def test_options_boxes_and_classes_in_cells() -> None:
    row = {
        "image": pictures()[0],
        "question": "?",
        "options": ["a", " b"],
        "bbox": [[1, 1, 3, 3], [2, 2, 4, 4]],
    }
    (sample,) = hub([row])
    assert (sample.options, len(sample.boxes)) == (("a", "b"), 2)
    for change, message in (
        ({"bbox": [[1, 1, 3, 3], [2, 2, "4", 4]]}, "field 'bbox': expected a list of boxes"),
        ({"bbox": [[1, 1, 3, 3], 5]}, "field 'bbox': expected a list of boxes"),
        ({"bbox": [[1, 1, 3, True]]}, "field 'bbox': expected a list of boxes"),
        ({"options": ["a", 3]}, "field 'options': expected options as a JSON list"),
    ):
        with pytest.raises(DataError, match=message):
            hub([row | change])
    kinds = {"image": datasets.Image(), "question": datasets.Value("string"),
             "label": datasets.ClassLabel(names=["no", "yes"])}  # fmt: skip
    held = {"image": pictures(), "question": ["?"] * 3, "label": [0, -1, None]}
    found = hub(
        datasets.Dataset.from_dict(held, features=datasets.Features(kinds)), columns={"answer": "label"}
    )
    assert [one.answer for one in found] == ["no", None, None]


def test_the_only_split_and_the_data_sets_own() -> None:
    (only,) = hub(datasets.DatasetDict({"dev": dataset().select([0])}))
    assert only.meta["split"] == "dev"
    own = datasets.Dataset.from_list([{"image": "a.png", "question": "?"}], split=datasets.Split("test"))
    assert hub(own, bad_rows="record")[0].meta["split"] == "test"
    with pytest.raises(DataError, match="holds no rows"):
        hub(dataset().select([]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": ""}, "split is a text or None; got ''"),
        ({"config": 3}, "config is a text or None; got 3"),
        ({"revision": ""}, "revision is a text or None; got ''"),
        ({"download": 1}, "download is True or False; got 1"),
    ],
)
def test_what_names_a_data_set_is_checked(options: Any, message: str, unchecked: None) -> None:
    with pytest.raises(DataError, match=message):
        hub("someone/scans", **options)


def test_paths_in_rows_are_relative_to_the_folder(tmp_path: Path) -> None:
    pictures()[1].save(tmp_path / "a.png")
    (sample,) = hub([{"image": "a.png", "question": "?"}], images=tmp_path)
    assert sample.image == str(tmp_path / "a.png")


def test_a_bad_row_is_named() -> None:
    with pytest.raises(DataError, match="the data set, row 2, field 'question': expected a text"):
        hub(dataset().remove_columns("question").add_column("question", ["a", "b", ""]))
    with pytest.raises(DataError, match="the list, row 1: expected an object of fields, got 3"):
        hub([{"image": pictures()[0], "question": "?"}, 3])
    with pytest.raises(DataError, match="the data set, row 1, field 'bbox': a box needs x1 > x0"):
        hub(dataset(bbox=[[1, 1, 4, 5], [4, 4, 1, 5], [1, 1, 4, 5]]))
    empty = datasets.Dataset.from_dict(
        {"image": [None], "question": ["?"]},
        features=datasets.Features({"image": datasets.Image(), "question": datasets.Value("string")}),
    )
    with pytest.raises(DataError, match="the data set, row 0, field 'image': expected an image, got None"):
        hub(empty)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (3, "expected a Dataset, a DataFrame, a list of dicts"),
        ("a/b/c/d", "cannot be read: it does not exist"),
        ("none.parquet", "cannot be read: it does not exist"),
        ([], "no column for the image"),
    ],
)
def test_what_holds_no_table(source: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        hub(source)


def test_streams_are_refused() -> None:
    with pytest.raises(DataError, match=r"is a IterableDataset; a datasets.Dataset is read"):
        hub(dataset().to_iterable_dataset())


def test_empty_cells_are_found_in_chosen_rows_and_slices() -> None:
    kinds = datasets.Features({"image": datasets.Image(), "question": datasets.Value("string")})
    cells = [{"image": one, "question": str(i)} for i, one in enumerate([*pictures(2), None, *pictures(1)])]
    whole = datasets.concatenate_datasets(
        [
            datasets.Dataset.from_list(cells[:1], features=kinds),
            datasets.Dataset.from_list(cells[1:], features=kinds),
        ]
    )
    for order in ([3, 2, 0], [2, 3]):
        with pytest.raises(
            DataError, match=rf"row {order.index(2)}, field 'image': expected an image, got None"
        ):
            hub(whole.select(order))
    assert len(hub(whole.select([3, 0, 1]))) == 3
    assert len(hub(whole.select(range(3, 4)))) == 1


def test_images_of_a_file_of_rows_are_beside_it(tmp_path: Path) -> None:
    pictures()[1].save(tmp_path / "a.png")
    row = {"image": "a.png", "question": "?", "age": 3}
    (tmp_path / "rows.json").write_text(json.dumps([row, {**row, "answer": "yes"}]))
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n\n" + json.dumps({**row, "answer": "yes"}))
    for name, ids in (("rows.json", ["rows:0", "rows:1"]), ("rows.jsonl", ["rows:1", "rows:3"])):
        found = hub(tmp_path / name)
        assert [str(one.image) for one in found] == [str(tmp_path / "a.png")] * 2
        assert [(one.id, one.answer) for one in found] == list(zip(ids, (None, "yes"), strict=True))
        assert (found.name, dict(found[0].meta)) == ("rows", {"age": 3})
    (tmp_path / "rows.txt").write_text("x")
    with pytest.raises(DataError, match=r"rows\.txt: expected a \.json, \.jsonl or \.parquet file"):
        hub(tmp_path / "rows.txt")


def test_a_cell_may_name_the_file_of_its_image(tmp_path: Path) -> None:
    pictures()[2].save(tmp_path / "a.png")
    kinds = datasets.Features({"image": datasets.Image(decode=False), "question": datasets.Value("string")})
    rows = {"image": [{"bytes": None, "path": str(tmp_path / "a.png")}], "question": ["?"]}
    found = hub(datasets.Dataset.from_dict(rows, features=kinds).cast_column("image", datasets.Image()))
    assert np.asarray(found[0].load()).max() == 80


@pytest.mark.parametrize(
    ("cell", "value"),
    [(np.array([[1, 2]]), [[1, 2]]), ((1, np.float64(0.5)), [1, 0.5]), ({1: np.bool_(True)}, {"1": True}),
     (float("nan"), None), ([float("nan"), " "], [None, " "]), (date(2026, 1, 2), "2026-01-02"), ("", "")],
)  # fmt: skip
def test_cells_are_kept_as_json_stores_them(cell: Any, value: Any) -> None:
    found = plain(cell)
    assert (found, json.dumps(found)) == (value, json.dumps(value))


def test_a_download_is_of_the_named_revision_and_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *given, **more: asked.append((given, more)) or dataset()
    )
    assert len(hub("Some/Scans", config="large", revision="v2", download=True)) == 3
    assert asked == [(("Some/Scans", "large"), {"revision": "v2"})]


def test_the_cache_is_asked_for_a_configuration_and_a_split(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    parts = datasets.DatasetDict({"train": dataset(), "test": dataset().select([0])})

    def cache(**given: Any) -> Any:
        asked.append((given["repo_id"], given["dataset_name"], given["config_name"]))
        return SimpleNamespace(as_dataset=lambda: parts)

    room = importlib.import_module("datasets.packaged_modules.cache.cache")
    monkeypatch.setattr(room, "Cache", cache)
    found = [hub("Some/Scans", split, config="large") for split in ("train", "test")]
    assert [len(one) for one in found] == [3, 1]
    assert asked == [("Some/Scans", "Scans", "large")] * 2
