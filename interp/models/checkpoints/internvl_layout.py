"""InternVL 1.2's layout (MedRegA): InternViT, pixel shuffle, a Llama."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import (
    CONFIG_MAPPING,
    AutoTokenizer,
    GotOcr2ImageProcessorPil,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVisionConfig,
    LlamaConfig,
    PreTrainedConfig,
)
from transformers.utils.import_utils import is_torchvision_available

from interp.errors import ModelError
from interp.models.checkpoints.checkpoint import Checkpoint
from interp.models.checkpoints.layout import check_settings, config_of, licence, refuse_tower
from interp.models.checkpoints.source_files import check_vocabulary
from interp.models.checkpoints.tensors import IGNORED, Part, Rule, read_folder
from interp.models.modeling import register
from interp.models.modeling.internvl_v1 import InternVLV1Config, InternVLV1ForConditionalGeneration
from interp.models.processors import images_only

__all__ = ["CONTEXT", "END", "PROMPT", "InternVl", "make_processor", "read_tokenizer"]

START, CONTEXT, CLOSE, END = "<img>", "<IMG_CONTEXT>", "</img>", "<|im_end|>"

_SYSTEM = "Answer the questions."
PROMPT = "<|im_start|>system\n{system}<|im_end|><|im_start|>user\n<image>\n{question}<|im_end|><|im_start|>assistant\n"
"""The conversation `Hermes-2`: no line break behind `<|im_end|>`.

