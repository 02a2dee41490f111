"""Parts of reports: HTML, figures, tables, pictures of samples, provenance. They take frames, arrays and dicts."""

from __future__ import annotations

from interp.report.gallery import show_maps

__all__ = ["show_maps"]
