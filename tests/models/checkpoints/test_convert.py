"""Converted checkpoints: the same bits, in plain transformers where its classes can; nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor

import interp
from interp.cli import main
from interp.errors import ModelError
from interp.models.checkpoints import convert as conversion
from interp.models.checkpoints.convert import convert
from interp.models.checkpoints.tensors import Entry, write_shards
from tests.models.checkpoints import llava_cases
from tests.models.checkpoints.layout_checks import QUESTION, encoded, picture
from tests.models.checkpoints.written_vila_internvl import write_internvl, write_vila

PLAIN = """
import sys, torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer
from transformers import InternVLProcessor
from transformers.utils.import_utils import is_torchvision_available

def internvl(folder):  # transformers builds its part for videos, and so the whole, only where torchvision is
    InternVLProcessor.get_attributes = classmethod(lambda cls: ["image_processor", "tokenizer"])
    settings, _ = InternVLProcessor.get_processor_dict(folder)
    names = ("image_seq_length", "chat_template")
    parts = AutoImageProcessor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    return InternVLProcessor(*parts, **{name: settings[name] for name in names})

image, refused, *folders = sys.argv[1:]
question = sys.stdin.read()
for folder in folders:
    model, report = AutoModelForImageTextToText.from_pretrained(folder, dtype="auto", output_loading_info=True)
    assert not any(report.values()), report
    whole = model.config.model_type != "internvl" or is_torchvision_available()
    processor = AutoProcessor.from_pretrained(folder) if whole else internvl(folder)
    content = [{"type": "image"}, {"type": "text", "text": question}]
    turns = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    inputs = processor(text=[text], images=[Image.open(image)], return_tensors="pt")
    with torch.no_grad():
        torch.save({**inputs, "logits": model.eval()(**inputs).logits}, folder + ".out")
try:
    AutoModelForImageTextToText.from_pretrained(refused)
except ValueError as error:
    print(error)
assert "interp" not in sys.modules
"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("sources")
    return {
        "v1": write_internvl(root / "v1", "v1").folder,
        "v2": write_internvl(root / "v2", "v2", "300M", -2).folder,
        "vila": write_vila(root / "vila", "v1").folder,
        "llava": llava_cases.llava_v15(root).folder,
        "tri3": llava_cases.llava_tri(root, (56, 112)).folder,
    }


@pytest.fixture(scope="module")
def towers(sources) -> dict[str, Path]:
    """The towers that lie elsewhere."""
    root = sources["v1"].parent
    return {"llava": root / "clip", "tri3": root / "tri-clip"}


@pytest.fixture(scope="module")
def converted(sources, towers, tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("converted")
    return {
        name: convert(source, root / name, vision_tower=towers.get(name)).folder
        for name, source in sources.items()
    }


def logits(model: interp.tracing.Mllm) -> Tensor:
    with torch.no_grad():
        return model.hf(**encoded(model).inputs).logits


@pytest.mark.ci
def test_plain_transformers_gives_the_same_bits(sources, towers, converted, tmp_path):
    Image.fromarray(picture()).save(tmp_path / "image.png")
    asked = f"{QUESTION} Answer the question using a single word or phrase."
    stock = [converted[name] for name in ("v2", "llava")]
    command = [sys.executable, "-c", PLAIN, tmp_path / "image.png", converted["v1"], *stock]
    threads = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}  # sums differ with their number
    done = subprocess.run(
        list(map(str, command)), input=asked, capture_output=True, text=True, cwd=tmp_path, env=threads
    )
    assert done.returncode == 0, done.stderr
    assert "`interp_internvl_v1`" in done.stdout  # what needs interp is refused by name
    for folder in stock:
        found = torch.load(f"{folder}.out")
        mllm = interp.load(sources[folder.name], vision_tower=towers.get(folder.name), dtype="auto")
        inputs = encoded(mllm).inputs
        assert torch.equal(found["input_ids"], inputs["input_ids"])
        assert torch.equal(found["pixel_values"], inputs["pixel_values"])
        assert torch.equal(found["logits"], logits(mllm))


@pytest.mark.parametrize("name", ["v1", "v2", "vila", "llava", "tri3"])
def test_interp_gives_the_same_bits(sources, towers, converted, name):
    before, after = interp.load(sources[name], vision_tower=towers.get(name)), interp.load(converted[name])
    assert type(before.hf) is type(after.hf)
    assert torch.equal(logits(before), logits(after))
    assert before.hf.generation_config.eos_token_id == after.hf.generation_config.eos_token_id
    assert before.processor.tokenizer.pad_token_id == after.processor.tokenizer.pad_token_id


