"""Bundled samples and one reader for each kind of source. Every reader returns `Samples`."""

from interp.data.bundled import bundled
from interp.data.coco import coco
from interp.data.jsonl import jsonl
from interp.data.open import named
from interp.data.samples import Samples
from interp.data.vgmed import vgmed

__all__ = ["Samples", "bundled", "coco", "jsonl", "named", "vgmed"]
