"""The example of docs/video.md does what its comments say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "video.md"


@pytest.mark.slow
def test_the_example_runs():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    names: dict = {}
    exec(compile(code, PAGE.name, "exec"), names)
    tokens = names["tokens"]
    assert tokens.frames[:2].tolist() == [[0, 2], [0, 2]]
    assert names["heat"].shape == (56, 84)
    assert tokens.mask(names["sample"].boxes).any()
    assert tokens.times[-1].tolist() == [6.5, 7.5]  # of 16 frames at 2 a second, the last two of 8
