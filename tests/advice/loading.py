# ruff: noqa: E501 - a row of a table is a line
"""Advice of the errors of loading spread, quantised and adapted models. The calls reach this module as `ld`."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import peft
from transformers import BitsAndBytesConfig

import interp
from interp.conformance.tiny import tiny
from tests.advice.tracing import saved

ROWS: list[tuple[str, str, str]] = [
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
    "quantization=": "packages are not installed in a test; tests/tracing/parameters/test_placement.py::test_a_missing_package_is_named reads it, and ::test_an_original_layout_is_spread_too the one on original layouts, whose way tests/models/checkpoints/test_convert.py goes",
    "lora= needs the package peft": "packages are not installed in a test; tests/tracing/parameters/test_placement.py::test_a_missing_package_is_named reads it",
    "gradients do not pass bitsandbytes' 4-bit layers": "tests/tracing/parameters/test_placement.py::test_in_4_bits_by_bitsandbytes reads it; there is no GPU, and other rows load without quantization",
}
DISK = {"model": "cpu", "lm_head": "disk"}

__all__ = ["BitsAndBytesConfig", "names", "saved"]


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


def written(hf: Any) -> Path:
    """A model's folder."""
    folder = Path(tempfile.mkdtemp())
    hf.save_pretrained(folder)
    tiny("llava")[1].save_pretrained(folder)
    return folder
