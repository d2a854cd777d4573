"""The list of a bundle's files with sizes and sha256 sums: what is in it, and that nothing was lost or altered."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cfmvc_scvi.errors import CorruptModelError

__all__ = ["MANIFEST_FILE", "FileRecord", "check_file", "read_checked", "read_manifest", "write_manifest"]

MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True)
class FileRecord:
    """Size in bytes and sha256 (hexadecimal) of one file."""

    size: int
    sha256: str


def write_manifest(directory: Path) -> None:
    """Write the manifest of all files that stand in a directory."""
    records = {file.name: _record(file) for file in sorted(directory.iterdir())}
    (directory / MANIFEST_FILE).write_bytes(_serialise({name: asdict(record) for name, record in records.items()}))


def read_manifest(directory: Path) -> dict[str, FileRecord]:
    """Read a manifest.

    Parameters
    ----------
    directory
        Directory that holds the manifest.

    Returns
    -------
    Record of each file, by name.

    Raises
    ------
    CorruptModelError
        If the manifest is not, to the byte, what `write_manifest` writes: it carries its own sha256.
    """
    path = directory / MANIFEST_FILE
    data = path.read_bytes()
    try:
        files = json.loads(data)["files"]
        if _serialise(files) != data:
            raise ValueError("its own sha256 does not match")
        records = {name: FileRecord(**record) for name, record in files.items()}
        if any(Path(name).name != name for name in records):
            raise ValueError("it names a file outside of its directory")
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise _altered(path, str(error)) from error
    return records


def check_file(path: Path, record: FileRecord) -> None:
    """Raise CorruptModelError unless the file is there with the size and the sha256 of its record."""
    _check_present(path)
    if path.stat().st_size != record.size:
        raise _altered(path, f"{path.stat().st_size} bytes, the manifest says {record.size}")
    if _record(path) != record:
        raise _altered(path, "its sha256 is not that of the manifest")


def read_checked(path: Path, record: FileRecord) -> bytes:
    """Read a file once: the bytes that are returned are those that were checked as in `check_file`."""
    _check_present(path)
    data = path.read_bytes()
    if FileRecord(len(data), hashlib.sha256(data).hexdigest()) != record:
        raise _altered(path, f"{len(data)} bytes with another sha256 than the manifest's ({record.size} bytes)")
    return data


def _check_present(path: Path) -> None:
    if not path.is_file():
        raise CorruptModelError(f"'{path}' is missing, but the manifest lists it. Restore the directory from a copy")


def _altered(path: Path, what: str) -> CorruptModelError:
    return CorruptModelError(f"'{path}' is truncated or altered: {what}. Restore the directory from a copy")


def _record(path: Path) -> FileRecord:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileRecord(path.stat().st_size, digest)


def _serialise(files: Mapping[str, Any]) -> bytes:
    listing = json.dumps(files, sort_keys=True)
    return json.dumps({"files": files, "sha256": hashlib.sha256(listing.encode()).hexdigest()}, sort_keys=True).encode()
