"""Masks of words and stated boxes from their command lines to their pages, on a few samples of the organism."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from interp.cli import run_script
from interp.data import Samples, named
from tests.studies.scripts import script


@pytest.mark.slow
def test_masks_of_words_beat_both_baselines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script("attend_and_segment").main(out=tmp_path, n=8, pages=1)
    frame = pd.read_csv(tmp_path / "attend_and_segment.csv")
    means = frame.groupby("mask").iou.mean()
    assert means["attention"] > 0.3 > 0.15 > means[["whole", "centre"]].max()
    whole = frame[frame["mask"] == "whole"].set_index("sample").iou
    for sample in named("natural", n=8):
        (width, height), (x0, y0, x1, y1) = sample.sizes[0], sample.boxes[0].as_tuple()
        assert whole[sample.id] == pytest.approx((x1 - x0) * (y1 - y0) / (width * height))
    share = frame.pivot(index="sample", columns="mask", values="share")
    pd.testing.assert_series_equal(share["centre"], share["attention"], check_names=False)
    assert (tmp_path / "grounded_0.html").is_file()
    assert not (tmp_path / "grounded_1.html").exists()
    assert "attend-and-segment: IoU" in capsys.readouterr().out


def test_a_failure_is_counted_and_without_truth_is_no_iou(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = script("attend_and_segment")
    first, second, bare = named("natural", n=3)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    samples = Samples(
        [first, second.replace(images=[tmp_path / "broken.png"]), bare.replace(boxes=[])], "three"
    )
    monkeypatch.setattr(module, "sets", lambda *_, **__: {"three": samples})
    module.main(out=tmp_path, pages=0)
    said = capsys.readouterr().out
    assert f"1 of 3 samples failed. The first, {second.id}: " in said
    assert "grounded_" not in said
    frame = pd.read_csv(tmp_path / "attend_and_segment.csv").set_index("sample")
    assert set(frame.index) == {first.id, bare.id}
    assert frame.loc[[bare.id], ["iou", "recall"]].isna().all(axis=None)
    assert frame.loc[[first.id], ["iou", "recall"]].notna().all(axis=None)


@pytest.mark.slow
def test_planted_boxes_are_read_as_they_were_planted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script("stated_boxes").main(out=tmp_path, n=12)
    said = capsys.readouterr().out
    assert "PLANTED: the organism cannot write boxes" in said
    found = {
        kind: (int(n), int(read), mean)
        for kind, n, read, mean in re.findall(
            r"planted (.+?): (\d+) samples, (\d+) read, mean IoU .* (\S+)\n", said
        )
    }
    assert sum(n for n, _, _ in found.values()) == 12
    own, other, unread = found["own box"], found["another's box"], found["unreadable"]
    assert own[0] == own[1] > 0
    assert float(own[2]) > 0.95  # whole numbers of 0 to 1000
    assert other[0] == other[1] > 0
    assert float(other[2]) < 0.4
    assert unread[0] > unread[1] == 0
    assert (tmp_path / "stated_boxes.html").is_file()


@pytest.mark.slow
def test_stored_answers_are_read_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [{"sample": one.id, "said": "<box>[[0, 0, 1000, 1000]]</box>"} for one in named("natural", n=3)]
    file = tmp_path / "said.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    script("stated_boxes").main(out=tmp_path, n=3, answers=str(file), convention="internvl")
    said = capsys.readouterr().out
    assert "PLANTED" not in said
    assert re.search(r"ar_stated: –|ar_stated: nan", said)  # a box of the whole image has no ratio
    assert "stated: 1.00, 3 samples" in said


@pytest.mark.usefixtures("unchecked")
def test_a_threshold_that_is_none_ends_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("stated_boxes", "attend_and_segment"):
        with pytest.raises(SystemExit):
            run_script(script(name).main, args=["--n", "2", "--out", str(tmp_path), "--threshold", "half"])
        assert re.match(r'error: threshold is "otsu", "positive", or the share', capsys.readouterr().err)


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "no answers '.*': it is no file"), ("{}", "holds no stored answers"), ("x", "holds no stored")],
)
def test_answers_that_are_none_end_with_one_line(
    text: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "said.jsonl"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SystemExit):
        run_script(
            script("stated_boxes").main, args=["--n", "2", "--out", str(tmp_path), "--answers", str(file)]
        )
    assert re.match(f"error: .*{said}", capsys.readouterr().err)
