"""Qwen2-VL to Qwen3.5 and GLM-4.1V to 4.6V: patches merged 2×2, one grid per image or pair of frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from transformers.models.glm4v.image_processing_pil_glm4v import smart_resize as glm_resize
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize
from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize as video_resize

from interp.errors import ModelError
from interp.inputs.footprints import Footprints, Size, concatenate, in_frames, squash
from interp.models.base import Family, chatml
from interp.models.resizing import agree, merged_patches, pixel_size, setting

__all__ = [
    "Glm4v",
    "Glm4vMoe",
    "Glm46V",
    "Qwen2Vl",
    "Qwen3Vl",
    "Qwen3VlMoe",
    "Qwen25Vl",
    "Qwen35",
    "Qwen35Moe",
]


class Qwen2Vl(Family):
    """The `qwen2_vl` family. Its rope positions depend on the images' grids; `get_rope_index` computes them."""

    name = "qwen2_vl"
    model_types = ("qwen2_vl",)
    layout = (
        "patches of 14 px merged 2×2, one row-major grid; each axis resized on its own to a multiple of 28 px"
    )
    examples = ("Qwen/Qwen2-VL-7B-Instruct",)
    video = True
    default_system: ClassVar[str | None] = "You are a helpful assistant."

    def footprints(
        self, sizes: Sequence[tuple[int, int]], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns one grid per image over the whole image, with as many tokens as its resized pixels hold.

        Raises:
            ModelError: There is a video, the settings differ from the model's, or the grids do not follow from them.
        """
        if inputs.get("video_grid_thw") is not None:
            raise ModelError(f"expected images for {self.name}, got a video.")
        patches = [self.grid_of(size, processor, config) for size in sizes]
        found = [tuple(int(n) for n in grid) for grid in inputs.get("image_grid_thw", ())]
        if found != [(1, rows, cols) for rows, cols in patches]:
            images = ", ".join(f"{width}×{height}" for width, height in sizes) or "no size"
            raise ModelError(
                f"the settings of {type(processor.image_processor).__name__} cut images of {images} "
                f"(width×height) into {patches} (rows, columns) of patches, but image_grid_thw is {found}. Was it "
                "called with settings other than its own? Set them on processor.image_processor."
            )
        merge = setting(processor, "merge_size")
        grids = [(rows // merge, cols // merge) for rows, cols in patches]
        return concatenate([squash(size, grid) for size, grid in zip(sizes, grids, strict=True)])

    def grid_of(self, size: tuple[int, int], processor: Any, config: Any) -> tuple[int, int]:
        """Returns (rows, columns) of patches of a resized image.

        Raises:
            ModelError: As in `merged_patches`.
        """
        return merged_patches(size, processor, config)

    def video_footprints(
        self, size: Size, n_frames: int, inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns one grid for each group of frames that are merged into one (two in all checkpoints).

        Raises:
            ModelError: The settings differ from the model's, or the grid does not follow from them.
        """
        settings, vision = processor.video_processor, config.vision_config
        names = ("patch_size", "merge_size", "temporal_patch_size")
        mine = tuple(int(getattr(settings, name)) for name in names)
        theirs = (vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size)
        agree(f"a video's {', '.join(names)}", mine, theirs, settings)
        patch, merge, together = mine
        width, height = size
        if settings.do_resize:
            height, width = self._resized(n_frames, size, settings)
        grid = (-(-n_frames // together), height // patch, width // patch)
        found = [tuple(int(n) for n in one) for one in inputs.get("video_grid_thw", ())]
        agree("video_grid_thw", [grid], found, settings)
        return in_frames(squash(size, (grid[1] // merge, grid[2] // merge)), n_frames, together)

    def _resized(self, n_frames: int, size: Size, settings: Any) -> tuple[int, int]:
        """Returns (height, width) of the resized frames; the limits are of one frame."""
        factor = settings.patch_size * settings.merge_size
        fewest, most = _limits(settings)
        if settings.cap_pixels_per_frame:
            total = int(settings.max_video_tokens * factor * factor * 0.9)
            most = max(min(most, total * settings.temporal_patch_size // n_frames), int(fewest * 1.05))
        return smart_resize(size[1], size[0], factor, fewest, most)

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns ChatML. The vision tokens around each image separate the rope positions of neighbouring images."""
        images = "<|vision_start|><|image_pad|><|vision_end|>" * n_images
        return chatml(images + text, self.default_system if system is None else system)


class Qwen25Vl(Qwen2Vl):
    """The `qwen2_5_vl` family: Qwen2-VL's tokens, from a tower that attends in windows."""

    name = "qwen2_5_vl"
    model_types = ("qwen2_5_vl",)
    examples = ("Qwen/Qwen2.5-VL-7B-Instruct", "lingshu-medical-mllm/Lingshu-7B")


class Qwen3Vl(Qwen2Vl):
    """The `qwen3_vl` family. Layers of its tower are also added to the image tokens in the first decoder layers."""

    name = "qwen3_vl"
    model_types = ("qwen3_vl",)
    layout = (
        "patches of 16 px merged 2×2, one row-major grid; each axis resized on its own to a multiple of 32 px"
    )
    examples = ("Qwen/Qwen3-VL-8B-Instruct",)
    default_system = None

    def _resized(self, n_frames: int, size: Size, settings: Any) -> tuple[int, int]:
        """Returns (height, width) of the resized frames; the limits are of the whole video."""
        factor = settings.patch_size * settings.merge_size
        fewest, most = _limits(settings)
        if settings.cap_pixels_per_frame:
            most_tokens = settings.max_video_tokens * factor * factor
            most = max(min(most_tokens, most // n_frames), int(fewest * 1.05)) * n_frames
        return video_resize(n_frames, size[1], size[0], settings.temporal_patch_size, factor, fewest, most)


class Qwen3VlMoe(Qwen3Vl):
    """The `qwen3_vl_moe` family: Qwen3-VL's tokens; a router gives each of them to a few experts in each layer."""

    name = "qwen3_vl_moe"
    model_types = ("qwen3_vl_moe",)
    examples = ("Qwen/Qwen3-VL-30B-A3B-Instruct",)


def _limits(settings: Any) -> tuple[int, int]:
    """Returns the fewest and the most pixels, which the video processor has checked."""
    limits = pixel_size(settings)
    return limits["shortest_edge"], limits["longest_edge"]


class Qwen35(Qwen3Vl):
    """The `qwen3_5` family: three layers of gated DeltaNet (`linear_attn`) to one of attention (`self_attn`).

    Its image processor and its merged patches are Qwen3-VL's; nothing of the tower is added to later layers.
    """

    name = "qwen3_5"
    model_types = ("qwen3_5",)
    examples = ("Qwen/Qwen3.5-9B",)


class Qwen35Moe(Qwen35):
    """The `qwen3_5_moe` family: Qwen3.5 with a mixture of experts in each layer."""

    name = "qwen3_5_moe"
    model_types = ("qwen3_5_moe",)
    examples = ("Qwen/Qwen3.5-35B-A3B",)


class Glm4v(Qwen2Vl):
    """The `glm4v` family: Qwen2-VL's grid; the limits count the pixels of both frames that an image is repeated to."""

    name = "glm4v"
    model_types = ("glm4v",)
    layout = (
        "patches of 14 px merged 2×2, one row-major grid; each axis resized on its own to a multiple of 28 px; the "
        "limits count an image's pixels twice"
    )
    video = False
    examples = ("zai-org/GLM-4.1V-9B-Thinking",)
    default_system = None

    def grid_of(self, size: tuple[int, int], processor: Any, config: Any) -> tuple[int, int]:
        """Returns (rows, columns) of patches of a resized image, in GLM's own arithmetic.

        Raises:
            ModelError: As in `merged_patches`.
        """
        frames = setting(processor, "temporal_patch_size")

        def resize(height: int, width: int, block: int, fewest: int, most: int) -> tuple[int, int]:
            return glm_resize(frames, height, width, frames, block, fewest, most)

        return merged_patches(size, processor, config, resize)

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns GLM's turns, each image between its begin and end tokens."""
        head = "" if system is None else f"<|system|>\n{system}"
        images = "<|begin_of_image|><|image|><|end_of_image|>" * n_images
        return f"[gMASK]<sop>{head}<|user|>\n{images}{text}<|assistant|>\n"


class Glm46V(Glm4v):
    """The `glm46v` family: GLM-4.1V's image part and decoder in another class."""

    name = "glm46v"
    model_types = ("glm46v",)
    examples = ("zai-org/GLM-4.6V-Flash",)


class Glm4vMoe(Glm4v):
    """The `glm4v_moe` family: after a first dense layer a router gives each token to some of the experts."""

    name = "glm4v_moe"
    model_types = ("glm4v_moe",)
    examples = ("zai-org/GLM-4.5V",)
