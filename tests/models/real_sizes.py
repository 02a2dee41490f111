"""Real models' config.json and processor settings, without what their sizes do not depend on."""

from __future__ import annotations

from typing import Any

import transformers

from interp.models.modeling import register
from interp.models.processing.kimi_images import KimiImages
from interp.models.processing.llama4_images import Llama4ImageProcessorPil
from interp.models.processing.processors import molmo2_images
from interp.models.processing.torch_images import gemma4_unified_images, lfm2_vl_images

register()

CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "image_size": 336,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 14,
    "projection_dim": 768,
}
SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "patch_size": 14,
    "vision_use_head": False,
}
VICUNA = {"model_type": "llama", "vocab_size": 32064, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5}
QWEN2 = {
    "model_type": "qwen2",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
}
YI = {
    "model_type": "llama",
    "hidden_size": 7168,
    "intermediate_size": 20480,
    "num_attention_heads": 56,
    "num_hidden_layers": 60,
    "num_key_value_heads": 8,
    "vocab_size": 64064,
}
MISTRAL = {
    "model_type": "mistral",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32064,
}
COHERE2 = {
    "model_type": "cohere2",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 256000,
}
SMOLLM = {
    "model_type": "llama",
    "head_dim": 64,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "vocab_size": 49280,
}
ROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
QWEN2_VL_TEXT = {**QWEN2, "rope_parameters": ROPE}
NEXT = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
ONEVISION = [[384 * i, 384 * j] for i in range(1, 7) for j in range(1, 7)]
LLAVA = {
    "model_type": "llava",
    "vision_config": CLIP,
    "vision_feature_layer": -2,
    "tie_word_embeddings": False,
}
SMOL = {
    "scale_factor": 4,
    "tie_word_embeddings": False,
    "text_config": SMOLLM,
    "vision_config": {
        "hidden_size": 768,
        "image_size": 512,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "patch_size": 16,
    },
}
GEMMA3 = {
    "model_type": "gemma3",
    "mm_tokens_per_image": 256,
    "text_config": {
        "model_type": "gemma3_text",
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 34,
        "sliding_window": 1024,
        "vocab_size": 262208,
    },
    "vision_config": {**SIGLIP, "image_size": 896},
}

QWEN3_VL_VISION = {
    "deepstack_visual_indexes": [8, 16, 24],
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_heads": 16,
    "num_position_embeddings": 2304,
    "patch_size": 16,
}
GLM_VISION = {
    "depth": 24,
    "hidden_size": 1536,
    "image_size": 336,
    "num_heads": 12,
    "out_hidden_size": 4096,
    "patch_size": 14,
}
GLM_ROPE = {
    "rope_type": "default",
    "rope_theta": 10000.0,
    "mrope_section": [8, 12, 12],
    "partial_rotary_factor": 0.5,
}
GLM = {
    "tie_word_embeddings": False,
    "text_config": {
        "model_type": "glm4v_text",
        "hidden_size": 4096,
        "intermediate_size": 13696,
        "num_attention_heads": 32,
        "num_hidden_layers": 40,
        "num_key_value_heads": 2,
        "rope_parameters": GLM_ROPE,
        "vocab_size": 151552,
    },
    "vision_config": {"model_type": "glm4v_vision", "intermediate_size": 13696, **GLM_VISION},
}

