"""What the tiny models share: a word tokenizer, a chat template, sizes, and weights that show a wrong mask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
import transformers
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers import models as tokenizer_models
from transformers import PreTrainedConfig, PreTrainedModel

__all__ = [
    "FIRST_SPECIAL",
    "VISION",
    "VOCABULARY",
    "TinyFamily",
    "build",
    "template",
    "text_config",
    "tokenizer",
]

VOCABULARY = 256
FIRST_SPECIAL = 160
"""Id of a family's first special token; the others follow."""

VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
"""Arguments most vision configs share."""

_SPOKEN = (
    "<pad> <s> </s> <unk> user assistant system : ? . , - what where is the a in of there left right lung nodule "
    "circle red answer question using single word or phrase write general description image yes no be brief x ray"
)
_WORDS = _SPOKEN.split()

_EXPERTS = ("experts.gate_up_proj", "experts.down_proj", "mlp.gate.weight", "router.weight")
"""Ends of the names of the weights of experts, and of the routers that choose among them."""

Config = TypeVar("Config", bound=transformers.PreTrainedConfig)


class TinyFamily(NamedTuple):
    """How to make a family's tiny model.

    Attributes:
        model: The model's class.
        config: A function that makes its config.
        processor: A function that makes its processor.
        whole: Whether every part takes the requested attention implementation; if not, the language model alone does,
            because transformers has only eager attention for the rest.
    """

    model: Any
    config: Callable[[], transformers.PreTrainedConfig]
    processor: Callable[[], Any]
    whole: bool = True


def tokenizer(**named: str) -> transformers.PreTrainedTokenizerFast:
    """Returns a tokenizer of words, split at white space and punctuation, with `<s>` in front.

    Words such as `w50` fill the vocabulary.

    Args:
        named: Special tokens by attribute, such as `image_token="<image>"`. Their ids count from
            `FIRST_SPECIAL` in this order.
    """
    words = [*_WORDS, *(f"w{i}" for i in range(len(_WORDS), FIRST_SPECIAL)), *dict.fromkeys(named.values())]
    words += [f"w{i}" for i in range(len(words), VOCABULARY)]
    backend = Tokenizer(tokenizer_models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=named,
        padding_side="right",
    )


def template(image: str, video: str = "") -> str:
    """Returns a chat template that writes `image` in the place of an image, and `video` in that of a video."""
    video_branch = "{% elif c['type'] == 'video' %}" + video + " " if video else ""
    return (
        "{% for m in messages %}{{ m['role'] }} : {% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}"
        + image
        + " "
        + video_branch
        + "{% else %}{{ c['text'] }} {% endif %}{% endfor %}"
        "{% endfor %}{% if add_generation_prompt %}assistant :{% endif %}"
    )


def text_config(kind: type[Config], *, layers: int = 3, **options: Any) -> Config:
    """Returns the config of a language model of width 64 with four query heads that share two key-value heads."""
    shared: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return kind(**{**shared, **options})


def build(
    kind: Any, config: PreTrainedConfig, attention: str = "sdpa", seed: int = 0, *, whole: bool = True
) -> PreTrainedModel:
    """Returns a model with random weights, fixed by the seed, whose rows of attention are far from uniform."""
    parts = attention if whole else {"text_config": attention}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind._from_config(config, attn_implementation=parts)
    decoder = model.get_decoder()
    for name, weight in decoder.named_parameters():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            weight.data.mul_(3)  # so that a wrong mask or scale shows
        if name.endswith(_EXPERTS):
            weight.data.mul_(5)  # so that a token given to another expert shows
        if name.endswith((".conv.in_proj.weight", ".conv.conv.weight")):
            weight.data.mul_(6)  # so that a convolution's lost neighbour shows
        if name.endswith(".A_log"):
            weight.data.sub_(6)  # so that DeltaNet heads remember tens of tokens, as trained ones do
    model.get_output_embeddings().weight.data.mul_(20)
    return model.eval()
