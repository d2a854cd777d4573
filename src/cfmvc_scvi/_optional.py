"""Optional dependencies: imported inside the functions that need them, with an error that says how to install them."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from cfmvc_scvi.errors import MissingExtraError

__all__ = ["require_extra"]


def require_extra(module: str, extra: str) -> ModuleType:
    """Import an optional module, or say which extra brings it.

    Parameters
    ----------
    module
        Dotted name of the module to import, for example ``"pooch"``.
    extra
        Name of the extra of this package that installs it, for example ``"datasets"``.

    Returns
    -------
    The imported module.

    Raises
    ------
    MissingExtraError
        If the module, or the package it is in, is not installed. An import that fails *inside* an installed module
        is not hidden: it is raised as it is.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
            raise
        raise MissingExtraError(
            f"'{module}' is not installed; it is needed here and comes with the extra '{extra}': "
            f'pip install "cfmvc-scvi[{extra}]"'
        ) from error
