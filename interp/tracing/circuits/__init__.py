"""Circuits: the edges between heads, MLPs, the image and the answer, and what each carries."""
