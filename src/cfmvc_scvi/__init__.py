"""Counterfactual single cells by conditional flow matching, inside the scverse."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cfmvc_scvi import callbacks, datasets, pl, pp, tl
    from cfmvc_scvi.model import CFMVC

__all__ = ["CFMVC", "callbacks", "datasets", "pl", "pp", "tl"]

__version__ = version("cfmvc-scvi")


def __getattr__(name: str) -> Any:
    """Import a room when it is first used, so that the command line answers without loading torch."""
    if name == "CFMVC":
        return import_module("cfmvc_scvi.model").CFMVC
    if name in __all__:
        return import_module(f"cfmvc_scvi.{name}")
    raise AttributeError(f"module 'cfmvc_scvi' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the names of this module, those that are not imported yet included."""
    return sorted([*globals(), *__all__])
