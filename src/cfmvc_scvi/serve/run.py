"""Starting the service and its workers."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cfmvc_scvi._optional import require_extra
from cfmvc_scvi.runtime import Bundle
from cfmvc_scvi.serve.config import ServeConfig
from cfmvc_scvi.serve.service import create_app

__all__ = ["run", "worker_app"]

_SHARED = "PROMETHEUS_MULTIPROC_DIR"
_LOGS = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "cfmvc_scvi.serve.telemetry.JsonFormatter"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
    "loggers": {
        name: {"handlers": ["stderr"], "level": "INFO", "propagate": False}
        for name in ("uvicorn", "cfmvc_scvi.serve", "py.warnings")
    },
}


def run(config: ServeConfig) -> None:
    """Serve an exported model until SIGTERM or SIGINT; requests in work are answered first.

    Parameters
    ----------
    config
        How. The token is read from the environment.

    Raises
    ------
    DataError
        If others can reach the service and no token is set.
    ModelFileError, CorruptModelError
        If the model cannot be read, or answers its own question wrongly.
    MissingExtraError
        If the extra ``serve`` is not installed.
    """
    uvicorn = require_extra("uvicorn", "serve")
    from cfmvc_scvi.serve._connection import PatientConnection

    config.token()
    Bundle.load(config.bundle).check()
    config.to_environment()
    with tempfile.TemporaryDirectory(prefix="cfmvc-metrics-") as shared:
        if config.workers > 1:
            os.environ[_SHARED] = shared
        uvicorn.run(
            "cfmvc_scvi.serve.run:worker_app",
            factory=True,
            http=PatientConnection,
            ws="none",
            host=config.host,
            port=config.port,
            workers=config.workers,
            log_config=_LOGS,
            access_log=False,
            server_header=False,
            timeout_keep_alive=10,
            timeout_graceful_shutdown=config.drain_seconds,
            timeout_worker_healthcheck=60,  # a worker that still reads its model is not dead
        )


def worker_app() -> Callable[..., Any]:
    """Return the application of one worker, as the environment says."""
    logging.captureWarnings(True)
    config = ServeConfig.from_environment()
    if _SHARED in os.environ:
        _forget_dead_workers(Path(os.environ[_SHARED]))
    bundle = Bundle.load(config.bundle, n_threads=config.n_threads)
    token = config.token()
    return create_app(bundle, token=token, limits=config.limits, batching=config.batching, local_names=token is None)


def _forget_dead_workers(shared: Path) -> None:
    """Take requests out of the metrics that were in work when their worker died."""
    multiprocess = require_extra("prometheus_client.multiprocess", "serve")
    for file in shared.glob("gauge_live*_*.db"):
        found = re.search(r"_(\d+)\.db$", file.name)
        if found and not Path(f"/proc/{found[1]}").exists():
            multiprocess.mark_process_dead(int(found[1]))
