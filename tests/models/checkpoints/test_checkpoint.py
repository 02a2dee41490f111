"""A conversion reads its source alone: links out of it are refused, those of the hub's cache are followed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

import interp
from interp.errors import ModelError
from interp.models.checkpoints.checkpoint import check_source_files
from interp.models.checkpoints.convert import convert
from interp.models.checkpoints.tensors import read_folder
from tests.models.checkpoints import llava_cases
from tests.models.checkpoints.written_vila_internvl import write_internvl


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return write_internvl(tmp_path_factory.mktemp("original") / "model", "v2", "300M", -2).folder


@pytest.fixture
def source(original, tmp_path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(original, tmp_path / "source"))


def outside(source: Path, name: str) -> Path:
    """Moves a file of the source out of it and leaves a link to it."""
    moved = source.parent / "elsewhere" / name
    moved.parent.mkdir()
    if (source / name).exists():
        shutil.move(source / name, moved)
    else:
        moved.write_text("PRIVATE")
    (source / name).symlink_to(moved)
    return moved


@pytest.mark.parametrize(
    "name", ["LICENSE", "NOTICE.txt", "config.json", "tokenizer.json", "model.safetensors"]
)
def test_a_link_out_of_the_source_is_refused(source, tmp_path, name):
    moved = outside(source, name)
    with pytest.raises(
        ModelError, match=rf"{name} is a link to {moved}, outside .*source. .*replace the link by a copy"
    ):
        convert(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_link_to_a_folder_outside_is_refused(source, tmp_path):
    (tmp_path / "home").mkdir()
    (source / "deep").mkdir()
    (source / "deep" / "tokens").symlink_to("../../home")
    with pytest.raises(ModelError, match=r"deep/tokens is a link to .*home, outside"):
        convert(source, tmp_path / "out")


def test_a_chain_of_links_is_followed_to_its_end(source, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("PRIVATE")
    (source / "a").symlink_to(secret)
    (source / "LICENSE").unlink(missing_ok=True)
    (source / "LICENSE").symlink_to("a")
    with pytest.raises(ModelError, match=r"is a link to .*secret, outside"):
        convert(source, tmp_path / "out")


def test_links_that_stay_inside_are_followed(source, tmp_path):
    (source / "terms.txt").write_text("Terms\n")
    (source / "LICENSE").unlink(missing_ok=True)
    (source / "LICENSE").symlink_to("terms.txt")
    for name in ("NOTICE", "licence.md"):
        (source / name).write_text(name)
    (tmp_path / "way").symlink_to("source")
    found = convert(tmp_path / "way", tmp_path / "out")
    assert (found.folder / "NOTICE").read_text() == "NOTICE"
    assert (found.folder / "licence.md").read_text() == "licence.md"
    assert not (found.folder / "terms.txt").exists()
    assert (found.folder / "LICENSE").read_text() == "Terms\n"
    assert not (found.folder / "LICENSE").is_symlink()


def cached(source: Path, repository: Path) -> Path:
    """The files of a folder as the hub's cache holds them: a snapshot of links to blobs."""
    snapshot, blobs = repository / "snapshots" / "abc", repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for i, path in enumerate(sorted(source.iterdir())):
        shutil.copyfile(path, blobs / f"{i:040}")
        (snapshot / path.name).symlink_to(f"../../blobs/{i:040}")
    return snapshot


def test_a_snapshot_of_the_hubs_cache_is_converted(source, original, tmp_path):
    snapshot = cached(source, tmp_path / "hub" / "models--org--name")
    found = convert(snapshot, tmp_path / "out")
    assert interp.load(found.folder).hf.num_parameters() == interp.load(original).hf.num_parameters()
    assert not any(path.is_symlink() for path in found.folder.iterdir())


@pytest.mark.parametrize("place", ["models--org--other/blobs/0", "models--org--name/refs/main", "token"])
def test_a_snapshot_reads_its_own_blobs_alone(source, tmp_path, place):
    snapshot = cached(source, tmp_path / "hub" / "models--org--name")
    elsewhere = tmp_path / "hub" / place
    elsewhere.parent.mkdir(parents=True, exist_ok=True)
    elsewhere.write_text("PRIVATE")
    (snapshot / "LICENSE").unlink(missing_ok=True)
    (snapshot / "LICENSE").symlink_to(elsewhere)
    with pytest.raises(ModelError, match=r"LICENSE is a link to .* outside"):
        convert(snapshot, tmp_path / "out")


def test_a_towers_folder_is_held_to_the_same(tmp_path):
    source = llava_cases.llava_v15(tmp_path).folder
    outside(tmp_path / "clip", "config.json")
    with pytest.raises(ModelError, match=r"clip/config.json is a link to .*elsewhere"):
        convert(source, tmp_path / "out", vision_tower=tmp_path / "clip")


@pytest.mark.parametrize("name", ["config.json", "LICENSE", "README.md"])
def test_pipes_are_refused_instead_of_read(source, tmp_path, name):
    (source / name).unlink(missing_ok=True)
    os.mkfifo(source / name)
    with pytest.raises(ModelError, match=rf"{name} is neither a file nor a folder.*Remove it"):
        convert(source, tmp_path / "out")


def test_a_link_to_a_pipe_and_a_circle_are_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "pipe").rename(tmp_path / "p")
    (tmp_path / "again").symlink_to("again")
    with pytest.raises(ModelError, match=r"p is neither a file|again is a link that leads nowhere"):
        check_source_files(tmp_path)
    (tmp_path / "p").unlink()
    with pytest.raises(ModelError, match=r"again is a link that leads nowhere .*Remove it"):
        check_source_files(tmp_path)


def test_a_folder_without_a_config_is_not_searched(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "link").symlink_to("/etc/hostname")
    check_source_files(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="link is a link to"):
        check_source_files(tmp_path)


@pytest.mark.parametrize("file", ["../other/model.safetensors", "/etc/model.safetensors"])
def test_an_index_names_files_of_its_own_folder(tmp_path, file):
    index = {"weight_map": {"a": file}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(
        ModelError, match=r"names files outside its folder: .*model.safetensors. Only its own files"
    ):
        read_folder(tmp_path)
