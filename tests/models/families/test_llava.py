"""LLaVA's footprints against transformers' image processors: a bright rectangle in, changed pixels out."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers import (
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    LlamaConfig,
    LlavaConfig,
    SiglipVisionConfig,
)

from interp.errors import ModelError
from interp.inputs.footprints import Footprints, check_layout
from interp.inputs.tokens import TokenMap
from interp.models.adapter import find
from interp.models.families.llava import Llava

EDGE, PATCH = 56, 14
SQUARE = {"height": EDGE, "width": EDGE}
SHORT = {"shortest_edge": EDGE}
# With torchvision installed the plain names are the torchvision backend; both are then tested.
CLIP = {transformers.CLIPImageProcessor(), transformers.CLIPImageProcessorPil()}
CLIP = sorted({type(p) for p in CLIP}, key=lambda c: c.__name__)
LLAVA = sorted(
    {type(transformers.LlavaImageProcessor()), type(transformers.LlavaImageProcessorPil())},
    key=lambda c: c.__name__,
)
KINDS = {
    "squash": (CLIP, {"size": SQUARE, "do_center_crop": False}),
    "crop": (CLIP, {"size": SHORT, "crop_size": SQUARE}),
    "pad": (LLAVA, {"size": SHORT, "crop_size": SQUARE, "do_pad": True}),
    "squash and crop": (CLIP, {"size": {"height": 70, "width": 64}, "crop_size": SQUARE}),
    "pad and crop": (LLAVA, {"size": {"shortest_edge": 63}, "crop_size": SQUARE, "do_pad": True}),
    "crop with a margin": (CLIP, {"size": {"shortest_edge": 45}, "crop_size": SQUARE}),
    "no resize": (CLIP, {"do_resize": False, "crop_size": SQUARE}),
}
SIZES = [(200, 140), (140, 200), (150, 150), (101, 57), (58, 101), (41, 30), (260, 60)]
CASES = [(kind, made) for kind, (classes, _) in KINDS.items() for made in classes]


def config(patch: int = PATCH, strategy: str = "default", vision: object = None) -> LlavaConfig:
    return LlavaConfig(
        vision_config=vision
        or CLIPVisionConfig(
            image_size=EDGE, patch_size=patch, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
            num_attention_heads=2,
        ),
        text_config=LlamaConfig(
            vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2
        ),
        image_token_id=40,
        vision_feature_layer=-1,
        vision_feature_select_strategy=strategy,
    )  # fmt: skip


def footprints_of(settings, *images: Image.Image, config: LlavaConfig, **processor) -> Footprints:
    inputs = settings(images=list(images), return_tensors="pt")
    holder = SimpleNamespace(image_processor=settings, **processor)
    return Llava().footprints([image.size for image in images], inputs, holder, config)


def rectangle(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    """Bright on grey, with room for a bicubic kernel to overshoot without clipping."""
    pixels = np.full((size[1], size[0], 3), 60, np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 200
    return Image.fromarray(pixels)


def response(settings, size: tuple[int, int], box: tuple[int, int, int, int]) -> np.ndarray:
    """(row, col) of the processed image: 1 where it is wholly the rectangle, 0 where it is not."""
    blank = Image.fromarray(np.full((size[1], size[0], 3), 60, np.uint8))
    images = [
        settings(images=[i], return_tensors="pt")["pixel_values"][0] for i in (rectangle(size, box), blank)
    ]
    return ((images[0] - images[1])[0] / (140 / 255 / settings.image_std[0])).numpy()


def cells(values: np.ndarray, patch: int) -> np.ndarray:
    """Mean of each patch, in row-major order."""
    rows, cols = values.shape[0] // patch, values.shape[1] // patch
    return values[: rows * patch, : cols * patch].reshape(rows, patch, cols, patch).mean((1, 3)).ravel()


def expected(found: Footprints, size, box, scale: tuple[float, float]) -> np.ndarray:
    """Processed pixels of each cell that the rectangle should fill; `scale`: processed per original."""
    tokens = TokenMap(
        np.arange(len(found)), found.boxes, found.grid, found.views, found.image, (size,), len(found)
    )
    area = np.nan_to_num(np.prod(found.boxes[:, 2:] - found.boxes[:, :2], axis=1))
    return tokens.coverage([box]) * area * scale[0] * scale[1]


def scale_of(kind: str, size: tuple[int, int]) -> tuple[float, float]:
    """Processed pixels per original pixel along x and y, written down apart from the code under test."""
    width, height = size
    if kind == "squash":
        return EDGE / width, EDGE / height
    if kind == "squash and crop":
        return 64 / width, 70 / height
    if kind == "no resize":
        return 1.0, 1.0
    edge = {"crop": 56, "pad": 56, "pad and crop": 63, "crop with a margin": 45}[kind]
    if kind.startswith("pad"):
        return edge / max(size), edge / max(size)
    long = edge * max(size) // min(size)  # transformers truncates the longer side
    return (long / width, edge / height) if width > height else (edge / width, long / height)


def assert_same_cells(
    kind: str, settings, size, found: Footprints, patch: int = PATCH, tolerance: float = 0.02
):
    """Rectangles all over the image fill the cells that their footprints say, to 2 % of a cell."""
    rng = np.random.default_rng(sum(size))
    for _ in range(12):
        x0, y0 = int(rng.integers(0, size[0] - 9)), int(rng.integers(0, size[1] - 9))
        box = (x0, y0, int(rng.integers(x0 + 8, size[0] + 1)), int(rng.integers(y0 + 8, size[1] + 1)))
        scale = scale_of(kind, size)
        wanted = expected(found, size, box, scale) / patch**2
        assert np.abs(cells(response(settings, size, box), patch) - wanted).max() < tolerance


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("kind", "made"), CASES)
def test_rectangles_change_the_cells_whose_footprints_they_meet(kind, made, size):
    settings = made(**KINDS[kind][1])
    found = footprints_of(settings, rectangle(size, (0, 0, 1, 1)), config=config())
    assert found.grid == (4, 4)
    check_layout(found, [size])
    assert_same_cells(kind, settings, size, found)


WRONG = {
    "shifted by one token": lambda b: np.roll(b, 1, axis=0),
    "transposed": lambda b: b.reshape(4, 4, 4).swapaxes(0, 1).reshape(16, 4),
    "one processed pixel off": lambda b: b + np.array([3.5, 0, 3.5, 0]),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("kind", ["squash", "crop", "pad"])
def test_a_wrong_layout_fails_the_rectangles(kind, wrong):
    size = (200, 192)
    settings = KINDS[kind][0][0](**KINDS[kind][1])
    found = footprints_of(settings, rectangle(size, (0, 0, 1, 1)), config=config())
    assert_same_cells(kind, settings, size, found)
    boxes = np.clip(WRONG[wrong](found.boxes), 0, [*size, *size])
    with pytest.raises(AssertionError):
        assert_same_cells(kind, settings, size, Footprints(boxes, found.grid, found.views, found.image))


@pytest.mark.parametrize("kind", ["squash", "crop", "pad"])
@pytest.mark.parametrize("size", [(200, 140), (101, 58), (57, 102)])
def test_centroids_agree_to_a_tenth_of_a_processed_pixel(kind, size):
    """Sharper than areas: an offset rounded the wrong way moves the centroid by half a pixel or one."""
    settings = KINDS[kind][0][0](**KINDS[kind][1])
    found = footprints_of(settings, rectangle(size, (0, 0, 1, 1)), config=config()).boxes.reshape(4, 4, 4)
    box = (size[0] // 2 - 9, size[1] // 2 - 11, size[0] // 2 + 6, size[1] // 2 + 8)
    seen = response(settings, size, box)
    for axis in (0, 1):
        profile = seen.sum(axis=axis)
        centroid = (profile * (np.arange(EDGE) + 0.5)).sum() / profile.sum()
        # The inner two cells are whole in every kind: they fix the line from original to processed pixels.
        line = found[1, 1:3] if axis == 0 else found[1:3, 1]
        low, high = line[0, axis], line[1, axis + 2]
        middle = (box[axis] + box[axis + 2]) / 2
        assert abs(PATCH + (middle - low) / (high - low) * 2 * PATCH - centroid) < 0.1


def test_the_vision_tower_reads_the_cells_in_this_order():
    """Perturbation locality: the most changed feature belongs to the footprint that holds the change."""
    torch.manual_seed(0)
    model = transformers.LlavaForConditionalGeneration(config()).eval()
    settings = KINDS["pad"][0][0](**KINDS["pad"][1])
    size = (160, 100)
    found = footprints_of(settings, rectangle(size, (0, 0, 1, 1)), config=model.config)

    def features(image: Image.Image) -> torch.Tensor:
        with torch.no_grad():
            pixels = settings(images=[image], return_tensors="pt")["pixel_values"]
            return model.get_image_features(pixel_values=pixels).pooler_output[0]

    blank = features(rectangle(size, (0, 0, 0, 0)))
    assert len(blank) == len(found)
    for token in np.flatnonzero(~np.isnan(found.boxes[:, 0])):
        x, y = (found.boxes[token, :2] + found.boxes[token, 2:]) / 2
        change = features(rectangle(size, (int(x) - 5, int(y) - 5, int(x) + 5, int(y) + 5))) - blank
        assert change.norm(dim=-1).argmax() == token


def test_several_images_of_different_sizes():
    settings = KINDS["pad"][0][0](**KINDS["pad"][1])
    images = [rectangle(size, (0, 0, 1, 1)) for size in ((80, 40), (30, 60))]
    found = footprints_of(settings, *images, config=config())
    assert found.image.tolist() == [0] * 16 + [1] * 16
    assert found.grid == (4, 4)
    check_layout(found, [(80, 40), (30, 60)], [(0.0, 0.0, 80.0, 40.0), (0.0, 0.0, 30.0, 60.0)])
    inputs = settings(images=images, return_tensors="pt")
    with pytest.raises(ModelError, match=r"the sample has 1 image, but pixel_values hold 2"):
        Llava().footprints([(80, 40)], inputs, SimpleNamespace(image_processor=settings), config())


def test_a_patch_that_does_not_divide_the_image_leaves_a_rim():
    """SigLIP's 384/14: 27 patches cover 378 pixels, and the last 6 are seen by no token."""
    vision = SiglipVisionConfig(image_size=EDGE, patch_size=15)
    settings = transformers.SiglipImageProcessor(size=SQUARE)
    found = footprints_of(
        settings, rectangle((112, 224), (0, 0, 1, 1)), config=config(vision=vision, strategy="full")
    )
    assert found.grid == (3, 3)
    check_layout(found, [(112, 224)], [(0.0, 0.0, 90.0, 180.0)])
    assert_same_cells("squash", settings, (112, 224), found, patch=15)


