"""One reader for each kind of source; each returns `Samples`."""
