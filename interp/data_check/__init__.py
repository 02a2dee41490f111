"""What samples hold, what is wrong with them, and a page with pictures: the command `interp data check`."""

from interp.data_check.problems import Findings, Problem, inspect

__all__ = ["Findings", "Problem", "inspect"]
