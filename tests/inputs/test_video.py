"""A sample's video: frames, times, which frames are taken, identity, JSON, and what is refused."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image

import interp
from interp.errors import BoxError, DataError, ImageError, SampleError
from interp.inputs import video
from interp.inputs.tokens import TokenMap


def frames(n: int, size: tuple[int, int] = (8, 6)) -> np.ndarray:
    """Frame i is of the grey value 10 i."""
    return np.stack([np.full((size[1], size[0], 3), 10 * i, np.uint8) for i in range(n)])


def sample(n: int = 4, **fields) -> interp.Sample:
    return interp.Sample(**{"video": frames(n), "fps": 2.0, "question": "where ?", **fields})


@pytest.fixture
def folder(tmp_path):
    """Frames whose names sort otherwise than their numbers."""
    for i, pixels in enumerate(frames(11)):
        Image.fromarray(pixels).save(tmp_path / f"frame_{i}.png")
    (tmp_path / "notes.txt").write_text("no frame")
    return tmp_path


def greys(one: interp.Sample) -> list[int]:
    return [one.load(i).getpixel((0, 0))[0] // 10 for i in range(len(one.images))]


def test_frames_have_times_and_are_the_samples_images():
    one = sample()
    assert one.video.times == (0.0, 0.5, 1.0, 1.5)
    assert one.sizes == ((8, 6),) * 4
    assert greys(one) == [0, 1, 2, 3]
    assert one.video.rate == 2.0
    assert one.video.duration == 2.0
    assert sample(3, fps=None, times=[0, 1.5, 4]).video.times == (0.0, 1.5, 4.0)
    listed = interp.Sample(video=[Image.fromarray(f) for f in frames(2)], fps=1, question="?")
    assert greys(listed) == [0, 1]
    assert "Video(2 frames, 0 to 1 s)" in repr(listed)


def test_frames_are_taken_evenly_or_by_rate():
    """Worked by hand: round(linspace(0, 10, 4)) is 0, 3, 7, 10; at 2 frames/s a rate of 0.5 takes every fourth."""
    assert sample(11, n_frames=4).video.indices == (0, 3, 7, 10)
    assert sample(11, n_frames=1).video.indices == (0,)
    assert sample(11, video_fps=0.5).video.indices == (0, 4, 8)
    assert sample(11, video_fps=0.5).video.times == (0.0, 2.0, 4.0)
    assert sample(11, video_fps=0.4).video.indices == (0, 5, 10)  # the last frame too
    assert sample(4, n_frames=4).video.indices == (0, 1, 2, 3)
    assert sample(11, n_frames=3).video.rate == 2 / 5.0
    late = sample(3, fps=None, times=[1, 2.5, 5]).video
    assert (late.rate, late.duration) == (0.5, 7.0)  # the last frame stays for the mean step of 2 s
    assert sample(1, fps=None, times=[3]).video.duration == 4.0
    assert sample(11, video_fps=1e12).video.indices == tuple(range(11))
    uneven = sample(5, fps=None, times=[0.0, 0.9, 1.1, 2.2, 3.0], video_fps=1.0)
    assert uneven.video.indices == (0, 1, 3, 4)  # 0.9 and 1.1 s are as near to 1 s


def test_a_folder_is_ordered_by_the_numbers_in_its_names(folder):
    one = interp.Sample(video=folder, fps=10, question="?")
    assert greys(one) == list(range(11))
    assert one == interp.Sample(video=[folder / f"frame_{i}.png" for i in range(11)], fps=10, question="?")
    assert interp.Sample.from_dict(one.to_dict()) == one
    few = interp.Sample(video=folder, fps=10, n_frames=3, question="?")
    assert few.to_dict()["n_frames"] == 3
    assert interp.Sample.from_dict(few.to_dict()) == few
    assert greys(pickle.loads(pickle.dumps(few))) == [0, 5, 10]
    (folder / "frame_007.png").write_bytes((folder / "frame_7.png").read_bytes())
    with pytest.raises(SampleError, match=r"'frame_007.png' and 'frame_7.png' .* have the same number"):
        interp.Sample(video=folder, fps=10, question="?")
    (folder / "frame_007.png").rename(folder / "last.png")
    with pytest.raises(SampleError, match=r"'last.png' has none. Rename it"):
        interp.Sample(video=folder, fps=10, question="?")


def test_content_times_and_choice_are_the_identity():
    one = sample()
    assert one == sample()
    assert one != sample(fps=3.0)
    assert one != sample(n_frames=3)
    assert one != interp.Sample(images=list(frames(4)), question="where ?")
    assert len(set(one.image_fingerprints)) == 4
    assert set(one.image_fingerprints).isdisjoint(sample(3).image_fingerprints)
    assert one.replace(question="when ?").video == one.video
    assert one.replace(video=frames(2), fps=1).video.times == (0.0, 1.0)
    assert one.replace(image=frames(1)[0]).video is None
    groups = interp.data.Samples([one, one.replace(question="when ?"), sample(3)], "clips").groups
    assert groups[0] == groups[1] != groups[2]


def test_frames_that_are_files_are_read_when_needed(folder):
    one = interp.Sample(video=folder, fps=10, question="?")
    path = folder / "frame_3.png"
    path.write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"frame_3.png"):
        one.load(3)
    Image.new("RGB", (9, 9)).save(path)
    with pytest.raises(ImageError, match=r"frame 0 is 8×6 and frame 3 is 9×9"):
        _ = interp.Sample(video=folder, fps=10, question="?").sizes


def test_boxes_name_their_frame():
    one = sample(boxes=[interp.Box(1, 1, 4, 4, frame=2), (0, 0, 2, 2, 3)])
    assert [(box.frame, box.image) for box in one.boxes] == [(2, 2), (3, 3)]
    one.check()
    assert sample(boxes=[(0.0, 0.0, 0.5, 0.5, 1)], box_format="fraction").boxes[0].as_tuple() == (0, 0, 4, 3)
    assert interp.Box(1, 1, 4, 4, frame=2).clip(3, 3).frame == 2
    with pytest.raises(
        BoxError, match=r"is of a video and names no frame. Write Box\(x0, y0, x1, y1, frame=3\)"
    ):
        sample(boxes=[(1, 1, 4, 4)])
    with pytest.raises(BoxError, match=r"names frame 4, but the sample has 4 frames"):
        sample(boxes=[(1, 1, 4, 4, 4)]).check()
    with pytest.raises(BoxError, match=r"reaches outside frame 1, which is 8×6"):
        sample(boxes=[(1, 1, 40, 4, 1)]).check()
    with pytest.raises(BoxError, match=r"names frame 0, but the sample has no video"):
        interp.Sample(frames(1)[0], "?", boxes=[interp.Box(1, 1, 4, 4, frame=0)]).check()
    with pytest.raises(BoxError, match=r"got image=1 and frame=2. Leave image= out"):
        interp.Box(1, 1, 4, 4, image=1, frame=2)
    with pytest.raises(BoxError, match=r"a box's frame is an index 0, 1, … .* got -1"):
        interp.Box(1, 1, 4, 4, frame=-1)


def test_boxes_come_from_masks_of_frames():
    inside = np.zeros((6, 8), bool)
    inside[2:4, 1:5] = True
    (box,) = sample(masks=[interp.Mask(inside, image=2)]).boxes
    assert (box.frame, box.as_tuple()) == (2, (1, 2, 5, 4))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fps": None}, r"needs their times: pass fps= .* or times="),
        ({"times": [0, 1, 2, 3]}, r"pass fps= or times=, not both"),
        ({"fps": None, "times": [0, 2, 1, 3]}, r"frame 1 is at 2 s and frame 2 at 1 s. Sort the frames"),
        ({"fps": None, "times": [0, 1]}, r"got 2 times for 4 frames"),
        ({"fps": None, "times": [0, 1, float("nan"), 3]}, r"finite numbers of seconds"),
        ({"fps": 0}, r"fps is a number of frames per second above 0; got 0"),
        ({"n_frames": 2, "video_fps": 1}, r"pass n_frames= or video_fps=, not both"),
        ({"n_frames": 5}, r"has 4 frames, fewer than n_frames=5. Ask for at most 4"),
        ({"n_frames": 0}, r"n_frames is a whole number of frames, 1 or more"),
        ({"n_frames": True}, r"n_frames is a whole number of frames, 1 or more"),
        ({"n_frames": 1.5}, r"n_frames is a whole number of frames, 1 or more"),
        ({"fps": "2"}, r"fps is a number of frames per second above 0; got '2'"),
        ({"fps": True}, r"fps is a number of frames per second above 0; got True"),
        ({"video_fps": float("inf")}, r"video_fps is a number of frames per second above 0; got inf"),
        ({"video_fps": -1}, r"video_fps is a number of frames per second above 0; got -1"),
        ({"fps": None, "times": "0123"}, r"times= is a list of finite numbers of seconds from 0"),
        ({"fps": None, "times": [-1, 0, 1, 2]}, r"times= is a list of finite numbers of seconds from 0"),
        ({"fps": None, "times": [0, True, 2, 3]}, r"times= is a list of finite numbers of seconds from 0"),
        ({"fps": None, "times": [0, 1, 1, 3]}, r"frame 1 is at 1 s and frame 2 at 1 s"),
        ({"video": []}, r"at least one frame; got none"),
        ({"video": frames(2)[0, 0]}, r"\(frame, H, W, C\) of uint8; got uint8 of shape \(8, 3\)"),
        ({"video": 5}, r"video= is a video file, a folder of frames"),
        ({"video": [frames(1)[0], frames(1, (9, 6))[0]]}, r"frame 0 is 8×6 and frame 1 is 9×6"),
        ({"video": [frames(1)[0], "x"], "images": [frames(1)[0]]}, r"images or a video, not both"),
        ({"video": None, "image": frames(1)[0]}, r"fps= belongs to a video"),
        ({"video": "missing.mp4", "fps": None}, r"missing.mp4' does not exist"),
        ({"video": "clip.mp4"}, r"fps= is for frames; the frames of the video file"),
    ],
)
def test_what_is_no_video_is_refused(fields, message, unchecked):
    with pytest.raises(SampleError, match=message):
        sample(**fields)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(SampleError, match=r"holds no frame images"):
        interp.Sample(video=tmp_path, fps=1, question="?")


def test_frames_in_memory_cannot_be_written_down():
    with pytest.raises(
        SampleError, match=r"has frames in memory and no path to write down. Save them to a folder"
    ):
        sample().to_dict()


def test_a_row_of_a_jsonl_file_has_a_video(folder):
    rows = folder / "rows.jsonl"
    words = '"question": "where ?", "video": "."'
    rows.write_text(f'{{{words}, "fps": 10, "n_frames": 3, "boxes": [[1, 1, 4, 4, 2]]}}\n')
    (one,) = interp.data.jsonl(rows)
    assert greys(one) == [0, 5, 10]
    assert one.boxes[0].frame == 2
    for wrong, message in [
        ('"question": "?", "video": "gone.mp4"', r"'video': no file 'gone.mp4'"),
        (
            '"question": "?", "image": "frame_1.png", "video": "."',
            r"'image': a row needs exactly one of image",
        ),
        (
            '"question": "?", "image": "frame_1.png", "fps": 3',
            r"'fps': it belongs to a video, and the row has none",
        ),
    ]:
        rows.write_text(f"{{{wrong}}}\n")
        with pytest.raises(DataError, match=message):
            interp.data.jsonl(rows)


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"0" * 64)
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    video._opened.cache_clear()
    with pytest.raises(SampleError, match=r"needs av; install it with: pip install 'interp\[video\]'"):
        interp.Sample(video=path, question="?")


def write_clip(path, shown: np.ndarray, fps: int) -> None:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height = shown.shape[2], shown.shape[1]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        for pixels in shown:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def test_a_video_file_gives_frames_by_time(tmp_path):
    path = tmp_path / "clip.mp4"
    write_clip(path, frames(12, (64, 48)), 4)
    one = interp.Sample(video=path, question="?", n_frames=4)
    assert one.video.indices == (0, 4, 7, 11)
    assert np.allclose(one.video.times, [0, 1, 1.75, 2.75])
    assert one.video.duration == pytest.approx(3.0)
    assert one.sizes == ((64, 48),) * 4
    assert np.allclose([one.load(i).getpixel((30, 20))[0] for i in range(4)], [0, 40, 70, 110], atol=6)
    assert interp.Sample.from_dict(one.to_dict()) == one
    assert pickle.loads(pickle.dumps(one)).fingerprint == one.fingerprint
    assert one != interp.Sample(video=path, question="?", video_fps=1)
    assert interp.Sample(video=path, question="?", video_fps=1).video.indices == (0, 4, 8)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ImageError, match=r"clip.mp4' (cannot be read|holds no)"):
        interp.Sample(video=path, question="?")


def token_map() -> TokenMap:
    """Two tokens beside each other for frames 0 and 1, two for frame 2; the frames are 8×4 pixels."""
    half = np.array([[0, 0, 4, 4], [4, 0, 8, 4]], float)
    return TokenMap(
        image=np.arange(4),
        footprints=np.concatenate([half, half]),
        grid=(1, 2),
        views=np.array([""] * 4),
        image_index=np.array([0, 0, 2, 2]),
        sizes=((8, 4),) * 3,
        length=6,
        frames=np.array([[0, 2], [0, 2], [2, 3], [2, 3]]),
        frame_times=np.array([0.0, 0.5, 2.0]),
    )


def test_tokens_of_several_frames_by_hand():
    tokens = token_map()
    assert tokens.shows(1).tolist() == [True, True, False, False]
    assert tokens.times.tolist() == [[0, 0.5], [0, 0.5], [2, 2], [2, 2]]
    box = interp.Box(2, 0, 6, 4, frame=1)
    assert tokens.mask([box]).tolist() == [True, True, False, False]
    assert tokens.coverage([box]).tolist() == [0.25, 0.25, 0, 0]  # half of one of two frames
    assert tokens.coverage([box, interp.Box(0, 0, 4, 4, frame=0)]).tolist() == [0.75, 0.25, 0, 0]
    assert tokens.mask([interp.Box(2, 0, 6, 4, frame=2)]).tolist() == [False, False, True, True]
    assert tokens.lost_area([box]).tolist() == [0.0]
    inside = np.zeros((4, 8), bool)
    inside[:, :2] = True
    assert tokens.coverage([interp.Mask(inside, image=1)]).tolist() == [0.25, 0, 0, 0]
    drawn = [tokens.to_pixels(np.array([1.0, 2.0, 3.0, 4.0]), frame=i)[0, [0, 7]].tolist() for i in range(3)]
    assert drawn == [[1, 2], [1, 2], [3, 4]]


def test_a_frame_must_be_named():
    tokens = token_map()
    with pytest.raises(interp.errors.MapError, match=r"has 3 frames; name one: to_pixels\(values, frame=0\)"):
        tokens.to_pixels(np.ones(4))
    with pytest.raises(interp.errors.MapError, match=r"3 frames, counted from 0; got frame=3"):
        tokens.to_pixels(np.ones(4), frame=3)
    with pytest.raises(BoxError, match=r"names no frame"):
        tokens.mask([(1, 1, 3, 3)])
    with pytest.raises(interp.errors.MapError, match=r"from its image_index on"):
        TokenMap(**{**vars_of(tokens), "frames": np.array([[1, 2], [0, 2], [2, 3], [2, 3]])})
    with pytest.raises(interp.errors.MapError, match=r"one time per frame .3 frames"):
        TokenMap(**{**vars_of(tokens), "frame_times": np.zeros(2)})


def vars_of(tokens: TokenMap) -> dict:
    return {name: getattr(tokens, name) for name in tokens.__dataclass_fields__}


def test_a_single_frame_has_one_per_duration():
    assert sample(1, fps=4.0).video.rate == 4.0
    assert sample(1, fps=None, times=[3]).video.rate == 0.25


def test_frames_in_a_folder_may_have_other_names(tmp_path):
    """Several numbers count from the left; endings may be in capitals."""
    names = ["take2_frame1.PNG", "take1_frame10.png", "take1_frame9.Png"]
    for i, name in enumerate(names):
        Image.fromarray(frames(3)[i]).save(tmp_path / name, "PNG")
    assert greys(interp.Sample(video=tmp_path, fps=1, question="?")) == [2, 1, 0]


def test_one_frame_in_memory_keeps_a_video_from_a_file(folder):
    mixed = interp.Sample(video=[folder / "frame_0.png", frames(1)[0]], fps=1, question="?")
    with pytest.raises(SampleError, match="frames in memory"):
        mixed.to_dict()
    listed = interp.Sample(
        video=[folder / "frame_0.png", folder / "frame_3.png"], times=[0.5, 2], question="?"
    )
    assert listed.to_dict()["times"] == [0.5, 2.0]
    assert interp.Sample.from_dict(listed.to_dict()) == listed
    assert listed.video.frame_fingerprints == listed.image_fingerprints


def test_a_chosen_video_takes_no_further_choice():
    one = sample(n_frames=2)
    assert one.replace(answer="yes").video.indices == (0, 3)
    with pytest.raises(SampleError, match=r"chosen already; n_frames= belongs to its source"):
        one.replace(video=one.video, n_frames=1)


@pytest.mark.parametrize("last", [[2, 2], [2, 4], [2, 1]])
def test_a_token_stands_for_frames_that_there_are(last):
    frames_of = np.array([[0, 2], [0, 2], last, last])
    with pytest.raises(interp.errors.MapError, match="ends within the 3 frames"):
        TokenMap(**{**vars_of(token_map()), "frames": frames_of})


def test_a_map_of_a_video_says_so():
    said = "TokenMap(6 tokens, 4 of them image tokens, grid (1, 2), video of 3 frames of 8×4)"
    assert repr(token_map()) == said
