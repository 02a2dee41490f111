"""Figures and pages from a study's result."""

from __future__ import annotations

from interp.report.gallery import show_maps
from interp.study.layer_sweep.figures import layer_figures
from interp.study.layer_sweep.page import render, write_report

__all__ = ["layer_figures", "render", "show_maps", "write_report"]
