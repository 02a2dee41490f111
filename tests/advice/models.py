# ruff: noqa: E501 - a row of a table is a line
"""Advice of the errors of models."""

from __future__ import annotations

import io
import json
import shutil
import sys
import tempfile
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers import models as tokenizer_models
from transformers import PreTrainedTokenizerFast

import interp
import interp.conformance
from interp.cli import main
from interp.conformance.tiny import recipe, tiny
from interp.errors import InterpError
from interp.inputs.footprints import Footprints, squash
from interp.models import without_torchvision
from interp.models.adapter import find
from interp.models.checkpoints import open_original, tensors
from interp.models.checkpoints.convert import convert
from tests.models.checkpoints import llava_cases, sentencepieces, written_llava
from tests.models.checkpoints.written_vila_internvl import write_internvl, write_vila

GEOMETRY = [
    ("md.asked('paligemma', do_center_crop=True, crop_size=md.SQUARE)", "Set it to False", "md.asked('paligemma', do_center_crop=False, crop_size=md.SQUARE)"),
    ("md.asked('paligemma', do_center_crop=True, crop_size=md.SQUARE)", "pass adapter= with your own footprints", "md.asked('paligemma', do_center_crop=True, crop_size=md.SQUARE, adapter=md.Own('paligemma', (5, 5)))"),
    ("md.cells('paligemma', {'size': {'shortest_edge': 70}}, {})", "Set processor.image_processor.size", "md.cells('paligemma', {'size': md.SQUARE}, {})"),
    ("md.cells('paligemma', {'size': {'height': 56, 'width': 42}}, {})", "Set them on processor.image_processor", "md.cells('paligemma', *2 * [{'size': {'height': 56, 'width': 42}}])"),
    ("md.cells('internvl', {}, {}, md.ONE_TILE)", "in processor.images_kwargs where the processor has its own", "md.cells('internvl', {}, {}, md.ONE_TILE, md.ONE_TILE)"),
    ("md.asked('gemma3', size={'height': 56, 'width': 72})", "Set processor.image_processor.size", "md.asked('gemma3', size={'height': 64, 'width': 64})"),
    ("md.cells('internvl', *2 * [{'size': {'height': 50, 'width': 50}}])", "Set processor.image_processor.size", "md.cells('internvl', *2 * [{'size': {'height': 48, 'width': 48}}])"),
    ("md.cells('qwen2_vl', {'patch_size': 16}, {})", "Pass the processor of this checkpoint", "md.cells('qwen2_vl', {}, {})"),
    ("md.cells('qwen2_vl', {'size': {'height': 56, 'width': 56}}, {})", "Set both", "md.cells('qwen2_vl', *2 * [{'size': {'shortest_edge': 28**2, 'longest_edge': 8 * 28**2}}])"),
    ("md.cells('qwen2_vl', {}, {'size': md.FOUR})", "Set them on processor.image_processor", "md.cells('qwen2_vl', {'size': md.FOUR}, {'size': md.FOUR})"),
    ("md.asked('llama4', size={'height': 42, 'width': 42})", "Set processor.image_processor.size", "md.asked('llama4', size={'height': 56, 'width': 56})"),
    ("md.asked('llama4', size={'height': 42, 'width': 42})", "pass the processor of this checkpoint", "md.asked('llama4')"),
    ("md.cells('llava', {}, {'do_center_crop': False})", "Set them on processor.image_processor instead", "md.cells('llava', *2 * [{'do_center_crop': False}])"),
    ("md.asked('llava', size={'max_height': 56, 'max_width': 56})", "Pass adapter= with your own footprints", "md.asked('llava', size={'max_height': 56, 'max_width': 56}, adapter=md.Own('llava', (4, 4)))"),
    ("md.cells('mistral3', {}, {'size': {'longest_edge': 56}})", "Set them on processor.image_processor instead", "md.cells('mistral3', *2 * [{'size': {'longest_edge': 56}}])"),
    ("md.asked('mistral3', spatial_merge_size=1, on='processor')", "Set both to the checkpoint's", "md.asked('mistral3', spatial_merge_size=2, on='processor')"),
    ("md.asked('llava_onevision', vision_aspect_ratio='anyres_max_9', on='processor')", "Set both to the checkpoint's", "md.asked('llava_onevision', vision_aspect_ratio='anyres_max_4', on='processor')"),
    ("md.asked('llava_next', image_grid_pinpoints=[[56, 112]])", "Set both to the checkpoint's", "md.asked('llava_next', image_grid_pinpoints=[[56, 112]], config={'image_grid_pinpoints': [[56, 112]]})"),
    ("md.asked('deepseek_vl', do_pad=False)", "Set them to the checkpoint's", "md.asked('deepseek_vl', do_pad=True)"),
    ("md.asked('kimi_k25', merge_size=1)", "Set them to the checkpoint's", "md.asked('kimi_k25', merge_size=2)"),
    ("md.family_of('kimi_k25').footprints([(140, 84)], {'video_grid_thw': [1]}, None, None)", "pass its frames as images", "md.mllm_of('kimi_k25').trace(Sample(images=[PIC, PIC], question='?'))"),
    ("md.asked('minicpmv4_6', patch_size=16)", "Pass the processor of this checkpoint", "md.asked('minicpmv4_6')"),
    ("md.family_of('minicpmv4_6').footprints([(140, 84)], {'target_sizes_videos': [1]}, None, None)", "pass its frames as images", "md.mllm_of('minicpmv4_6').trace(Sample(images=[PIC, PIC], question='?'))"),
    ("md.asked('lfm2_vl', encoder_patch_size=16)", "Pass the processor of this checkpoint", "md.asked('lfm2_vl')"),
    ("md.with_bias().trace([one])", "Use a checkpoint without", "md.mllm_of('lfm2_vl').trace([one])"),
    ("md.mllm_of('fast_vlm').trace([one], reads=[Rows(Site(tower='vision', queries='all'))])", "Read the language model's attention", "md.mllm_of('fast_vlm').trace([one], reads=[Rows(Site())])"),
    ("md.mllm_of('lfm2_vl').trace([one], reads=[Rows(Site(layers=[0]))])", 'layers="attention"', "md.mllm_of('lfm2_vl').trace([one], reads=[Rows(Site(layers='attention'))])"),
    ("md.asked('fast_vlm', patch_size=0, on='processor')", "Set processor.patch_size", "md.asked('fast_vlm', patch_size=16, on='processor')"),
    ("md.family_of('fast_vlm').cell(md.SimpleNamespace(patch_size=None), None)", "Set processor.patch_size (FastVLM's: 64)", "md.family_of('fast_vlm').cell(md.SimpleNamespace(patch_size=64), None)"),
    ("md.asked('fast_vlm', patch_size=0, on='processor')", "Set processor.patch_size (the vision tower's is 64)", "md.family_of('fast_vlm').cell(md.SimpleNamespace(patch_size=64), None)"),
    ("md.asked('llama4', do_resize=False)", "Leave do_resize at True", "md.asked('llama4', do_resize=True)"),
    ("md.without_torchvision.TorchImages().convert_to_rgb(md.torch.ones(4, 5, 5))", "pass the image as a PIL image", "md.asked_rgba()"),
    ("md.cells('ovis2', *2 * [{'size': {'height': 48, 'width': 48}}])", "Set processor.image_processor.size", "md.cells('ovis2', *2 * [{'size': {'height': 60, 'width': 60}}])"),
    ("md.cells('got_ocr2', *2 * [{'size': {'height': 48, 'width': 48}}])", "Set processor.image_processor.size", "md.cells('got_ocr2', *2 * [{'size': {'height': 96, 'width': 96}}])"),
    ("md.asked('llava_next', size={'shortest_edge': 28}, crop_size={'height': 56, 'width': 56})", "Set both to 56", "md.asked('llava_next', size={'shortest_edge': 56}, crop_size={'height': 56, 'width': 56})"),
]  # fmt: skip
CHECKPOINTS = [
    ("md.load(md.copied('llava'), vision_tower='no/such/folder')", "folder nor a hub id", "md.with_clip()"),
    ("md.load(md.copied('llava'), vision_tower='embedded')", "Leave it out", "md.opened(md.copied('llava'))"),
    ("md.load(md.copied('llava'), vision_tower='embedded')", "or name a folder", "md.with_clip()"),
    ("md.load(md.copied('llava', image_aspect_ratio='anyres'))", "Take a copy in transformers' layout", "md.loaded('llava_next')"),
    ("md.load(md.copied('llava', mm_projector_type='linear'))", "Use interp.wrap with a model of your own", "interp.wrap(md.linear_projector(), tiny('llava')[1]).encode([one])"),
    ("md.load(md.without_fast_form())", "Replace its files by those of one that has", "md.opened(md.words_of(md.made('llava'), md.without_fast_form()))"),
    ("md.load(md.cut_otherwise(), vision_tower=md.made('clip'))", "Replace its files by those of one that does the same", "md.opened(md.words_of(md.made('llava'), md.cut_otherwise()), vision_tower=md.made('clip'))"),
    ("md.load(md.copied('llava', without=md.WORDS))", "copy the files of its tokenizer into it", "md.opened(md.words_of(md.made('llava'), md.copied('llava', without=md.WORDS)))"),
    ("md.load(md.copied('llava', texts={'tokenizer.json': '{'}))", "copy the files of its tokenizer again", "md.opened(md.words_of(md.made('llava'), md.copied('llava', texts={'tokenizer.json': '{'})))"),
    ("md.convert(md.eight_bits(), 'out')", "Pass dtype=", "md.convert(md.eight_bits(), 'out', dtype='bfloat16')"),
    ("md.read_folder(md.pickled('pickle'))", "write its tensors as safetensors", "md.read_folder(md.pickled('safetensors'))"),
    ("md.load(md.copied('llava'), vision_tower=md.open_clip('resnet50'))", "Pass vision_tower= with another", "md.with_clip()"),
    ("md.load(md.copied('llava'), vision_tower=md.copied('clip', model_type='siglip_vision_model'))", "Pass vision_tower= with one of them", "md.with_clip()"),
    ("md.load(md.copied('llava'), vision_tower=md.made('llava'))", "Pass vision_tower= with the folder or hub id of a CLIP", "md.with_clip()"),
    ("md.load(md.copied('rad', without=['cxr.pt']))", "Copy them into it", "md.load(md.with_file(md.copied('rad', without=['cxr.pt']), md.made('rad') / 'cxr.pt'))"),
    ("md.load(md.copied('rad', without=['cxr.pt']))", "or pass vision_tower= with a folder", "md.load(md.copied('rad', without=['cxr.pt'], mm_hidden_size=32, mm_projector=32), vision_tower=md.made('clip'))"),
    ("md.load(md.copied('internvl', texts={'tokenizer.model': 'cut'}))", "Is the download complete?", "md.opened(md.with_file(md.copied('internvl', texts={'tokenizer.model': 'cut'}), md.made('internvl') / 'tokenizer.model'))"),
    ("md.load(md.copied('vila', s2=True))", "use interp.wrap(hf_model, processor, adapter=…)", "interp.wrap(*tiny('vila'), adapter=md.Own('vila', (4, 4)))"),
    ("md.load(md.copied('vila'), vision_tower='x')", "Leave it out", "md.opened(md.copied('vila'))"),
    ("md.load(md.chatml())", "Build the model yourself and use interp.wrap(hf_model, processor)", "md.own_template()"),
    ("md.load(md.no_token_left())", "Name one that no text has as unk_token in its tokenizer_config.json", "md.opened(md.no_token_left(unknown='w261'))"),
]  # fmt: skip
CONVERSIONS = [
    ("md.convert(md.made('internvl'), 'out', revision=3)", "the name of a branch", "md.convert(md.made('internvl'), 'out', revision='main')"),
    ("md.convert(md.made('internvl'), 'out', progress='bar')", "a function of a tensor's name", "md.convert(md.made('internvl'), 'out', progress=len)"),
    ("md.convert('no/such/folder', 'out')", "Check the path", "md.converted()"),
    ("md.convert(md.saved('internvl'), 'out')", "interp.load reads it as it is", "md.loaded('internvl')"),
    ("md.on_disk(0.75, md.made('internvl'), 'out')", "or a smaller dtype", "md.on_disk(0.75, md.made('internvl'), 'out', dtype='bfloat16')"),
    ("md.on_disk(0.75, md.made('internvl'), 'out')", "Name a folder on another disk", "md.on_disk(2, md.made('internvl'), 'out')"),
    ("md.convert(md.made('internvl'), md.made('clip'))", "Name a folder that is empty", "md.convert(md.made('internvl'), md.folder())"),
    ("md.convert(md.made('internvl'), md.made('clip'))", "or not there", "md.converted()"),
    ("md.convert(md.made('internvl'), md.made('clip') / 'config.json' / 'x')", "Name a folder elsewhere", "md.converted()"),
    ("md.convert(md.made('internvl'), md.made('internvl') / 'out')", "Name a folder elsewhere", "md.converted()"),
    ("md.convert(md.made('internvl'), '~nobody-of-that-name/x')", "Name another folder", "md.converted()"),
    ("md.convert(md.made('internvl'), 'out', progress=md.full_disk)", "Is the disk full", "md.converted()"),
]  # fmt: skip
CONFIGS = [
    ("md.load(md.saved('llava', model_type=None))", "Pass a folder that save_pretrained wrote", "md.loaded('llava')"),
    ("md.load(md.saved('llava', mm_projector_type='mlp2x_gelu'))", "take a copy in transformers' layout", "md.loaded('llava')"),
    ("md.load(md.saved('llava', mm_projector_type='mlp2x_gelu'))", "use interp.wrap(hf_model, processor, adapter=…)", "interp.wrap(*tiny('llava'), adapter=md.Own('llava', (4, 4)))"),
    ("md.load(md.saved('llava', vision_config=None))", "or add the part", "md.load(md.saved('llava', vision_config=md.part('llava', 'vision_config')))"),
    ("md.load(md.saved('llava', text_config=None))", "or add the part", "md.load(md.saved('llava', text_config=md.part('llava', 'text_config')))"),
    ("md.load(md.saved('llava', vision_feature_layer=0))", "Write [0]", "md.load(md.saved('llava', vision_feature_layer=[0]))"),
    ("md.load('no-such-org/no-such-model')", 'interp.load("/path/to/folder")', "md.loaded('llava')"),
    ("md.load(md.saved('llava', without=md.PROCESSOR))", "Pass processor= with one", "md.load(md.saved('llava', without=md.PROCESSOR), processor=tiny('llava')[1])"),
    ("md.load(md.saved('llava', without=md.PROCESSOR))", "or the folder", "md.load(md.saved('llava', without=md.PROCESSOR), processor=md.saved('llava'))"),
    ("md.load(md.saved('llava', quantization_config={'quant_method': 'mxfp4'}))", "Take a copy that is not quantised so", "md.loaded('llava')"),
    ("md.load(md.saved('llava', attn_implementation='org/kernel'))", "Pass attn_implementation='sdpa'", "md.load(md.saved('llava', attn_implementation='org/kernel'), attn_implementation='sdpa')"),
    ("interp.wrap(*md.of_type('mine'))", "interp.wrap(hf_model, processor, adapter=…)", "interp.wrap(*md.of_type('mine'), adapter=md.Own('llava', (4, 4)))"),
    ("interp.wrap(*md.of_type('florence2'))", "pass adapter='answers_only'", "interp.wrap(*md.of_type('florence2'), adapter='answers_only').answers([one], generate=1)"),
    ("md.two_installed()", "pass adapter= with the adapter you mean", "md.two_installed(md.Own('llava', (4, 4)))"),
]  # fmt: skip
CHECKS = [
    ("md.command('check')", "takes one model", "md.command('check', 'llava')"),
    ("md.command('check', 'llava', '--all')", "--all for every family's tiny model", "md.command('check', '--all')"),
    ("md.command('check', 'llava', '--record')", "use it with --all", "md.command('check', '--all', '--record')"),
    ("md.command('check', '--all', '--record', '--dtype', 'float16')", "without options that change them", "md.command('check', '--all', '--record')"),
    ("md.public('Checks')", "its public names are BREAKS, CHECKS", "md.public('CHECKS')"),
    ("conformance.check('llava', checks=['image tokens'], progress=True)", "a function of a check's name", "conformance.check('llava', checks=['image tokens'], progress=len)"),
    ("conformance.check('llava', checks=['image tokens'], progress=True)", "or None", "conformance.check('llava', checks=['image tokens'], progress=None)"),
    ("conformance.check(md.saved('llava'), checks=['image tokens'], adapter='qwen2_vl')", "Pass the adapter of that family", "conformance.check(md.saved('llava'), checks=['image tokens'], adapter='llava')"),
    ("conformance.check('llava', checks=['image tokens'], dtype='x')", 'such as "bfloat16"', "conformance.check('llava', checks=['image tokens'], dtype='bfloat16')"),
    ("conformance.check('llava', checks=['image tokens'], dtype='int8')", "a floating torch.dtype", "conformance.check('llava', checks=['image tokens'], dtype=md.torch.float32)"),
    ("conformance.check('llava', checks=['image tokens'], device='x')", 'such as "cpu"', "conformance.check('llava', checks=['image tokens'], device='cpu')"),
    ("tiny('llava', attention=5)", 'such as "sdpa"', "tiny('llava', attention='sdpa')"),
]  # fmt: skip
ROWS: list[tuple[str, str, str]] = [
    *GEOMETRY,
    *CHECKPOINTS,
    *CONVERSIONS,
    *CONFIGS,
    *CHECKS,
]  # (a call that fails, words of its message, a call that follows them)

