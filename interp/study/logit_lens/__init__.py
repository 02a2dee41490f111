"""Lens sweeps: their study, task, result and page."""
