"""Published dimensions of known models of the built-in families: what an adapter must find in the real sizes.

`tests/models/test_published.py` builds each model's own config on the meta device and checks these numbers.
Sources: the models' cards and config.json on the Hugging Face hub; the number of tokens as their papers or
processors give it. Nothing here is read when a model is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PUBLISHED", "Published"]


@dataclass(frozen=True)
class Published:
    """One model's dimensions.

    Attributes:
        hub_id: its name on the hub.
        family: the adapter's name.
        layers: decoder layers.
        heads: query heads of a decoder layer.
        key_value_heads: key-value heads of a decoder layer.
        hidden: width of the decoder.
        parameters: all weights, in billions, as the hub counts them.
        image: (width, height) of the image that the next two are for.
        tokens: image tokens of that image, those without area included.
        grid: (rows, cols) when they are whole row-major grids of that shape, else None.
        order: the order of the tokens, for people.
        needs: the package without which transformers cannot build the model, besides those it always needs.
    """

    hub_id: str
    family: str
    layers: int
    heads: int
    key_value_heads: int
    hidden: int
    parameters: float
    image: tuple[int, int]
    tokens: int
    grid: tuple[int, int] | None
    order: str
    needs: str | None = None


_ROWS = "row by row"
_ANYRES = "the whole image row by row, then the tiles as one grid, a newline token after each row"
_TILES = "tile after tile, each row by row, then the whole image"
_COLUMNS = "down the columns"
_QUERIES = "learned queries, which are no places"

PUBLISHED: tuple[Published, ...] = (
    Published("llava-hf/llava-1.5-7b-hf", "llava", 32, 32, 32, 4096, 7.06, (640, 480), 576, (24, 24), _ROWS),
    Published(
        "FreedomIntelligence/HuatuoGPT-Vision-7B-hf",
        "llava",
        28,
        28,
        4,
        3584,
        7.94,
        (640, 480),
        576,
        (24, 24),
        _ROWS,
    ),
    Published(
        "FreedomIntelligence/HuatuoGPT-Vision-34B-hf",
        "llava",
        60,
        56,
        8,
        7168,
        34.8,
        (640, 480),
        576,
        (24, 24),
        _ROWS,
    ),
    Published(
        "llava-hf/llava-v1.6-vicuna-7b-hf",
        "llava_next",
        32,
        32,
        32,
        4096,
        7.06,
        (672, 672),
        2928,
        None,
        _ANYRES,
    ),
    Published(
        "llava-hf/llava-v1.6-mistral-7b-hf",
        "llava_next",
        32,
        32,
        8,
        4096,
        7.57,
        (1344, 336),
        1890,
        None,
        _ANYRES,
    ),
    Published(
        "llava-hf/LLaVA-NeXT-Video-7B-hf",
        "llava_next_video",
        32,
        32,
        32,
        4096,
        7.06,
        (672, 672),
        2928,
        None,
        _ANYRES,
    ),
    Published(
        "llava-hf/llava-onevision-qwen2-7b-ov-hf",
        "llava_onevision",
        28,
        28,
        4,
        3584,
        8.03,
        (1152, 1152),
        7371,
        None,
        _ANYRES,
    ),
    Published("Qwen/Qwen2-VL-7B-Instruct", "qwen2_vl", 28, 28, 4, 3584, 8.29, (224, 224), 64, (8, 8), _ROWS),
    Published(
        "Qwen/Qwen2.5-VL-7B-Instruct", "qwen2_5_vl", 28, 28, 4, 3584, 8.29, (840, 560), 600, (20, 30), _ROWS
    ),
    Published(
        "Qwen/Qwen3-VL-8B-Instruct", "qwen3_vl", 36, 32, 8, 4096, 8.77, (1024, 512), 512, (16, 32), _ROWS
    ),
    Published("Qwen/Qwen3.5-9B", "qwen3_5", 32, 16, 4, 4096, 9.41, (1024, 512), 512, (16, 32), _ROWS),
    Published(
        "Qwen/Qwen3.5-35B-A3B", "qwen3_5_moe", 40, 16, 2, 2048, 35.1, (1024, 512), 512, (16, 32), _ROWS
    ),
    Published(
        "Qwen/Qwen3-VL-30B-A3B-Instruct",
        "qwen3_vl_moe",
        48,
        32,
        4,
        2048,
        31.1,
        (1024, 512),
        512,
        (16, 32),
        _ROWS,
    ),
    Published(
        "zai-org/GLM-4.1V-9B-Thinking", "glm4v", 40, 32, 2, 4096, 10.3, (840, 560), 600, (20, 30), _ROWS
    ),
    Published("zai-org/GLM-4.6V-Flash", "glm46v", 40, 32, 2, 4096, 10.3, (840, 560), 600, (20, 30), _ROWS),
    Published("zai-org/GLM-4.5V", "glm4v_moe", 46, 96, 8, 4096, 108.0, (840, 560), 600, (20, 30), _ROWS),
    Published(
        "meta-llama/Llama-4-Scout-17B-16E-Instruct",
        "llama4",
        48,
        40,
        8,
        5120,
        109.0,
        (672, 672),
        720,
        None,
        f"{_TILES}; separators have ids of their own",
    ),
    Published("OpenGVLab/InternVL3-8B-hf", "internvl", 28, 28, 4, 3584, 7.94, (896, 448), 768, None, _TILES),
    Published("google/gemma-3-4b-it", "gemma3", 34, 8, 4, 2560, 4.30, (640, 480), 256, (16, 16), _ROWS),
    Published("google/medgemma-4b-it", "gemma3", 34, 8, 4, 2560, 4.30, (512, 512), 256, (16, 16), _ROWS),
    Published(
        "HuggingFaceM4/Idefics3-8B-Llama3",
        "idefics3",
        32,
        32,
        8,
        4096,
        8.46,
        (1456, 1092),
        2197,
        None,
        _TILES,
    ),
    Published(
        "HuggingFaceTB/SmolVLM-256M-Instruct",
        "idefics3",
        30,
        9,
        3,
        576,
        0.256,
        (512, 512),
        1088,
        None,
        _TILES,
    ),
    Published(
        "HuggingFaceTB/SmolVLM2-256M-Video-Instruct",
        "smolvlm",
        30,
        9,
        3,
        576,
        0.256,
        (512, 512),
        1088,
        None,
        _TILES,
    ),
    Published(
        "google/paligemma-3b-pt-224", "paligemma", 18, 8, 1, 2048, 2.92, (640, 480), 256, (16, 16), _ROWS
    ),
    Published(
        "mistralai/Mistral-Small-3.1-24B-Instruct-2503",
        "mistral3",
        40,
        32,
        8,
        5120,
        24.0,
        (1540, 770),
        1540,
        (28, 55),
        f"{_ROWS}; line breaks have an id of their own",
    ),
    Published(
        "HuggingFaceM4/idefics2-8b",
        "idefics2",
        32,
        32,
        8,
        4096,
        8.40,
        (640, 480),
        320,
        None,
        "latents of four quarters, then of the whole image",
    ),
    Published("rhymes-ai/Aria", "aria", 28, 20, 20, 2560, 25.3, (640, 480), 256, None, _QUERIES),
    Published("Salesforce/blip2-opt-2.7b", "blip-2", 32, 32, 32, 2560, 3.74, (640, 480), 32, None, _QUERIES),
    Published(
        "Salesforce/instructblip-vicuna-7b",
        "instructblip",
        32,
        32,
        32,
        4096,
        7.91,
        (640, 480),
        32,
        None,
        _QUERIES,
    ),
    Published(
        "meta-llama/Llama-3.2-11B-Vision-Instruct",
        "mllama",
        40,
        32,
        8,
        4096,
        10.67,
        (640, 480),
        3202,
        None,
        "tile after tile, in each a class token and then row by row",
    ),
    Published("MONAI/Llama3-VILA-M3-8B", "vila", 32, 32, 8, 4096, 8.48, (640, 480), 196, None, _COLUMNS),
    Published("Luxuriant16/medrega", "internvl", 60, 56, 8, 7168, 40.1, (640, 480), 256, None, _COLUMNS),
    Published(
        "google/gemma-3n-E4B-it",
        "gemma3n",
        35,
        8,
        2,
        2048,
        7.85,
        (640, 480),
        256,
        (16, 16),
        _ROWS,
        needs="timm",
    ),
    Published("google/gemma-4-E4B-it", "gemma4", 42, 8, 2, 2560, 8.0, (640, 480), 266, (14, 19), _ROWS),
    Published(
        "google/gemma-4-12B-it", "gemma4_unified", 48, 16, 8, 3840, 12.0, (640, 480), 266, (14, 19), _ROWS
    ),
    Published("LiquidAI/LFM2-VL-450M", "lfm2_vl", 16, 16, 8, 1024, 0.451, (384, 256), 96, (8, 12), _ROWS),
    Published("CohereLabs/aya-vision-8b", "aya_vision", 32, 32, 8, 4096, 8.63, (728, 364), 507, None, _TILES),
    Published(
        "CohereLabs/command-a-vision-07-2025",
        "cohere2_vision",
        64,
        96,
        8,
        12288,
        112.0,
        (1024, 512),
        768,
        None,
        _TILES,
    ),
    Published(
        "openbmb/MiniCPM-V-4.6",
        "minicpmv4_6",
        24,
        8,
        2,
        1024,
        1.30,
        (1344, 896),
        454,
        None,
        "the whole image, then slice after slice, each row by row",
    ),
    Published(
        "allenai/Molmo2-8B",
        "molmo2",
        36,
        32,
        8,
        4096,
        8.66,
        (378, 378),
        424,
        None,
        "the whole image row by row, then the crops as one grid, a column token after each row",
    ),
    Published(
        "deepseek-community/deepseek-vl-1.3b-chat",
        "deepseek_vl",
        24,
        16,
        16,
        2048,
        1.98,
        (640, 480),
        576,
        (24, 24),
        _ROWS,
    ),
    Published(
        "deepseek-community/deepseek-vl-7b-chat",
        "deepseek_vl_hybrid",
        30,
        32,
        32,
        4096,
        7.34,
        (640, 480),
        576,
        (24, 24),
        _ROWS,
    ),
    Published(
        "llava-hf/vip-llava-7b-hf", "vipllava", 32, 32, 32, 4096, 7.08, (640, 480), 576, (24, 24), _ROWS
    ),
    Published(
        "KamilaMila/FastVLM-7B",
        "fast_vlm",
        28,
        28,
        4,
        3584,
        7.76,
        (640, 480),
        256,
        (16, 16),
        _ROWS,
        needs="timm",
    ),
    Published(
        "thisisiron/Ovis2-1B-hf",
        "ovis2",
        24,
        14,
        2,
        896,
        1.13,
        (896, 448),
        768,
        None,
        "the whole image, then tile after tile, each row by row",
    ),
    Published(
        "stepfun-ai/GOT-OCR-2.0-hf", "got_ocr2", 24, 16, 16, 1024, 0.561, (1024, 768), 256, (16, 16), _ROWS
    ),
    Published(
        "lightonai/LightOnOCR-1B-1025",
        "lighton_ocr",
        28,
        16,
        8,
        1024,
        1.01,
        (1540, 1540),
        3025,
        (55, 55),
        _ROWS,
    ),
    Published("moonshotai/Kimi-K2.5", "kimi_k25", 61, 64, 64, 7168, 1027.0, (640, 480), 414, (18, 23), _ROWS),
)