ELSEWHERE: dict[str, str] = {
    "Llama 4 always lays images": "a row follows it, but the message stands inside one that names the sample",
    "{…} needs transformers": "tests/models/test_adapter.py::test_a_family_that_needs_a_newer_transformers_is_refused",
    "{…} of transformers {…} gives its image processor": "tests/models/test_processors.py",
    "this model has use_bidirectional_attention='all'": "tests/models/families/test_gemma4.py, as the next two",
    "the processor's patch_size and pooling_kernel_size are": "needs a processor and a config that differ",
    "{…} takes one image a sample": "tests/models/families/test_blip2.py",
    "aria's processor makes views of": "tests/models/families/test_aria.py: needs views of another size than the tiny model's",
    "gemma3n's images become a square grid": "tests/models/families/test_gemma3n.py: needs a processor and a config that differ",
    "{…}'s second tower takes a square": "tests/models/families/test_documents.py: no checkpoint is known to have another",
    "the model at {…} needs a package": "tests/tracing/test_loading.py: needs an environment with timm",
    "the vision tower of {…} cannot be read": "tests/tracing/test_vision_tower.py::test_towers_that_are_not_read_say_why",
    "gemma4 pools": "needs an image that is not resized",
    "{…} expects every patch of the tower": "tests/models/families/test_cohere.py: no checkpoint is known to lack it",
    "the processor's views have (height, width) and patches of": "tests/models/families/test_molmo2.py",
    "layers of {…} share keys, and on a server": "tests/tracing/layers/test_key_layers.py: there is no server here",
    "{…} has no module that transformers calls its image encoder": "tests/models/test_vision_patches.py::test_models_without_a_usual_tower_are_refused",
    "the adapter {…} does not say where the patches": "tests/tracing/test_vision_tower.py::test_a_batch_or_adapter_without_patches_is_refused",
    "the patches of a video are not mapped yet": "tests/models/test_vision_patches.py::test_models_without_a_usual_tower_are_refused",
    "the vision tower's grids hold more tokens": "families whose patches are of another form, such as kimi_k25",
    "{…} image tokens are not whole grids": "tests/models/test_vision_patches.py::test_models_without_a_usual_tower_are_refused",
    "with S² (LLaVA-Tri) the vision tower runs over the image": "tests/models/test_vision_patches.py::test_models_without_a_usual_tower_are_refused",
    "the footprints of a {…}": "tests/models/measured/test_measured_family.py::test_an_unsure_measurement_is_refused_with_numbers reads it; its way is docs/new_model.md, which tests/test_new_model.py follows",
    "rows of this model see later tokens": "tests/models/measured/test_behaviour.py reads it; its way is docs/new_model.md",
    "the processor takes no prompt with {…}": "tests/models/measured/test_behaviour.py reads it; its way is docs/new_model.md",
    "images of the same size give inputs of different shapes": "tests/models/measured/test_behaviour.py reads it; its way is docs/new_model.md",
    'the adapter "measured" measures a model that is on hand': "tests/models/measured/test_measured_family.py::test_an_unbound_adapter_says_how_it_is_used reads it; the other tests there follow it",
}  # the beginning of a message: why no row follows it, or the test that does

