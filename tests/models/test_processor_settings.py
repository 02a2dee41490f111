"""Settings that are asked for count in the processor's calls, or are refused."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import interp
from interp.conformance.tiny import tiny
from interp.errors import ModelError
from interp.models.processor_settings import with_settings
from interp.models.resizing import own_image_settings


@pytest.mark.parametrize("tiles", [False, True])
def test_a_setting_that_the_processor_has_too_counts(tiles):
    """InternVL's processor says crop_to_patches=True in every call, over what its image processor says."""
    model, processor = tiny("internvl")
    assert own_image_settings(processor)["crop_to_patches"]
    mllm = interp.wrap(model, with_settings(processor, {"crop_to_patches": tiles}, "internvl"))
    image = np.random.default_rng(0).integers(0, 255, (48, 144, 3), dtype=np.uint8)
    batch = mllm.encode(interp.Sample(image, "where?"))
    assert (len(batch.inputs["pixel_values"]) > 1) == tiles
    assert (len(set(batch.tokens[0].views)) > 1) == tiles
    assert own_image_settings(tiny("internvl")[1])["crop_to_patches"], "the class stays as it was"


def test_a_default_that_no_setting_changes_is_refused():
    """As transformers before 5.23 has them."""
    processor = tiny("internvl")[1]
    processor.valid_processor_kwargs = SimpleNamespace(_defaults={"images_kwargs": {"crop_to_patches": True}})
    assert with_settings(processor, {"crop_to_patches": True}, "internvl") is processor
    with pytest.raises(ModelError, match=r"crop_to_patches=True in each call, whatever is set.*Upgrade"):
        with_settings(processor, {"crop_to_patches": False}, "internvl")
