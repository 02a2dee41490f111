# ruff: noqa: E501 - a row of a table is a line
"""Advice of the errors of videos."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import interp
from interp.conformance.tiny import tiny
from interp.inputs.tokens import TokenMap
from interp.models.pixels import pixel_views

FRAMES = np.random.default_rng(0).integers(0, 255, (4, 60, 90, 3), dtype=np.uint8)

ROWS: list[tuple[str, str, str]] = [
    ("Sample(video=vi.FRAMES, question='?')", "pass fps=", "Sample(video=vi.FRAMES, fps=2, question='?')"),
    ("Sample(video=vi.FRAMES, question='?')", "or times=", "Sample(video=vi.FRAMES, times=[0, 1, 2, 3], question='?')"),
    ("Sample(video=vi.FRAMES, question='?')", "pass images=[…]", "Sample(images=list(vi.FRAMES), question='?')"),
    ("Sample(video=vi.FRAMES, times=[0, 2, 1, 3], question='?')", "Sort the frames by time", "Sample(video=vi.FRAMES, times=[0, 1, 2, 3], question='?')"),
    ("Sample(video=vi.FRAMES, fps=2, n_frames=9, question='?')", "Ask for at most 4", "Sample(video=vi.FRAMES, fps=2, n_frames=4, question='?')"),
    ("Sample(video=vi.FRAMES[0, 0], fps=2, question='?')", "is (frame, H, W) or (frame, H, W, C)", "Sample(video=vi.FRAMES[:1], fps=2, question='?')"),
    ("Sample(video=vi.folder('notes.txt'), fps=2, question='?')", "Pass a folder of frames such as frame_0001.png", "Sample(video=vi.folder('frame_0001.png'), fps=2, question='?')"),
    ("Sample(video=vi.folder('a.png'), fps=2, question='?')", "Rename it", "Sample(video=vi.folder('a1.png'), fps=2, question='?')"),
    ("Sample(video=vi.folder('a1.png', 'b1.png'), fps=2, question='?')", "Pass the frames as a list", "Sample(video=[PIC, PIC], fps=2, question='?')"),
    ("Sample(video=vi.file(), fps=2, question='?')", "Leave it out", "Sample(video=vi.folder('a1.png'), fps=2, question='?')"),
    ("Sample(video=[PIC, vi.FRAMES[0]], fps=2, question='?')", "or pass them as images=[…]", "Sample(images=[PIC, vi.FRAMES[0]], question='?')"),
    ("Sample(PIC, video=vi.FRAMES, fps=2, question='?')", "pass images=[…] alone", "Sample(images=[PIC], question='?')"),
    ("Sample(PIC, '?', fps=2)", "pass video= with its frames", "Sample(video=[PIC], question='?', fps=2)"),
    ("vi.clip(boxes=[(1, 2, 30, 40)])", "Write Box(x0, y0, x1, y1, frame=3)", "vi.clip(boxes=[Box(1, 2, 30, 40, frame=3)])"),
    ("vi.clip(boxes=[(1, 2, 30, 40)])", "(x0, y0, x1, y1, 3)", "vi.clip(boxes=[(1, 2, 30, 40, 3)])"),
    ("Box(1, 2, 30, 40, image=1, frame=2)", "Leave image= out", "Box(1, 2, 30, 40, frame=2)"),
    ("Sample(PIC, '?', boxes=[Box(1, 2, 30, 40, frame=0)]).check()", "Write image=", "Sample(PIC, '?', boxes=[Box(1, 2, 30, 40, image=0)]).check()"),
    ("vi.clip().to_dict()", "Save them to a folder", "Sample(video=vi.folder('a1.png'), fps=2, question='?').to_dict()"),
    ("vi.tokens().to_pixels(np.ones(vi.tokens().n))", "to_pixels(values, frame=0)", "vi.tokens().to_pixels(np.ones(vi.tokens().n), frame=0)"),
    ("tokens.to_pixels(np.ones(tokens.n), frame=0)", "Leave it out", "tokens.to_pixels(np.ones(tokens.n))"),
    ("mllm.trace(vi.clip())", "Pass the frames as images", "vi.mllm().trace(vi.clip())"),
    ("mllm.adapter.video_footprints((8, 8), 2, {}, None, None)", "Pass the frames as images=[…]", "vi.mllm().trace(Sample(images=[PIC, PIC], question='?'))"),
    ("vi.without_processor().trace(vi.clip())", "or set processor.video_processor", "vi.mllm().trace(vi.clip())"),
    ("vi.pooled().trace([vi.clip(), vi.clip(n_frames=2)])", "Sample(…, n_frames=8)", "vi.pooled().trace([vi.clip(n_frames=2), vi.clip(n_frames=2)])"),
    ("vi.pooled().trace([vi.clip(), vi.clip(n_frames=2)])", "pass batch_size=1", "vi.pooled().answers([vi.clip(), vi.clip(n_frames=2)], generate=1, batch_size=1)"),
    ("indicators.InputGradient()(vi.mllm(), [vi.clip()])", "or pass the frames as images=[…]", "indicators.InputGradient()(vi.mllm(), [Sample(images=list(vi.FRAMES[:2]), question='?')])"),
    ("vi.views(vi.clip())", "Use an indicator that needs no pixels", "indicators.TokenKnockout()(vi.mllm(), [vi.clip()])"),
    ("vi.views(vi.clip())", "or pass the frames as images=[…]", "vi.views(Sample(images=list(vi.FRAMES[:2]), question='?'))"),
    ("vi.clip(times=[0, 1, 2, 3])", "pass fps= or times=", "vi.clip(fps=None, times=[0, 1, 2, 3])"),
    ("vi.mllm({'do_resize': False}, 'smolvlm').trace(vi.clip())", "Set do_resize to True on processor.video_processor", "vi.mllm({'do_resize': True}, 'smolvlm').trace(vi.clip())"),
    ("methods.ViCrop().answer(vi.mllm(), vi.clip())", "Make one sample per frame", "methods.ViCrop().answer(vi.mllm(), Sample(vi.FRAMES[0], 'where is the nodule ?'))"),
]  # fmt: skip

ELSEWHERE: dict[str, str] = {
    "reading a video file needs av": "nothing is installed in a test; tests/inputs/test_video.py::test_a_missing_library_is_named",
    "the video {…} cannot be read": "files need av; tests/inputs/test_video.py::test_a_video_file_gives_frames_by_time",
    "the video {…} holds no": "files need av; tests/inputs/test_video.py::test_a_video_file_gives_frames_by_time",
    "the video {…} announces frame": "a file that is cut off in its middle, as FFmpeg reads it",
    "the video {…} is stored turned": "a file of a telephone; none can be written here",
    "the video {…} has {…} frames. Cut": "a file of a million frames",
    "a video has {…} frames; at most": "a million frames",
    "{…} shows images and frames at": "a checkpoint whose two processors differ",
    "frames are resized by one of": "tests/models/test_without_torchvision.py::test_settings_that_cannot_be_followed",
    'a size of frames is "height" and "width"': "tests/models/test_without_torchvision.py::test_settings_that_cannot_be_followed",
}  # the beginning of a message: why no row follows it, or the test that does


def names() -> dict[str, Any]:
    """What the rows know."""
    import sys

    return {"vi": sys.modules[__name__]}


def clip(**fields: Any) -> interp.Sample:
    """A sample with a video of four frames."""
    return interp.Sample(**{"video": FRAMES, "fps": 2.0, "question": "where is the nodule ?", **fields})


def folder(*files: str) -> str:
    """A folder with these files."""
    where = tempfile.mkdtemp()
    for name in files:
        Image.new("RGB", (8, 8)).save(Path(where, name).with_suffix(".png")) if name.endswith("png") else Path(where, name).write_text("")  # fmt: skip
    return where


def file() -> str:
    """A file that could be a video."""
    return str(Path(folder("clip.mp4"), "clip.mp4"))


@cache
def _made(family: str) -> Any:
    return interp.wrap(*tiny(family))


def mllm(settings: dict[str, Any] | None = None, family: str = "qwen2_vl") -> Any:
    """A model that takes videos, with these settings of its video processor."""
    if settings is None:
        return _made(family)
    model = interp.wrap(*tiny(family))
    for name, value in settings.items():
        setattr(model.processor.video_processor, name, value)
    return model


def pooled() -> Any:
    """A model that takes videos of one length in a batch."""
    return _made("llava_onevision")


def without_processor() -> Any:
    """A model whose processor was built without a video part."""
    model = interp.wrap(*tiny("qwen2_vl"))
    del model.processor.video_processor
    return model


def tokens() -> TokenMap:
    """Where a video's tokens are."""
    return mllm().encode(clip()).tokens[0]


def views(sample: interp.Sample) -> Any:
    """The pixels of a sample's image tokens."""
    model = mllm()
    batch = model.encode(sample)
    return pixel_views(batch.inputs, batch.tokens[0], model.processor, model.hf.config)