__all__ = ["names", "without_torchvision"]
PICTURE = np.random.default_rng(0).integers(0, 255, (84, 140, 3), dtype=np.uint8)


class Own:
    """An adapter of a built-in family with footprints of its own: a grid over the whole image."""

    def __init__(self, family: str, grid: tuple[int, int]) -> None:
        self.family, self.grid = family_of(family), grid

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["family"], name)

    def footprints(self, sizes: Any, *_: Any) -> Footprints:
        return squash(sizes[0], self.grid)


def mllm_of(family: str) -> Any:
    return interp.wrap(*tiny(family))


def with_bias() -> Any:
    """An LFM2-VL whose convolutions are said to have a bias."""
    hf, processor = tiny("lfm2_vl")
    hf.config.text_config.conv_bias = True
    return interp.wrap(hf, processor)


def family_of(name: str) -> Any:
    """The adapter of a family."""
    return find(SimpleNamespace(model_type=name), name)


def asked(
    family: str, adapter: Any = None, on: str = "image_processor", config: dict[str, Any] | None = None, **settings: Any
) -> Any:  # fmt: skip
    """What a user's model with these settings makes of a sample."""
    hf, processor = tiny(family)
    for name, value in settings.items():
        setattr(processor if on == "processor" else processor.image_processor, name, value)
    for name, value in (config or {}).items():
        setattr(hf.config, name, value)
    mllm = interp.wrap(hf, processor, adapter)
    return mllm.encode([interp.Sample(PICTURE, "where is the nodule?")])


