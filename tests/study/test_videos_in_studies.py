"""Studies, indicators and pages on samples with a video."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

import interp
from interp.conformance.tiny import tiny
from interp.data import Samples
from interp.indicators import Attention, EmbeddingReplacement, Occlusion, TokenKnockout
from interp.indicators.removals import paint_tokens
from interp.report.gallery import frame_name, picture, show_maps, shown_frames, views
from interp.study.result import _frames

SIZE = (56, 84)  # (row, col): 3×4 tokens for each pair of frames


def clip(i: int, n: int = 4, **fields) -> interp.Sample:
    """A video of grey noise with a bright square in frame 2."""
    shown = np.random.default_rng(i).integers(0, 120, (n, *SIZE, 3), dtype=np.uint8)
    shown[2, 10:30, 20:50] = 240
    box = interp.Box(20, 10, 50, 30, frame=2)
    given = {"question": "where is the nodule ?", "boxes": [box], "answer": "left", "group": f"g{i}"}
    return interp.Sample(video=shown, fps=2.0, **{**given, **fields})


@pytest.fixture(scope="module")
def mllm():
    return interp.wrap(*tiny("qwen2_vl"))


@pytest.mark.slow
def test_a_sweep_over_videos(mllm, tmp_path):
    data = Samples([clip(i) for i in range(4)], "clips")
    result = interp.LayerSweep(model=mllm, data=data, metrics=("ar",), indicator=Attention()).run(
        tmp_path, progress=False
    )
    assert result.failures.empty
    row = result.scores.query(f"layer == 1 and control == 'boxes' and sample == '{data[0].id}'").iloc[0]
    trace = mllm.trace(data[0], reads=[interp.Rows(interp.Site(layers=[1], queries="last", keys="image"))])
    weights = trace[0].rows.values.mean(axis=1).reshape(-1)
    inside = trace.tokens[0].mask(data[0].boxes)
    assert inside.sum() < inside.size / 2
    assert_allclose(row["value"], weights[inside].mean() / weights.mean(), rtol=1e-4)
    tokens = result.cells[0].tokens(0)
    assert (tokens.frames == trace.tokens[0].frames).all()
    assert (tokens.frame_times == [0, 0.5, 1, 1.5]).all()
    page = tmp_path / "page.html"
    result.report(page)
    assert "frame 2 (1 s) of 4" in page.read_text()


def test_indicators_on_a_video(mllm):
    """Attention's map is the row; a knockout of one token is a trace with that knockout."""
    (looked,) = Attention(layers=[2])(mllm, [clip(0)]).arrays
    rows = mllm.trace(clip(0), reads=[interp.Rows(interp.Site(layers=[2]))])
    assert_allclose(looked.values.ravel(), rows[0].rows.values.mean(axis=1).ravel(), atol=1e-6)
    target = interp.Target("left")
    (removed,) = TokenKnockout(queries="last")(mllm, [clip(0)], target=target).arrays
    plain = mllm.score([clip(0)], target).values
    one = np.arange(removed.sizes["token"]) == 5
    hidden = interp.Knockout(interp.Site(queries="last", keys=interp.image_mask([one])))
    changed = mllm.score([clip(0)], target, edits=[hidden]).values
    assert_allclose(removed.values.ravel()[5], (plain - changed).ravel()[0], atol=1e-4)


@pytest.mark.slow
def test_painting_and_replacing_reach_every_frame_of_a_token(mllm):
    tokens = mllm.encode(clip(0)).tokens[0]
    pictures = [np.asarray(clip(0).load(i)) for i in range(4)]
    chosen = np.arange(tokens.n) == 13  # second pair of frames, second token
    painted = paint_tokens(pictures, [np.zeros_like(one) for one in pictures], tokens, chosen)
    assert [bool((one != before).any()) for one, before in zip(painted, pictures, strict=True)] == [
        False,
        False,
        True,
        True,
    ]
    (found,) = Occlusion()(mllm, [clip(0)], target=interp.Target("left")).arrays
    assert np.isfinite(found.values).all()
    (found,) = EmbeddingReplacement()(mllm, [clip(0)], target=interp.Target("left")).arrays
    assert np.isfinite(found.values).all()


def test_pages_show_frames_and_say_which(mllm):
    one = clip(0, n=20)
    assert shown_frames(one, 4) == [0, 2, 10, 19]
    assert shown_frames(one.replace(boxes=()), 3) == [0, 10, 19]
    every = [interp.Box(1, 1, 9, 9, frame=i) for i in range(20)]
    assert shown_frames(one.replace(boxes=every), 3) == [0, 10, 19]
    assert shown_frames(clip(0), 9) == [0, 1, 2, 3]
    assert frame_name(one, 2) == "frame 2 (1 s) of 20"
    captions = [caption for caption, _ in views(one, "map", lambda i: picture(one, i))]
    assert captions == [f"map · frame {i} ({i / 2:g} s) of 20" for i in (0, 2, 19)]
    maps = Attention(layers=[0, 1])(mllm, [clip(0)])
    titles = [note.text for note in show_maps(clip(0), maps[0], maps.tokens[0]).layout.annotations]
    assert len(titles) == 4 * 3
    assert "frame 3 (1.5 s) of 4" in titles[-1]


def test_stored_tokens_find_their_frames_again():
    """Pairs of frames, the last alone; a newline token that belongs to the last frame."""
    assert _frames(np.array([0, 0, 2, 2, 4]), 5).tolist() == [[0, 2], [0, 2], [2, 4], [2, 4], [4, 5]]
    assert _frames(np.array([0, 1, 2, 2]), 3).tolist() == [[0, 1], [1, 2], [2, 3], [2, 3]]
