"""A blinded reader study, in which clinicians choose between two maps of a case: its page, its key and its result."""

from __future__ import annotations

from interp.reader_study.key import Key, read_key
from interp.reader_study.pack import Pack, stored_maps, write_pack
from interp.reader_study.result import ReaderResult, read_study

__all__ = ["Key", "Pack", "ReaderResult", "read_key", "read_study", "stored_maps", "write_pack"]
