"""The manifest that lmms-eval finds by an entry point: it names the class of the model "interp"."""

from __future__ import annotations

from interp import broken_torchvision

broken_torchvision.hide()

from lmms_eval.models.registry_v2 import ModelManifest  # noqa: E402 # pyright: ignore[reportMissingImports]

__all__ = ["MANIFESTS"]

MANIFESTS = [ModelManifest(model_id="interp", simple_class_path="interp.lmms_eval.lmms_model.InterpModel")]
