"""The layouts at the models' true sizes, without their weights: every tensor of the original has its place."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from interp.models.checkpoints import check, empty_model, recognise
from interp.models.checkpoints import llava_layout as room
from tests.models.checkpoints import written_llava

VISION = "model.vision_tower.vision_tower.vision_model."


class Shapes:
    """Tensors that are nothing but names and shapes."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        self.shapes = shapes

    def names(self) -> list[str]:
        return list(self.shapes)

    def meta(self, name: str) -> Tensor:
        return torch.empty(self.shapes[name], device="meta")

    def read(self, name: str) -> Tensor:
        raise AssertionError("nothing is read")


def clip_large() -> dict[str, tuple[int, ...]]:
    """OpenAI's CLIP ViT-L/14 at 336 pixels: 24 layers of 1024."""
    made: dict[str, tuple[int, ...]] = {
        "embeddings.class_embedding": (1024,),
        "embeddings.patch_embedding.weight": (1024, 3, 14, 14),
        "embeddings.position_embedding.weight": (577, 1024),
    }
    norms = [f"encoder.layers.{i}.layer_norm{n}" for i in range(24) for n in (1, 2)]
    for norm in ("pre_layrnorm", "post_layernorm", *norms):
        made |= {f"{norm}.weight": (1024,), f"{norm}.bias": (1024,)}
    for i in range(24):
        for name, out, into in (
            *((f"self_attn.{which}_proj", 1024, 1024) for which in ("q", "k", "v", "out")),
            ("mlp.fc1", 4096, 1024),
            ("mlp.fc2", 1024, 4096),
        ):
            made |= {
                f"encoder.layers.{i}.{name}.weight": (out, into),
                f"encoder.layers.{i}.{name}.bias": (out,),
            }
    return {VISION + name: shape for name, shape in made.items()}


def language(
    layers: int, hidden: int, inner: int, kv: int, rows: int, biased: bool
) -> dict[str, tuple[int, ...]]:
    """A Llama, or (biased) a Qwen2, with a projector."""
    made = {
        "model.embed_tokens.weight": (rows, hidden),
        "lm_head.weight": (rows, hidden),
        "model.norm.weight": (hidden,),
    }
    for i in range(layers):
        at = f"model.layers.{i}."
        for which, out in (("q", hidden), ("k", kv), ("v", kv)):
            made[f"{at}self_attn.{which}_proj.weight"] = (out, hidden)
            made |= {f"{at}self_attn.{which}_proj.bias": (out,)} if biased else {}
        made |= {
            f"{at}self_attn.o_proj.weight": (hidden, hidden),
            f"{at}mlp.down_proj.weight": (hidden, inner),
        }
        made |= {f"{at}mlp.{which}_proj.weight": (inner, hidden) for which in ("gate", "up")}
        made |= {f"{at}{norm}_layernorm.weight": (hidden,) for norm in ("input", "post_attention")}
    for n, into in ((0, 1024), (2, hidden)):
        made |= {f"model.mm_projector.{n}.weight": (hidden, into), f"model.mm_projector.{n}.bias": (hidden,)}
    return made


@pytest.mark.parametrize(
    ("name", "kind", "sizes", "heads", "n_tensors", "billions"),
    [
        ("huatuogpt_vision_7b", "llava_qwen2", (28, 3584, 18944, 512, 152064, True), (28, 4), 734, 7.94),
        ("huatuogpt_vision_34b", "llava_llama", (60, 7168, 20480, 1024, 64000, False), (56, 8), 938, 34.8),
    ],
)
def test_every_tensor_has_its_place(tmp_path, monkeypatch, name, kind, sizes, heads, n_tensors, billions):
    layers, hidden, inner, _, rows, _ = sizes
    counts = {"num_attention_heads": heads[0], "num_key_value_heads": heads[1], "num_hidden_layers": layers}
    named = "./vit/clip_vit_large_patch14_336"  # its config is not on hand, and not needed
    widths = {"hidden_size": hidden, "intermediate_size": inner, "rms_norm_eps": 1e-6}
    written_llava.config(tmp_path, rows, kind, named, **counts, **widths)
    written_llava.qwen_words(tmp_path)
    shapes = language(*sizes) | clip_large()
    assert len(shapes) == n_tensors
    monkeypatch.setattr(room, "read_folder", lambda folder: Shapes(shapes))
    layout = recognise(tmp_path)
    assert layout is not None
    assert layout.name == name
    checkpoint = layout.open(tmp_path)
    model = empty_model(checkpoint)
    check(checkpoint, model)
    assert sum(p.numel() for p in model.parameters()) / 1e9 == pytest.approx(billions, rel=0.01)
    assert checkpoint.config.image_seq_length == 576
