"""InternVL-Chat's layout (InternVL 1.2 to 3, MedRegA): InternViT, pixel shuffle, a Llama, Qwen or InternLM2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tokenizers import pre_tokenizers
from torch import Tensor
from transformers import (
    CONFIG_MAPPING,
    AutoTokenizer,
    GotOcr2ImageProcessorPil,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVisionConfig,
    LlamaTokenizer,
    PreTrainedConfig,
)
from transformers.utils.import_utils import is_torchvision_available

from interp.errors import ModelError
from interp.models.checkpoints.checkpoint import Checkpoint, check_vocabulary
from interp.models.checkpoints.conversations import system_message
from interp.models.checkpoints.layout import check_settings, config_of, licence, refuse_tower
from interp.models.checkpoints.tensors import IGNORED, Part, Rule, read_folder
from interp.models.modeling import InternVLV1Config, InternVLV1ForConditionalGeneration, register
from interp.models.processors import images_only

__all__ = [
    "CONTEXT",
    "END",
    "INTERNLM2",
    "LANGUAGES",
    "Chat",
    "InternVl",
    "chat_of",
    "internlm2_tokenizer",
    "language_config",
    "language_rules",
    "make_processor",
    "read_tokenizer",
]


START, CLOSE = "<img>", "</img>"

_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def read_tokenizer(folder: Path, architecture: str = "LlamaForCausalLM") -> Any:
    """Returns the folder's tokenizer without running code that comes with it.

    Args:
        folder: The folder with the tokenizer's files.
        architecture: That of the language model. It decides if the files name no class that transformers has.

    Raises:
        ModelError: There is no tokenizer, or it lacks the tokens around an image.
    """
    check_vocabulary(folder)
    names = {"start_image_token": START, "end_image_token": CLOSE, "context_image_token": CONTEXT}
    # transformers' processor wants a token for videos; this one can stand in no prompt
    extra = {**names, "video_token": CLOSE}
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    options["config"] = CONFIG_MAPPING[LANGUAGES[architecture]]()
    load = AutoTokenizer.from_pretrained if architecture != INTERNLM2 else internlm2_tokenizer
    try:
        known = load(str(folder), **options).get_vocab()
        made: Any = load(str(folder), **options, extra_special_tokens=extra)
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


def make_processor(
    config: InternVLConfig, tokenizer: Any, chat: Chat, tiles: tuple[int, int] | None = None
) -> Any:
    """Returns transformers' InternVL processor, bicubic, with ImageNet's mean and deviation.

    Args:
        config: The model's config.
        tokenizer: Its tokenizer.
        chat: The conversation of its prompts.
        tiles: The fewest and the most tiles of an image; None to squash each image onto one tile.
    """
    vision: Any = config.vision_config
    fewest, most = tiles or (1, 1)
    images = GotOcr2ImageProcessorPil(
        size={"height": vision.image_size[0], "width": vision.image_size[1]},
        image_mean=_MEAN,
        image_std=_STD,
        crop_to_patches=tiles is not None,
        min_patches=fewest,
        max_patches=most,  # 1 where a processor's own default says to crop
    )
    parts: dict[str, Any] = {"image_seq_length": config.image_seq_length, "chat_template": chat.template}
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
)

_KNOWN: dict[str, tuple[Any, ...]] = {
    "pad2square": (False, None),
    "use_backbone_lora": (0, None),
    "use_llm_lora": (0, None),
    "dynamic_image_size": (False, True, None),
    "ps_version": ("v1", "v2"),
}
"""Settings of config.json that decide what is computed → the supported values."""

_EPS = 1e-6
"""Epsilon of the norms of queries and keys; transformers' class has no other."""


class InternVl:
    """InternVL-Chat 1.2 to 3, and models tuned from them, such as MedRegA.

    With `ps_version` "v2" the model is of transformers' own class. With "v1", the default of the original's config, the
    tokens of an image run down its columns: the class is in `interp.models.modeling`, and the adapter
    transposes the footprints. With `dynamic_image_size` an image is cut into tiles by its aspect ratio, and a thumbnail
    of the whole follows them; transformers' processor chooses the same tiles.
    """

    name = "InternVL-Chat"

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
        raw = {**_ABSENT, **config_of(folder)}
        chat = _checked(folder, raw)
        first, language = raw["ps_version"] == "v1", raw["llm_config"]
        tokenizer = read_tokenizer(folder, language["architectures"][0])
        config = _config(raw, tokenizer, InternVLV1Config if first else InternVLConfig)
        dynamic = bool(raw["dynamic_image_size"])
        tiles = (int(raw["min_dynamic_patch"]), int(raw["max_dynamic_patch"])) if dynamic else None
        return Checkpoint(
            layout=self.name,
            where=str(folder),
            config=config,
            model_class=InternVLV1ForConditionalGeneration if first else InternVLForConditionalGeneration,
            parts=(Part(read_folder(folder), (*_RULES, *language_rules(language))),),
            make_processor=lambda: make_processor(config, tokenizer, chat, tiles),
            prompt=chat.prompt,
            licence=licence(folder),
            notes=_notes(first, tiles),
            stock=not first,
        )