def test_the_folder_names_its_source_and_not_the_machine(sources, converted):
    for name, folder in converted.items():
        card = (folder / "README.md").read_text()
        texts = [path.read_text() for path in folder.iterdir() if path.suffix in (".json", ".md", ".jinja")]
        assert not any("/home/of" in text or str(sources[name].parent) in text for text in texts)
        assert f"Converted from `{sources[name].name}`" in card
    assert (converted["v1"] / "LICENSE").read_text() == "MIT License\n"
    card = (converted["v1"] / "README.md").read_text()
    assert card.startswith('---\nlicense: other\nlicense_name: "MIT License"\nlibrary_name: interp\n')
    assert "image tokens run down the columns" in card
    assert 'interp.load("this/folder"' in card
    card = (converted["vila"] / "README.md").read_text()
    assert card.startswith("---\nlicense: cc-by-nc-sa-4.0\nlibrary_name: interp\n")
    assert "{system} USER: <image> \n{question} ASSISTANT:" in card
    assert "library_name: transformers\n" in (converted["v2"] / "README.md").read_text()


def test_shards_and_another_dtype(sources, tmp_path):
    found = convert(sources["vila"], tmp_path / "out", dtype="bfloat16", shard=100_000)
    index = json.loads((found.folder / "model.safetensors.index.json").read_text())
    files = sorted(found.folder.glob("*.safetensors"))
    assert len(files) > 3
    assert {path.name for path in files} == set(index["weight_map"].values())
    assert index["metadata"]["total_size"] == found.nbytes
    loaded = interp.load(found.folder, dtype="auto").hf
    wanted = interp.load(sources["vila"]).hf.to(torch.bfloat16).state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in loaded.state_dict().items())
    assert loaded.dtype == torch.bfloat16


def test_one_tensor_is_in_memory_at_a_time(tmp_path):
    entries = [Entry(f"t{i}", torch.bfloat16, (3, i)) for i in range(6)]
    given: list[weakref.ref] = []

    def coming() -> Iterator[tuple[str, Tensor]]:
        for i, entry in enumerate(entries):
            tensor = torch.full(entry.shape, float(i))
            given.append(weakref.ref(tensor))
            assert sum(one() is not None for one in given) <= 2  # this one, and the one just written
            yield entry.name, tensor

    write_shards(tmp_path, entries, coming(), 40)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    for i, entry in enumerate(entries):
        with safe_open(tmp_path / index[entry.name], framework="pt") as file:
            assert torch.equal(
                file.get_tensor(entry.name), torch.full((3, i), float(i), dtype=torch.bfloat16)
            )
    with pytest.raises(
        ModelError, match=r"expected the tensor t1 of shape \(3, 1\); nothing of shape \(0,\) came"
    ):
        write_shards(tmp_path, entries[1:2], [], 40)


