# ruff: noqa: E501 - a row of a table is a line
"""Advice of the errors of loading spread, quantised and adapted models. The calls reach this module as `ld`."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import BitsAndBytesConfig

import interp
from interp.conformance.tiny import tiny

ROWS: list[tuple[str, str, str]] = [
    ("interp.load(ld.saved(), attn_implementation='paged|eager')", "such as attn_implementation='sdpa'", "interp.load(ld.saved(), attn_implementation='sdpa')"),
    ("interp.load(ld.saved(), attn_implementation=5)", "a name such as 'sdpa'", "interp.load(ld.saved(), attn_implementation='sdpa')"),
    ("interp.load(ld.saved(), device=5)", 'a name such as "cpu"', "interp.load(ld.saved(), device='cpu')"),
    ("interp.load(ld.saved(), device=5)", "or a torch.device", "interp.load(ld.saved(), device=ld.torch.device('cpu'))"),
    ("interp.load(ld.saved() / 'config.json')", "Name the folder that it is in", "interp.load(ld.saved())"),
    ("interp.load(ld.empty())", "Name the folder that save_pretrained wrote", "interp.load(ld.saved())"),
    ("interp.load(ld.empty(), processor=ld.empty())", "Name the folder that save_pretrained wrote", "interp.load(ld.saved(), processor=ld.saved())"),
    ("interp.load('x' * 5000)", "the name of a model has at most", "interp.load('organism')"),
    ("interp.load(ld.saved(num_hidden_layers=2))", "Or is config.json the wrong one?", "interp.load(ld.saved(num_hidden_layers=3))"),
    ("interp.wrap('llava', own.processor)", "Write interp.wrap(hf_model, processor)", "interp.wrap(*tiny('llava'))"),
    ("interp.wrap(ld.sharded(), own.processor)", "by saving it and loading the saved files, and wrap that", "interp.load(ld.written(ld.sharded()))"),
    ("interp.wrap(*ld.for_flash())", "attn_implementation='sdpa'", "interp.wrap(*tiny('gemma3', 'sdpa'))"),
    ("interp.wrap(ld.old_class(), own.processor)", "Use a model class that does", "interp.wrap(*tiny('llava'))"),
    ("interp.load(ld.saved(), device_map='auto', device='cuda')", "Leave device out", "interp.load(ld.saved(), device_map='auto')"),
    ("interp.load(ld.saved(), device_map='here')", "device_map is 'auto'", "interp.load(ld.saved(), device_map='auto')"),
    ("interp.load(ld.saved(), device_map={'lm_head': 'cpu'})", '"" names the whole model', "interp.load(ld.saved(), device_map={'': 'cpu'})"),
    ("interp.load(ld.saved(), device_map={'lm_head': 'cpu'})", 'device_map="auto"', "interp.load(ld.saved(), device_map='auto')"),
    ("interp.load(ld.saved(), device_map=ld.DISK)", "offload_folder='offload'", "interp.load(ld.saved(), device_map=ld.DISK, offload_folder='offload')"),
    ("interp.load(ld.saved(), offload_folder='offload')", "give device_map='auto' as well", "interp.load(ld.saved(), offload_folder='offload', device_map='auto')"),
    ("interp.load(ld.saved(), quantization='bits')", "settings as transformers takes them", "interp.load(ld.saved(), quantization=ld.BitsAndBytesConfig(load_in_8bit=True))"),
    ("interp.load(ld.saved(), processor={'pixels': 5})", "It has crop_size", "interp.load(ld.saved(), processor={'do_normalize': False})"),
    ("interp.load(ld.saved(), processor={'do_resize': 'x'})", "does not take", "interp.load(ld.saved(), processor={'do_resize': True})"),
    ("interp.load(ld.saved(), lora=ld.adapter(peft_type='IA3'))", "use interp.wrap(model, processor)", "interp.wrap(ld.with_peft(), own.processor)"),
    ("interp.load(ld.saved(), lora=ld.adapter(use_dora=True))", "load the merged model", "interp.load(ld.written(ld.with_peft().merge_and_unload()))"),
    ("interp.load(ld.saved(), lora=ld.cut())", "Name the folder that PEFT's save_pretrained wrote", "interp.load(ld.saved(), lora=ld.adapter())"),
    ("interp.load(ld.saved(), lora=ld.without_weights())", "load it with PEFT and save it again", "interp.load(ld.saved(), lora=ld.adapter())"),
    ("interp.load(ld.saved(), lora=ld.adapter(target_modules=['none']))", "Is it an adapter of another base?", "interp.load(ld.saved(), lora=ld.adapter())"),
    ("interp.load(ld.saved(), lora=ld.adapter(), device_map=ld.DISK, offload_folder='offload')", "Then load that folder", "interp.load(ld.merged(), device_map=ld.DISK, offload_folder='offload')"),
    ("interp.ModelSpec('organism', processor={'do_resize': {1}})", "load the model and pass it as it is", "interp.LayerSweep(data=D, model=interp.load('organism'))"),
]  # fmt: skip
ELSEWHERE: dict[str, str] = {
    "quantization=": "packages are not installed in a test; tests/tracing/parameters/test_weights.py::test_a_missing_package_is_named reads it, and ::test_an_original_layout_is_spread_too the one on original layouts, whose way tests/models/checkpoints/test_convert.py goes",
    "lora= needs the package peft": "packages are not installed in a test; tests/tracing/parameters/test_weights.py::test_a_missing_package_is_named reads it",
    "bitsandbytes' 4-bit layers compute no gradients": "tests/tracing/parameters/test_weights.py::test_in_4_bits_by_bitsandbytes reads it; there is no GPU, and other rows load without quantization",
}
DISK = {"model": "cpu", "lm_head": "disk"}

__all__ = ["BitsAndBytesConfig", "names", "torch"]


def names() -> dict[str, Any]:
    """What the rows use."""
    return {"ld": sys.modules[__name__]}


@cache
def _adapter() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as place:
        with_peft().save_pretrained(place)
        return {path.name: path.read_bytes() for path in Path(place).glob("adapter_*")}


def with_peft() -> Any:
    """A model with a LoRA, as PEFT makes it."""
    import peft  # takes seconds, so the workers that need no LoRA do without

    config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    return peft.get_peft_model(tiny("llava")[0], config)


def _copied(change: Callable[[Path], Any]) -> Path:
    folder = Path(tempfile.mkdtemp())
    for name, content in _adapter().items():
        (folder / name).write_bytes(content)
    change(folder / "adapter_config.json")
    return folder


def adapter(**settings: Any) -> Path:
    """An adapter's folder with other settings."""
    return _copied(lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | settings)))


