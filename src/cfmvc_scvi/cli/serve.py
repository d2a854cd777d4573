"""`cfmvc-scvi serve`."""

from __future__ import annotations

__all__ = ["serve"]

import logging
from pathlib import Path
from typing import Annotated

import typer

_LIMITS = "Limits of a request"


def serve(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", exists=True, file_okay=False, help="Directory of an exported model.")
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen at; others than this machine need a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, help="Processes, each with the model.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads of a worker's networks.")] = 1,
    drain_seconds: Annotated[int, typer.Option(min=0, help="Time to finish what is in work after SIGTERM.")] = 30,
    batching: Annotated[
        bool, typer.Option("--batching/--no-batching", help="Answer concurrent requests together.")
    ] = True,
    max_cells: Annotated[int, typer.Option(min=1, rich_help_panel=_LIMITS, help="Cells.")] = 10_000,
    max_megabytes: Annotated[int, typer.Option(min=1, rich_help_panel=_LIMITS, help="Size of the body.")] = 32,
    max_seconds: Annotated[float, typer.Option(min=0.1, rich_help_panel=_LIMITS, help="Time to answer.")] = 120.0,
    max_concurrent: Annotated[int, typer.Option(min=1, rich_help_panel=_LIMITS, help="Requests at a time.")] = 128,
) -> None:
    """Serve an exported model on the web. The token that clients must send is read from CFMVC_SCVI_TOKEN.

    Example: cfmvc-scvi serve exported
    """
    from cfmvc_scvi._optional import require_extra

    for module in ("fastapi", "uvicorn", "prometheus_client"):
        require_extra(module, "serve")
    from cfmvc_scvi.serve import Limits, ServeConfig, run

    logging.disable(logging.NOTSET)  # other commands hide what libraries say; the log of a service is what it shows
    body = max_megabytes * 2**20
    limits = Limits(
        body_bytes=body,
        unpacked_bytes=8 * body,
        cells=max_cells,
        answer_seconds=max_seconds,
        concurrent=max_concurrent,
    )
    run(ServeConfig(str(bundle), host, port, workers, batching, drain_seconds, threads, limits))
