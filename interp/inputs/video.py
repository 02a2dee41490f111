"""A video: its frames, the time of each, and the choice of the frames that a model is shown.

Video files are read with PyAV, the extra `video`.
"""

from __future__ import annotations

import hashlib
import importlib
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from interp.errors import ImageError, SampleError
from interp.inputs.files import file_state, unreadable
from interp.inputs.images import (
    MAX_PIXELS,
    ImageLike,
    LazyImage,
    image_size,
    load_image,
    normalise,
    readable_file,
)
from interp.inputs.text import brief, count

__all__ = ["FIELDS", "MOST_FRAMES", "Video", "VideoFile", "as_video", "content", "decoded", "opened"]


FIELDS = ("video", "fps", "times", "n_frames", "video_fps")
"""The arguments of `interp.Sample` that describe a video."""

_FIELDS = ("frames", "times", "indices", "duration", "path", "spec")
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


class Video:
    """The frames that a model is shown, in order, each with its time. Immutable; built by `as_video`.

    Frames of files are read when they are needed and not kept. Of a video file, the frames of the one read last stay in
    memory.

    Attributes:
        frames: The frames that were chosen, all of one size.
        times: The time of each frame in seconds from the start of the video, increasing.
        indices: The number of each frame in the source (0-based), increasing.
        duration: The seconds from the source's start to the end of its last frame.
        path: The video file; None for frames.
        spec: The arguments of `interp.Sample` that give this video again; None if frames are in memory.
    """

    __slots__ = ("_cache", "duration", "frames", "indices", "path", "spec", "times")

    frames: tuple[ImageLike, ...]
    times: tuple[float, ...]
    indices: tuple[int, ...]
    duration: float
    path: str | None
    spec: Mapping[str, Any] | None

    def __init__(self, **fields: Any) -> None:
        for name in _FIELDS:
            object.__setattr__(self, name, fields[name])
        object.__setattr__(self, "_cache", {})

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def rate(self) -> float:
        """Mean frames per second among the chosen ones; of a single frame, one per duration."""
        if len(self.times) < 2:
            return 1.0 / self.duration
        return (len(self.times) - 1) / (self.times[-1] - self.times[0])

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of every frame; reads the headers of frames that are files.

        Raises:
            ImageError: Frames of several sizes, or a file that cannot be read.
        """
        if "size" not in self._cache:
            self._cache["size"] = _one_size(self.frames, range(len(self)))
        return self._cache["size"]

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the frames by content and of their times. A video file counts by its bytes and `indices`.

        Raises:
            ImageError: A file that cannot be read.
        """
        if "fingerprint" not in self._cache:
            if self.path is None:
                words = [content(frame, i) for i, frame in enumerate(self.frames)]
            else:
                words = [_file_content(self.path), repr(self.indices)]
            words += ["times", *(repr(time) for time in self.times)]
            self._cache["fingerprint"] = hashlib.sha256("\n".join(words).encode()).hexdigest()
        return self._cache["fingerprint"]

    @property
    def frame_fingerprints(self) -> tuple[str, ...]:
        """Hex SHA-256 of each frame as a part of this video: equal frames of two videos have different ones."""
        return tuple(
            hashlib.sha256(f"{self.fingerprint} frame {i}".encode()).hexdigest() for i in range(len(self))
        )

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("a video is immutable; make a new sample with another video.")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a video is immutable; make a new sample with another video.")

    def __eq__(self, other: object) -> bool:
        return self.fingerprint == other.fingerprint if isinstance(other, Video) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, ({name: getattr(self, name) for name in _FIELDS}, dict(self._cache))

    def __repr__(self) -> str:
        where = "" if self.path is None else f"{self.path!r}, "
        return f"Video({where}{len(self)} frames, {self.times[0]:g} to {self.times[-1]:g} s)"


def as_video(
    video: Any,
    *,
    fps: float | None = None,
    times: Iterable[float] | None = None,
    n_frames: int | None = None,
    video_fps: float | None = None,
) -> Video:
    """Returns the video that the arguments of `interp.Sample` describe.

    Of n frames, `n_frames` takes those numbered round(linspace(0, n − 1, n_frames)). `video_fps` takes, for the times
    first + k / video_fps up to the last frame's, the frame nearest to each (the earlier of two); a rate above the
    video's own takes every frame once.

    Args:
        video: Frames as paths, PIL images or (H, W[, C]) uint8 arrays; one (frame, H, W[, C]) uint8 array; a folder of
            frame images, ordered by the numbers in their names; or a video file.
        fps: Frames per second of frames: frame i is at i / fps seconds. A video file has times of its own.
        times: The time of each frame in seconds, increasing; in place of `fps`.
        n_frames: How many frames to take, evenly spaced.
        video_fps: How many frames to take per second; in place of `n_frames`.

    Raises:
        SampleError: No frames, frames without times, times that do not increase, or options that exclude each other.
        ImageError: A file that is missing or cannot be decoded, a frame that is no image, or frames of several sizes.
    """
    options = {"fps": fps, "times": times, "n_frames": n_frames, "video_fps": video_fps}
    if isinstance(video, Video):
        given = [name for name, value in options.items() if value is not None]
        if given:
            raise SampleError(
                f"this video's frames are chosen already; {given[0]}= belongs to its source. Leave it out, or pass it "
                "with the file or the frames."
            )
        return Video(**{name: getattr(video, name) for name in _FIELDS})  # whose files are read anew
    _check_options(fps, times, n_frames, video_fps)
    spec = {name: _plain(value) for name, value in options.items() if value is not None}
    if isinstance(video, str | os.PathLike) and not os.path.isdir(video):
        return _of_file(os.fspath(video), spec)
    frames, paths = _frames(video)
    return _of_frames(frames, paths, spec)


