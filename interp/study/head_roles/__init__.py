"""Heads by what they do: its study, task, result and page."""