def test_what_is_interrupted_leaves_nothing(sources, tmp_path):
    seen = []

    def stop(name: str) -> None:
        seen.append(name)
        begun = list(tmp_path.glob(".out.unfinished-*"))
        assert len(begun) == 1  # hidden, and without what would make it look whole
        assert not (begun[0] / "config.json").exists()
        if len(seen) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(sources["v2"], tmp_path / "out", progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_overwritten(sources, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(
        ModelError, match=r"^\S+full holds 1 files; nothing is overwritten. Name a folder that is empty"
    ):
        convert(sources["v2"], tmp_path / "full")
    with pytest.raises(ModelError, match=r"notes.txt is a file; nothing is overwritten"):
        convert(sources["v2"], tmp_path / "full" / "notes.txt")
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "notes.txt"]


def test_sources_that_cannot_be_converted(sources, converted, tmp_path, monkeypatch):
    with pytest.raises(ModelError, match=r"in no original layout that is read: its model type is 'internvl'"):
        convert(converted["v2"], tmp_path / "out")
    with pytest.raises(ModelError, match=r"'no/such/folder' is neither a folder nor a hub id"):
        convert("no/such/folder", tmp_path / "out")
    with pytest.raises(ModelError, match=r'dtype is "auto", a name such as "bfloat16".*got \'int8\''):
        convert(sources["v2"], tmp_path / "out", dtype="int8")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(
        ModelError, match=r"the weights take 0.0 GB, but .* has 0.0 GB free. Name a folder on another"
    ):
        convert(sources["v2"], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("more", "options"), [({"revision": "r"}, {"revision": "r"}), ({"vision_tower": "org/tower"}, {})]
)
def test_a_hub_id_is_opened_with_its_revision_and_tower(tmp_path, monkeypatch, more, options):
    asked = []
    monkeypatch.setattr(conversion, "open_original", lambda *given: asked.append(given))
    monkeypatch.setattr(
        conversion, "raw_config", lambda *given: asked.append(given) or {"model_type": "kind"}
    )
    with pytest.raises(ModelError, match=r"org/name is in no original layout .*'kind'"):
        convert("org/name", tmp_path / "out", **more)
    expected = ("org/name", {"local_files_only": False, **options})
    assert asked == [(*expected, more.get("vision_tower")), expected]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("file/below", r"file/below cannot be made: .*file is a file. Name a folder elsewhere"),
        ("file/far/below", r"below cannot be made: .*file is a file"),
        ("file", r"file is a file; nothing is overwritten"),
        ("dangling", r"dangling is a file; nothing is overwritten"),
        ("circle", r"circle.* cannot be the target|is a file; nothing is overwritten"),
        ("source", r"source holds \d+ files; nothing is overwritten"),
        ("source/out", r"out lies in the source, .*source, which is left as it is"),
        ("link/out", r"out lies in the source"),
        ("x" * 300, r"cannot be (the target|written)"),
        (None, r"target is a path, as a string or a Path; got None"),
        ("", r"target is a path, .*got ''"),
        ("a\0b", r"target is a path, .*got 'a"),
        ("~nobody-of-that-name/x", r"cannot be the target"),
    ],
)
def test_places_that_cannot_be_written_are_refused_at_once(
    unchecked, sources, tmp_path, monkeypatch, place, message
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(sources["v2"], "source")
    Path("file").write_text("mine")
    Path("dangling").symlink_to("nowhere")
    Path("circle").symlink_to("circle")
    Path("link").symlink_to("source")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.raises(ModelError, match=message):
        convert("source", place)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_a_link_to_an_empty_folder_is_a_target(sources, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    found = convert(sources["v2"], tmp_path / "link")
    assert found.folder == (tmp_path / "disk").resolve()
    assert (tmp_path / "link" / "config.json").is_file()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "mine").mkdir(mode=0o500)
    with pytest.raises(ModelError, match=r"mine cannot be written to. Name a folder elsewhere"):
        convert("no/such/folder", tmp_path / "mine" / "out")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"source": 3}, "source is a path, .*got 3"),
        ({"source": "x" * 5000}, "is neither a folder nor a hub id"),
        ({"vision_tower": 3}, "vision_tower is a path, .*got 3"),
        ({"revision": 3}, "revision is the name of a branch, .*got 3"),
        ({"shard": 0}, "shard is a number of bytes, at least 1; got 0"),
        ({"shard": "5GB"}, "shard is a number of bytes, .*got '5GB'"),
        ({"progress": "bar"}, "progress is a function of a tensor's name; got 'bar'"),
        ({"dtype": 16}, 'dtype is "auto", a name such as "bfloat16".*got 16'),
    ],
)
def test_wrong_arguments_say_what_is_right(unchecked, sources, tmp_path, given, message):
    with pytest.raises(ModelError, match=message):
        convert(**({"source": sources["v2"], "target": tmp_path / "out"} | given))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 10**9}, r"describes 1000000000 layers, but the files hold \d+ tensors"),
        (
            {"num_attention_heads": 0},
            r"looks like InternVL-Chat, but its files do not describe one \(ZeroDiv",
        ),
        ({"hidden_act": "nope"}, r"no InternVL\w+ can be built from the config.json .*nope"),
        ({"hidden_size": 40}, r"of another shape: .*expected"),
    ],
)
def test_configs_that_do_not_fit_are_refused(sources, tmp_path, changes, message):
    source = tmp_path / "source"
    shutil.copytree(sources["v2"], source)
    config = json.loads((source / "config.json").read_text())
    config["llm_config"] |= changes
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=message):
        convert(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command(sources, tmp_path, capsys):
    assert main(["convert", str(sources["v1"]), str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert (
        "for InternVLV1ForConditionalGeneration, from the InternVL-Chat layout\nlicence: MIT License\nnote: "
        in said
    )
    assert "transformers has no class for it" in said
    assert main(["convert", str(sources["v1"]), str(tmp_path / "out")]) == 2
    assert "nothing is overwritten" in capsys.readouterr().err
    assert main(["convert", str(sources["v1"]), str(tmp_path / "out" / "config.json" / "x")]) == 2
    assert "config.json is a file" in capsys.readouterr().err
