"""Tiny random checkpoints in the original layouts: the original names, files and configs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers import models as tokenizer_models
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

HIDDEN, HEADS, KV, LAYERS = 32, 4, 2, 2
WIDTH, SIDE, PATCH, VISION_HEADS = 32, 56, 14, 2
CLIP_CONFIG = {
    "model_type": "clip",
    "vision_config": {
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": VISION_HEADS,
        "image_size": SIDE,
        "patch_size": PATCH,
        "projection_dim": 16,
    },
    "text_config": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 20},
}


class Random:
    """Tensors of one seed."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int, std: float = 0.2) -> Tensor:
        return torch.randn(*shape, generator=self.generator) * std

    def norm(self, name: str, bias: bool = True, size: int = WIDTH) -> dict[str, Tensor]:
        made = {f"{name}.weight": 1 + self(size)}
        return made | ({f"{name}.bias": self(size)} if bias else {})

    def linear(
        self, name: str, out: int, into: int, bias: bool = True, std: float = 0.2
    ) -> dict[str, Tensor]:
        made = {f"{name}.weight": self(out, into, std=std)}
        return made | ({f"{name}.bias": self(out)} if bias else {})


def clip(seed: int, prefix: str = "vision_model.") -> dict[str, Tensor]:
    """A CLIP's image half."""
    r, made = Random(seed), {}
    made["embeddings.class_embedding"] = r(WIDTH)
    made["embeddings.patch_embedding.weight"] = r(WIDTH, 3, PATCH, PATCH, std=0.05)
    made["embeddings.position_embedding.weight"] = r((SIDE // PATCH) ** 2 + 1, WIDTH)
    made |= r.norm("pre_layrnorm") | r.norm("post_layernorm")
    for i in range(3):
        at = f"encoder.layers.{i}."
        for which in ("q_proj", "k_proj", "v_proj", "out_proj"):
            made |= r.linear(f"{at}self_attn.{which}", WIDTH, WIDTH, std=0.08)
        made |= r.norm(at + "layer_norm1") | r.norm(at + "layer_norm2")
        made |= r.linear(at + "mlp.fc1", 48, WIDTH) | r.linear(at + "mlp.fc2", WIDTH, 48, std=0.1)
    return {prefix + name: value for name, value in made.items()}


def vit(seed: int, prefix: str, scaled: bool, patch: int = PATCH, side: int = SIDE) -> dict[str, Tensor]:
    """A timm ViT of two heads of 64."""
    r, made, width = Random(seed), {}, 128
    made |= {"cls_token": r(1, 1, width), "pos_embed": r(1, (side // patch) ** 2 + 1, width)}
    made |= {
        "patch_embed.proj.weight": r(width, 3, patch, patch, std=0.05),
        "patch_embed.proj.bias": r(width),
    }
    for i in range(3):
        at = f"blocks.{i}."
        made |= r.norm(at + "norm1", size=width) | r.norm(at + "norm2", size=width)
        made |= r.linear(at + "attn.qkv", 3 * width, width, std=0.05) | r.linear(
            at + "attn.proj", width, width, std=0.03
        )
        made |= r.linear(at + "mlp.fc1", 2 * width, width, std=0.1) | r.linear(
            at + "mlp.fc2", width, 2 * width, std=0.05
        )
        made |= {at + f"ls{n}.gamma": 0.5 + r(width) for n in (1, 2) if scaled}
    made |= r.norm("norm", size=width)
    return {prefix + name: value for name, value in made.items()}


def language(seed: int, rows: int, biased: bool = False) -> dict[str, Tensor]:
    """A Llama, Mistral, or (biased) Qwen2, with the buffer old ones carry."""
    r, size = Random(seed), HIDDEN // HEADS
    made = {"model.embed_tokens.weight": r(rows, HIDDEN, std=0.5), **r.norm("model.norm", False, HIDDEN)}
    for i in range(LAYERS):
        at = f"model.layers.{i}."
        for which, out in (("q", HIDDEN), ("k", KV * size), ("v", KV * size)):
            made |= r.linear(f"{at}self_attn.{which}_proj", out, HIDDEN, biased, std=0.25)
        made |= r.linear(at + "self_attn.o_proj", HIDDEN, HIDDEN, False)
        made |= r.linear(at + "mlp.gate_proj", 48, HIDDEN, False) | r.linear(
            at + "mlp.up_proj", 48, HIDDEN, False
        )
        made |= r.linear(at + "mlp.down_proj", HIDDEN, 48, False)
        made |= r.norm(at + "input_layernorm", False, HIDDEN) | r.norm(
            at + "post_attention_layernorm", False, HIDDEN
        )
        made[at + "self_attn.rotary_emb.inv_freq"] = torch.ones(size // 2)
    return made | {"lm_head.weight": r(rows, HIDDEN, std=0.5)}


def projector(seed: int, width: int = WIDTH) -> dict[str, Tensor]:
    """Two layers."""
    r = Random(seed)
    return r.linear("model.mm_projector.0", HIDDEN, width) | r.linear("model.mm_projector.2", HIDDEN, HIDDEN)


def config(folder: Path, rows: int, model_type: str, tower: str, **more: Any) -> None:
    """config.json as the original code writes it."""
    told = {
        "architectures": ["LlavaForCausalLM"],
        "model_type": model_type,
        "hidden_size": HIDDEN,
        "intermediate_size": 48,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV,
        "max_position_embeddings": 4096,
        "vocab_size": rows,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "torch_dtype": "float16",
        "tie_word_embeddings": False,
        "use_cache": True,
        "mm_vision_tower": tower,
        "mm_projector_type": "mlp2x_gelu",
        "mm_hidden_size": WIDTH,
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "image_aspect_ratio": "pad",
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(told | more))


def clip_folder(folder: Path, seed: int) -> dict[str, Tensor]:
    """OpenAI's CLIP as it lies on the hub: one `.bin` with the text half and position ids."""
    whole = clip(seed)
    more = {
        "logit_scale": torch.tensor(1.0),
        "text_projection.weight": torch.zeros(16, 16),
        "visual_projection.weight": torch.zeros(16, WIDTH),
        "text_model.embeddings.token_embedding.weight": torch.zeros(20, 16),
        "text_model.embeddings.position_ids": torch.arange(77)[None],
        "vision_model.embeddings.position_ids": torch.arange(17)[None],
    }
    vision_config(folder)
    torch.save(whole | more, folder / "pytorch_model.bin")
    return whole


def vision_config(folder: Path) -> None:
    """A CLIP's configs alone."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CLIP_CONFIG))
    settings = {"crop_size": SIDE, "size": SIDE, "image_mean": [0.48145466, 0.4578275, 0.40821073]}
    settings |= {"image_std": [0.26862954, 0.26130258, 0.27577711], "do_resize": True, "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


def shards(folder: Path, tensors: Mapping[str, Tensor], kind: str, n: int = 2) -> None:
    """The tensors in n files with an index; in one file without, for n = 1."""
    folder.mkdir(parents=True, exist_ok=True)
    stem, names = {"bin": "pytorch_model", "safetensors": "model"}[kind], sorted(tensors)
    where = {}
    for i in range(n):
        file = f"{stem}.{kind}" if n == 1 else f"{stem}-{i + 1:05}-of-{n:05}.{kind}"
        mine = {name: tensors[name].contiguous() for name in names[i::n]}
        where |= dict.fromkeys(mine, file)
        if kind == "bin":
            torch.save(mine, folder / file)
        else:
            save_file(mine, folder / file, metadata={"format": "pt"})
    if n > 1:
        (folder / f"{stem}.{kind}.index.json").write_text(json.dumps({"weight_map": where}))


def sentences(folder: Path, legacy: bool, bos: bool = True) -> Any:
    """A SentencePiece tokenizer as Llama's: `tokenizer.model`; returns SentencePiece's own reader."""
    folder.mkdir(parents=True, exist_ok=True)
    words = "where is the nodule in the left lung and what is there USER ASSISTANT INST "
    words += "A chat between a curious user and an artificial intelligence "
    words += "assistant gives helpful, detailed, polite answers to the user's questions."
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ abcdefghijklmnopqrstuvwxyz .,?'[]/:0123456789"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([words] * 9 + [*letters]),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=480,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
        hard_vocab_limit=False,
    )
    (folder / "tokenizer.vocab").unlink()
    told = {
        "tokenizer_class": "LlamaTokenizer",
        "legacy": legacy,
        "add_bos_token": bos,
        "add_eos_token": False,
    }
    told |= {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "model_max_length": 2048}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


def _bytes() -> dict[str, int]:
    return {symbol: i for i, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}


def qwen_words(folder: Path) -> int:
    """Qwen2's tokenizer, of bytes; returns how many tokens it has."""
    made = Qwen2Tokenizer(vocab=_bytes(), merges=[])
    made.save_pretrained(folder)
    return len(made)


def llama3_words(folder: Path) -> int:
    """Llama 3's tokenizer, of bytes, with its special tokens; returns how many tokens it has."""
    special = [
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
    ]
    backend = Tokenizer(tokenizer_models.BPE(_bytes(), []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(special)
    opening = special[0]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{opening} $A", special_tokens=[(opening, backend.token_to_id(opening))]
    )
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=opening, eos_token=special[1], additional_special_tokens=special
    )
    made.save_pretrained(folder)
    return len(made)
