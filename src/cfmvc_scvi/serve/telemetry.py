"""Logs in JSON, and metrics for Prometheus."""

from __future__ import annotations

import json
import logging
import os
import time
from typing import Any

from cfmvc_scvi._optional import require_extra

__all__ = ["JsonFormatter", "Metrics", "logger"]

logger = logging.getLogger("cfmvc_scvi.serve")

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_CELLS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)


class JsonFormatter(logging.Formatter):
    """One JSON object per line; what is passed as ``extra={"fields": {...}}`` becomes entries."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        entry: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "process": record.process,
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class Metrics:
    """Counts and times of requests, of one process or of all workers."""

    def __init__(self) -> None:
        prometheus = require_extra("prometheus_client", "serve")
        self._prometheus = prometheus
        self._shared = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        registry = prometheus.CollectorRegistry()
        self._registry = registry
        self.requests = prometheus.Counter(
            "cfmvc_requests", "Requests by route and status", ["route", "status"], registry=registry
        )
        self.seconds = prometheus.Histogram(
            "cfmvc_request_seconds", "Time to answer", ["route"], buckets=_SECONDS, registry=registry
        )
        self.cells = prometheus.Counter("cfmvc_cells", "Cells answered", ["route"], registry=registry)
        self.batches = prometheus.Histogram(
            "cfmvc_batch_cells", "Cells answered together", buckets=_CELLS, registry=registry
        )
        self.in_work = prometheus.Gauge(
            "cfmvc_requests_in_work", "Requests in work", registry=registry, multiprocess_mode="livesum"
        )

    def exposed(self) -> tuple[bytes, str]:
        """Return the text for Prometheus, and its type."""
        registry = self._registry
        if self._shared:
            registry = self._prometheus.CollectorRegistry()
            require_extra("prometheus_client.multiprocess", "serve").MultiProcessCollector(registry)
        return self._prometheus.generate_latest(registry), self._prometheus.CONTENT_TYPE_LATEST
