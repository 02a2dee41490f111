"""One pass that is kept, and any number of variants of it that run from where they differ."""