def test_a_patch_may_be_higher_than_wide():
    """56 px are 4 patches of 14 down and 8 of 7 across."""
    vision = transformers.InternVLVisionConfig(image_size=[EDGE, EDGE], patch_size=[14, 7])
    settings = CLIP[0](**KINDS["squash"][1])
    found = footprints_of(
        settings, rectangle((112, 168), (0, 0, 1, 1)), config=config(vision=vision, strategy="full")
    )
    assert found.grid == (4, 8)
    assert found.boxes[[1, 8]].tolist() == [[14, 0, 28, 42], [0, 42, 14, 84]]


@pytest.mark.parametrize(
    ("vision", "strategy", "extra", "leading"),
    [
        (None, "default", None, 0),
        (None, "full", None, 1),
        (SiglipVisionConfig(image_size=EDGE, patch_size=PATCH), "full", None, 0),
        (Dinov2Config(image_size=EDGE, patch_size=PATCH), "default", None, 0),
        (Dinov2Config(image_size=EDGE, patch_size=PATCH), "full", 5, 1),  # the tower's own count wins
        (Dinov2WithRegistersConfig(image_size=EDGE, patch_size=PATCH), "full", None, 5),
        (transformers.DeiTConfig(image_size=EDGE, patch_size=PATCH), "full", 2, 2),  # the processor's word
        (
            SiglipVisionConfig(image_size=EDGE, patch_size=PATCH),
            "default",
            None,
            -1,
        ),  # transformers drops a patch
    ],
)
def test_tokens_before_the_patches(vision, strategy, extra, leading):
    settings = CLIP[0](**KINDS["squash"][1])
    found = footprints_of(
        settings,
        rectangle((56, 56), (0, 0, 1, 1)),
        config=config(vision=vision, strategy=strategy),
        num_additional_image_tokens=extra,
    )
    assert len(found) == 16 + leading
    assert np.isnan(found.boxes).all(axis=1).sum() == max(leading, 0)
    assert found.boxes[-1].tolist() == [42, 42, 56, 56]
    assert found.grid == ((4, 4) if leading == 0 else None)


