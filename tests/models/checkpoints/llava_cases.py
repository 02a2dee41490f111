"""One tiny checkpoint per layout: written, loaded, and what plain torch makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.tracing import Mllm, load
from tests.models.checkpoints import plain_llava, written_llava
from tests.models.checkpoints.plain_llava import Decoder
from tests.models.checkpoints.written_llava import SIDE, VISION_HEADS, WIDTH

CURIOUS = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)
Ids = list[int | None]
"""Token ids; None where an image's tokens stand."""


@dataclass
class Case:
    """A loaded checkpoint, and how plain torch computes the same.

    Attributes:
        mllm: the model.
        folder: where it lies.
        weights: the original tensors.
        tower: (image, channel, row, col) → (image, token, channel), from the original tensors.
        decoder: the language model.
        prompt: the prompt for `{question}`.
        ids: a prompt's ids, from the tokenizer's description.
        pixels: what the tower sees of an image.
        padded_rows: whether the tables of tokens have no row left for the image token.
    """

    mllm: Mllm
    folder: Path
    weights: dict[str, Tensor]
    tower: Callable[[Tensor], Tensor]
    decoder: Decoder
    prompt: str
    ids: Callable[[str], Ids]
    pixels: Callable[[Any], Tensor] = field(default=partial(plain_llava.padded_pixels, side=SIDE))
    padded_rows: bool = True


def pieced(encode: Callable[[str], list[int]], bos: list[int], prompt: str) -> Ids:
    """The pieces around the image, each on its own."""
    before, after = prompt.split("<image>")
    return [*bos, *encode(before), None, *encode(after)]


def byte_ids(special: dict[str, int], text: str) -> list[int]:
    """Ids of a tokenizer of bytes, its special tokens cut out first."""
    for name, one in special.items():
        if name in text:
            head, tail = text.split(name, 1)
            return [*byte_ids(special, head), one, *byte_ids(special, tail)]
    return [written_llava._bytes()[{" ": "Ġ", "\n": "Ċ"}.get(letter, letter)] for letter in text]


def llava_v15(root: Path) -> Case:
    """`.bin` shards, the projector in a file of its own, the tower elsewhere."""
    folder, tower = root / "llava", root / "clip"
    sp = written_llava.sentences(folder, legacy=False)
    rows = sp.vocab_size()
    written_llava.config(folder, rows, "llava_llama", "openai/clip-vit-large-patch14-336")
    weights = written_llava.language(1, rows)
    written_llava.shards(folder, weights, "bin")
    torch.save(written_llava.projector(2), folder / "mm_projector.bin")
    clip = written_llava.clip_folder(tower, 3)
    return Case(
        load(folder, vision_tower=tower),
        folder,
        weights | written_llava.projector(2),
        partial(plain_llava.clip, clip, "vision_model.", heads=VISION_HEADS),
        Decoder(4, 2, 1e4, 1e-5),
        CURIOUS + " USER: <image>\n{question} ASSISTANT:",
        partial(pieced, sp.encode, [1]),
    )


def llava_med(root: Path) -> Case:
    """One safetensors file with a tower in it that the original code passes over."""
    folder, tower = root / "med", root / "med-clip"
    sp = written_llava.sentences(folder, legacy=True)
    rows = sp.vocab_size()
    more = {"rope_theta": 1e6, "sliding_window": None, "mm_patch_merge_type": "spatial_unpad"}
    written_llava.config(folder, rows, "llava_mistral", str(tower), **more)
    weights = written_llava.language(4, rows) | written_llava.projector(5)
    inner = written_llava.clip(6, "model.vision_tower.vision_tower.vision_model.")
    written_llava.shards(folder, weights | inner | {"model.image_newline": torch.zeros(32)}, "safetensors", 1)
    clip = written_llava.clip_folder(tower, 7)
    return Case(
        load(folder),
        folder,
        weights | inner,
        partial(plain_llava.clip, clip, "vision_model.", heads=VISION_HEADS),
        Decoder(4, 2, 1e6, 1e-5),
        "[INST] <image>\n{question} [/INST]",
        partial(pieced, sp.encode, [1]),
    )


