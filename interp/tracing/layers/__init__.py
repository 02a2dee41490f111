"""Reads and edits resolved against a batch, and planned for each layer of the model."""