def merged() -> Path:
    """A folder of the model with the adapter merged, as the message says."""
    return written(interp.load(saved(), lora=adapter()).unwrap())


def cut() -> Path:
    """An adapter's folder with a cut off config."""
    return _copied(lambda path: path.write_text("{"))


def without_weights() -> Path:
    """An adapter's folder without weights."""
    return _copied(lambda path: (path.parent / "adapter_model.safetensors").unlink())


def empty() -> Path:
    """A folder without a model."""
    return Path(tempfile.mkdtemp())


def written(hf: Any) -> Path:
    """The folder that a model and its processor are saved in."""
    folder = empty()
    hf.save_pretrained(folder)
    tiny("llava")[1].save_pretrained(folder)
    return folder


@cache
def _saved() -> Path:
    return written(tiny("llava")[0])


def saved(**text: Any) -> Path:
    """The folder of a model, with changes to its language model's config."""
    if not text:
        return _saved()
    folder = Path(shutil.copytree(_saved(), empty() / "copy"))
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= text
    (folder / "config.json").write_text(json.dumps(config))
    return folder


class FSDPModule:
    """As torch marks the classes of sharded models."""


def sharded() -> Any:
    """A model as torch's FSDP marks it."""
    hf = tiny("llava")[0]
    hf.__class__ = type("FSDPLlava", (type(hf), FSDPModule), {})
    return hf


def for_flash() -> tuple[Any, Any]:
    """A model whose image tokens see ahead, in flash attention."""
    hf, processor = tiny("gemma3")
    hf.config.text_config._attn_implementation = "flash_attention_2"
    return hf, processor


def old_class() -> Any:
    """A model whose class does not take another attention function."""
    hf = tiny("llava")[0]
    text = hf.model.language_model
    refused = {"_can_set_attn_implementation": classmethod(lambda _: False)}
    text.__class__ = type("Old", (type(text),), refused)
    return hf
