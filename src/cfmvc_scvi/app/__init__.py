"""A local page to ask a trained model and look at its answers; needs the extra `app`."""

from __future__ import annotations

from cfmvc_scvi.app.answer import Answer, Choices, Question, answer, choices, h5ad_bytes
from cfmvc_scvi.app.launch import launch

__all__ = ["Answer", "Choices", "Question", "answer", "choices", "h5ad_bytes", "launch"]
