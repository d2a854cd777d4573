"""An exported model on numpy and ONNX Runtime: torch, scvi-tools, anndata and pandas need not be installed."""

from __future__ import annotations

from cfmvc_scvi.runtime.bundle import Bundle
from cfmvc_scvi.runtime.card import Card, Columns
from cfmvc_scvi.runtime.cells import Cells, Prediction
from cfmvc_scvi.runtime.question import Question, Settings

__all__ = ["Bundle", "Card", "Cells", "Columns", "Prediction", "Question", "Settings"]
