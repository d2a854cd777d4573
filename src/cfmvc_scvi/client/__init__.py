"""Client of a served model: AnnData in and out."""

from __future__ import annotations

from cfmvc_scvi.client.client import Client, ServiceError

__all__ = ["Client", "ServiceError"]