Source: github.com/xmed-lab/MedRegA, src/internvl/conversation.py and `InternVLChatModel.chat`.
"""

_TEMPLATE = (
    f"{{%- set ns = namespace(system={_SYSTEM!r}) -%}}"
    "{%- for m in messages if m['role'] == 'system' -%}"
    "{%- set ns.system = m['content'] if m['content'] is string else m['content'][0]['text'] -%}"
    "{%- endfor -%}"
    "{{- '<|im_start|>system\\n' + ns.system + '<|im_end|>' -}}"
    "{%- for m in messages if m['role'] != 'system' -%}"
    "{{- '<|im_start|>' + m['role'] + '\\n' -}}"
    "{%- if m['content'] is string -%}{{- m['content'] -}}{%- else -%}{%- for part in m['content'] -%}"
    f"{{{{- {CONTEXT + chr(10)!r} if part['type'] == 'image' else part['text'] -}}}}"
    "{%- endfor -%}{%- endif -%}{{- '<|im_end|>' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)

_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def read_tokenizer(folder: Path) -> Any:
    """Returns the folder's tokenizer without running code that comes with it.

    Raises:
        ModelError: There is no tokenizer, or it lacks the tokens around an image.
    """
    check_vocabulary(folder)
    names = {"start_image_token": START, "end_image_token": CLOSE, "context_image_token": CONTEXT}
    # transformers' processor wants a token for videos; this one can stand in no prompt
    extra = {**names, "video_token": CLOSE}
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False, "config": LlamaConfig()}
    try:
        known = AutoTokenizer.from_pretrained(str(folder), **options).get_vocab()
        made: Any = AutoTokenizer.from_pretrained(str(folder), **options, extra_special_tokens=extra)
    except Exception as error:  # whatever reading foreign files raises
        raise ModelError(
            f"no tokenizer can be loaded from {folder} ({type(error).__name__}: {error}); code that comes with it is "
            "not run. Is the download complete?"
        ) from error
    missing = [token for token in (*names.values(), END) if token not in known]
    if missing:
        raise ModelError(
            f"the tokenizer of {folder} has no {' and no '.join(missing)}, which its prompts need. Are the files of "
            "one checkpoint?"
        )
    return made


def make_processor(config: InternVLConfig, tokenizer: Any) -> Any:
    """Returns transformers' InternVL processor for one squashed tile, bicubic, with ImageNet's mean and deviation."""
    vision: Any = config.vision_config
    images = GotOcr2ImageProcessorPil(
        size={"height": vision.image_size[0], "width": vision.image_size[1]},
        image_mean=_MEAN,
        image_std=_STD,
        crop_to_patches=False,
        max_patches=1,  # also where a processor's own default says to crop
    )
    parts: dict[str, Any] = {"image_seq_length": config.image_seq_length, "chat_template": _TEMPLATE}
    if is_torchvision_available():
        from transformers import InternVLVideoProcessor

        return InternVLProcessor(images, tokenizer, InternVLVideoProcessor(), **parts)
    return images_only(InternVLProcessor)(images, tokenizer, **parts)


def _split(tensor: Tensor) -> Sequence[Tensor]:
    """Splits query, key and value, which the original keeps in one matrix."""
    return tensor.unflatten(0, (3, -1)).unbind()


_LAYER = r"vision_model\.encoder\.layers\.(\d+)\."
_NEW = r"model.vision_tower.encoder.layer.\1."
_EMBEDDINGS = "model.vision_tower.embeddings."

_RULES = (
    *IGNORED,
    Rule(r"vision_model\.embeddings\.class_embedding", f"{_EMBEDDINGS}cls_token"),
    Rule(r"vision_model\.embeddings\.position_embedding", f"{_EMBEDDINGS}position_embeddings"),
    Rule(r"vision_model\.embeddings\.patch_embedding\.(.+)", rf"{_EMBEDDINGS}patch_embeddings.projection.\1"),
    Rule(
        _LAYER + r"attn\.qkv\.(.+)",
        tuple(rf"{_NEW}attention.{name}_proj.\2" for name in "qkv"),
        _split,
    ),
    Rule(_LAYER + r"attn\.proj\.(.+)", _NEW + r"attention.projection_layer.\2"),
    Rule(_LAYER + r"attn\.([qk])_norm\.(.+)", _NEW + r"attention.\2_norm.\3"),
    Rule(_LAYER + r"ls([12])", _NEW + r"lambda_\2"),
    Rule(_LAYER + r"norm1\.(.+)", _NEW + r"layernorm_before.\2"),
    Rule(_LAYER + r"norm2\.(.+)", _NEW + r"layernorm_after.\2"),
    Rule(_LAYER + r"mlp\.(.+)", _NEW + r"mlp.\2"),
    *(
        Rule(rf"mlp1\.{place}\.(.+)", rf"model.multi_modal_projector.{name}.\1")
        for place, name in ((0, "layer_norm"), (1, "linear_1"), (3, "linear_2"))
    ),
    Rule(r"language_model\.model\.(.+)", r"model.language_model.\1"),
    Rule(r"language_model\.lm_head\.weight", "lm_head.weight"),
)

_KNOWN: dict[str, tuple[Any, ...]] = {
    "template": ("Hermes-2",),
    "pad2square": (False, None),
    "use_backbone_lora": (0, None),
    "use_llm_lora": (0, None),
    "dynamic_image_size": (False, None),
    "ps_version": ("v1", "v2"),
}
"""Settings of config.json that decide what is computed → the supported values."""

_EPS = 1e-6
"""Epsilon of the norms of queries and keys; transformers' class has no other."""


class InternVl:
    """InternVL-Chat 1.2 and models tuned from it, such as MedRegA.

    With `ps_version` "v2" the model is of transformers' own class. With "v1", the default of the original's config, the
    tokens of an image run down its columns: the class is in `interp.models.modeling.internvl_v1`, and the adapter
    transposes the footprints.
    """

    name = "InternVL 1.2"

    def matches(self, folder: Path) -> bool:
        """Whether config.json is of the model type `internvl_chat` and has a vision and a language part."""
        raw = config_of(folder)
        return raw.get("model_type") == "internvl_chat" and {"vision_config", "llm_config"} <= set(raw)

    def open(
        self, folder: Path, vision_tower: str | Path | None = None, *, download: bool = False
    ) -> Checkpoint:
        """Returns the folder's checkpoint; weights are not read.

        Raises:
            ModelError: With these settings the original computes something else than the classes here.
        """
        register()
        refuse_tower(folder, vision_tower)
        raw = {"ps_version": "v1", "select_layer": -4, "downsample_ratio": 0.5, **config_of(folder)}
        _check(folder, raw)
        first = raw["ps_version"] == "v1"
        tokenizer = read_tokenizer(folder)
        config = _config(raw, tokenizer, InternVLV1Config if first else InternVLConfig)
        return Checkpoint(
            layout=self.name,
            where=str(folder),
            config=config,
            model_class=InternVLV1ForConditionalGeneration if first else InternVLForConditionalGeneration,
            parts=(Part(read_folder(folder), _RULES),),
            make_processor=lambda: make_processor(config, tokenizer),
            prompt=PROMPT,
            licence=licence(folder),
            notes=_notes(first),
            stock=not first,
        )


