"""Benchmark: its study, task, result, tables and page."""
