"""The options of a command that say how many workers compute, and where."""

from __future__ import annotations

from typing import Annotated

import tyro

from interp.run.workers import Workers

__all__ = ["WorkerOptions"]


def _workers(
    workers: int = 1, address: str | None = None, gpus: float | None = None, devices: tuple[str, ...] = ()
) -> Workers:
    """How many workers compute, and where.

    Args:
        workers: Number of worker processes, each with its own copy of the model.
        address: Run the workers on Ray: "local", "auto", host:port or ray://host:port.
        gpus: GPUs of each worker on Ray; by default 1 for a model on cuda.
        devices: Devices that local workers take in turn, such as cuda:0 cuda:1; cuda for all.
    """
    return Workers(workers, address, gpus, devices)


WorkerOptions = Annotated[Workers | int, tyro.conf.arg(constructor=_workers), tyro.conf.OmitArgPrefixes]
"""The parameter `workers` of a `main`, by default 1: the options --workers, --address, --gpus and --devices."""
