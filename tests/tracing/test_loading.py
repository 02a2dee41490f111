"""Loading from disk: what is found, what is refused, and that nothing is run or downloaded."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.utils import logging as transformers_logging

import tests.tiny as tiny
from interp.errors import ModelError
from interp.models.configs import refuse_kernels
from interp.models.families.llava import Llava
from interp.study.model_spec import model_label
from interp.tracing import load, wrap
from interp.tracing.loading import _check_report, _without_bar


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny.llava().save_pretrained(folder)
    tiny.processor().save_pretrained(folder)
    return folder


@pytest.fixture
def copied(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    """Any request to the hub fails the test."""

    def refuse(*args, **kwargs):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("huggingface_hub.file_download._get_metadata_or_catch_error", refuse)


def test_a_folder_gives_the_same_model(saved, mllm, batch):
    for where in (saved, str(saved)):
        loaded = load(where)
        assert (loaded.trace(tiny.samples()).logits == mllm.trace(batch).logits).all()
        assert loaded.dtype == torch.float32
        assert not loaded.hf.training
        assert loaded.hf.config.text_config._attn_implementation == "interp_sdpa"


def test_dtype_and_processor(saved, tmp_path):
    assert load(saved, dtype="bfloat16").dtype == torch.bfloat16
    assert load(saved, dtype=torch.float16).dtype == torch.float16
    assert load(saved, dtype="auto").dtype == torch.float32
    tiny.processor(pad=True).save_pretrained(tmp_path / "padding")
    for given in (tmp_path / "padding", str(tmp_path / "padding"), tiny.processor(pad=True)):
        assert load(saved, processor=given).processor.image_processor.do_pad
    assert not load(saved).processor.image_processor.do_pad
    with pytest.raises(ModelError, match=r'dtype is "auto", a name such as "bfloat16".*got \'int8\''):
        load(saved, dtype="int8")


def test_a_revision_is_that_of_config_processor_and_weights(monkeypatch):
    asked, hf = {}, tiny.llava()

    def read_config(where, options):
        asked["config"] = (where, options)
        return hf.config

    def load_processor(where, options, config):
        asked["processor"] = (where, options)
        return tiny.processor()

    def from_pretrained(where, **options):
        asked["weights"] = (where, {name: options[name] for name in ("local_files_only", "revision")})
        report = {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": []}
        return hf, report

    for name, made in (("read_config", read_config), ("load_processor", load_processor)):
        monkeypatch.setattr(f"interp.tracing.loading.{name}", made)
    monkeypatch.setattr("interp.tracing.loading.open_original", lambda *_: None)
    monkeypatch.setattr("interp.tracing.loading.reachable", lambda: True)
    monkeypatch.setattr("transformers.AutoModelForImageTextToText.from_pretrained", from_pretrained)
    load("some-org/some-model", revision="v2")
    wanted = ("some-org/some-model", {"local_files_only": False, "revision": "v2"})
    assert asked == dict.fromkeys(("config", "processor", "weights"), wanted)


def test_a_given_adapter_takes_the_place_of_the_familys(saved):
    class Own(Llava):
        name = "own"

    own = Own()
    assert load(saved, adapter=own).adapter is own
    assert load(saved, adapter="llava").family == load(saved).family == "llava"


def test_small_weights_load_quietly_and_keep_their_name(capfd):
    transformers_logging.enable_progress_bar()  # as it is at the start of a process
    assert model_label(load("organism")) == "organism"
    assert "Loading weights" not in capfd.readouterr().err
    assert transformers_logging.is_progress_bar_enabled()


def test_the_organism_has_a_name_of_its_own(monkeypatch, saved):
    monkeypatch.setattr("interp.tracing.loading.folder", lambda name: saved if name == "organism" else None)
    assert load("organism").n_layers == 3


@pytest.mark.parametrize(
    "name",
    [
        "/no/such/folder",
        "./missing",
        "missing",
        "a/b/c",
        "~/missing",
        "org/na me",
        "../x/y",
        "C:\\models\\x",
        "",
    ],
)
def test_a_name_that_is_nothing_is_explained(name):
    with pytest.raises(ModelError, match=r"is not an existing folder, nor a hub id.*nothing was downloaded"):
        load(name)


def test_a_folder_mistyped_below_an_existing_one_is_no_hub_id(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"'runs/modle' is not an existing folder"):
        load("runs/modle")


def test_a_hub_id_reaches_the_hub_and_its_failure_is_explained():
    with pytest.raises(ModelError) as caught:
        load("no-such-org/no-such-model")
    message = str(caught.value)
    assert message.startswith("the config of no-such-org/no-such-model cannot be read (OSError: ")
    assert "treated as a hub id. Is the hub reachable, is the name right" in message
    assert 'Offline, pass the folder of a copy: interp.load("/path/to/folder")' in message


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(ModelError, match=r"holds no config.json. Name the folder that save_pretrained wrote"):
        load(tmp_path)


def test_a_folder_without_a_processor(copied):
    for file in (*copied.glob("*processor*"), *copied.glob("tokenizer*"), *copied.glob("chat_template*")):
        file.unlink()
    with pytest.raises(ModelError, match=r"no processor can be loaded from .*Pass processor="):
        load(copied)
    assert load(copied, processor=tiny.processor()).n_layers == 3


def test_missing_left_over_and_misshapen_weights_are_listed(copied):
    weights = load_file(copied / "model.safetensors")
    name = next(n for n in weights if n.endswith("layers.1.self_attn.q_proj.weight"))
    spoilt = {n: w for n, w in weights.items() if n != name} | {"extra.weight": torch.zeros(2)}
    head = next(
        n for n in weights if n.endswith("norm.weight") and "language_model" in n and "layers" not in n
    )
    spoilt[head] = torch.zeros(7)
    save_file(spoilt, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="do not fit the model its config describes") as caught:
        load(copied)
    message = str(caught.value)
    assert "1 missing: model.language_model.layers.1.self_attn.q_proj.weight" in message
    assert "1 unexpected: extra.weight" in message
    assert "1 of another shape" in message
    assert "language_model.norm.weight" in message
    assert "original checkpoint in another layout" in message


def test_buffers_of_old_checkpoints_are_no_left_overs(copied):
    weights = load_file(copied / "model.safetensors")
    weights["model.language_model.rotary_emb.inv_freq"] = torch.zeros(2)
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    assert load(copied).n_layers == 3


class _Payload:
    def __reduce__(self):
        return Path.touch, (Path("executed"),)


def test_pickled_code_is_not_run(copied, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (copied / "model.safetensors").unlink()
    torch.save({"model.x": _Payload()}, copied / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"transformers cannot load the weights of"):
        load(copied)
    assert not (tmp_path / "executed").exists()


@pytest.fixture
def nothing_heavy(monkeypatch):
    """Weights and processors must not be touched, and nothing asked on stdin."""
    for name in ("load_processor", "_model"):
        monkeypatch.setattr(
            f"interp.tracing.loading.{name}", lambda *a, name=name: pytest.fail(f"{name} ran")
        )
    monkeypatch.setattr("builtins.input", lambda *words: pytest.fail(f"asked on stdin: {words}"))


def change(folder: Path, without: tuple[str, ...] = (), **entries) -> None:
    """Edits a folder's config.json."""
    config = json.loads((folder / "config.json").read_text()) | entries
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k not in without}))