def _of_file(path: str, spec: Mapping[str, Any]) -> Video:
    """The chosen frames of a video file; its header and its packets are read, its first frame is decoded."""
    for name in ("fps", "times"):
        if name in spec:
            raise SampleError(
                f"{name}= is for frames; the frames of the video file {brief(path)} have times of their own. Leave it "
                "out, and take fewer frames with n_frames= or video_fps=."
            )
    about = opened(path)
    indices = _chosen(about.times, spec, f"the video {brief(path)}")
    frames = tuple(
        LazyImage(partial(_frame, path, indices, k), f"frame {i} of {brief(path)}", about.size)
        for k, i in enumerate(indices)
    )
    return Video(
        frames=frames,
        times=tuple(about.times[i] for i in indices),
        indices=indices,
        duration=about.duration,
        path=path,
        spec={"video": path, **spec},
    )


def _frame(path: str, indices: tuple[int, ...], k: int) -> np.ndarray:
    return decoded(path, indices)[k]


def _of_frames(frames: Sequence[ImageLike], paths: Any, spec: dict[str, Any]) -> Video:
    """The chosen of these frames. `paths` is the JSON form of them, None if any is in memory."""
    n = len(frames)
    if "times" in spec:
        times = _times(spec["times"], n)
    elif "fps" in spec:
        times = tuple(i / spec["fps"] for i in range(n))
    else:
        raise SampleError(
            f"a video of {n} frames needs their times: pass fps= (frames per second) or times= (the seconds of each). "
            "For images without times pass images=[…]."
        )
    rate = spec.get("fps")
    step = 1 / rate if rate else (times[-1] - times[0]) / (n - 1) if n > 1 else 1.0
    memory = [i for i, frame in enumerate(frames) if not isinstance(frame, str | os.PathLike)]
    _one_size([frames[i] for i in memory if _known(frames[i])], [i for i in memory if _known(frames[i])])
    indices = _chosen(times, spec, "the video")
    return Video(
        frames=tuple(frames[i] for i in indices),
        times=tuple(times[i] for i in indices),
        indices=indices,
        duration=times[-1] + step,
        path=None,
        spec=None if paths is None else {"video": paths, **spec},
    )


def _known(frame: Any) -> bool:
    return not isinstance(frame, LazyImage) or frame.known_size is not None


def _frames(video: Any) -> tuple[list[ImageLike], Any]:
    """The frames that were given, and their JSON form: paths, or None."""
    if isinstance(video, str | os.PathLike):
        found = _in_folder(os.fspath(video))
        return list(found), os.fspath(video)
    if isinstance(video, np.ndarray) and video.ndim not in (3, 4):
        raise SampleError(
            f"a video as an array is (frame, H, W) or (frame, H, W, C) of uint8; got {video.dtype} of shape "
            f"{video.shape}."
        )
    if isinstance(video, Mapping | set | frozenset | bytes | Image.Image) or not isinstance(video, Iterable):
        hint = " Of a tensor pass tensor.byte().cpu().numpy()." if hasattr(video, "permute") else ""
        raise SampleError(
            "video= is a video file, a folder of frames, a list of frames, or a (frame, H, W[, C]) uint8 array; got "
            f"{type(video).__name__} {brief(video)}.{hint}"
        )
    frames: list[ImageLike] = []
    for i, raw in enumerate(video):
        try:
            frames.append(normalise(raw, i))
        except ImageError as error:
            raise ImageError(f"frame {i} of the video: {error}") from error
    if not frames:
        raise SampleError("a video needs at least one frame; got none.")
    if len(frames) > MOST_FRAMES:
        raise SampleError(
            f"a video has {len(frames):,} frames; at most {MOST_FRAMES:,} are taken. Cut it into parts."
        )
    files = all(isinstance(frame, str | os.PathLike) for frame in frames)
    return frames, [os.fspath(frame) for frame in frames] if files else None  # type: ignore[arg-type]


def _in_folder(folder: str) -> list[str]:
    """The frame images of a folder, in the order of the numbers in their names."""
    names = [one.name for one in Path(folder).iterdir() if one.suffix.lower() in _PICTURES]
    if not names:
        raise SampleError(
            f"the folder {brief(folder)} holds no frame images ({', '.join(_PICTURES)}). Pass a folder of frames such "
            "as frame_0001.png, or a video file."
        )
    numbers = {name: tuple(map(int, re.findall(r"\d+", Path(name).stem))) for name in names}
    without = next((name for name, found in numbers.items() if not found), None)
    if without is not None:
        raise SampleError(
            f"the frames of the folder {brief(folder)} are ordered by the numbers in their names; {without!r} has "
            "none. Rename it, or pass the frames as a list."
        )
    ordered = sorted(names, key=lambda name: (numbers[name], name))
    for one, after in pairwise(ordered):
        if numbers[one] == numbers[after]:
            raise SampleError(
                f"the frames {one!r} and {after!r} of the folder {brief(folder)} have the same number, so their order "
                "is not known. Pass the frames as a list."
            )
    return [os.path.join(folder, name) for name in ordered]


