"""What a service may be asked, and how it is run; passed to its workers by environment variables."""

from __future__ import annotations

import ipaddress
import json
import os
from dataclasses import asdict, dataclass, field

from cfmvc_scvi.errors import DataError

__all__ = ["TOKEN_VARIABLE", "Limits", "ServeConfig", "is_loopback"]

TOKEN_VARIABLE = "CFMVC_SCVI_TOKEN"
_CONFIG_VARIABLE = "CFMVC_SCVI_SERVE"
_SHORTEST_TOKEN = 16


@dataclass(frozen=True)
class Limits:
    """What one request may cost; beyond it, it is refused.

    Attributes
    ----------
    body_bytes, unpacked_bytes
        Of the body as sent, and of a compressed body when unpacked.
    cells, json_cells
        Cells of a request, and of one in JSON.
    steps, samples
        Steps of the ODE, and draws of the noise.
    concurrent
        Requests that a worker holds at a time.
    read_seconds, answer_seconds
        To send the body, and to answer it.
    """

    body_bytes: int = 32 * 2**20
    unpacked_bytes: int = 256 * 2**20
    cells: int = 10_000
    json_cells: int = 256
    steps: int = 100
    samples: int = 8
    concurrent: int = 128
    read_seconds: float = 30.0
    answer_seconds: float = 120.0


@dataclass(frozen=True)
class ServeConfig:
    """How a service is run.

    Attributes
    ----------
    bundle
        Directory of the exported model.
    host, port
        Where it listens.
    workers
        Processes, each with the model.
    batching
        Whether concurrent requests are answered together.
    drain_seconds
        How long requests in work may take after SIGTERM.
    n_threads
        Threads of a worker's networks.
    limits
        What a request may cost.

    Raises
    ------
    DataError
        If a number is out of range.
    """

    bundle: str
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    batching: bool = True
    drain_seconds: int = 30
    n_threads: int = 1
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        for name, least in (("port", 0), ("workers", 1), ("drain_seconds", 0), ("n_threads", 1)):
            if getattr(self, name) < least:
                raise DataError(f"{name} is {getattr(self, name)}; it must be at least {least}")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the service."""
        return is_loopback(self.host)

    def token(self) -> str | None:
        """Return the token of the environment.

        Raises
        ------
        DataError
            If there is none and others can reach the service, or it is short.
        """
        token = os.environ.get(TOKEN_VARIABLE) or None
        if token is None and not self.is_local:
            raise DataError(
                f"no token is set, and others can reach {self.host}. Set {TOKEN_VARIABLE} to a secret (such as that of "
                "openssl rand -hex 32), or bind to 127.0.0.1"
            )
        if token is not None and (len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable()):
            raise DataError(f"the token in {TOKEN_VARIABLE} must have at least {_SHORTEST_TOKEN} printable characters")
        return token

    def to_environment(self) -> None:
        """Leave this where workers find it."""
        os.environ[_CONFIG_VARIABLE] = json.dumps(asdict(self))

    @classmethod
    def from_environment(cls) -> ServeConfig:
        """Return what `to_environment` left."""
        values = json.loads(os.environ[_CONFIG_VARIABLE])
        return cls(**{**values, "limits": Limits(**values["limits"])})


def is_loopback(host: str) -> bool:
    """Return whether a name or an address is one of this machine for itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