def says(where: Path, *parts: str, **options) -> None:
    with pytest.raises(ModelError) as caught:
        load(where, **options)
    message = str(caught.value)
    for part in (str(where), *parts):
        assert part in message, message


CODE = {"AutoConfig": "evil.Config", "AutoModelForImageTextToText": "org/other--evil_model.M"}


def test_code_beside_a_checkpoint_is_not_run(copied, tmp_path, nothing_heavy):
    marker = tmp_path / "executed"
    (copied / "evil.py").write_text(f"open({str(marker)!r}, 'w')\n")
    change(copied, model_type="evil", auto_map=CODE)
    ways = ("transformers' layout", "interp.wrap(hf_model, processor, adapter=…)", "docs/new_model.md")
    says(copied, "model type 'evil'", "its own code (evil.py, evil_model.py) is not run", *ways)
    says(copied, "adapter= alone is for model types that transformers knows", adapter="llava")
    assert not marker.exists()


def test_code_beside_a_model_transformers_knows_is_passed_over(copied, tmp_path, mllm, batch):
    marker = tmp_path / "executed"
    (copied / "evil.py").write_text(f"open({str(marker)!r}, 'w')\n")
    change(copied, auto_map=CODE)
    with pytest.warns(
        UserWarning, match=r"comes with its own code \(evil.py, evil_model.py\), which is not run; .*Llava"
    ):
        loaded = load(copied)
    assert (loaded.trace(tiny.samples()).logits == mllm.trace(batch).logits).all()
    assert not marker.exists()