def _chosen(times: Sequence[float], spec: Mapping[str, Any], what: str) -> tuple[int, ...]:
    """The numbers of the frames to take."""
    n = len(times)
    if "n_frames" in spec:
        if spec["n_frames"] > n:
            raise SampleError(
                f"{what} has {count(n, 'frame')}, fewer than n_frames={spec['n_frames']}. Ask for at most {n}."
            )
        return tuple(np.linspace(0, n - 1, spec["n_frames"]).round().astype(int).tolist())
    if "video_fps" in spec:
        at = np.asarray(times)
        most = (at[-1] - at[0]) * spec["video_fps"]
        if most > 2**31:  # such a rate is above any video's own
            return tuple(range(n))
        wanted = at[0] + np.arange(math.floor(most + 1e-9) + 1) / spec["video_fps"]
        after = (
            np.clip(np.searchsorted(at, wanted), 1, max(n - 1, 1)) if n > 1 else np.zeros(len(wanted), int)
        )
        before = np.maximum(after - 1, 0)
        nearest = np.where(wanted - at[before] <= at[after] - wanted + 1e-9, before, after)
        return tuple(np.unique(nearest).tolist())
    return tuple(range(n))


def _times(given: Sequence[float], n: int) -> tuple[float, ...]:
    if len(given) != n:
        raise SampleError(
            f"times= has one time for each frame, in seconds; got {len(given)} times for {n} frames."
        )
    for i, (one, after) in enumerate(pairwise(given)):
        if not after > one:
            raise SampleError(
                f"times must increase from frame to frame; frame {i} is at {one:g} s and frame {i + 1} at {after:g} s. "
                "Sort the frames by time and leave out doubles."
            )
    return tuple(given)


def _check_options(fps: Any, times: Any, n_frames: Any, video_fps: Any) -> None:
    """Raises `SampleError` for options of the wrong type or that exclude each other."""
    for one, other in ((("fps", fps), ("times", times)), (("n_frames", n_frames), ("video_fps", video_fps))):
        if one[1] is not None and other[1] is not None:
            raise SampleError(f"pass {one[0]}= or {other[0]}=, not both.")
    for name, value in (("fps", fps), ("video_fps", video_fps)):
        if value is not None and not (_is_number(value) and 0 < value < math.inf):
            raise SampleError(f"{name} is a number of frames per second above 0; got {brief(value)}.")
    whole = isinstance(n_frames, int | np.integer) and not isinstance(n_frames, bool)
    if n_frames is not None and not (whole and n_frames > 0):
        raise SampleError(f"n_frames is a whole number of frames, 1 or more; got {brief(n_frames)}.")
    if times is None:
        return
    listed = isinstance(times, Sequence | np.ndarray) and not isinstance(times, str | bytes)
    seconds: list[Any] = list(times) if listed else []
    if not listed or not all(_is_number(one) and math.isfinite(one) and one >= 0 for one in seconds):
        raise SampleError(
            f"times= is a list of finite numbers of seconds from 0, one for each frame; got {brief(times)}."
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    """An option as a JSON value."""
    if isinstance(value, Sequence | np.ndarray):
        return [float(one) for one in value]
    return int(value) if isinstance(value, int | np.integer) else float(value)


def _one_size(frames: Sequence[ImageLike], numbers: Sequence[int]) -> tuple[int, int]:
    """The size of all frames; (0, 0) of none."""
    sizes = [image_size(frame, i) for frame, i in zip(frames, numbers, strict=True)]
    for size, i in zip(sizes, numbers, strict=True):
        if size != sizes[0]:
            raise ImageError(
                f"the frames of a video have one size; frame {numbers[0]} is {sizes[0][0]}×{sizes[0][1]} and frame {i} "
                f"is {size[0]}×{size[1]} (width×height). Resize or pad them first, or pass them as images=[…]."
            )
    return sizes[0] if sizes else (0, 0)


def content(raw: ImageLike, i: int = 0) -> str:
    """Hex hash of a file's bytes or of an in-memory image's RGB pixels."""
    if isinstance(raw, str | os.PathLike):
        return _file_content(raw)
    rgb = load_image(raw, i)
    return hashlib.sha256(f"{rgb.size}".encode() + rgb.tobytes()).hexdigest()


def _file_content(path: str | os.PathLike[str]) -> str:
    with readable_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _rebuild(fields: dict[str, Any], cache: dict[str, Any]) -> Video:
    """Returns an unpickled video with the values that were already computed."""
    video = Video(**fields)
    video._cache.update(cache)
    return video


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
    return file_state(path)


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
