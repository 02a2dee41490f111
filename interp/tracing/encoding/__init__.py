"""Samples and a prompt to the tensors that a model takes, and where each token is."""
