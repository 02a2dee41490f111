"""Indicator comparison: its study, task, result and page."""
