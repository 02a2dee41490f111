"""Logit lens: its study, task, result and page."""
