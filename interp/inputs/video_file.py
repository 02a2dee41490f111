"""Reads video files with PyAV, the extra `video`: the time of each frame, and some of the frames."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from interp.errors import ImageError, SampleError
from interp.inputs.files import unreadable
from interp.inputs.images import MAX_PIXELS
from interp.inputs.text import brief

__all__ = ["MOST_FRAMES", "VideoFile", "decoded", "opened"]

MOST_FRAMES = 1_000_000
"""The most frames of a video; more are refused."""


@dataclass(frozen=True)
class VideoFile:
    """What a video file says of its frames.

    Attributes:
        times: The time of each frame in seconds from the first, increasing.
        size: (width, height) in pixels.
        duration: Seconds from the first frame to the end of the last.
    """

    times: tuple[float, ...]
    size: tuple[int, int]
    duration: float


def opened(path: str) -> VideoFile:
    """Returns the times and the size of a video file's frames. Only its first frame is decoded.

    Raises:
        ImageError: The file is missing, holds no video, is broken, too large, or is stored turned on its side.
        SampleError: PyAV is not installed.
    """
    state = _state(path)
    return _opened(path, state)


def decoded(path: str, indices: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Returns frames of a video file, (H, W, 3) uint8 each. Those of the file read last stay in memory.

    Args:
        path: The file.
        indices: The frames' numbers in the order of time, increasing.

    Raises:
        ImageError: As `opened`, or fewer frames can be decoded than the file announces.
    """
    return _decoded(path, indices, _state(path))


def _state(path: str) -> tuple[int, int]:
    """What tells that a file was changed; refuses paths that are no files."""
    if problem := unreadable(path):
        raise ImageError(f"the video {brief(path)} {problem}")
    found = os.stat(path)
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=256)
def _opened(path: str, state: tuple[int, int]) -> VideoFile:
    del state
    with _container(path) as (container, stream):
        base = stream.time_base
        stamps = [packet.pts for packet in container.demux(stream) if packet.size and packet.pts is not None]
        if not stamps or base is None:
            raise ImageError(f"the video {brief(path)} holds no frame with a time. Is the file complete?")
        if len(stamps) > MOST_FRAMES:
            raise ImageError(f"the video {brief(path)} has {len(stamps):,} frames. Cut it into parts.")
        ticks = sorted(set(stamps))
        times = tuple(float((tick - ticks[0]) * base) for tick in ticks)
        rate = float(stream.average_rate or 0) or ((len(times) - 1) / times[-1] if times[-1] else 1.0)
    with _container(path) as (container, stream):
        first = next(container.decode(stream), None)
        if first is None:
            raise ImageError(f"the video {brief(path)} holds no frame. Is the file complete?")
        _check_frame(path, first)
        size = (first.width, first.height)
    return VideoFile(times, size, times[-1] + 1 / rate)


def _check_frame(path: str, frame: Any) -> None:
    if frame.width * frame.height > MAX_PIXELS:
        raise ImageError(
            f"the video {brief(path)} is {frame.width}×{frame.height} pixels; the limit is {MAX_PIXELS:,} pixels. "
            "Write it smaller first, as with ffmpeg -i in.mp4 -vf scale=1280:-2 out.mp4."
        )
    if getattr(frame, "rotation", 0):
        raise ImageError(
            f"the video {brief(path)} is stored turned by {frame.rotation}°, so boxes in pixels would mean two things. "
            "Write it upright first, as `ffmpeg -i in.mp4 out.mp4` does."
        )


@lru_cache(maxsize=1)
def _decoded(path: str, indices: tuple[int, ...], state: tuple[int, int]) -> tuple[np.ndarray, ...]:
    del state
    wanted, found = set(indices), []
    with _container(path) as (container, stream):
        for i, frame in enumerate(container.decode(stream)):
            if i in wanted:
                pixels = frame.to_ndarray(format="rgb24")
                pixels.setflags(write=False)
                found.append(pixels)
            if i >= indices[-1]:
                break
    if len(found) < len(indices):
        raise ImageError(
            f"the video {brief(path)} announces frame {indices[len(found)]}, but it cannot be decoded. Is the file "
            "complete? Re-encode it, or pass its frames."
        )
    return tuple(found)


@contextmanager
def _container(path: str) -> Iterator[tuple[Any, Any]]:
    """The open file and its first video stream; any error of the decoder becomes an ImageError that names the file."""
    try:
        av = importlib.import_module("av")
    except ImportError as error:
        raise SampleError(
            "reading a video file needs av; install it with: pip install 'interp[video]'. Frames as images need "
            "nothing."
        ) from error
    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise ImageError(f"the video {brief(path)} holds no video stream. Is it a sound file?")
            yield container, container.streams.video[0]
    except ImageError:
        raise
    except Exception as error:  # decoders raise OSError, ValueError, EOFError and their own
        raise ImageError(
            f"the video {brief(path)} cannot be read ({type(error).__name__}: {error}). Is the file complete, and in a "
            "format that FFmpeg reads?"
        ) from error
