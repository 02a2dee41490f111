"""How InternVL 1.2's checkpoints are spoken to: prompt, tokenizer, processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import (
    AutoTokenizer,
    GotOcr2ImageProcessorPil,
    InternVLConfig,
    InternVLProcessor,
    LlamaConfig,
)
from transformers.utils.import_utils import is_torchvision_available

from interp.errors import ModelError
from interp.models.processors import images_only

__all__ = ["CONTEXT", "END", "PROMPT", "make_processor", "read_tokenizer"]

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
    """The folder's tokenizer, without running code that comes with it and without asking whether to.

    Raises:
        ModelError: No tokenizer, or one without the tokens around an image.
    """
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
    """transformers' InternVL processor set to one tile, squashed, bicubic, with ImageNet's mean and deviation."""
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
