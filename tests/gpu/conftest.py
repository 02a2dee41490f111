"""Every test here needs a CUDA device and is run by `pytest -n 0 -m gpu`."""

from __future__ import annotations

import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of this folder; without a device they are skipped."""
    for item in items:
        if item.path.parent.name == "gpu" and not item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.gpu)
            item.add_marker(pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))
