"""Refinement: its study, task, result and page."""
