"""Boxes that a model writes into its answer, beside the expert's and where attention lies."""
