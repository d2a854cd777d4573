"""The command line, `cfmvc-scvi`: checks what it is given, calls the library, shows what comes out."""

from __future__ import annotations

from cfmvc_scvi.cli.app import app, main

__all__ = ["app", "main"]