_ABSENT: dict[str, Any] = {
    "ps_version": "v1",
    "select_layer": -4,
    "downsample_ratio": 0.5,
    "dynamic_image_size": False,
    "use_thumbnail": False,
    "min_dynamic_patch": 1,
    "max_dynamic_patch": 6,
}
"""Values of settings that a config.json leaves out, as in the original's class."""


def _checked(folder: Path, raw: Mapping[str, Any]) -> Chat:
    """Returns the conversation.

    Raises:
        ModelError: There are settings with which the original computes something else.
    """
    vision, text, dynamic = _vision(raw), raw["llm_config"], bool(raw["dynamic_image_size"])
    found = [(name, raw.get(name), known) for name, known in _KNOWN.items()]
    found.append(("force_image_size", raw.get("force_image_size"), (vision["image_size"], None)))
    kinds = tuple([kind] for kind in LANGUAGES)
    found.append(("llm_config.architectures", text.get("architectures"), kinds))
    if vision["qk_normalization"]:
        found.append(("vision_config.layer_norm_eps", vision["layer_norm_eps"], (_EPS,)))
    if dynamic:
        found.append(("use_thumbnail", raw["use_thumbnail"], (True,)))
    chat = chat_of(raw.get("template"), dynamic)
    if chat is None:
        found.append(("template", raw.get("template"), ("Hermes-2",)))
    check_settings(folder, found, known="InternVL-Chat 1.2 to 3 and MedRegA")
    return chat or Chat("", "")


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
        text_config=language_config(raw["llm_config"], tied, tokenizer.convert_tokens_to_ids(END)),
        image_token_id=tokenizer.convert_tokens_to_ids(CONTEXT),
        image_seq_length=int(tokens),
        downsample_ratio=raw["downsample_ratio"],
        vision_feature_layer=raw["select_layer"],
        vision_feature_select_strategy="default",
        tie_word_embeddings=tied,
    )


def _notes(first: bool, tiles: tuple[int, int] | None) -> tuple[str, ...]:
    order = (
        "The pixel shuffle is the first version's: image tokens run down the columns. transformers' InternVL class has "
        "the second version's order, in which this language model was not tuned; a class of interp's keeps the first."
    )
    squashed = "One tile per image, squashed, as config.json says (dynamic_image_size is false)."
    cut = "An image is cut into tiles by its aspect ratio, at most {} of them, and a thumbnail of the whole follows."
    return (
        *((order,) if first else ()),
        squashed if tiles is None else cut.format(tiles[1]),
        "The original puts an image where the question says <image>; here it is in front of the question, with a line "
        "break between.",
    )


CONTEXT, END, INTERNLM2 = "<IMG_CONTEXT>", "<|im_end|>", "InternLM2ForCausalLM"

LANGUAGES = {
    "LlamaForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    INTERNLM2: "llama",
}
"""The architecture that `llm_config` names → the type in transformers. InternLM2 is a Llama with packed weights."""


@dataclass(frozen=True)
class Chat:
    """A conversation in ChatML.

    Attributes:
        system: The system message that is used if none is given.
        end: What ends a turn.
    """

    system: str
    end: str

    @property
    def prompt(self) -> str:
        """The prompt for one image and one question, as text."""
        turn = f"<|im_start|>user\n<image>\n{{question}}{self.end}"
        return f"<|im_start|>system\n{{system}}{self.end}{turn}<|im_start|>assistant\n"

    @property
    def template(self) -> str:
        """The chat template for messages whose content is a text or a list of images and texts."""
        return (
            f"{system_message(self.system)}{{{{- '<|im_start|>system\\n' + ns.system + {self.end!r} -}}}}"
            "{%- for m in messages if m['role'] != 'system' -%}"
            "{{- '<|im_start|>' + m['role'] + '\\n' -}}"
            "{%- if m['content'] is string -%}{{- m['content'] -}}{%- else -%}{%- for part in m['content'] -%}"
            f"{{{{- {CONTEXT + chr(10)!r} if part['type'] == 'image' else part['text'] -}}}}"
            f"{{%- endfor -%}}{{%- endif -%}}{{{{- {self.end!r} -}}}}{{%- endfor -%}}"
            "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
        )


_V1_5 = "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。"
_V2_5 = "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
_CHATS = {
    "Hermes-2": Chat(_V1_5, END),
    "internlm2-chat": Chat(_V1_5, END),
    "internvl2_5": Chat(_V2_5, f"{END}\n"),
}
_MEDREGA = Chat("Answer the questions.", END)


