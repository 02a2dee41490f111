"""Quantities beyond rows of attention: head means, steering vectors, OV circuits, outlying norms, rollout."""
