"""Samples to study: bundled, or read from a file. One reader per source, all giving `Samples`."""

from interp.data.bundled import bundled
from interp.data.jsonl import jsonl
from interp.data.samples import Samples

__all__ = ["Samples", "bundled", "jsonl"]
