"""Attention inside a layer: its rows, one call of it, and the functions that are tapped."""
