from __future__ import annotations

import time

import torch

from interp.tracing import Cost
from interp.tracing.cost import Meter


def test_costs_add_and_peaks_do_not():
    total = Cost(1.5, 10, 2, 1, 30) + Cost(0.5, 40, 1, 0, 5)
    assert total == Cost(2.0, 40, 3, 1, 35)
    assert sum([Cost(1.0), Cost(2.0)], Cost()).seconds == 3.0


def test_a_meter_measures_its_block():
    with Meter(torch.device("cpu")) as meter:
        time.sleep(0.02)
        meter.forwards += 2
        meter.tokens += 7
    assert 0.02 <= meter.cost.seconds < 5
    assert (meter.cost.forwards, meter.cost.backwards, meter.cost.tokens) == (2, 0, 7)
    assert meter.cost.peak_bytes > 50 * 2**20  # python and torch alone take more
