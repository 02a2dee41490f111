"""What the task of a refinement takes for the answer, where a thought may come first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import interp
from interp.data import Samples
from interp.methods import Plain
from interp.study import Refinement
from interp.study.refinement.task import RefinementTask
from tests.tracing.scripted import picture, scripted


@pytest.mark.parametrize("thinking", [True, False])
def test_a_thoughts_first_token_is_not_the_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, thinking: bool
) -> None:
    monkeypatch.setattr(RefinementTask, "_warm", True)  # a warm-up would only take time
    mllm, _ = scripted()
    prompt = interp.Prompt(thinking=thinking)
    study = Refinement(
        data=Samples([picture()], "one"), model=mllm, method=Plain(), prompt=prompt, max_new_tokens=1
    )
    found = study.run(tmp_path, progress=False)
    assert len(found.failures) == 0
    for measure in ("logprob", "probability"):
        own = found.pairs[found.pairs.measure == measure]
        assert np.isnan(own[["before", "after"]].to_numpy(float)).all() == thinking, measure
    assert found.pairs[found.pairs.measure == "correct"].before.notna().all()
