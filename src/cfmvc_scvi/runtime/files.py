"""The directory of an exported model: ONNX, JSON and arrays, whose sha256 sums are checked before they are read."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfmvc_scvi.errors import CorruptModelError, ModelFileError
from cfmvc_scvi.model.persistence.manifest import MANIFEST_FILE, read_checked, read_manifest, write_manifest
from cfmvc_scvi.model.persistence.replace import replacing, resident
from cfmvc_scvi.runtime.card import Card
from cfmvc_scvi.runtime.onnx_networks import DECODER_FILE, ENCODER_FILE, field_file

__all__ = ["joined", "packed", "read_export", "split", "unpacked", "write_export"]

CARD_FILE = "card.json"
REFERENCE_FILE = "reference.npz"
GOLDEN_FILE = "golden.npz"
_PLAIN = "__plain__"  # name of the array that holds what is not an array, as JSON
_REQUIRED = frozenset({CARD_FILE, REFERENCE_FILE, GOLDEN_FILE, ENCODER_FILE, DECODER_FILE})


def write_export(
    directory: Path,
    card: Card,
    reference: dict[str, Any],
    golden: dict[str, Any],
    graphs: Mapping[str, bytes],
    *,
    overwrite: bool,
) -> None:
    """Write an exported model; what stood there before stays until the new one is complete.

    Parameters
    ----------
    directory
        To create, or with `overwrite` to replace.
    card, reference, golden, graphs
        The parts: `Card`, state of the `Reference`, a question with its answer, and ONNX files by name.
    overwrite
        Whether an exported model that stands there may be replaced.

    Raises
    ------
    ModelFileError
        If something stands there that may not be replaced.
    """
    contents = {
        CARD_FILE: json.dumps(card.to_dict(), allow_nan=False).encode(),
        REFERENCE_FILE: packed(reference),
        GOLDEN_FILE: packed(golden),
        **graphs,
    }
    with replacing(directory, _REQUIRED, overwrite=overwrite) as temporary:
        for name, content in contents.items():
            (temporary / name).write_bytes(content)
        write_manifest(temporary)


def read_export(directory: Path) -> tuple[Card, dict[str, Any], dict[str, Any], dict[str, bytes]]:
    """Read the parts of an exported model; nothing in it is executed but ONNX graphs, and no pickle is read.

    Raises
    ------
    ModelFileError
        If there is no exported model, or one of a newer format.
    CorruptModelError
        If a file is missing, truncated or altered.
    """
    place = resident(directory)
    if not (place / MANIFEST_FILE).is_file():
        raise ModelFileError(f"there is no exported model in '{directory}'; make one with cfmvc-scvi export")
    records = read_manifest(place)
    if CARD_FILE not in records:
        raise ModelFileError(f"'{directory}' is a saved model, not an exported one; export it with cfmvc-scvi export")
    if missing := sorted(_REQUIRED - records.keys()):
        raise CorruptModelError(f"'{place / MANIFEST_FILE}' does not list {', '.join(missing)}")
    contents = {name: read_checked(place / name, record) for name, record in records.items()}
    card = Card.from_dict(json.loads(contents[CARD_FILE]))
    names = {ENCODER_FILE, DECODER_FILE, *map(field_file, card.solvers)}
    if missing := sorted(names - contents.keys()):
        raise CorruptModelError(f"'{place}' lacks {', '.join(missing)}. Restore the directory from a copy")
    graphs = {name: contents[name] for name in names}
    return card, unpacked(contents[REFERENCE_FILE]), unpacked(contents[GOLDEN_FILE]), graphs


def packed(values: Mapping[str, Any]) -> bytes:
    """Return nested values as the bytes of a compressed npz: arrays under their path, all else as one JSON text."""
    arrays: dict[str, NDArray] = {}
    plain = split(values, "", arrays)
    text = np.frombuffer(json.dumps(plain).encode(), dtype=np.uint8)
    stream = io.BytesIO()
    np.savez_compressed(stream, **{_PLAIN: text}, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


def unpacked(content: bytes) -> dict[str, Any]:
    """Return what was `packed`; ValueError if it holds pickles."""
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    plain = json.loads(arrays.pop(_PLAIN).tobytes())
    return joined(plain, arrays)


def split(value: Any, path: str, arrays: dict[str, NDArray]) -> Any:
    """Return nested values with each array replaced by its name in `arrays`, which grows."""
    if isinstance(value, np.ndarray):
        arrays[path] = value
        return {"$array": path}
    if isinstance(value, Mapping):
        return {str(key): split(entry, f"{path}/{key}" if path else str(key), arrays) for key, entry in value.items()}
    return value.item() if isinstance(value, np.generic) else value


def joined(plain: Any, arrays: Mapping[str, NDArray]) -> Any:
    """Undo `split`."""
    if isinstance(plain, dict):
        if set(plain) == {"$array"}:
            return arrays[plain["$array"]]
        return {key: joined(entry, arrays) for key, entry in plain.items()}
    return plain
