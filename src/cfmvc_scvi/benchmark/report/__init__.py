"""The report of a benchmark: one page that says whether a model is to be believed on these data, and shows why."""

from __future__ import annotations

from cfmvc_scvi.benchmark.report.write import write_report

__all__ = ["write_report"]
