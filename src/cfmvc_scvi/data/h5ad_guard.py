"""Refusing HDF5 files that make a reader open other files."""

from __future__ import annotations

import os

import h5py

from cfmvc_scvi.errors import DataError, UnsafeFileError

__all__ = ["assert_self_contained"]


def assert_self_contained(path: str | os.PathLike[str]) -> None:
    """Raise unless all data of an HDF5 file (h5ad, h5mu) stand in the file itself.

    An external link, a data set with external storage, or a virtual data set lets a file that was downloaded or
    uploaded copy any file of this machine into its arrays. No link is followed and no data are read to find them; a
    virtual data set that points into its own file is refused too.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    UnsafeFileError
        If a part of the file refers to another file; the message names it.
    DataError
        If the file cannot be read as HDF5.
    """
    try:
        with h5py.File(path, "r") as file:
            found = _first_reference(file)
    except (OSError, RuntimeError) as error:
        raise DataError(f"'{os.fspath(path)}' cannot be read as HDF5: {error}") from error
    if found is not None:
        name, reason = found
        raise UnsafeFileError(
            f"'{os.fspath(path)}' is refused: {name!r} {reason}, so that reading it would read other files. "
            "If you trust the file, copy its content into a new one"
        )


def _first_reference(file: h5py.File) -> tuple[str, str] | None:
    """Name of the first object that refers to another file, and why; None if there is none."""
    groups, visited = [("", file["/"])], set()
    while groups:
        parent, group = groups.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in visited:  # hard links may form a cycle
            continue
        visited.add(address)
        for key in group:
            name = f"{parent}/{key}"
            reason, item = _inspect(group, key)
            if reason is not None:
                return name, reason
            if isinstance(item, h5py.Group):
                groups.append((name, item))
    return None


def _inspect(group: h5py.Group, key: str) -> tuple[str | None, object]:
    """Reason to refuse a member of a group, and the member itself if a hard link leads to it."""
    try:
        link = group.get(key, getlink=True)
    except TypeError:
        return "is a link of an unknown type", None
    if isinstance(link, h5py.ExternalLink):
        return f"is an external link to '{link.filename}'", None
    if isinstance(link, h5py.SoftLink):  # its target is a member of this file, which is inspected where it stands
        return None, None
    item = group[key]
    if isinstance(item, h5py.Dataset):
        if item.is_virtual:
            return "is a virtual data set", None
        if item.external:
            return f"is stored in the external file '{item.external[0][0]}'", None
    return None, item