def _check(folder: Path, raw: Mapping[str, Any]) -> None:
    """Raises `ModelError` for settings with which the original computes something else."""
    vision, text = _vision(raw), raw["llm_config"]
    found = [(name, raw.get(name), known) for name, known in _KNOWN.items()]
    found.append(("force_image_size", raw.get("force_image_size"), (vision["image_size"], None)))
    found.append(("llm_config.architectures", text.get("architectures"), (["LlamaForCausalLM"],)))
    if vision["qk_normalization"]:
        found.append(("vision_config.layer_norm_eps", vision["layer_norm_eps"], (_EPS,)))
    check_settings(folder, found, known="InternVL-Chat 1.2 and MedRegA")


def _vision(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the tower's config; missing settings are those of the 6B tower, as in the original's class."""
    absent = {
        "hidden_size": 3200,
        "intermediate_size": 12800,
        "num_hidden_layers": 48,
        "num_attention_heads": 25,
        "image_size": 224,
        "patch_size": 14,
        "hidden_act": "gelu",
        "layer_norm_eps": _EPS,
        "norm_type": "rms_norm",
        "qk_normalization": True,
        "qkv_bias": False,
    }
    return {name: raw["vision_config"].get(name, value) for name, value in absent.items()}


def _config(raw: Mapping[str, Any], tokenizer: Any, kind: type[InternVLConfig]) -> InternVLConfig:
    vision = _vision(raw)
    tower = InternVLVisionConfig(
        attention_bias=vision.pop("qkv_bias"),
        use_qk_norm=vision.pop("qk_normalization"),
        use_mean_pooling=True,  # no norm behind the last layer
        **vision,
    )
    tokens = (tower.image_size[0] // tower.patch_size[0] * raw["downsample_ratio"]) ** 2  # pyright: ignore[reportIndexIssue]
    tied = bool(
        raw["llm_config"].get("tie_word_embeddings", False)
    )  # transformers' InternVL would tie by default
    return kind(
        vision_config=tower,
        text_config=_text(raw["llm_config"], tied, tokenizer),
        image_token_id=tokenizer.convert_tokens_to_ids(CONTEXT),
        image_seq_length=int(tokens),
        downsample_ratio=raw["downsample_ratio"],
        vision_feature_layer=raw["select_layer"],
        vision_feature_select_strategy="default",
        tie_word_embeddings=tied,
    )


def _text(raw: Mapping[str, Any], tied: bool, tokenizer: Any) -> PreTrainedConfig:
    """Returns the language model's config; its answers end as in the original's `chat`."""
    stop = tokenizer.convert_tokens_to_ids(END)
    stored = raw.get("eos_token_id")
    ends = [stop, *([] if stored in (None, stop) else [stored])]
    return CONFIG_MAPPING["llama"].from_dict({**raw, "tie_word_embeddings": tied, "eos_token_id": ends})


def _notes(first: bool) -> tuple[str, ...]:
    order = (
        "The pixel shuffle is the first version's: image tokens run down the columns. transformers' InternVL class has "
        "the second version's order, in which this language model was not tuned; a class of interp's keeps the first."
    )
    return (
        *((order,) if first else ()),
        "One tile per image, squashed, as the original's evaluation does; its option of dynamic tiles is not offered.",
        "The original puts an image where the question says <image>; here it is in front of the question, with a line "
        "break between.",
    )