def huatuo_7b(root: Path) -> Case:
    """A Qwen2 with more rows than tokens; another tower lies in `vit`."""
    folder = root / "huatuo7"
    n = written_llava.qwen_words(folder)
    named = "./vit/clip_vit_large_patch14_336"
    more = {
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "use_sliding_window": False,
        "image_aspect_ratio": "square",
    }
    written_llava.config(folder, n + 9, "llava_qwen2", named, **more)
    written_llava.clip_folder(folder / named, 8)
    weights = written_llava.language(9, n + 9, biased=True) | written_llava.projector(10)
    inner = written_llava.clip(11, "model.vision_tower.vision_tower.vision_model.")
    written_llava.shards(folder, weights | inner, "safetensors", 3)
    return Case(
        load(folder),
        folder,
        weights | inner,
        partial(plain_llava.clip, inner, "model.vision_tower.vision_tower.vision_model.", heads=VISION_HEADS),
        Decoder(4, 2, 1e6, 1e-6),
        "<|user|>\n<image>\n{question}\n<|assistant|>\n",
        partial(pieced, partial(byte_ids, {}), []),
        padded_rows=False,
    )


def huatuo_34b(root: Path) -> Case:
    """A Yi: a Llama without a beginning-of-sequence token."""
    folder = root / "huatuo34"
    sp = written_llava.sentences(folder, legacy=True, bos=False)
    named = "vit/clip_vit_large_patch14_336"
    written_llava.config(folder, sp.vocab_size(), "llava_llama", named, rope_theta=5e6)
    written_llava.vision_config(folder / named)
    weights = written_llava.language(12, sp.vocab_size()) | written_llava.projector(13)
    inner = written_llava.clip(14, "model.vision_tower.vision_tower.vision_model.")
    written_llava.shards(folder, weights | inner, "safetensors")
    return Case(
        load(folder),
        folder,
        weights | inner,
        partial(plain_llava.clip, inner, "model.vision_tower.vision_tower.vision_model.", heads=VISION_HEADS),
        Decoder(4, 2, 5e6, 1e-5),
        "<|user|>\n<image>\n{question}\n<|assistant|>\n",
        partial(pieced, sp.encode, []),
    )


def llava_tri(root: Path, sides: tuple[int, ...] = ()) -> Case:
    """A Llama 3; with S² where there are sides."""
    folder, tower = root / f"tri{len(sides)}", root / "tri-clip"
    n = written_llava.llama3_words(folder)
    scales = {"s2_scales": ",".join(map(str, sides[::-1])), "s2": True} if sides else {}
    written_llava.config(
        folder, n, "llava_llama", "openai/clip", rope_theta=5e5, bos_token_id=n - 5, **scales
    )
    weights = written_llava.language(15, n) | written_llava.projector(16, WIDTH * max(1, len(sides)))
    written_llava.shards(folder, weights, "safetensors")
    clip, seen = written_llava.clip_folder(tower, 17), {"heads": VISION_HEADS}
    start, end, stop = "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"
    special = ["<|begin_of_text|>", "<|end_of_text|>", start, end, stop]
    ids = partial(byte_ids, {name: n - 5 + i for i, name in enumerate(special)})
    return Case(
        load(folder, vision_tower=str(tower)),
        folder,
        weights,
        partial(plain_llava.scaled, clip, "vision_model.", sides=list(sides), **seen)
        if sides
        else partial(plain_llava.clip, clip, "vision_model.", **seen),
        Decoder(4, 2, 5e5, 1e-5),
        f"<|begin_of_text|><|begin_of_text|>{start}system{end}\n\n{CURIOUS}{stop}{start}user{end}\n\n<image>\n{{question}}"
        f"{stop}{start}assistant{end}\n\n",
        partial(pieced, ids, []),
        partial(plain_llava.padded_pixels, side=sides[-1] if sides else SIDE),
    )


