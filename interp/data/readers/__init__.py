"""Readers, one for each kind of source; each returns `Samples`."""
