"""Reasoning sweep: its study, task, figure and page."""
