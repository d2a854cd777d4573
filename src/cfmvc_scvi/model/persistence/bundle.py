"""A saved model on disk: safetensors and JSON with sha256 sums, replaced as a whole, read without executing code."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch
from safetensors import SafetensorError

from cfmvc_scvi.errors import CorruptModelError, ModelFileError, UnsafeFileError
from cfmvc_scvi.model.persistence.codec import decode, encode
from cfmvc_scvi.model.persistence.manifest import MANIFEST_FILE, check_file, read_checked, read_manifest, write_manifest
from cfmvc_scvi.model.persistence.replace import replacing, resident

__all__ = ["ADATA_FILE", "FORMAT_VERSION", "MDATA_FILE", "Bundle", "read_bundle", "write_bundle"]

FORMAT_VERSION = 1
ADATA_FILE = "adata.h5ad"
MDATA_FILE = "mdata.h5mu"

_FORMAT = "cfmvc-scvi model"
_WEIGHTS_FILE = "weights.safetensors"
_ARRAYS_FILE = "arrays.safetensors"
_MODEL_FILE = "model.json"
_PICKLE_FILE = "model.pt"
_REQUIRED = frozenset({_WEIGHTS_FILE, _ARRAYS_FILE, _MODEL_FILE})
_CONTENT_KEYS = ("attributes", "var_names", "extras")
_HEADER_KEYS = frozenset({"format", "format_version", "class_name", "versions", *_CONTENT_KEYS})
_PACKAGES = ("cfmvc-scvi", "scvi-tools", "anndata", "torch", "numpy", "pandas")
_MALFORMED = (ArithmeticError, AttributeError, LookupError, RecursionError, SafetensorError, TypeError, ValueError)


@dataclass(frozen=True)
class Bundle:
    """Everything that is saved of a model, beside its data.

    Parameters
    ----------
    class_name
        Name of the model's class.
    state_dict
        Weights and buffers of the module, dense tensors of any dtype of safetensors, on any device.
    attributes
        Attributes of the model whose names end in ``"_"``; their types are those of `codec.encode`.
    var_names
        Names of the genes.
    extras
        State that is kept elsewhere than in attributes; same types.
    versions
        Versions of the packages that wrote the bundle (filled by `read_bundle`).
    data_file
        The AnnData or MuData saved with the model, if any (filled by `read_bundle`); it has not been opened.
    """

    class_name: str
    state_dict: Mapping[str, torch.Tensor]
    attributes: dict[str, Any]
    var_names: Any
    extras: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    data_file: Path | None = None


def write_bundle(
    path: str | Path,
    bundle: Bundle,
    *,
    overwrite: bool = False,
    write_data: tuple[str, Callable[[Path], None]] | None = None,
) -> None:
    """Write a bundle as a directory: a crash at any moment leaves what stood there before, or the new bundle, complete.

    Parameters
    ----------
    path
        Directory to create; missing parents are created too.
    bundle
        What to write; its `versions` and `data_file` are not used.
    overwrite
        Replace the bundle that stands at `path`, as a whole: data that were saved with it go too.
    write_data
        ``ADATA_FILE`` or ``MDATA_FILE``, and what writes the data of the model to the path that it is given.

    Raises
    ------
    ModelFileError
        If `path` exists (and `overwrite` is False), or holds files that no save has written, or if a part of the bundle
        cannot be encoded.
    """
    contents = _serialise(bundle)
    with replacing(Path(path), _REQUIRED, overwrite=overwrite) as directory:
        for name, data in contents.items():
            (directory / name).write_bytes(data)
        if write_data is not None:
            name, write = write_data
            write(directory / name)
        write_manifest(directory)


def read_bundle(path: str | Path, *, device: str | torch.device = "cpu", trust_pickle: bool = False) -> Bundle:
    """Read a bundle. Sizes and sha256 sums of all files are checked before any of them is parsed.

    The sums find accidents, not attackers, who could renew them; against those stands that nothing is executed.

    Parameters
    ----------
    path
        Directory of the bundle.
    device
        Where the tensors go.
    trust_pickle
        Also read the ``model.pt`` of plain scvi-tools, a pickle: reading it runs whatever code its author put there.
        It is never read where a manifest stands.

    Returns
    -------
    The bundle.

    Raises
    ------
    CorruptModelError
        If a file is missing, truncated or altered.
    UnsafeFileError
        If there is only a ``model.pt`` and `trust_pickle` is False.
    ModelFileError
        If there is no model at `path`, or one of a newer format.
    """
    directory = resident(Path(path))
    present = {entry.name for entry in directory.iterdir()} if directory.is_dir() else set()
    if MANIFEST_FILE in present:
        return _read_directory(directory, device)
    if present & _REQUIRED:
        raise CorruptModelError(f"'{directory / MANIFEST_FILE}' is missing. Restore the directory from a copy")
    if _PICKLE_FILE not in present:
        raise ModelFileError(f"there is no saved model at '{path}'")
    if not trust_pickle:
        raise UnsafeFileError(
            f"'{directory / _PICKLE_FILE}' is a pickle, as plain scvi-tools writes it: reading it runs any code that "
            "its author put there. If you trust the author, pass trust_pickle=True, and save the model again"
        )
    return _read_pickle(directory, device)


def _serialise(bundle: Bundle) -> dict[str, bytes]:
    arrays: dict[str, np.ndarray] = {}
    header = {
        "format": _FORMAT,
        "format_version": FORMAT_VERSION,
        "class_name": bundle.class_name,
        "versions": _installed_versions(),
    }
    header |= {key: encode(getattr(bundle, key), key, arrays) for key in _CONTENT_KEYS}
    return {
        _WEIGHTS_FILE: safetensors.torch.save({k: _dense(k, v) for k, v in bundle.state_dict.items()}),
        _ARRAYS_FILE: safetensors.numpy.save(arrays),
        _MODEL_FILE: json.dumps(header, allow_nan=False).encode(),
    }


def _dense(name: str, value: Any) -> torch.Tensor:
    """Own copy of a tensor on the CPU, in C order: safetensors refuses memory that tensors share."""
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.is_quantized:
        raise ModelFileError(f"state_dict[{name!r}] cannot be saved: it is not a dense tensor ({type(value).__name__})")
    return value.detach().to("cpu").clone(memory_format=torch.contiguous_format)


def _installed_versions() -> dict[str, str]:
    def installed(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:  # run from a source tree
            return "unknown"

    return {package: installed(package) for package in _PACKAGES}


def _read_directory(directory: Path, device: str | torch.device) -> Bundle:
    records = read_manifest(directory)
    if missing := sorted(_REQUIRED - records.keys()):
        raise CorruptModelError(f"'{directory / MANIFEST_FILE}' does not list {', '.join(missing)}")
    contents = {name: read_checked(directory / name, records[name]) for name in sorted(_REQUIRED)}
    for name in sorted(records.keys() - _REQUIRED):
        check_file(directory / name, records[name])
    try:
        header = json.loads(contents[_MODEL_FILE])
        _check_header(directory, header)
        arrays = safetensors.numpy.load(contents[_ARRAYS_FILE])
        state_dict = safetensors.torch.load(contents[_WEIGHTS_FILE])
        return Bundle(
            class_name=header["class_name"],
            state_dict={name: tensor.to(device) for name, tensor in state_dict.items()},
            versions=header["versions"],
            data_file=_data_file(directory, set(records)),
            **{key: decode(header[key], arrays) for key in _CONTENT_KEYS},
        )
    except ModelFileError:
        raise
    except _MALFORMED as error:
        raise CorruptModelError(
            f"'{directory}' is complete, but not as a save writes it ({_MODEL_FILE}: {type(error).__name__}: {error})"
        ) from error


def _check_header(directory: Path, header: dict[str, Any]) -> None:
    if header["format"] != _FORMAT:
        raise ValueError(f"unknown format {header['format']!r}")
    if header["format_version"] > FORMAT_VERSION:
        raise ModelFileError(
            f"'{directory}' has format version {header['format_version']}, this package reads up to {FORMAT_VERSION}. "
            f"It was written by {header.get('versions')}; upgrade cfmvc-scvi"
        )
    if unknown := sorted(header.keys() - _HEADER_KEYS):
        names = ", ".join(unknown[:5])
        raise ModelFileError(f"'{directory / _MODEL_FILE}' has {len(unknown)} unknown entries: {names}")


def _read_pickle(directory: Path, device: str | torch.device) -> Bundle:
    path = directory / _PICKLE_FILE
    try:
        content = torch.load(path, map_location=device, weights_only=False)
        state_dict = dict(content["model_state_dict"])
        attributes = dict(content["attr_dict"])
        var_names = content["var_names"]
        class_name = attributes["registry_"]["model_name"]
    except (EOFError, LookupError, RuntimeError, TypeError, ValueError, pickle.UnpicklingError) as error:
        raise CorruptModelError(f"'{path}' cannot be read as a model of scvi-tools: {error}") from error
    state_dict.pop("pyro_param_store", None)  # global to the process, and no part of this module
    data_file = _data_file(directory, {entry.name for entry in directory.iterdir()})
    return Bundle(class_name, state_dict, attributes, var_names, data_file=data_file)


def _data_file(directory: Path, names: set[str]) -> Path | None:
    return next((directory / name for name in (ADATA_FILE, MDATA_FILE) if name in names), None)
