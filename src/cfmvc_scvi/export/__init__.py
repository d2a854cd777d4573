"""Export of a trained model: to files that predict without torch, and to scvi-hub."""

from __future__ import annotations

from cfmvc_scvi.export.hub import from_hub, to_hub
from cfmvc_scvi.export.onnx import to_onnx

__all__ = ["from_hub", "to_hub", "to_onnx"]