QWEN3_5: dict[str, Any] = {
    "full_attention_interval": 4,
    "head_dim": 256,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_value_head_dim": 128,
    "num_attention_heads": 16,
    "vocab_size": 248320,
}
"""What the language models of Qwen3.5-9B and Qwen3.5-35B-A3B share."""
QWEN3_5_TOWER: dict[str, Any] = {
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_heads": 16,
    "num_position_embeddings": 2304,
    "patch_size": 16,
}
# config.json, without what the sizes do not depend on
CONFIGS: dict[str, dict[str, Any]] = {
    "llava-hf/llava-1.5-7b-hf": {**LLAVA, "text_config": VICUNA},
    "FreedomIntelligence/HuatuoGPT-Vision-7B-hf": {**LLAVA, "text_config": QWEN2},
    "FreedomIntelligence/HuatuoGPT-Vision-34B-hf": {**LLAVA, "text_config": YI},
    "llava-hf/llava-v1.6-vicuna-7b-hf": {
        **LLAVA,
        "model_type": "llava_next",
        "text_config": VICUNA,
        "image_grid_pinpoints": NEXT,
    },
    "llava-hf/llava-v1.6-mistral-7b-hf": {
        **LLAVA,
        "model_type": "llava_next",
        "text_config": MISTRAL,
        "image_grid_pinpoints": NEXT,
    },
    "llava-hf/LLaVA-NeXT-Video-7B-hf": {
        **LLAVA,
        "model_type": "llava_next_video",
        "text_config": VICUNA,
        "image_grid_pinpoints": NEXT,
    },
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": {
        "model_type": "llava_onevision",
        "image_grid_pinpoints": ONEVISION,
        "text_config": QWEN2,
        "tie_word_embeddings": False,
        "vision_config": {**SIGLIP, "image_size": 384, "num_hidden_layers": 26},
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "vision_aspect_ratio": "anyres_max_9",
    },
    "Qwen/Qwen2-VL-7B-Instruct": {
        "model_type": "qwen2_vl",
        "text_config": {**QWEN2_VL_TEXT, "model_type": "qwen2_vl_text"},
        "tie_word_embeddings": False,
        "vision_config": {
            "depth": 32,
            "embed_dim": 1280,
            "hidden_size": 3584,
            "num_heads": 16,
            "mlp_ratio": 4,
        },
    },
    "Qwen/Qwen2.5-VL-7B-Instruct": {
        "model_type": "qwen2_5_vl",
        "text_config": {**QWEN2_VL_TEXT, "model_type": "qwen2_5_vl_text"},
        "tie_word_embeddings": False,
        "vision_config": {
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": 3584,
        },
    },
    "Qwen/Qwen3-VL-8B-Instruct": {
        "model_type": "qwen3_vl",
        "tie_word_embeddings": False,
        "text_config": {
            "model_type": "qwen3_vl_text",
            "head_dim": 128,
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "num_attention_heads": 32,
            "num_hidden_layers": 36,
            "num_key_value_heads": 8,
            "vocab_size": 151936,
        },
        "vision_config": {
            "deepstack_visual_indexes": [8, 16, 24],
            "depth": 27,
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_heads": 16,
            "num_position_embeddings": 2304,
            "out_hidden_size": 4096,
            "patch_size": 16,
        },
    },
    "Qwen/Qwen3.5-9B": {
        "model_type": "qwen3_5",
        "tie_word_embeddings": False,
        "text_config": {
            **QWEN3_5,
            "model_type": "qwen3_5_text",
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "num_hidden_layers": 32,
            "num_key_value_heads": 4,
        },
        "vision_config": {**QWEN3_5_TOWER, "out_hidden_size": 4096},
    },
    "Qwen/Qwen3.5-35B-A3B": {
        "model_type": "qwen3_5_moe",
        "tie_word_embeddings": False,
        "text_config": {
            **QWEN3_5,
            "model_type": "qwen3_5_moe_text",
            "hidden_size": 2048,
            "moe_intermediate_size": 512,
            "num_experts": 256,
            "num_experts_per_tok": 8,
            "num_hidden_layers": 40,
            "num_key_value_heads": 2,
            "shared_expert_intermediate_size": 512,
        },
        "vision_config": {**QWEN3_5_TOWER, "out_hidden_size": 2048},
    },
    "Qwen/Qwen3-VL-30B-A3B-Instruct": {
        "model_type": "qwen3_vl_moe",
        "tie_word_embeddings": False,
        "text_config": {
            "model_type": "qwen3_vl_moe_text",
            "head_dim": 128,
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "moe_intermediate_size": 768,
            "num_attention_heads": 32,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "num_hidden_layers": 48,
            "num_key_value_heads": 4,
            "vocab_size": 151936,
        },
        "vision_config": {**QWEN3_VL_VISION, "out_hidden_size": 2048},
    },
    "zai-org/GLM-4.1V-9B-Thinking": {"model_type": "glm4v", **GLM},
    # the defaults of transformers' config: no checkpoint of this class is known (GLM-4.6V's are glm4v_moe and glm4v)
    "zai-org/GLM-4.6V-Flash": {"model_type": "glm46v", **GLM},
    "zai-org/GLM-4.5V": {
        "model_type": "glm4v_moe",
        "tie_word_embeddings": False,
        "text_config": {
            "model_type": "glm4v_moe_text",
            "attention_bias": True,
            "first_k_dense_replace": 1,
            "head_dim": 128,
            "hidden_size": 4096,
            "intermediate_size": 10944,
            "moe_intermediate_size": 1408,
            "n_routed_experts": 128,
            "n_shared_experts": 1,
            "num_attention_heads": 96,
            "num_experts_per_tok": 8,
            "num_hidden_layers": 46,
            "num_key_value_heads": 8,
            "rope_parameters": GLM_ROPE,
            "vocab_size": 151552,
        },
        "vision_config": {"intermediate_size": 10944, **GLM_VISION},
    },
    "meta-llama/Llama-4-Scout-17B-16E-Instruct": {
        "model_type": "llama4",
        "tie_word_embeddings": False,
        "text_config": {
            "head_dim": 128,
            "hidden_size": 5120,
            "intermediate_size": 8192,
            "intermediate_size_mlp": 16384,
            "interleave_moe_layer_step": 1,
            "num_attention_heads": 40,
            "num_experts_per_tok": 1,
            "num_hidden_layers": 48,
            "num_key_value_heads": 8,
            "num_local_experts": 16,
            "vocab_size": 202048,
        },
        "vision_config": {
            "hidden_size": 1408,
            "image_size": 336,
            "intermediate_size": 5632,
            "num_attention_heads": 16,
            "num_hidden_layers": 34,
            "patch_size": 14,
            "pixel_shuffle_ratio": 0.5,
            "projector_input_dim": 4096,
            "projector_output_dim": 4096,
            "vision_output_dim": 4096,
        },
    },
    "OpenGVLab/InternVL3-8B-hf": {
        "model_type": "internvl",
        "downsample_ratio": 0.5,
        "image_seq_length": 256,
        "tie_word_embeddings": False,
        "text_config": {**QWEN2, "vocab_size": 151674},
        "vision_config": {
            "attention_bias": True,
            "hidden_size": 1024,
            "image_size": [448, 448],
            "intermediate_size": 4096,
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "patch_size": [14, 14],
        },
    },
    "google/gemma-3-4b-it": GEMMA3,
    "google/medgemma-4b-it": GEMMA3,
    "HuggingFaceM4/Idefics3-8B-Llama3": {
        "model_type": "idefics3",
        "scale_factor": 2,
        "tie_word_embeddings": False,
        "text_config": {**MISTRAL, "model_type": "llama", "vocab_size": 128259},
        "vision_config": {**SIGLIP, "model_type": "idefics3_vision", "image_size": 364},
    },
    "HuggingFaceTB/SmolVLM-256M-Instruct": {**SMOL, "model_type": "idefics3"},
    "HuggingFaceTB/SmolVLM2-256M-Video-Instruct": {**SMOL, "model_type": "smolvlm"},
    "google/paligemma-3b-pt-224": {
        "model_type": "paligemma",
        "hidden_size": 2048,
        "projection_dim": 2048,
        "text_config": {
            "model_type": "gemma",
            "hidden_size": 2048,
            "intermediate_size": 16384,
            "num_attention_heads": 8,
            "num_hidden_layers": 18,
            "num_image_tokens": 256,
            "num_key_value_heads": 1,
            "vocab_size": 257216,
        },
        "vision_config": {**SIGLIP, "image_size": 224},
    },
    "mistralai/Mistral-Small-3.1-24B-Instruct-2503": {
        "model_type": "mistral3",
        "spatial_merge_size": 2,
        "tie_word_embeddings": False,
        "text_config": {
            "model_type": "mistral",
            "head_dim": 128,
            "hidden_size": 5120,
            "intermediate_size": 32768,
            "num_attention_heads": 32,
            "num_hidden_layers": 40,
            "num_key_value_heads": 8,
            "sliding_window": None,
            "vocab_size": 131072,
        },
        "vision_config": {
            "model_type": "pixtral",
            "head_dim": 64,
            "hidden_size": 1024,
            "image_size": 1540,
            "intermediate_size": 4096,
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "patch_size": 14,
        },
    },
    "HuggingFaceM4/idefics2-8b": {
        "model_type": "idefics2",
        "perceiver_config": {
            "hidden_size": 4096,
            "num_key_value_heads": 4,
            "resampler_depth": 3,
            "resampler_head_dim": 96,
            "resampler_n_heads": 16,
            "resampler_n_latents": 64,
        },
        "text_config": {**MISTRAL, "vocab_size": 32003},
        "tie_word_embeddings": False,
        "vision_config": {
            "hidden_size": 1152,
            "image_size": 980,
            "intermediate_size": 4304,
            "num_attention_heads": 16,
            "num_hidden_layers": 27,
            "patch_size": 14,
        },
    },
    "rhymes-ai/Aria": {
        "model_type": "aria",
        "image_token_index": 9,
        "text_config": {
            "model_type": "aria_text",
            "hidden_size": 2560,
            "intermediate_size": 1664,
            "moe_num_experts": 64,
            "moe_num_shared_experts": 2,
            "moe_topk": 6,
            "num_attention_heads": 20,
            "num_hidden_layers": 28,
            "num_key_value_heads": 20,
            "vocab_size": 100352,
        },
        "vision_config": {
            "model_type": "idefics3_vision",
            "hidden_size": 1152,
            "image_size": 980,
            "intermediate_size": 4304,
            "num_attention_heads": 16,
            "num_hidden_layers": 27,
            "patch_size": 14,
        },
    },
    "Salesforce/blip2-opt-2.7b": {  # the tower's and the Q-Former's sizes are transformers' defaults
        "model_type": "blip-2",
        "image_token_index": 50265,
        "num_query_tokens": 32,
        "qformer_config": {"model_type": "blip_2_qformer"},
        "text_config": {
            "model_type": "opt",
            "ffn_dim": 10240,
            "hidden_size": 2560,
            "num_attention_heads": 32,
            "num_hidden_layers": 32,
            "vocab_size": 50304,
            "word_embed_proj_dim": 2560,
        },
        "vision_config": {"model_type": "blip_2_vision_model"},
    },
    "Salesforce/instructblip-vicuna-7b": {  # the same
        "model_type": "instructblip",
        "image_token_index": 32000,
        "num_query_tokens": 32,
        "qformer_config": {"model_type": "instructblip_qformer", "vocab_size": 30523},
        "text_config": {**VICUNA, "vocab_size": 32001},
        "vision_config": {"model_type": "instructblip_vision_model"},
    },
    "meta-llama/Llama-3.2-11B-Vision-Instruct": {
        "model_type": "mllama",
        "image_token_index": 128256,
        "text_config": {
            "model_type": "mllama_text_model",
            "cross_attention_layers": [3, 8, 13, 18, 23, 28, 33, 38],
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_attention_heads": 32,
            "num_hidden_layers": 40,
            "num_key_value_heads": 8,
            "vocab_size": 128256,
        },
        "vision_config": {
            "model_type": "mllama_vision_model",
            "attention_heads": 16,
            "hidden_size": 1280,
            "image_size": 560,
            "intermediate_layers_indices": [3, 7, 15, 23, 30],
            "intermediate_size": 5120,
            "max_num_tiles": 4,
            "num_global_layers": 8,
            "num_hidden_layers": 32,
            "patch_size": 14,
            "vision_output_dim": 7680,
        },
    },
    "MONAI/Llama3-VILA-M3-8B": {  # as made of its llm/config.json and vision_tower/config.json
        "model_type": "interp_vila",
        "text_config": {
            "model_type": "llama",
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_attention_heads": 32,
            "num_hidden_layers": 32,
            "num_key_value_heads": 8,
            "vocab_size": 128256,
        },
        "vision_config": {**SIGLIP, "image_size": 384},
        "vision_feature_select_strategy": "full",
    },
    "Luxuriant16/medrega": {
        "model_type": "interp_internvl_v1",
        "text_config": {**YI, "intermediate_size": 20480, "vocab_size": 64000},
        "vision_config": {
            "model_type": "internvl_vision",
            "hidden_size": 3200,
            "intermediate_size": 12800,
            "norm_type": "rms_norm",
            "num_attention_heads": 25,
            "num_hidden_layers": 45,
            "use_qk_norm": True,
        },
        "tie_word_embeddings": False,
    },
    "google/gemma-3n-E4B-it": {  # transformers' defaults are this model's
        "model_type": "gemma3n",
        "text_config": {"model_type": "gemma3n_text"},
        "vision_config": {"model_type": "gemma3n_vision", "label_names": []},
        "audio_config": {"model_type": "gemma3n_audio"},
    },
    "google/gemma-4-E4B-it": {
        "model_type": "gemma4",
        "text_config": {
            "model_type": "gemma4_text",
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "num_hidden_layers": 42,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "num_kv_shared_layers": 18,
            "final_logit_softcapping": 30.0,
        },
        "vision_config": {"model_type": "gemma4_vision"},
        "audio_config": {"model_type": "gemma4_audio"},
    },
    "google/gemma-4-12B-it": {
        "model_type": "gemma4_unified",
        "text_config": {
            "model_type": "gemma4_unified_text",
            "attention_k_eq_v": True,
            "hidden_size": 3840,
            "intermediate_size": 15360,
            "num_attention_heads": 16,
            "num_global_key_value_heads": 1,
            "num_hidden_layers": 48,
            "num_key_value_heads": 8,
        },
        "vision_config": {
            "model_type": "gemma4_unified_vision",
            "mm_embed_dim": 3840,
            "mm_posemb_size": 1120,
            "output_proj_dims": 3840,
        },
    },
    "LiquidAI/LFM2-VL-450M": {
        "model_type": "lfm2_vl",
        "text_config": {
            "model_type": "lfm2",
            "block_ff_dim": 6656,
            "hidden_size": 1024,
            "layer_types": ["conv", "conv", "full_attention"] * 3 + ["conv", "full_attention"] * 3 + ["conv"],
            "num_attention_heads": 16,
            "num_hidden_layers": 16,
            "num_key_value_heads": 8,
            "vocab_size": 65536,
        },
        "vision_config": {"model_type": "siglip2_vision_model", "vision_use_head": False},
    },
    "CohereLabs/aya-vision-8b": {  # Command R7B and SigLIP; docs/models.md says which sizes are from memory
        "model_type": "aya_vision",
        "text_config": {**COHERE2, "num_hidden_layers": 32},
        "vision_config": {**SIGLIP, "image_size": 364, "num_hidden_layers": 27},
        "alignment_intermediate_size": 28672,
    },
    "CohereLabs/command-a-vision-07-2025": {  # widths and depth from memory: docs/models.md
        "model_type": "cohere2_vision",
        "text_config": {
            **COHERE2,
            "hidden_size": 12288,
            "intermediate_size": 36864,
            "num_attention_heads": 96,
            "num_hidden_layers": 64,
        },
        "vision_config": {**SIGLIP, "image_size": 512, "patch_size": 16},
    },
    "openbmb/MiniCPM-V-4.6": {
        "model_type": "minicpmv4_6",
        "tie_word_embeddings": True,
        "text_config": {
            "model_type": "qwen3_5_text",
            "head_dim": 256,
            "hidden_size": 1024,
            "intermediate_size": 3584,
            "linear_num_key_heads": 16,
            "linear_num_value_heads": 16,
            "num_attention_heads": 8,
            "num_hidden_layers": 24,
            "num_key_value_heads": 2,
            "vocab_size": 248320,
        },
        "vision_config": {
            "hidden_size": 1152,
            "image_size": 980,
            "intermediate_size": 4304,
            "num_attention_heads": 16,
            "num_hidden_layers": 27,
            "patch_size": 14,
        },
    },
    "allenai/Molmo2-8B": {"model_type": "molmo2"},  # transformers' defaults are this model's
}

