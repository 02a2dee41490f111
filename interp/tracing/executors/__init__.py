"""Carry out plans in a model: by hooks, or by nnsight in the source of each layer."""
