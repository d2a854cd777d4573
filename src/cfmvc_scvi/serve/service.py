"""The service as an ASGI application."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cfmvc_scvi._optional import require_extra
from cfmvc_scvi.runtime import Bundle
from cfmvc_scvi.serve.config import Limits

__all__ = ["create_app"]


def create_app(
    bundle: Bundle,
    *,
    token: str | None = None,
    limits: Limits | None = None,
    batching: bool = True,
    local_names: bool = False,
) -> Callable[..., Any]:
    """Return the service of an exported model as an ASGI application.

    Parameters
    ----------
    bundle
        The model; this service alone may use it.
    token
        What a client must send, on every route but the health check; None lets everybody in.
    limits
        What a request may cost; None is the default of `Limits`.
    batching
        Whether concurrent requests are answered together.
    local_names
        Whether only requests to a loopback name or address are answered, as `run` has it where there is no token: a
        page in a browser could ask otherwise.

    Raises
    ------
    MissingExtraError
        If the extra ``serve`` is not installed.
    """
    for module in ("fastapi", "prometheus_client"):
        require_extra(module, "serve")
    from cfmvc_scvi.serve._app import application

    return application(bundle, token, limits or Limits(), batching, local_names)
