"""`cfmvc-scvi app`."""

from __future__ import annotations

__all__ = ["look"]

from pathlib import Path
from typing import Annotated

import typer

from cfmvc_scvi.cli import _options as options


def look(
    model_dir: Annotated[
        Path, typer.Argument(metavar="MODEL_DIR", exists=True, file_okay=False, help="Directory of a trained model.")
    ],
    data: options.Data,
    host: Annotated[
        str,
        typer.Option(help="Address to listen on. Others than this machine's own show your data to who can reach it."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8501,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")] = True,
) -> None:
    """Open a local page: choose cells and a perturbation, see where the cells go, which genes change, how sure it is.

    Needs the extra app. Only this machine reaches the page, unless --host says so. Stop it with Ctrl+C.

    Example: cfmvc-scvi app model kang.h5ad
    """
    from cfmvc_scvi.app import launch

    code = launch(model_dir, data, host=host, port=port, browser=browser)
    if code:
        raise typer.Exit(1)
