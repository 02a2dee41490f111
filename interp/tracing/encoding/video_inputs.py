"""What encoding a video needs beside encoding images: the processor's arguments, footprints in time, joined inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from interp.errors import ModelError
from interp.inputs.footprints import Footprints
from interp.inputs.sample import Sample

__all__ = [
    "check_joinable",
    "check_takes_video",
    "footprints_of",
    "input_names",
    "kept_whole",
    "located_in_time",
    "shown",
]


def shown(sample: Sample, adapter: Any, processor: Any) -> dict[str, Any]:
    """The sample's images or its video, as arguments of the processor.

    The frames are those of the sample: the processor takes no fewer. It learns the time of each frame, as the number of
    a frame of a video with one frame per second.

    Raises:
        ImageError: An image or a frame that cannot be read.
    """
    if sample.video is None:
        pictures = [sample.load(i) for i in range(len(sample.images))]
        nested = [pictures] if getattr(adapter, "nested_images", True) else pictures
        return {"images": nested if pictures else None}
    frames = np.stack([np.asarray(sample.load(i)) for i in range(len(sample.images))])
    video = sample.video
    about = {
        "total_num_frames": len(video) / video.rate,  # so that the mean rate, n / total · fps, is the video's
        "fps": 1.0,
        "duration": video.duration,
        "frames_indices": list(video.times),
        "height": frames.shape[1],
        "width": frames.shape[2],
    }
    return {"videos": [[frames]], "videos_kwargs": {"do_sample_frames": False, "video_metadata": [about]}}


def check_takes_video(sample: Sample, adapter: Any, processor: Any) -> None:
    """Raises `ModelError` where the sample shows a video and the family or this processor takes none."""
    if sample.video is None:
        return
    if not getattr(adapter, "video", False):
        raise ModelError(
            f"the family {adapter.name} takes images and no video. Pass the frames as images: "
            "interp.Sample(images=[…], question=…); `interp models` lists the families that take videos."
        )
    if getattr(processor, "video_processor", None) is None:
        raise ModelError(
            f"the {type(processor).__name__} of this model has no video processor, so it takes no video. Load the "
            "model with interp.load, which gives it one, or set processor.video_processor."
        )


def footprints_of(
    sample: Sample, inputs: Mapping[str, Any], adapter: Any, processor: Any, config: Any
) -> Footprints:
    """The adapter's footprints of the sample's images or of its video."""
    if sample.video is None:
        return adapter.footprints(sample.sizes, inputs, processor, config)
    return adapter.video_footprints(sample.video.size, len(sample.video), inputs, processor, config)


def located_in_time(sample: Sample, footprints: Footprints) -> dict[str, Any]:
    """The `frames` and `frame_times` of a `TokenMap`; nothing for images."""
    if sample.video is None:
        return {}
    return {"frames": footprints.frames, "frame_times": np.array(sample.video.times)}


def input_names(singles: Iterable[Mapping[str, Tensor]]) -> list[str]:
    """The names of the inputs of any sample: of a batch, some may have images and others videos."""
    return list(dict.fromkeys(name for inputs in singles for name in inputs))


def kept_whole(name: str) -> bool:
    """Whether an input keeps its precision: it is a time, from which positions are computed."""
    return name == "second_per_grid_ts"


def check_joinable(name: str, values: Sequence[Tensor], samples: Sequence[Sample], family: str) -> None:
    """Raises `ModelError` where one input of several samples cannot be joined because of their videos.

    A model that takes (sample, frame, channel, row, col) would see frames of zeros in the shorter videos, and one that
    takes frames as images would see images of another size with a border.
    """
    if all(sample.video is None for sample in samples) or values[0].ndim != 5:
        return
    own = {value.shape[1] for value in values}
    if name == "pixel_values_videos" and len(own) > 1:
        raise ModelError(
            f"{family} takes videos of one number of frames in a batch; these have {sorted(own)}. Choose as many "
            "frames for each, Sample(…, n_frames=8), or pass batch_size=1."
        )
    sides = {tuple(value.shape[-2:]) for value in values}
    if len(sides) > 1:
        raise ModelError(
            f"{family} shows images and frames at {' and '.join(f'{h}×{w}' for h, w in sorted(sides))} pixels "
            "(height×width), which do not fit into one batch. Pass images and videos apart, or batch_size=1."
        )
