"""Passes through the model: run and counted, in micro-batches, after a prefix."""
