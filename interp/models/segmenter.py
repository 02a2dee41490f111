"""A SAM of transformers that makes a mask from one point of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool
from PIL import Image

from interp.errors import InterpError, ModelError
from interp.inputs.text import brief

__all__ = ["Segmenter"]

PICKS = ("last", "best")
KINDS = {
    "sam": ("SamModel", "SamProcessor"),
    "sam2": ("Sam2Model", "Sam2Processor"),
    "sam2_video": ("Sam2Model", "Sam2Processor"),
    "sam_hq": ("SamHQModel", "SamHQProcessor"),
}
"""Model types of transformers' configs → the classes that take an image and a point of it. The checkpoints of SAM 2 are
of the video model, whose image part `Sam2Model` reads."""


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A SAM with its processor: a point in pixels of an image → the mask of what lies there.

    Args:
        model: A `SamModel`, `Sam2Model` or `SamHQModel` of transformers.
        processor: Its processor.
        pick: Of the three masks that a SAM gives for a point: "last", as attend-and-segment's code takes, the largest
            thing in most images; or "best", the one that the SAM itself scores highest.

    Raises:
        ModelError: The model is not a SAM, or `pick` is unknown.
    """

    model: Any
    processor: Any
    pick: Literal["last", "best"] = "last"

    def __post_init__(self) -> None:
        kind = getattr(getattr(self.model, "config", None), "model_type", None)
        if kind not in KINDS or not hasattr(self.processor, "post_process_masks"):
            raise ModelError(
                f"a segmenter is a SAM of transformers with its processor (model types {', '.join(KINDS)}); got "
                f"{type(self.model).__name__} and {type(self.processor).__name__}. Give its id or folder instead: "
                'interp.Segmenter.load("facebook/sam-vit-base").'
            )
        if not isinstance(self.pick, str) or self.pick not in PICKS:
            raise ModelError(f'pick is "last" or "best"; got {self.pick!r:.100}.')

    @classmethod
    def load(cls, name: str, *, device: str = "cpu", pick: Literal["last", "best"] = "last") -> Segmenter:
        """Opens a SAM by its Hugging Face id (downloaded unless it is in the cache) or from a local folder.

        Args:
            name: The id or the folder.
            device: The device that it runs on.
            pick: Which of the three masks of a point is taken: "last" or "best", as for `Segmenter`.

        Raises:
            ModelError: The model cannot be opened, or is not a SAM.
        """
        import transformers

        if not isinstance(name, str) or not name:
            raise ModelError(f"a segmenter is opened by its id or folder, a text; got {name!r:.100}.")
        try:
            config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
            if config.model_type not in KINDS:
                raise ModelError(
                    f"a segmenter is a SAM (model types {', '.join(KINDS)}); {name!r} is of the type "
                    f'{config.model_type!r}. Name a SAM, such as "facebook/sam-vit-base".'
                )
            model, processor = (
                getattr(transformers, one).from_pretrained(name, trust_remote_code=False)
                for one in KINDS[config.model_type]
            )
            model = model.to(device).eval()
        except InterpError:
            raise
        except Exception as error:  # transformers' and the hub's own errors are of many kinds
            raise ModelError(
                f"the segmenter {name!r} cannot be opened: {type(error).__name__}: {error}. It is an id of the hub or "
                "a folder with config.json, weights and the processor's settings."
            ) from error
        return cls(model, processor, pick)

    def mask(self, image: Image.Image, point: tuple[float, float]) -> Bool[np.ndarray, "row col"]:
        """Returns the mask of what lies at a point: (row, col) at the image's own size, True for its pixels.

        Args:
            image: The image.
            point: (x, y) in pixels of the image, from its upper left corner.

        Raises:
            ModelError: The image is not a PIL image, or the point is not two numbers inside it.
        """
        numbers = list(point) if isinstance(point, tuple | list) else []
        real = all(isinstance(one, int | float | np.number) and not isinstance(one, bool) for one in numbers)
        if not isinstance(image, Image.Image) or len(numbers) != 2 or not real:
            raise ModelError(
                "a segmenter takes a PIL image and a point (x, y) in pixels of it; got "
                f"{type(image).__name__} and {brief(point)}."
            )
        x, y = (float(one) for one in numbers)
        if not (0 <= x <= image.width and 0 <= y <= image.height):
            raise ModelError(
                f"a point lies inside the image of {image.width}×{image.height} pixels; got ({x:g}, {y:g})."
            )
        given = self.processor(images=image.convert("RGB"), input_points=[[[[x, y]]]], return_tensors="pt")
        given = given.to(self.model.device)
        sizes = [given["original_sizes"].cpu()]
        if "reshaped_input_sizes" in given:
            sizes.append(given["reshaped_input_sizes"].cpu())
        inputs = {
            name: value
            for name, value in given.items()
            if name not in ("original_sizes", "reshaped_input_sizes")
        }
        dtype = next(self.model.parameters()).dtype
        inputs = {
            name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()
        }
        with torch.inference_mode():
            found = self.model(**inputs, multimask_output=True)
        masks = self.processor.post_process_masks(found.pred_masks.float().cpu(), *sizes)[0]
        place = -1 if self.pick == "last" else int(found.iou_scores.reshape(-1).argmax())
        return np.asarray(masks.reshape(-1, *masks.shape[-2:])[place].numpy(), bool)
