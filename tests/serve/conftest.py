import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import pytest

from cfmvc_scvi import CFMVC
from cfmvc_scvi.runtime import Bundle

TOKEN = "a-token-for-the-tests"
RUN = "from cfmvc_scvi.cli import main; main()"


@pytest.fixture(scope="session")
def exported(served: CFMVC, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a model with all that can be registered, exported with one solver."""
    from cfmvc_scvi.export import to_onnx

    path = tmp_path_factory.mktemp("served") / "exported"
    to_onnx(served, path, solvers=["midpoint"])
    return path


@pytest.fixture(scope="session")
def bundle(exported: Path) -> Bundle:
    return Bundle.load(exported)


class Live:
    """A service that runs as users run it."""

    def __init__(self, bundle: Path, log: Path, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url, self.log = f"http://127.0.0.1:{port}", log
        words = [sys.executable, "-c", RUN, "serve", str(bundle), "--port", str(port), *options]
        environment = {**os.environ, "CFMVC_SCVI_TOKEN": TOKEN}
        with log.open("w") as stderr:
            self.process = subprocess.Popen(words, stderr=stderr, stdout=stderr, env=environment)

    def wait(self) -> None:
        """Wait until it answers."""
        import httpx

        for _ in range(600):
            try:
                if httpx.get(f"{self.url}/healthz").status_code == 200:
                    return
            except httpx.TransportError:
                assert self.process.poll() is None, self.log.read_text()
                time.sleep(0.1)
        raise AssertionError(self.log.read_text())

    def http(self, **options: Any) -> Any:
        """Return a client of it, which has the token."""
        import httpx

        limits = httpx.Limits(max_connections=None)
        headers = {"authorization": f"Bearer {TOKEN}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=120, limits=limits, **options)

    def stop(self) -> int:
        """Ask it to end; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.fixture(scope="session")
def start(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Live]]:
    """Start a service with options of the command line; it is stopped at the end."""
    running: list[Live] = []

    def make(*options: str) -> Live:
        live = Live(exported, tmp_path_factory.mktemp("logs") / "service.log", *options)
        running.append(live)
        live.wait()
        return live

    yield make
    for live in running:
        if live.process.poll() is None:
            live.process.kill()
            live.process.wait()


@pytest.fixture(scope="session")
def live(start: Callable[..., Live]) -> Live:
    """One service for all tests that leave it as it is."""
    return start("--max-megabytes", "1", "--max-cells", "500")


@pytest.fixture
def question(few: ad.AnnData) -> dict[str, Any]:
    """A request in JSON: four cells, asked for under A at dose 2."""
    columns = ("perturbation", "dose", "cell_type", "batch", "sample", "phase", "site", "mito")
    return {
        "genes": list(few.var_names),
        "names": list(few.obs_names[:4]),
        "counts": few.X[:4].toarray().tolist(),
        "obs": {column: few.obs[column][:4].tolist() for column in columns},
        "perturbation": "A",
        "dose": 2.0,
        "seed": 5,
    }