def huatuo_bio(root: Path) -> Case:
    """Hypothetical: a Huatuo with BiomedCLIP's ViT-B/16, as open_clip saves it, elsewhere."""
    folder, tower = root / "bio", root / "biomedclip"
    n = written_llava.qwen_words(folder)
    named = "hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"
    written_llava.config(folder, n, "llava_qwen2", named, mm_hidden_size=128)
    weights = written_llava.language(18, n, biased=True) | written_llava.projector(19, 128)
    written_llava.shards(folder, weights, "bin", 1)
    clip = written_llava.vit(20, "visual.trunk.", scaled=False, patch=16, side=64)
    tower.mkdir()
    told = {"vision_cfg": {"timm_model_name": "vit_base_patch16_224", "image_size": 64}}
    (tower / "open_clip_config.json").write_text(json.dumps({"model_cfg": told}))
    extra = {
        "logit_scale": torch.ones(()),
        "visual.head.proj.weight": torch.ones(2, 2),
        "text.x.y": torch.ones(2),
    }
    torch.save(clip | extra, tower / "open_clip_pytorch_model.bin")
    return Case(
        load(folder, vision_tower=tower),
        folder,
        weights,
        partial(plain_llava.vit, clip, "visual.trunk.", heads=2),
        Decoder(4, 2, 1e4, 1e-5),
        "<|user|>\n<image>\n{question}\n<|assistant|>\n",
        partial(pieced, partial(byte_ids, {}), []),
        partial(plain_llava.padded_pixels, side=64),
    )


def llava_rad(root: Path) -> Case:
    """LoRA over a base, with the open_clip tower's files beside it."""
    folder, base = root / "rad", root / "rad" / "vicuna-7b-v1.5"
    sp = written_llava.sentences(base, legacy=False)
    rows = sp.vocab_size()
    named = {
        "mm_vision_tower_config": "x/cxr.json",
        "mm_vision_tower_checkpoint": "cxr.pt",
        "mm_hidden_size": 128,
    }
    written_llava.config(
        folder, rows, "llava_llama", "biomedclip_cxr_518", image_aspect_ratio="square", **named
    )
    plain, head = written_llava.language(21, rows), written_llava.projector(22, 128)
    written_llava.shards(base, plain, "bin", 1)
    random, low, weights = written_llava.Random(23), {}, plain | head
    for name in [n for n in plain if n.endswith(("q_proj.weight", "down_proj.weight", "lm_head.weight"))]:
        a, b = random(3, plain[name].shape[1]), random(plain[name].shape[0], 3)
        stem = "base_model.model." + name.removesuffix(".weight")
        low |= {f"{stem}.lora_A.weight": a, f"{stem}.lora_B.weight": b}
        weights[name] = plain[name] + 16 / 3 * b @ a
    torch.save(low, folder / "adapter_model.bin")
    torch.save({f"base_model.model.{n}": v for n, v in head.items()}, folder / "non_lora_trainables.bin")
    told = {"r": 3, "lora_alpha": 16, "bias": "none", "base_model_name_or_path": "lmsys/vicuna-7b-v1.5"}
    (folder / "adapter_config.json").write_text(
        json.dumps(told | {"peft_type": "LORA", "fan_in_fan_out": False})
    )
    clip = written_llava.vit(24, "visual.trunk.", scaled=True)
    vision = {"timm_model_name": "vit_base_patch14_dinov2.lvd142m", "image_size": SIDE}
    (folder / "cxr.json").write_text(json.dumps({"vision_cfg": vision}))
    torch.save({"epoch": 3, "state_dict": {f"module.{n}": v for n, v in clip.items()}}, folder / "cxr.pt")
    return Case(
        load(folder),
        folder,
        weights,
        partial(plain_llava.vit, clip, "visual.trunk.", heads=2),
        Decoder(4, 2, 1e4, 1e-5),
        CURIOUS + " USER: <image>\n{question} ASSISTANT:",
        partial(pieced, sp.encode, [1]),
        partial(plain_llava.cropped_pixels, side=SIDE),
    )


CASES: dict[str, Callable[[Path], Case]] = {
    "llava_v1.5": llava_v15,
    "llava_med": llava_med,
    "huatuogpt_vision_7b": huatuo_7b,
    "huatuogpt_vision_34b": huatuo_34b,
    "llava_tri": llava_tri,
    "llava_tri_s2": partial(llava_tri, sides=(56, 112, 168)),
    "huatuogpt_v_bio": huatuo_bio,
    "llava_lora": llava_rad,
}