def test_model_types_transformers_does_not_know(copied, nothing_heavy):
    change(copied, model_type="mystery")
    says(copied, "model type 'mystery', which transformers 5.23", "Ways on: ", "interp.wrap(")
    change(copied, model_type="minicpmv", auto_map=CODE)
    says(copied, "'minicpmv' models have no spatial map here", "resampler")
    change(copied, model_type="qwen", visual={"n_queries": 256}, without=("auto_map",))
    says(copied, "'qwen' models have no spatial map here", "Qwen-VL's resampler")


@pytest.mark.parametrize(
    ("entries", "name"),
    [
        ({"model_type": "llava_mpt", "mm_vision_tower": "openai/clip-vit-large-patch14-336"}, "LLaVA's"),
        ({"model_type": "llava", "mm_projector_type": "mlp2x_gelu"}, "LLaVA's"),
        ({"model_type": "llava_llama", "llm_cfg": "llm", "vision_tower_cfg": "vision_tower"}, "VILA's"),
        ({"model_type": "internvl_chat", "auto_map": CODE}, "InternVL's"),
    ],
)
def test_original_layouts_are_named(copied, nothing_heavy, entries, name):
    change(copied, **entries)
    says(
        copied,
        f"a checkpoint in {name} original layout",
        "not one that this version reads",
        '"-hf"',
        "interp.wrap(",
    )


def test_models_without_images_or_of_another_kind(copied, nothing_heavy):
    transformers.Qwen2Config(num_hidden_layers=1).save_pretrained(copied)
    says(copied, "model type 'qwen2', a language model without images", "interp models")
    transformers.CLIPConfig().save_pretrained(copied)
    says(copied, "model type 'clip', for which transformers has no image-text-to-text model", "interp.wrap(")
    transformers.WhisperConfig().save_pretrained(copied)
    says(copied, "'whisper' models have no spatial map here: it is an encoder-decoder")
    transformers.BlipConfig().save_pretrained(copied)
    with pytest.raises(
        ModelError, match="'blip' models have no spatial map here: its decoder reads the image"
    ):
        load(copied)


def test_a_family_without_an_adapter_fails_before_the_weights(copied, nothing_heavy):
    transformers.JanusConfig().save_pretrained(copied)
    with pytest.raises(ModelError, match=r"no adapter knows the model type 'janus'; families: .*llava"):
        load(copied)


