"""Computes shards in worker processes of this machine, or on the machines of a Ray cluster."""

from __future__ import annotations

from interp.run.workers.dispatch import Computed, compute_units, packed_jobs
from interp.run.workers.options import Workers
from interp.run.workers.worker import SentFiles, store_sent_files

__all__ = ["Computed", "SentFiles", "Workers", "compute_units", "packed_jobs", "store_sent_files"]
