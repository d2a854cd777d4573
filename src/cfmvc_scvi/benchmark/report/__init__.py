"""Reports as pages: whether a benchmarked model is to be believed, and what a trained model is."""

from __future__ import annotations

from cfmvc_scvi.benchmark.report.model_page import write_model_report
from cfmvc_scvi.benchmark.report.write import write_report

__all__ = ["write_model_report", "write_report"]