def test_configs_that_cannot_be_read(copied, nothing_heavy):
    config = copied / "config.json"
    whole = config.read_text()
    change(copied, without=("vision_config",))
    says(copied, "model type 'llava' but has no \"vision_config\"", "default sizes")
    change(copied, without=("vision_config",), model_type="kosmos-2")
    says(copied, "'kosmos-2' models have no spatial map here", "latent queries")
    change(copied, without=("model_type",))
    says(copied, 'names no "model_type"', "save_pretrained")
    for text, words in (
        (whole[: len(whole) // 2], "is not JSON ("),
        ("", "is not JSON ("),
        ("[1, 2]", "should hold a JSON object; it holds '[1, 2]'"),
        ("{}", "should hold a JSON object"),
    ):
        config.write_text(text)
        says(copied, words)
    config.write_bytes(b"\xff\xfe\x00")
    says(copied, "is not JSON (")
    config.write_text(whole)
    change(copied, text_config={"model_type": "mystery"})
    says(copied, "transformers 5.23", "cannot read the config.json", "changed by hand")


@pytest.mark.skipif(find_spec("timm") is not None, reason="timm is installed")
def test_a_tower_whose_package_is_missing_says_which(copied):
    change(copied, model_type="gemma3n", vision_config={"model_type": "gemma3n_vision"})
    says(copied, "needs a package that is not installed", "pip install timm")


def test_options_that_do_not_fit_are_refused(saved):
    with pytest.raises(ModelError, match=r"device='cuda': a model on an NDIF server is loaded already"):
        load(saved, remote=True, device="cuda")
    with pytest.raises(ModelError, match=r"vision_tower='x' is for checkpoints in an original layout"):
        load(saved, vision_tower="x")
    with pytest.raises(ModelError, match=r"revision='main' is for hub ids"):
        load(saved, revision="main")
    with pytest.raises(ModelError, match=r"device='nowhere' cannot be used"):
        load(saved, device="nowhere")


def test_a_model_in_memory_is_for_wrap(unchecked):
    with pytest.raises(
        ModelError, match=r"got LlavaForConditionalGeneration.*interp.wrap\(hf_model, processor\)"
    ):
        load(tiny.llava())


def test_fingerprints_know_weights_config_and_processor(saved, mllm):
    same = load(saved)
    assert len(mllm.fingerprint) == 64
    assert same.fingerprint == mllm.fingerprint
    same.trace(tiny.samples())
    assert wrap(same.unwrap(), tiny.processor()).fingerprint == mllm.fingerprint
    assert wrap(tiny.llava("eager"), tiny.processor()).fingerprint == mllm.fingerprint
    changed = tiny.llava()
    with torch.no_grad():
        changed.lm_head.weight[3, 4] += 1e-3
    others = [
        wrap(changed, tiny.processor()),
        wrap(tiny.llava(), tiny.processor(pad=True)),
        load(saved, dtype="float16"),
    ]
    prints = [other.fingerprint for other in others]
    changed = tiny.llava()
    changed.config.vision_feature_layer = -1
    prints.append(wrap(changed, tiny.processor()).fingerprint)
    assert len({mllm.fingerprint, *prints}) == 5


@pytest.fixture
def no_network(monkeypatch):
    """The hub may be asked, as far as anyone said, but whoever opens a connection is noted."""
    asked = []

    def connect(*args, **kwargs):
        asked.append(args)
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("socket.socket.connect", connect)
    monkeypatch.setattr("socket.create_connection", connect)
    monkeypatch.setattr("socket.getaddrinfo", connect)
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return asked


@pytest.fixture
def kernels_asked(monkeypatch):
    """Stands for the package `kernels`, whose every download is noted."""
    asked = []

    def get_kernel(name, **options):
        asked.append(name)
        raise RuntimeError("a kernel was asked for")

    monkeypatch.setattr("transformers.integrations.hub_kernels.is_kernels_available", lambda: True)
    monkeypatch.setattr("transformers.modeling_utils.is_kernels_available", lambda: True)
    monkeypatch.setattr("transformers.integrations.hub_kernels.get_kernel", get_kernel)
    return asked


EVIL = "kernels-community/evil"


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"attn_implementation": EVIL}, "attn_implementation='kernels-community/evil', which is not part of"),
        ({"_attn_implementation": EVIL}, EVIL),
        ({"attn_implementation": {"text_config": EVIL}}, "(text_config) asks for"),
        ({"attn_implementation": "org/repo@v1:kernel"}, "org/repo@v1:kernel"),
        ({"attn_implementation": "flash_attention_2"}, "whose package is not installed here"),
        ({"attn_implementation": "paged|flash_attention_3"}, "whose package is not installed here"),
        ({"experts_implementation": "sonicmoe"}, "experts_implementation='sonicmoe', code that is fetched"),
        ({"quantization_config": {"quant_method": "mxfp4"}}, "is quantised by 'mxfp4', whose kernels"),
    ],
)
def test_a_folder_makes_nobody_ask_for_kernels(copied, nothing_heavy, kernels_asked, entries, words):
    change(copied, **entries)
    says(copied, words, "Nothing was fetched", "use interp.wrap(model, processor)")
    assert not kernels_asked


@pytest.mark.parametrize("part", ["text_config", "vision_config"])
def test_nor_does_a_part_of_its_config(copied, kernels_asked, part):
    inner = json.loads((copied / "config.json").read_text())[part]
    change(copied, **{part: inner | {"attn_implementation": EVIL, "_attn_implementation_internal": EVIL}})
    assert load(copied).installation.implementation == "sdpa"  # transformers takes the whole model's
    assert not kernels_asked


def test_a_part_that_asks_for_a_kernel_is_named(kernels_asked):
    config = tiny.config()
    config.vision_config._attn_implementation = EVIL
    with pytest.raises(ModelError, match=rf"here \(vision_config\) asks for attn_implementation='{EVIL}'"):
        refuse_kernels("here", config)


def test_the_attention_asked_for_replaces_that_of_the_config(copied, kernels_asked, mllm, batch):
    change(copied, attn_implementation=EVIL)
    loaded = load(copied, attn_implementation="sdpa")
    assert (loaded.trace(tiny.samples()).logits == mllm.trace(batch).logits).all()
    eager = load(copied, attn_implementation="eager")
    assert eager.installation.implementation == "eager"
    assert eager.hf.config.vision_config._attn_implementation == "eager"
    for name in (EVIL, "flash_attention_2", "nonsense"):
        with pytest.raises(
            ModelError, match=r"the call of load asks for attn_implementation=.*Nothing was fetched"
        ):
            load(copied, attn_implementation=name)
    assert not kernels_asked


