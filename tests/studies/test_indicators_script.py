"""The script from its command line to its page, on one organism with two cheap indicators."""

from __future__ import annotations

from pathlib import Path

import pytest

from interp.indicators import Attention, RandomMap
from tests.studies.scripts import STUDIES, script


@pytest.mark.slow
def test_the_script_compares_on_a_model_of_choice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = script("indicators")
    every = module.indicators(seed=3)
    assert {"relative attention", "attribution patching", "token knockout", "occlusion", "random"} <= set(
        every
    )
    few = {"attention": Attention(), module.DEAR: RandomMap(1)}
    monkeypatch.setattr(module, "indicators", lambda seed: few)
    options = {"n": 2, "n_validation": 2, "n_faithful": 1, "n_checked": 1, "workers": 1}
    module.main(model="organism", data="natural", out=tmp_path, **options)
    said = capsys.readouterr().out
    assert "organism · natural: 2 groups are too few" in said
    page = (tmp_path / "indicators.html").read_text()
    for words in ("model organism", "knockout", "mean embedding", "blur pixels", "layer of attention"):
        assert words in page


def test_the_script_is_a_short_declaration() -> None:
    assert len((STUDIES / "indicators.py").read_text().splitlines()) < 150
    assert {"model", "data", "out", "seed", "workers"} <= set(script("indicators").main.__annotations__)
    assert "`indicators.py`" in (STUDIES / "README.md").read_text()