def chat_of(template: str | None, dynamic: bool) -> Chat | None:
    """Returns the conversation of a checkpoint; None if it is not known.

    Args:
        template: The name of the conversation in config.json.
        dynamic: Whether images are cut into tiles. Without them, "Hermes-2" means MedRegA, which has a system message
            of its own.

    Source: conversation.py of github.com/OpenGVLab/InternVL and github.com/xmed-lab/MedRegA (src/internvl).
    """
    if template == "Hermes-2" and not dynamic:
        return _MEDREGA
    return _CHATS.get(str(template))


_FOREIGN = ("architectures", "auto_map", "attn_implementation", "_attn_implementation_autoset", "model_type")
"""Entries of `llm_config` that concern the original's own class."""


def language_config(raw: Mapping[str, Any], tied: bool, stop: int) -> PreTrainedConfig:
    """Returns the config of the language model; its answers end as in the original's `chat`.

    Args:
        raw: `llm_config`.
        tied: Whether the answer head is the embedding.
        stop: The id of the token that ends a turn.
    """
    kind = raw["architectures"][0]
    stored = raw.get("eos_token_id")
    ends = [stop, *([] if stored in (None, stop) else [stored])]
    kept = {name: value for name, value in raw.items() if name not in _FOREIGN}
    if kind == INTERNLM2:
        kept["attention_bias"] = bool(kept.pop("bias", True))  # absent: as in InternLM2Config
    return CONFIG_MAPPING[LANGUAGES[kind]].from_dict(
        {**kept, "tie_word_embeddings": tied, "eos_token_id": ends}
    )


def language_rules(raw: Mapping[str, Any]) -> tuple[Rule, ...]:
    """Returns the rules for the names under `language_model.`.

    InternLM2 packs query, key and value into one matrix: for each key-value head, the rows of its query heads, then
    those of the key, then those of the value.

    Args:
        raw: `llm_config`.
    """
    if raw["architectures"][0] != INTERNLM2:
        return (
            Rule(r"language_model\.model\.(.+)", r"model.language_model.\1"),
            Rule(r"language_model\.lm_head\.weight", "lm_head.weight"),
        )
    heads = int(raw["num_attention_heads"])
    groups = int(raw.get("num_key_value_heads") or heads)
    layer, new = r"language_model\.model\.layers\.(\d+)\.", r"model.language_model.layers.\1."
    qkv = tuple(rf"{new}self_attn.{name}_proj.\2" for name in "qkv")
    renamed = (
        (r"attention\.wo\.(.+)", r"self_attn.o_proj.\2"),
        (r"feed_forward\.w1\.weight", "mlp.gate_proj.weight"),
        (r"feed_forward\.w2\.weight", "mlp.down_proj.weight"),
        (r"feed_forward\.w3\.weight", "mlp.up_proj.weight"),
        (r"attention_norm\.weight", "input_layernorm.weight"),
        (r"ffn_norm\.weight", "post_attention_layernorm.weight"),
    )
    return (
        Rule(layer + r"attention\.wqkv\.(.+)", qkv, partial(_unpacked, groups=groups, each=heads // groups)),
        *(Rule(layer + old, new + to) for old, to in renamed),
        Rule(r"language_model\.model\.tok_embeddings\.weight", "model.language_model.embed_tokens.weight"),
        Rule(r"language_model\.model\.norm\.weight", "model.language_model.norm.weight"),
        Rule(r"language_model\.output\.weight", "lm_head.weight"),
    )


def _unpacked(tensor: Tensor, groups: int, each: int) -> Sequence[Tensor]:
    """Splits InternLM2's `wqkv` into query, key and value."""
    rows = tensor.unflatten(0, (groups, each + 2, -1))
    return [part.flatten(0, 2) for part in (rows[:, :each], rows[:, each : each + 1], rows[:, each + 1 :])]


def internlm2_tokenizer(folder: str, **options: Any) -> Any:
    """Returns InternLM2's tokenizer, whose own class comes as code, in Llama's class.

    The original gives each piece between special tokens to SentencePiece by itself, which puts a space in front if the
    model says so. Llama's class does so only at the start of a text.

    Args:
        folder: The folder with `tokenizer.model`.
        **options: As for `from_pretrained`.
    """
    from sentencepiece import SentencePieceProcessor

    pieces: Any = SentencePieceProcessor(model_file=f"{folder}/tokenizer.model")
    spaced = pieces.encode("a", out_type=str)[0].startswith("\u2581")
    made: Any = LlamaTokenizer.from_pretrained(folder, **options, legacy=False)
    made.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
        prepend_scheme="always" if spaced else "never", split=False
    )
    return made
