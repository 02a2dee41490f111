"""Figures and pages from a study's result."""

from __future__ import annotations

from interp.report.figures import layer_figures
from interp.report.look import show_maps
from interp.report.page import render, write_report

__all__ = ["layer_figures", "render", "show_maps", "write_report"]
