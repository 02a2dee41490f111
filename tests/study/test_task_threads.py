from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from interp.study.task import SMALL, suitable_threads


class Weights:
    """A model of one parameter of `n` numbers."""

    def __init__(self, n: int) -> None:
        self.n = n

    def parameters(self) -> list[torch.Tensor]:
        return [torch.empty(self.n, device="meta")]


def model(n: int, device: str = "cpu") -> Any:
    return SimpleNamespace(device=device, hf=Weights(n))


@pytest.mark.parametrize(
    ("mllm", "expected"), [(model(SMALL - 1), 1), (model(SMALL), 3), (model(10, "cuda:0"), 3)]
)
def test_only_a_small_model_on_a_cpu_runs_on_one_thread(mllm: Any, expected: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with suitable_threads(mllm):
            assert torch.get_num_threads() == expected
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
