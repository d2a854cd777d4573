"""Answers on disk: chunks in files of their own until all are there, then one AnnData."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, TypeAlias

import anndata
import h5py
import numpy as np
import scipy.sparse as sp
import zarr
from anndata import AnnData
from anndata.io import read_elem, write_elem
from torch import nn

from cfmvc_scvi.errors import DataError, UnsupportedError
from cfmvc_scvi.model.asked import Asked
from cfmvc_scvi.model.prediction import Parts

__all__ = ["ChunkStore"]

_H5_OPTIONS = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
_ROWS = 1024  # of a chunk of a dense array in HDF5

_Sizes: TypeAlias = Counter[tuple[str, str]]  # numbers of rows and of stored values by place


class ChunkStore:
    """Writes an answer chunk by chunk, so that a crash costs one chunk.

    A chunk is an HDF5 file in ``<out>.partial`` that appears whole or not at all; the answer is put together from
    them when all are there, and appears whole as well. Next to the chunks stands the question, so that no chunk of
    another one is ever taken for an answer.

    Parameters
    ----------
    out
        Path of the answer, ``.h5ad`` or ``.zarr``.
    names
        Names of the answers, if there are several.

    Raises
    ------
    UnsupportedError
        If `out` has another ending.
    DataError
        If `out` exists, its directory does not, or a name cannot be a key of a file.
    """

    def __init__(self, out: str | os.PathLike[str], names: Sequence[str] = ()) -> None:
        self.out = Path(out)
        self.folder = self.out.with_name(f"{self.out.name}.partial")
        self.n_chunks = 0
        if self.out.suffix not in (".h5ad", ".zarr"):
            raise UnsupportedError(f"out is '{self.out}'; give it the ending .h5ad or .zarr.")
        if self.out.exists():
            raise DataError(f"'{self.out}' exists; remove it, or choose another name for out.")
        if not self.out.absolute().parent.is_dir():
            raise DataError(f"There is no directory '{self.out.absolute().parent}' for out; make it first.")
        if unfit := [name for name in names if "/" in name]:
            raise DataError(
                f"{len(unfit)} perturbations cannot name a layer of a file for the '/' in them, first {unfit[0]!r}; "
                "ask for each of them alone."
            )

    def begin(self, arguments: dict[str, Any], seed: int, module: nn.Module, asked: Asked) -> int:
        """Begin to answer, or go on, and return the seed: of a question that had none, that of its first chunks.

        Raises
        ------
        DataError
            If chunks of another question are there.
        """
        self.n_chunks = -(-len(asked.rows) // (arguments["batch_size"] or _ROWS))
        question = _plain({**arguments, "model": _digest_of_weights(module), "cells": _digest_of_cells(asked)})
        path = self.folder / "question.json"
        if path.exists():
            before = json.loads(path.read_text())
            changed = sorted(key for key in question if before["question"].get(key) != question[key])
            if changed:
                raise DataError(
                    f"'{self.folder}' holds chunks of another question ({', '.join(changed)} differ); ask the same to "
                    "go on, remove the folder, or choose another name for out."
                )
            return int(before["seed"])
        self.folder.mkdir(exist_ok=True)
        self._appear(path, lambda temporary: temporary.write_text(json.dumps({"question": question, "seed": seed})))
        return seed

    @property
    def missing(self) -> list[int]:
        """Numbers of the chunks that are not there."""
        return [number for number in range(self.n_chunks) if not self._chunk(number).exists()]

    def add(self, chunks: Iterable[Parts]) -> Parts:
        """Write the missing chunks, given in their order; return no parts."""
        missing = self.missing
        for number, parts in zip(missing, chunks if missing else (), strict=True):
            self._appear(self._chunk(number), lambda path, parts=parts: _write_chunk(path, parts))
        return {}

    def finish(self, skeleton: AnnData) -> None:
        """Put the answer together from all chunks and the annotations of the cells, and remove the chunks."""
        self._appear(self.out, lambda path: self._assemble(path, skeleton))
        shutil.rmtree(self.folder)

    def _chunk(self, number: int) -> Path:
        return self.folder / f"{number:06d}.h5"

    def _files(self) -> Iterator[h5py.File]:
        for number in range(self.n_chunks):
            with h5py.File(self._chunk(number), "r") as file:
                yield file

    def _appear(self, path: Path, write: Any) -> None:
        """Write a file under another name first, so that it is whole when it appears."""
        temporary = self.folder / f"writing.{path.name}"
        shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink(missing_ok=True)
        write(temporary)
        temporary.replace(path)

    def _assemble(self, path: Path, skeleton: AnnData) -> None:
        is_h5 = self.out.suffix == ".h5ad"
        root: Any = h5py.File(path, "w") if is_h5 else zarr.open_group(path, mode="w", **_zarr_format())
        write_elem(root, "/", skeleton)
        room, filled = _Sizes(), _Sizes()
        for file in self._files():
            for place in _places(file):
                _count(file[place], place, room)
        for file in self._files():
            for place in _places(file):
                _append(root, place, read_elem(file[place]), room, filled)
        if is_h5:
            root.close()


def _zarr_format() -> dict[str, Any]:
    return {"zarr_format": anndata.settings.zarr_write_format} if int(zarr.__version__.split(".")[0]) > 2 else {}


def _write_chunk(path: Path, parts: Parts) -> None:
    with h5py.File(path, "w") as file:
        for place, block in parts.items():
            write_elem(file, place, block)


def _places(file: h5py.File) -> list[str]:
    """Return the places of the parts in a chunk."""
    return [place for kind in file for place in ([kind] if kind == "X" else [f"{kind}/{name}" for name in file[kind]])]


def _count(element: Any, place: str, sizes: _Sizes) -> None:
    """Add the rows, and of counts the stored values, of an element of a file."""
    is_sparse = "data" in element if isinstance(element, h5py.Group) else False
    sizes[place, "rows"] += element["indptr"].shape[0] - 1 if is_sparse else element.shape[0]
    sizes[place, "values"] += element["data"].shape[0] if is_sparse else 0


def _append(root: Any, place: str, block: Any, room: _Sizes, filled: _Sizes) -> None:
    """Put rows into an element of an open file, after those that are there; the first ones make room for all."""
    n_rows, n_values = room[place, "rows"], room[place, "values"]
    if place not in root:
        _make(root, place, block)
        if sp.issparse(block):
            for key, size in (("data", n_values), ("indices", n_values), ("indptr", n_rows + 1)):
                root[place][key].resize((size,))
            root[place].attrs["shape"] = (n_rows, block.shape[1])
        else:
            root[place].resize((n_rows, block.shape[1]))
    elif sp.issparse(block):
        first, value = filled[place, "rows"], filled[place, "values"]
        values, pointers = slice(value, value + block.nnz), slice(first + 1, first + 1 + block.shape[0])
        root[place]["data"][values], root[place]["indices"][values] = block.data, block.indices
        root[place]["indptr"][pointers] = block.indptr[1:].astype(np.int64) + value
    else:
        first = filled[place, "rows"]
        root[place][first : first + len(block)] = block
    filled[place, "rows"] += block.shape[0]
    filled[place, "values"] += block.nnz if sp.issparse(block) else 0


def _make(root: Any, place: str, block: Any) -> None:
    """Write the first rows of an element that will grow."""
    is_h5 = isinstance(root, h5py.File)
    options: dict[str, Any] = _H5_OPTIONS if is_h5 else {}
    if sp.issparse(block):
        block.indptr = block.indptr.astype(np.int64)  # more values may come than 32 bits can count
    elif is_h5:
        width = block.shape[1]
        options = {**options, "maxshape": (None, width), "chunks": (_ROWS, width)}
    write_elem(root, place, block, dataset_kwargs=options)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Return arguments as JSON gives them back."""
    plain = {key: asdict(value) if is_dataclass(value) else value for key, value in values.items()}  # type: ignore[arg-type]
    result: dict[str, Any] = json.loads(json.dumps(plain, default=list))
    return result


def _digest_of_weights(module: nn.Module) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode() + np.ascontiguousarray(value.cpu().numpy()).tobytes())
    return digest.hexdigest()


def _digest_of_cells(asked: Asked) -> str:
    """Digest of the names of the cells, in their order, and of what each is."""
    digest = hashlib.blake2b(repr(asked.own.kinds).encode(), digest_size=16)
    digest.update(asked.own.code.tobytes() + asked.names.tobytes())
    return digest.hexdigest()
