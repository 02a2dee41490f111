"""Probes of the residual stream, layer by layer: study, task, probes, result and page."""