def cells(
    family: str, own: dict[str, Any], called: dict[str, Any], called_kwargs: Any = None, own_kwargs: Any = None
) -> Footprints:  # fmt: skip
    """The footprints by a processor of one's own settings of what it made when it was called with others."""
    adapter, kind = family_of(family), recipe(family)
    one, other = kind.processor(), kind.processor()
    for processor, settings, kwargs in ((one, own, own_kwargs), (other, called, called_kwargs)):
        for name, value in settings.items():
            setattr(processor.image_processor, name, value)
        if kwargs is not None:
            processor.images_kwargs = {**processor.images_kwargs, **kwargs}
    content = [{"type": "image"}, {"type": "text", "text": "where is it?"}]
    text = adapter.fallback_prompt("where is it?", 1, None)
    if other.chat_template:
        text = other.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
    inputs = dict(other(text=[text], images=[Image.fromarray(PICTURE)], return_tensors="pt"))
    return adapter.footprints([(140, 84)], inputs, one, kind.config())


def asked_rgba() -> Any:
    """What a processor that computes with torch makes of a picture with an alpha channel."""
    return mllm_of("lfm2_vl").encode([interp.Sample(Image.new("RGBA", (64, 64)), "where is it?")])


load, read_folder = interp.load, tensors.read_folder
SQUARE = {"height": 70, "width": 70}
ONE_TILE = {"crop_to_patches": False}
FOUR = {"shortest_edge": 28**2, "longest_edge": 4 * 28**2}
WORDS = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt")
TEMPLATE = "{% for m in messages %}{% for p in m.content %}{{ '<|reserved_special_token_1|>' if p.type == 'image' else p.text }}{% endfor %}{% endfor %}"  # fmt: skip
PROCESSOR = ("processor_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


@cache
def made(name: str) -> Path:
    """A small checkpoint in an original layout, or a CLIP; to be copied before it is changed."""
    root = Path(tempfile.mkdtemp())
    where = root / name
    if name == "clip":
        written_llava.clip_folder(where, 8)
    elif name == "llava":
        rows = written_llava.qwen_words(where)
        written_llava.config(where, rows, "llava_qwen2", "vit/clip", rms_norm_eps=1e-6, rope_theta=1e6)
        written_llava.clip_folder(where / "vit" / "clip", 8)
        weights = written_llava.language(9, rows, biased=True) | written_llava.projector(10)
        written_llava.shards(where, weights, "bin", 1)
    elif name == "rad":
        return llava_cases.llava_rad(root).folder
    elif name == "vila":
        return write_vila(where).folder
    else:
        return write_internvl(where, "v2", "300M", -2).folder
    return where


@cache
def written(family: str) -> Path:
    """A tiny model as `save_pretrained` writes it."""
    where = folder()
    for part_ in tiny(family):
        part_.save_pretrained(where)
    return where


def opened(where: Path, vision_tower: Path | None = None) -> Any:
    """A prompt by the processor of a checkpoint in an original layout, all of which is read but the weights."""
    found = open_original(str(where), {"local_files_only": True}, vision_tower)
    assert found is not None
    content = [{"type": "image"}, {"type": "text", "text": "where is the nodule?"}]
    processor = found.make_processor()
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return processor(text=[text], images=[Image.fromarray(PICTURE)])


@cache
def loaded(family: str) -> Any:
    """The model that lies in the folder, loaded."""
    return interp.load(written(family))


@cache
def with_clip() -> Any:
    """The checkpoint in LLaVA's layout with the tower of another folder."""
    return opened(made("llava"), vision_tower=made("clip"))


@cache
def converted() -> Any:
    """A conversion to a folder that is not there yet, elsewhere."""
    return convert(made("internvl"), folder() / "out")


def folder() -> Path:
    return Path(tempfile.mkdtemp())


def changed(source: Path, without: Iterable[str] = (), texts: dict[str, str] | None = None, **entries: Any) -> Path:  # fmt: skip
    """A copy with other entries in its config (None removes one), without some files."""
    where = Path(shutil.copytree(source, folder() / source.name))
    for name in without:
        (where / name).unlink(missing_ok=True)
    for name, text in (texts or {}).items():
        (where / name).write_text(text)
    told = json.loads((where / "config.json").read_text()) | entries
    (where / "config.json").write_text(json.dumps({k: v for k, v in told.items() if v is not None}))
    return where


def copied(name: str, mm_projector: int = 0, **options: Any) -> Path:
    where = changed(made(name), **options)
    if mm_projector:
        head = written_llava.projector(22, mm_projector)
        torch.save({f"base_model.model.{n}": v for n, v in head.items()}, where / "non_lora_trainables.bin")
    return where


def saved(family: str, **options: Any) -> Path:
    return changed(written(family), **options)


def part(family: str, name: str) -> dict[str, Any]:
    return json.loads((written(family) / "config.json").read_text())[name]


def with_file(where: Path, file: Path) -> Path:
    shutil.copy(file, where)
    return where


def linear_projector() -> Any:
    """A LLaVA whose projector is one linear layer."""
    hf = tiny("llava")[0]
    old = hf.model.multi_modal_projector
    hf.model.multi_modal_projector = torch.nn.Linear(old.linear_1.in_features, old.linear_2.out_features)
    return hf


def without_fast_form() -> Path:
    """A folder whose tokenizer class has no form in Rust."""
    words = {"vocab.json": '{"a": 0, "<unk>": 1}', "merges.txt": "#version: 0.2\n"}
    words |= {"tokenizer_config.json": '{"tokenizer_class": "CTRLTokenizer"}'}
    return copied("llava", without=WORDS, texts=words)


def cut_otherwise() -> Path:
    """A folder whose tokenizer closes each piece."""
    where = copied("llava", without=WORDS, model_type="llava_llama", mm_vision_tower="clip")
    weights = torch.load(where / "pytorch_model.bin")
    torch.save({n: v for n, v in weights.items() if "_proj.bias" not in n}, where / "pytorch_model.bin")
    backend = Tokenizer(tokenizer_models.BPE(written_llava._bytes(), []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.add_special_tokens(["<s>", "</s>"])
    ids = [(token, backend.token_to_id(token)) for token in ("<s>", "</s>")]
    backend.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ids)
    PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>").save_pretrained(where)  # fmt: skip
    return where


def eight_bits() -> Path:
    """A checkpoint with a weight of a type that is not written."""
    where = copied("llava")
    weights = torch.load(where / "pytorch_model.bin")
    weights["lm_head.weight"] = weights["lm_head.weight"].to(torch.float8_e4m3fn)
    torch.save(weights, where / "pytorch_model.bin")
    return where


def pickled(kind: str) -> Path:
    """A folder of weights, with something else than tensors among them if it is a pickle."""
    where = folder()
    weights = {"x": torch.ones(2)}
    if kind == "pickle":
        torch.save({**weights, "args": SimpleNamespace(lr=0.1)}, where / "pytorch_model.bin")
    else:
        save_file(weights, where / "model.safetensors")
    return where


def open_clip(trunk: str) -> Path:
    """A tower as open_clip saves it."""
    where = folder()
    told = {"vision_cfg": {"timm_model_name": trunk, "image_size": 56}}
    (where / "open_clip_config.json").write_text(json.dumps({"model_cfg": told}))
    torch.save({"x": torch.ones(1)}, where / "open_clip_pytorch_model.bin")
    return where


def chatml() -> Path:
    """A VILA whose tokenizer has ChatML's marks."""
    where = copied("vila")
    sentencepieces.llama_pieces(where / "llm", ["<|im_start|>"])
    return where


def no_token_left(unknown: str | None = None) -> Path:
    """A VILA whose tokenizer has as many tokens as the embedding has rows, and no unknown one."""
    where = copied("vila")
    rows = json.loads((where / "llm" / "config.json").read_text())["vocab_size"]
    for name in (*WORDS, "tokenizer_config.json", "special_tokens_map.json"):
        (where / "llm" / name).unlink(missing_ok=True)
    symbols = written_llava._bytes()
    words = symbols | {f"w{i}": i for i in range(len(symbols), rows)}
    backend = Tokenizer(tokenizer_models.BPE(words, []))
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="w260").save_pretrained(where / "llm")
    if unknown is not None:
        told = json.loads((where / "llm" / "tokenizer_config.json").read_text()) | {"unk_token": unknown}
        (where / "llm" / "tokenizer_config.json").write_text(json.dumps(told))
    return where


def own_template() -> Any:
    """A model in memory with a processor of another chat template."""
    mllm = interp.load(made("vila"))
    hf, processor = mllm.unwrap(), mllm.processor
    processor.chat_template = TEMPLATE
    return interp.wrap(hf, processor).encode([interp.Sample(PICTURE, "where is the nodule?")])


def words_of(source: Path, where: Path) -> Path:
    """The folder with the tokenizer's files of another."""
    for name in (*WORDS, "tokenizer_config.json"):
        (where / name).unlink(missing_ok=True)
        if (source / name).exists():
            shutil.copy(source / name, where)
    return where


def on_disk(share: float, source: Path, target: str, **options: Any) -> Any:
    """A conversion on a disk that has room for a share of the weights."""
    size = converted().nbytes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=int(share * size)))
        return convert(source, target, **options)


