"""The command `interp data check`: counts of samples, their problems, and a page with pictures."""

from interp.data_check.problems import Findings, Problem, inspect

__all__ = ["Findings", "Problem", "inspect"]
