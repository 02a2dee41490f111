"""Processors of checkpoints, loaded without torchvision and without code of the checkpoint."""