def full_disk(_: str) -> None:
    raise OSError(28, "No space left on device")


def of_type(kind: str) -> tuple[Any, Any]:
    """A model of a type that no adapter knows."""
    hf, processor = tiny("llava")
    hf.config.model_type = kind
    return hf, processor


def two_installed(adapter: Any = None) -> Any:
    """A model is wrapped where two packages have an adapter for it."""
    own = Own("llava", (4, 4))
    entries = [SimpleNamespace(name=f"own{i}", value="own:Own", dist=None, load=lambda: own) for i in (1, 2)]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("interp.models.adapter.entry_points", lambda group: entries)
        return interp.wrap(*tiny("llava"), adapter=adapter)


@cache
def checked() -> Any:
    return interp.conformance.check("llava", checks=["image tokens"])


def command(*words: str) -> None:
    """`interp`, where checks pass at once and the record is not written; raises what it prints on an error."""
    passed = checked()
    told, wrote = io.StringIO(), []
    with pytest.MonkeyPatch.context() as patch, redirect_stderr(told), redirect_stdout(io.StringIO()):
        patch.setattr("interp.conformance.check", lambda *_, **__: passed)
        patch.setattr("interp.conformance.check_result.write_record", wrote.append)
        if main(list(words)) != 0:
            raise InterpError(told.getvalue().strip().removeprefix("error: "))


def public(name: str) -> Any:
    try:
        return getattr(interp.conformance, name)
    except AttributeError as error:
        raise InterpError(str(error)) from error


def names() -> dict[str, Any]:
    """What the calls use, beside the names of `tests/test_advice.py`."""
    return {"md": sys.modules[__name__]}
