"""Names of a room that are imported when they are first used, so that its light files can be had without the heavy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

__all__ = ["on_first_use"]


def on_first_use(package: str, files: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a package whose names live in files that are imported when one is asked for.

    Parameters
    ----------
    package
        Name of the package.
    files
        File of the package -> names that it gives.

    Examples
    --------
    >>> get = on_first_use("json", {"decoder": ["JSONDecoder"]})
    >>> get("JSONDecoder").__module__
    'json.decoder'
    """
    homes = {name: file for file, names in files.items() for name in names}

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return get