def test_the_footprint_count_is_the_models_own():
    """For each tower and strategy, as many footprints as transformers makes image features."""
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    size = {"image_size": EDGE, "patch_size": PATCH}
    towers = [
        CLIPVisionConfig(**small, **size),
        SiglipVisionConfig(**small, **size),
        Dinov2Config(**{k: v for k, v in small.items() if k != "intermediate_size"}, **size),
        Dinov2WithRegistersConfig(**{k: v for k, v in small.items() if k != "intermediate_size"}, **size),
    ]
    settings = CLIP[0](**KINDS["squash"][1])
    image = rectangle((56, 56), (0, 0, 1, 1))
    pixels = settings(images=[image], return_tensors="pt")["pixel_values"]
    for vision in towers:
        for strategy in ("default", "full"):
            model = transformers.LlavaForConditionalGeneration(
                config(vision=vision, strategy=strategy)
            ).eval()
            with torch.no_grad():
                features = model.get_image_features(pixel_values=pixels).pooler_output[0]
            assert len(footprints_of(settings, image, config=model.config)) == len(features)


def test_settings_that_are_not_understood():
    image = rectangle((80, 60), (0, 0, 1, 1))
    settings = CLIP[0](**KINDS["crop"][1])
    inputs = settings(images=[image], return_tensors="pt", do_center_crop=False)
    with pytest.raises(
        ModelError,
        match=r"a 80×60 image into 56×56 pixels, but pixel_values are 74×56.*settings other than its own",
    ):
        Llava().footprints([(80, 60)], inputs, SimpleNamespace(image_processor=settings), config())
    settings.size = {"longest_edge": 56}
    with pytest.raises(
        ModelError, match=r"supports image sizes given as .* has \{'longest_edge': 56\}. Pass adapter="
    ):
        Llava().footprints([(80, 60)], inputs, SimpleNamespace(image_processor=settings), config())


def test_positions_layers_and_prompt():
    adapter, settings = find(config()), config()
    assert isinstance(adapter, Llava)
    ids = torch.tensor([[1, 40, 40, 7, 40, 2]])
    assert adapter.image_positions(ids, settings).tolist() == [1, 2, 4]
    assert adapter.image_positions(ids[0], SimpleNamespace(image_token_index=7)).tolist() == [3]
    model = transformers.LlavaForConditionalGeneration(settings)
    assert [type(layer.self_attn).__name__ for layer in adapter.layers(model)] == ["LlamaAttention"] * 2
    assert adapter.fallback_prompt("Why?", 1, None) == "USER: <image>\nWhy? ASSISTANT:"
    assert (
        adapter.fallback_prompt("Why?", 2, "Be brief.") == "Be brief. USER: <image>\n<image>\nWhy? ASSISTANT:"
    )
