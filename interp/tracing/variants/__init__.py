"""One pass of a prompt that is kept, and any number of variants that run from where they differ from it."""