CONFIGS |= {
    "deepseek-community/deepseek-vl-1.3b-chat": {
        "model_type": "deepseek_vl",
        "tie_word_embeddings": False,
        "text_config": {
            "model_type": "llama",
            "hidden_size": 2048,
            "intermediate_size": 5632,
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "num_key_value_heads": 16,
            "vocab_size": 102400,
        },
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": 1024,
            "image_size": 384,
            "intermediate_size": 4096,
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "patch_size": 16,
            "vision_use_head": False,
        },
    },
    "deepseek-community/deepseek-vl-7b-chat": {  # SAM's sizes are transformers' defaults
        "model_type": "deepseek_vl_hybrid",
        "tie_word_embeddings": False,
        "text_config": {
            "model_type": "llama",
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_attention_heads": 32,
            "num_hidden_layers": 30,
            "num_key_value_heads": 32,
            "vocab_size": 102400,
        },
        "high_res_vision_config": {"model_type": "sam_vision_model"},
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": 1024,
            "image_size": 384,
            "intermediate_size": 4096,
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "patch_size": 16,
            "vision_use_head": False,
        },
    },
    "llava-hf/vip-llava-7b-hf": {"model_type": "vipllava", "vision_config": CLIP, "text_config": VICUNA},
    "KamilaMila/FastVLM-7B": {"model_type": "fast_vlm", "image_seq_length": 256},
    "thisisiron/Ovis2-1B-hf": {
        "model_type": "ovis2",
        "hidden_size": 896,
        "vocab_size": 151936,
        "text_config": {
            "model_type": "qwen2",
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_attention_heads": 14,
            "num_hidden_layers": 24,
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
            "vocab_size": 151936,
        },
        "vision_config": {"hidden_stride": 2, "image_size": 448, "vocab_size": 65536},
    },
    "stepfun-ai/GOT-OCR-2.0-hf": {"model_type": "got_ocr2"},  # transformers' defaults are this model's
    "lightonai/LightOnOCR-1B-1025": {"model_type": "lighton_ocr"},  # the same
    "moonshotai/Kimi-K2.5": {
        "model_type": "kimi_k25",
        "tie_word_embeddings": False,
        "text_config": {
            "model_type": "kimi_k2",
            "first_k_dense_replace": 1,
            "hidden_size": 7168,
            "intermediate_size": 18432,
            "kv_lora_rank": 512,
            "moe_intermediate_size": 2048,
            "n_group": 1,
            "n_routed_experts": 384,
            "n_shared_experts": 1,
            "num_attention_heads": 64,
            "num_experts_per_tok": 8,
            "num_hidden_layers": 61,
            "num_key_value_heads": 64,
            "q_lora_rank": 1536,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "topk_group": 1,
            "v_head_dim": 128,
            "vocab_size": 163840,
        },
    },
}

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