def test_a_folder_opens_no_connection(copied, no_network, mllm, batch):
    remote = "evil-org/evil-repo"
    change(
        copied,
        auto_map={"AutoConfig": f"{remote}--evil.Config"},
        _name_or_path=remote,
        custom_generate=remote,
    )
    for name in ("processor_config.json", "tokenizer_config.json", "preprocessor_config.json"):
        path = copied / name
        if path.exists():
            entries = {"auto_map": {"AutoProcessor": f"{remote}--evil.P"}, "name_or_path": remote}
            path.write_text(json.dumps(json.loads(path.read_text()) | entries))
    generation = {"custom_generate": remote, "_from_model_config": False, "eos_token_id": 2}
    (copied / "generation_config.json").write_text(json.dumps(generation))
    (copied / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.warns(UserWarning, match="comes with its own code"):
        loaded = load(copied)
    assert no_network == []
    assert loaded.hf.generation_config.eos_token_id == 2
    (copied / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": remote}))
    with contextlib.suppress(ModelError), pytest.warns(UserWarning, match="own code"):
        load(copied)  # where PEFT is installed, an adapter without weights cannot be loaded
    assert no_network == []


def test_without_a_connection_a_hub_id_answers_at_once(no_network):
    start = time.monotonic()
    with pytest.raises(
        ModelError, match=r"the config of no-such-org/no-such-model cannot be read.*Offline, pass"
    ):
        load("no-such-org/no-such-model")
    assert time.monotonic() - start < 5
    assert len(no_network) == 1  # whether the hub is there


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a" * 9999, "has at most 4096 characters.*of 9999 characters\\. Nothing"),
        ("a" * 300, "cannot be looked up|is not a path that can be looked up"),
        (f"org/{'a' * 300}", "is not an existing folder, nor a hub id"),
        ("org/na\x00me", "some of them not printable"),
        ("org/na\nme", "some of them not printable"),
        ("\ud800", "some of them not printable"),
        ("~no-such-user-here/x", "is not a path that can be looked up|is not an existing folder"),
    ],
)
def test_names_that_no_file_can_have(name, words):
    with pytest.raises(ModelError, match=words):
        load(name)
    with pytest.raises(ModelError, match=words):
        load(Path(name))


def test_a_file_is_no_folder(saved, unchecked):
    with pytest.raises(ModelError, match=r"config.json' is a file. Name the folder that it is in\.$"):
        load(saved / "config.json")
    for wrong in (None, 5, b"organism", ["organism"]):
        with pytest.raises(ModelError, match=r"load takes a name, a folder or a hub id; got"):
            load(wrong)
    with pytest.raises(ModelError, match=r"revision is a branch, tag or commit, as text; got 5"):
        load("org/name", revision=5)
    with pytest.raises(ModelError, match=r"device is a name such as .*; got 5.5"):
        load(saved, device=5.5)  # to(5.5) would be taken as a dtype
    with pytest.raises(ModelError, match=r"attn_implementation is a name such as 'sdpa'; got 5"):
        load(saved, attn_implementation=5)


def test_large_weights_are_read_under_a_bar(saved, monkeypatch):
    transformers_logging.enable_progress_bar()
    for size, shown in ((1 << 40, False), (0, True)):
        monkeypatch.setattr("interp.tracing.loading.SMALL", size)
        with _without_bar(str(saved)):
            assert transformers_logging.is_progress_bar_enabled() is shown
        assert transformers_logging.is_progress_bar_enabled()
    with _without_bar("organisation/name"):
        assert transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    with _without_bar(str(saved)):
        pass
    assert not transformers_logging.is_progress_bar_enabled()
    transformers_logging.enable_progress_bar()


def test_a_report_lists_eight_weights_of_each_kind():
    def report(**keys):
        return {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": [], **keys}

    _check_report("x", report(unexpected_keys=["a.rotary_emb.inv_freq", "b.position_ids"]))
    names = [f"w{i}" for i in range(9)]
    with pytest.raises(ModelError, match=r"the weights in x do not fit .*: 9 missing: w0, .*, w7 …\. The"):
        _check_report("x", report(missing_keys=set(names)))
    with pytest.raises(ModelError, match=r"describes: 8 unexpected: w0, .*, w7; 1 of another shape: m\. The"):
        _check_report("x", report(unexpected_keys=names[:8], mismatched_keys=["m"]))
