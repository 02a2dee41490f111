"""The published settings of each family's processor."""

from __future__ import annotations

from typing import Any

import transformers

from interp.models.families.kimi_k25 import KimiImages
from interp.models.families.llama import Llama4ImageProcessorPil
from interp.models.modeling import register
from interp.models.processors import molmo2_images
from interp.models.without_torchvision import gemma4_unified_images, lfm2_vl_images
from tests.models.real_parts import NEXT, ONEVISION

register()

EDGE336 = {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}
# Image processor with the checkpoint's settings, and the processor's own.
PROCESSORS: dict[str, tuple[Any, dict[str, Any]]] = {
    "llava": (transformers.LlavaImageProcessorPil(**EDGE336), {"patch_size": 14}),
    "llava_next": (
        transformers.LlavaNextImageProcessorPil(**EDGE336, image_grid_pinpoints=NEXT),
        {"patch_size": 14},
    ),
    "llava_next_video": (
        transformers.LlavaNextImageProcessorPil(**EDGE336, image_grid_pinpoints=NEXT),
        {"patch_size": 14},
    ),
    "llava_onevision": (
        transformers.LlavaOnevisionImageProcessorPil(
            size={"height": 384, "width": 384}, image_grid_pinpoints=ONEVISION
        ),
        {"num_image_tokens": 729, "vision_aspect_ratio": "anyres_max_9"},
    ),
    "qwen2_vl": (
        transformers.Qwen2VLImageProcessorPil(size={"shortest_edge": 3136, "longest_edge": 12845056}),
        {},
    ),
    "qwen2_5_vl": (
        transformers.Qwen2VLImageProcessorPil(size={"shortest_edge": 3136, "longest_edge": 12845056}),
        {},
    ),
    "qwen3_5": (
        transformers.Qwen2VLImageProcessorPil(
            patch_size=16, size={"shortest_edge": 65536, "longest_edge": 16777216}
        ),
        {},
    ),
    "qwen3_5_moe": (
        transformers.Qwen2VLImageProcessorPil(
            patch_size=16, size={"shortest_edge": 65536, "longest_edge": 16777216}
        ),
        {},
    ),
    "qwen3_vl": (
        transformers.Qwen2VLImageProcessorPil(
            patch_size=16, size={"shortest_edge": 65536, "longest_edge": 16777216}
        ),
        {},
    ),
    "qwen3_vl_moe": (
        transformers.Qwen2VLImageProcessorPil(
            patch_size=16, size={"shortest_edge": 65536, "longest_edge": 16777216}
        ),
        {},
    ),
    "glm4v": (
        transformers.Glm4vImageProcessorPil(size={"shortest_edge": 12544, "longest_edge": 9633792}),
        {},
    ),
    "glm46v": (
        transformers.Glm46VImageProcessorPil(size={"shortest_edge": 12544, "longest_edge": 9633792}),
        {},
    ),
    "glm4v_moe": (
        transformers.Glm4vImageProcessorPil(size={"shortest_edge": 12544, "longest_edge": 9633792}),
        {},
    ),
    "gemma4_unified": (gemma4_unified_images()(), {}),
    "lfm2_vl": (lfm2_vl_images()(), {}),
    "minicpmv4_6": (transformers.MiniCPMV4_6ImageProcessorPil(), {}),
    "llama4": (Llama4ImageProcessorPil(), {"patch_size": 14}),
    "internvl": (
        transformers.GotOcr2ImageProcessorPil(size={"height": 448, "width": 448}, max_patches=12),
        {"image_seq_length": 256},
    ),
    "gemma3": (
        transformers.Gemma3ImageProcessorPil(size={"height": 896, "width": 896}),
        {
            "image_seq_length": 256,
            "full_image_sequence": "\n\n<start_of_image>" + "<image_soft_token>" * 256 + "<end_of_image>\n\n",
        },
    ),
    "idefics2": (
        transformers.Idefics2ImageProcessorPil(
            size={"shortest_edge": 378, "longest_edge": 980}, do_image_splitting=True
        ),
        {"image_seq_len": 64},
    ),
    "aria": (
        transformers.AriaImageProcessorPil(),
        {
            "size_conversion": {490: 128, 980: 256},
            "images_kwargs": {"max_image_size": 980, "split_image": False},
        },
    ),
    "blip-2": (
        transformers.BlipImageProcessorPil(size={"height": 224, "width": 224}),
        {"num_query_tokens": 32},
    ),
    "instructblip": (
        transformers.BlipImageProcessorPil(size={"height": 224, "width": 224}),
        {"num_query_tokens": 32},
    ),
    "gemma3n": (
        transformers.SiglipImageProcessorPil(size={"height": 768, "width": 768}),
        {
            "image_seq_length": 256,
            "full_image_sequence": "\n\n<start_of_image>" + "<image_soft_token>" * 256 + "<end_of_image>\n\n",
        },
    ),
    "mllama": (
        transformers.MllamaImageProcessorPil(size={"height": 560, "width": 560}, max_image_tiles=4),
        {},
    ),
    "paligemma": (
        transformers.SiglipImageProcessorPil(size={"height": 224, "width": 224}),
        {"image_seq_length": 256},
    ),
    "mistral3": (
        transformers.PixtralImageProcessorPil(
            size={"longest_edge": 1540}, patch_size={"height": 14, "width": 14}
        ),
        {"patch_size": 14, "spatial_merge_size": 2},
    ),
    "vila": (
        transformers.SiglipImageProcessorPil(size={"height": 384, "width": 384}),
        {"patch_size": 14},
    ),
    "Luxuriant16/medrega": (
        transformers.GotOcr2ImageProcessorPil(size={"height": 448, "width": 448}, max_patches=1),
        {"image_seq_length": 256},
    ),
    "gemma4": (transformers.Gemma4ImageProcessorPil(), {}),
    "aya_vision": (
        transformers.GotOcr2ImageProcessorPil(
            size={"height": 364, "width": 364}, crop_to_patches=True, max_patches=12
        ),
        {"patch_size": 28, "img_size": 364},
    ),
    "cohere2_vision": (
        transformers.GotOcr2ImageProcessorPil(
            size={"height": 512, "width": 512}, crop_to_patches=True, max_patches=12
        ),
        {"patch_size": 16},
    ),
    "molmo2": (molmo2_images()(), {}),
    "deepseek_vl": (
        transformers.DeepseekVLImageProcessorPil(size={"height": 384, "width": 384}),
        {"num_image_tokens": 576},
    ),
    "deepseek_vl_hybrid": (
        transformers.DeepseekVLHybridImageProcessorPil(size={"height": 384, "width": 384}),
        {"num_image_tokens": 576},
    ),
    "vipllava": (transformers.CLIPImageProcessorPil(**EDGE336), {"patch_size": 14}),
    "fast_vlm": (
        transformers.LlavaImageProcessorPil(
            size={"shortest_edge": 1024}, crop_size={"height": 1024, "width": 1024}, do_pad=True
        ),
        {"patch_size": 64},
    ),
    "ovis2": (
        transformers.Ovis2ImageProcessorPil(
            size={"height": 448, "width": 448}, crop_to_patches=True, max_patches=9
        ),
        {"image_seq_length": 256},
    ),
    "got_ocr2": (
        transformers.GotOcr2ImageProcessorPil(size={"height": 1024, "width": 1024}),
        {"num_image_tokens": 256},
    ),
    "kimi_k25": (KimiImages(), {}),
    "lighton_ocr": (
        transformers.PixtralImageProcessorPil(
            size={"longest_edge": 1540}, patch_size={"height": 14, "width": 14}
        ),
        {"patch_size": 14, "spatial_merge_size": 2, "effective_patch_size": 28},
    ),
    "smolvlm": (
        transformers.SmolVLMImageProcessorPil(
            size={"longest_edge": 2048}, max_image_size={"longest_edge": 512}
        ),
        {"image_seq_len": 64},
    ),
    "HuggingFaceTB/SmolVLM-256M-Instruct": (
        transformers.Idefics3ImageProcessorPil(
            size={"longest_edge": 2048}, max_image_size={"longest_edge": 512}
        ),
        {"image_seq_len": 64},
    ),
    "HuggingFaceM4/Idefics3-8B-Llama3": (
        transformers.Idefics3ImageProcessorPil(
            size={"longest_edge": 1456}, max_image_size={"longest_edge": 364}
        ),
        {"image_seq_len": 169},
    ),
}
