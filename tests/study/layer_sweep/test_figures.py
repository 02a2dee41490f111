"""Where the figures of a sweep put its models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interp.study import Grid
from tests.study.planted import Model, samples, sweep


def test_nine_models_stand_in_three_rows_and_four_in_one(tmp_path: Path) -> None:
    models = {f"m{i}": Model(fingerprint=str(i) * 64) for i in range(9)}
    result = Grid(sweep(data=samples(2), metrics=("kl",)), model=models).run(tmp_path, progress=False)
    figure: Any = result.figures()["kl"]
    titles = {note.text: note for note in figure.layout.annotations if note.text in models}
    assert list(titles) == list(models)
    lefts, tops = ({round(getattr(note, side), 3) for note in titles.values()} for side in ("x", "y"))
    assert (len(lefts), len(tops)) == (3, 3)
    assert titles["m3"].y == titles["m5"].y < titles["m2"].y
    assert titles["m3"].x == titles["m0"].x < titles["m4"].x
    drawn = {trace.xaxis for trace in figure.data if trace.x is not None and len(trace.x) > 1}
    assert len(drawn) == 9
    few = Grid(sweep(data=samples(2), metrics=("kl",)), model=dict(list(models.items())[:4]))
    row: Any = few.run(tmp_path, progress=False).figures()["kl"]
    assert len({note.y for note in row.layout.annotations if note.text in models}) == 1
