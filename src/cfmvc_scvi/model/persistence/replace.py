"""Replacing a directory of files as a whole: a kill at any moment leaves the old one or the new one, complete.

The new directory is written under a temporary name beside the old one, brought to disk, and renamed. Directories cannot
be exchanged portably, so the old one is first renamed to a backup; if the process dies between the two renames, the
backup is what counts (`resident`), and the next replacement puts it back before anything else.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from cfmvc_scvi.errors import CFMVCWarning, CorruptModelError, ModelFileError
from cfmvc_scvi.model.persistence.manifest import MANIFEST_FILE, read_manifest

try:
    import fcntl
except ImportError:  # not on Windows, where leftovers of killed processes stay
    fcntl = None  # type: ignore[assignment]

__all__ = ["replacing", "resident"]


def resident(path: Path) -> Path:
    """Where the bundle named `path` stands: at `path`, or at its backup if a replacement was interrupted there."""
    backup = _backup(path)
    if not _has_manifest(path) and _has_manifest(backup):
        warnings.warn(
            f"a save to '{path}' was interrupted; reading the model that stood there before, from '{backup}'. "
            "The next save to this name restores it or replaces it",
            CFMVCWarning,
            stacklevel=2,
        )
        return backup
    return path


@contextmanager
def replacing(path: Path, ours: frozenset[str], *, overwrite: bool) -> Iterator[Path]:
    """Give a temporary directory to write in, and rename it to `path` when the block ends without an error.

    Parameters
    ----------
    path
        Directory to create or replace; links are followed.
    ours
        Names of files which are known to belong to a bundle even if its manifest is damaged.
    overwrite
        Whether a bundle, or an empty directory, that stands at `path` may be replaced.

    Yields
    ------
    The temporary directory, empty.

    Raises
    ------
    ModelFileError
        If something stands at `path` that may not be replaced; nothing has been touched then.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    _restore(path)
    _check_replaceable(path, ours, overwrite)
    _sweep(path)
    temporary = path.with_name(f"{_temporary_prefix(path)}{uuid4().hex}")
    temporary.mkdir()
    try:
        with _locked(temporary):
            yield temporary
            for file in temporary.iterdir():
                _sync(file)
            _sync(temporary)
            _check_replaceable(path, ours, overwrite)  # writing may have taken a while
            _swap(temporary, path, ours)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _backup(path: Path) -> Path:
    path = Path(os.path.realpath(path))
    return path.with_name(f".{path.name}.previous")


def _temporary_prefix(path: Path) -> str:
    return f".{path.name}.saving-"


def _has_manifest(directory: Path) -> bool:
    return (directory / MANIFEST_FILE).is_file()


def _owned(directory: Path, ours: frozenset[str]) -> set[str]:
    """Names of the files in a bundle that a save has written; data only if an intact manifest lists them."""
    try:
        return {*read_manifest(directory), MANIFEST_FILE}
    except (CorruptModelError, FileNotFoundError):
        return {*ours, MANIFEST_FILE}


def _check_replaceable(path: Path, ours: frozenset[str], overwrite: bool) -> None:
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise ModelFileError(f"'{path}' already exists. Choose another directory, or pass overwrite=True")
    if not path.is_dir():
        raise ModelFileError(f"'{path}' is a file, not a directory. Choose another name")
    entries = {entry.name for entry in path.iterdir()}
    if entries and MANIFEST_FILE not in entries:
        raise ModelFileError(f"'{path}' is not a saved model and not empty. Choose another directory")
    foreign = sorted(entries - _owned(path, ours))
    if entries and foreign:
        raise ModelFileError(
            f"'{path}' also holds {len(foreign)} entries that no save has written ({', '.join(foreign[:5])}); "
            "overwriting would delete them. Move them away, or choose another directory"
        )


def _restore(path: Path) -> None:
    """Put the backup of an interrupted replacement back in place."""
    backup = _backup(path)
    if _has_manifest(backup) and not _has_manifest(path):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        if not os.path.lexists(path):
            os.rename(backup, path)


def _swap(temporary: Path, path: Path, ours: frozenset[str]) -> None:
    backup = _backup(path)
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()
    if path.exists():
        _remove(backup, ours)
        os.rename(path, backup)
        try:
            os.rename(temporary, path)
        except OSError:
            os.rename(backup, path)
            raise
    else:
        os.rename(temporary, path)
    _sync(path.parent)
    _remove(backup, ours)


def _remove(directory: Path, ours: frozenset[str]) -> None:
    """Remove the files of a bundle, the manifest last, and the directory; what is not of the bundle makes this fail."""
    if not directory.is_dir():
        return
    for name in sorted(_owned(directory, ours), key=lambda name: name == MANIFEST_FILE):
        (directory / name).unlink(missing_ok=True)
    directory.rmdir()


def _sweep(path: Path) -> None:
    """Remove what killed saves to this name have left; a save that is alive holds a lock."""
    for entry in list(path.parent.iterdir()):
        if entry.name.startswith(_temporary_prefix(path)):
            with _locked(entry) as dead:
                if dead:
                    shutil.rmtree(entry, ignore_errors=True)


@contextmanager
def _locked(directory: Path) -> Iterator[bool]:
    """Try to lock a directory until the block, or the process, ends; yields whether that was possible."""
    if fcntl is None:
        yield False
        return
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # held by a living process, or a file system without locks
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    """Bring a file, or the entries of a directory, to disk."""
    if path.is_dir() and os.name == "nt":  # Windows has no handle of a directory to flush
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
