"""The model that users hold, and what it predicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfmvc_scvi._lazy import on_first_use

if TYPE_CHECKING:
    from cfmvc_scvi.model.cfmvc import CFMVC

__all__ = ["CFMVC"]

__getattr__ = on_first_use(__name__, {"cfmvc": ["CFMVC"]})  # predictions of an exported model need no torch
