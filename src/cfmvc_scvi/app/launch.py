"""Serving the page on this machine."""

from __future__ import annotations

__all__ = ["launch"]

import os
import subprocess
import sys
from pathlib import Path

from cfmvc_scvi._optional import require_extra

_LOOPBACK = "127.0.0.1"


def launch(
    model_dir: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    host: str = _LOOPBACK,
    port: int = 8501,
    browser: bool = True,
) -> int:
    """Serve the page until it is stopped, and return the exit code of its server.

    Whoever reaches the page can read the data. So it listens on this machine alone, unless told otherwise, and no usage
    statistics leave it.

    Parameters
    ----------
    model_dir
        Directory of a trained model.
    data
        File (.h5ad) with cells to ask about.
    host
        Address to listen on.
    port
        Port to listen on.
    browser
        Open the page in the browser of this machine.

    Raises
    ------
    MissingExtraError
        If Streamlit is not installed.
    """
    require_extra("streamlit", extra="app")
    options = {
        "server.address": host,
        "server.port": port,
        "server.headless": str(not browser).lower(),
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "viewer",
    }
    page = Path(__file__).with_name("_page.py")
    words = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "streamlit", "run", str(page), *words, "--"]
    return subprocess.run([*command, str(Path(model_dir).resolve()), str(Path(data).resolve())], check=False).returncode
