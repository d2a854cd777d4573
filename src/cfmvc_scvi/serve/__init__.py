"""A web service of an exported model."""

from __future__ import annotations

from cfmvc_scvi.serve.config import Limits, ServeConfig
from cfmvc_scvi.serve.run import run
from cfmvc_scvi.serve.service import create_app

__all__ = ["Limits", "ServeConfig", "create_app", "run"]
