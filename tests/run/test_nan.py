"""A model that gives NaN for some inputs: recorded failures, and nobody else's numbers change."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from interp.indicators import Attention
from interp.inputs.prompt import GENERIC_PROMPT
from interp.study import LayerSweep, Result
from interp.tracing import wrap
from tests import tiny
from tests.study import planted

POISON = "nodule"


def poisoned(value: float, *, head: bool) -> Any:
    """The tiny LLaVA, one word of which turns everything after it to NaN; or one answer's logit to a value."""
    model: Any = copy.deepcopy(tiny.llava())
    token = tiny.WORDS.index("left" if head else POISON)
    with torch.no_grad():
        weight = model.lm_head.weight if head else model.get_input_embeddings().weight
        weight[token] = value
    return wrap(model, tiny.processor())


def samples(poison: tuple[int, ...]) -> list[Any]:
    return [
        planted.sample(
            number,
            question=f"where is the {POISON if number in poison else 'lung'}",
            answer="left",
            group=f"patient-{number}",
        )
        for number in range(6)
    ]


def sweep(mllm: Any, out: Path, poison: tuple[int, ...], indicator: Any) -> Result:
    study = LayerSweep(data=samples(poison), model=mllm, indicator=indicator, batch=3)
    return study.run(out, progress=False)


@pytest.mark.parametrize("relative", [True, False])
def test_samples_whose_pass_holds_nan_are_failures(tmp_path: Path, relative: bool) -> None:
    indicator = Attention(relative_to=GENERIC_PROMPT if relative else None)
    sick = sweep(poisoned(math.nan, head=False), tmp_path / "sick", (1, 4), indicator)
    healthy = sweep(wrap(tiny.llava(), tiny.processor()), tmp_path / "healthy", (1, 4), indicator)
    failures = sick.failures
    assert sorted(failures["sample"]) == ["s1", "s4"]
    assert set(failures.error) == {"ModelError"}
    assert failures.reason.str.contains(r"NaN.*begin in model.language_model.embed_tokens").all()
    assert failures.layer.isna().all()  # the whole sample, not a score of it
    assert sorted(sick.samples["sample"]) == ["s0", "s2", "s3", "s5"]
    assert sick.scores.value.notna().all()
    kept = healthy.scores.query("sample not in ('s1', 's4')").reset_index(drop=True)
    pd.testing.assert_frame_equal(sick.scores.reset_index(drop=True), kept, rtol=1e-5)
    stored = sick.cells[0].folder.find("maps", index=range(6)).column("index").to_pylist()
    assert set(stored) == {0, 2, 3, 5}


def test_a_model_that_is_nan_everywhere_is_an_error(tmp_path: Path) -> None:
    from interp.errors import StudyError

    with pytest.raises(StudyError, match=r"all failed\. The first, s0: ModelError: .*NaN"):
        sweep(poisoned(math.nan, head=True), tmp_path, (), Attention())
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert not any(pd.read_parquet(folder / "tables" / "scores.parquet").value.notna())
