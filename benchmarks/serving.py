"""Load on a served model, over loopback: times of answers and cells per second, with micro-batching and without.

python benchmarks/serving.py EXPORTED [--clients 50] [--seconds 60] [--requests 10000] [--out DIR] [--tables DIR]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from cfmvc_scvi.runtime import Bundle
from cfmvc_scvi.wire import NPZ, write_npz

_RUN = "from cfmvc_scvi.cli import main; main()"
_CELLS = 8


def body_of(bundle: Bundle) -> bytes:
    """Return a request about 8 of the cells that the model carries with it, under the condition of its own question."""
    golden: Any = bundle._golden
    cells, question = golden["cells"], golden["question"]
    rows = np.resize(np.arange(len(cells["obs_names"])), _CELLS)
    obs = {name: [values[row] for row in rows] for name, values in cells["obs"].items()}
    names = [f"cell {number}" for number in range(_CELLS)]
    header = {"genes": bundle.genes, "names": names, "obs": obs, **question}
    return write_npz(header, {"counts": cells["X"][rows].astype(np.float32)})


class Service:
    """A service in processes of its own."""

    def __init__(self, exported: Path, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.token = secrets.token_hex(16)
        words = [sys.executable, "-c", _RUN, "serve", str(exported), "--port", str(self.port), *options]
        environment = {**os.environ, "CFMVC_SCVI_TOKEN": self.token}
        self.process = subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL)
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{self.port}/healthz").status_code == 200:
                    break
            except httpx.TransportError:
                if self.process.poll() is not None:
                    raise RuntimeError("the service did not start; run cfmvc-scvi serve to see why") from None
                time.sleep(0.1)

    def client(self) -> httpx.AsyncClient:
        """Return a client of it."""
        headers = {"authorization": f"Bearer {self.token}", "content-type": NPZ}
        return httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=120)

    def memory(self) -> float:
        """Return the resident memory of the process, MB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def cpu_seconds(self) -> float:
        """Return the time that the process has computed."""
        words = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """End it."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


async def load(service: Service, body: bytes, n_clients: int, seconds: float, most: int | None = None) -> list[float]:
    """Return the times of all answers to clients that each ask again when they have been answered."""
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def one() -> None:
        async with service.client() as http:
            while time.perf_counter() < end and (most is None or len(times) < most):
                start = time.perf_counter()
                answer = await http.post("/v1/counterfactual", content=body)
                answer.raise_for_status()
                times.append(time.perf_counter() - start)

    await asyncio.gather(*(one() for _ in range(n_clients)))
    return times


def measured(exported: Path, body: bytes, n_clients: int, seconds: float, *options: str) -> dict[str, float]:
    """Return what a service of these options achieves."""
    service = Service(exported, *options)
    try:
        asyncio.run(load(service, body, 2, 5.0))  # what is computed once
        start, used = time.perf_counter(), service.cpu_seconds()
        times = asyncio.run(load(service, body, n_clients, seconds))
        elapsed, used = time.perf_counter() - start, service.cpu_seconds() - used
    finally:
        service.stop()
    p50, p99 = np.quantile(times, [0.5, 0.99])
    cells = len(times) * _CELLS
    return {"answers": len(times), "p50": p50, "p99": p99, "cells": cells / elapsed, "cells_per_cpu": cells / used}


def growth(exported: Path, body: bytes, n_requests: int) -> list[float]:
    """Return the memory of a service before, and after 1/10, 2/10, ... of so many requests, MB."""
    service = Service(exported)
    try:
        result = [service.memory()]
        for _ in range(10):
            asyncio.run(load(service, body, 20, 1e6, n_requests // 10))
            result.append(service.memory())
    finally:
        service.stop()
    return result


def slope(memory: list[float], n_requests: int) -> float:
    """Return how memory grows after the first half of the requests, MB per 1,000 requests, by least squares."""
    later = memory[len(memory) // 2 :]
    return float(np.polyfit(np.arange(len(later)) * n_requests / 10 / 1000, later, 1)[0])


def table(rows: dict[str, dict[str, float]], memory: list[float], arguments: argparse.Namespace, genes: int) -> str:
    """Return the results as Markdown."""
    lines = [
        f"{arguments.clients} clients for {arguments.seconds:g} s that each ask for counterfactual counts of {_CELLS} "
        f"cells of {genes} genes (npz) and ask again when they are answered; one worker with one thread, on "
        f"{os.cpu_count()} cores ({platform.machine()}) that it shares with the clients.",
        "",
        "| | answers | p50, ms | p99, ms | cells/s | cells per CPU s of the worker |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        numbers = (row["answers"], 1e3 * row["p50"], 1e3 * row["p99"], row["cells"], row["cells_per_cpu"])
        lines.append(f"| {name} | {' | '.join(f'{number:.0f}' for number in numbers)} |")
    times = (rows["micro-batching"][key] / rows["one by one"][key] for key in ("cells", "cells_per_cpu"))
    by_clock, by_work = (f"{ratio:.1f}" for ratio in times)
    lines += [
        "",
        f"Micro-batching answers {by_clock} times as many cells in the time, and {by_work} times per CPU second.",
    ]
    if memory:
        listed = ", ".join(f"{value:.0f}" for value in memory)
        lines += [
            "",
            f"Memory of the worker at its start and after each tenth of {arguments.requests} requests of 20 clients, "
            f"MB: {listed}; in the second half {slope(memory, arguments.requests):+.2f} MB per 1,000 requests.",
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and if asked for write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exported", type=Path)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--requests", type=int, default=10_000, help="for the memory; 0 leaves it out")
    parser.add_argument("--out", type=Path, help="directory for serving.json")
    parser.add_argument("--tables", type=Path, help="directory for serving.md")
    arguments = parser.parse_args()
    bundle = Bundle.load(arguments.exported)
    body = body_of(bundle)
    ways = {"micro-batching": (), "one by one": ("--no-batching",)}
    rows = {
        name: measured(arguments.exported, body, arguments.clients, arguments.seconds, *options)
        for name, options in ways.items()
    }
    memory = growth(arguments.exported, body, arguments.requests) if arguments.requests else []
    text = table(rows, memory, arguments, len(bundle.genes))
    print(text)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        asked = {"clients": arguments.clients, "seconds": arguments.seconds, "requests": arguments.requests}
        found = {"asked": asked, "genes": len(bundle.genes), "ways": rows, "memory_mb": memory}
        (arguments.out / "serving.json").write_text(json.dumps(found, indent=1) + "\n")
    if arguments.tables is not None:
        (arguments.tables / "serving.md").write_text(text)


if __name__ == "__main__":
    main()
