"""Knockout sweep: its study, task, result and page."""
