"""Export of a trained model to files that predict without torch."""

from __future__ import annotations

from cfmvc_scvi.export.onnx import to_onnx

__all__ = ["to_onnx"]
