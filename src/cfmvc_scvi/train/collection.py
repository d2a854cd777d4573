"""Minibatches of the cells of a collection on disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.random import Generator
from numpy.typing import NDArray
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager, AnnTorchDataset
from scvi.dataloaders import DataSplitter
from torch import Tensor

from cfmvc_scvi.data import Collection, load_requests
from cfmvc_scvi.errors import DataError, UnsupportedError

__all__ = ["CollectionDataModule"]


class CollectionDataModule(LightningDataModule):
    """Feeds the training of counts from a collection of `annbatch`; made by `CFMVC.setup_annbatch`.

    A minibatch has every registered key, as that of an AnnData has. Cells are split as scvi-tools splits those of an
    AnnData, one by one: with one seed, the same cells are training cells, wherever they are stored.

    Parameters
    ----------
    collection
        The cells.
    manager
        Of their annotations, registered with the fields of `CFMVC`.
    chunk_size, preload_nchunks
        See `data.load_requests`.

    Attributes
    ----------
    train_idx, val_idx, test_idx
        The split, once `split` was called.
    """

    def __init__(
        self, collection: Collection, manager: AnnDataManager, *, chunk_size: int = 256, preload_nchunks: int = 32
    ) -> None:
        super().__init__()
        for name, value in (("chunk_size", chunk_size), ("preload_nchunks", preload_nchunks)):
            if value < 1:
                raise ValueError(f"{name} is {value}; pass a number >= 1.")
        self.collection, self.manager = collection, manager
        self.chunk_size, self.preload_nchunks = chunk_size, preload_nchunks
        self.data_loader_kwargs: dict[str, Any] = {}  # read by scvi's mlflow logger
        self.train_idx = self.val_idx = self.test_idx = np.empty(0, dtype=int)
        self.batch_size = 0
        keys = [key for key in manager.data_registry if key != REGISTRY_KEYS.X_KEY]
        self._annotations = AnnTorchDataset(manager, getitem_tensors=keys)

    @property
    def registry(self) -> dict[str, Any]:
        """Registry for `CFMVC(registry=...)`: the one that `setup_anndata` makes of the same cells in memory."""
        return self.manager.registry

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return self.collection.counts.shape[0]

    @property
    def n_vars(self) -> int:
        """Number of genes."""
        return self.collection.counts.shape[1]

    @property
    def n_train(self) -> int:
        """Number of training cells."""
        return len(self.train_idx)

    @property
    def n_val(self) -> int:
        """Number of validation cells."""
        return len(self.val_idx)

    def split(
        self,
        train_size: float | None,
        validation_size: float | None,
        shuffle_set_split: bool,
        batch_size: int,
        datasplitter_kwargs: dict[str, Any],
    ) -> None:
        """Split the cells as :class:`scvi.dataloaders.DataSplitter` does, for minibatches of about `batch_size`.

        Raises
        ------
        UnsupportedError
            If `datasplitter_kwargs` has more than ``external_indexing``.
        """
        if other := sorted(datasplitter_kwargs.keys() - {"external_indexing"}):
            raise UnsupportedError(
                f"datasplitter_kwargs has {', '.join(other)}, which is for AnnData; for a collection only "
                "'external_indexing' has a meaning."
            )
        splitter = DataSplitter(
            self.manager, train_size, validation_size, shuffle_set_split, batch_size=batch_size, **datasplitter_kwargs
        )
        splitter.setup()
        parts = splitter.train_idx, splitter.val_idx, splitter.test_idx
        self.train_idx, self.val_idx, self.test_idx = (np.asarray(part, dtype=int) for part in parts)
        self.batch_size = batch_size

    def train_dataloader(self) -> Iterable[dict[str, Tensor]]:
        """Return the minibatches of an epoch, in a new random order each time they are iterated."""
        trainer = self.trainer
        if trainer is not None and trainer.world_size > 1:
            raise UnsupportedError(
                "A collection is read by one process; train in one, or from an AnnData (backed, if need be)."
            )
        return _Pass(self, self.train_idx, shuffle=True)

    def val_dataloader(self) -> Iterable[dict[str, Tensor]]:
        """Return the validation cells in minibatches, in the order of the collection."""
        return _Pass(self, self.val_idx, shuffle=False) if len(self.val_idx) else []

    def inference_dataloader(self, indices: Any = None, batch_size: int = 2048) -> Iterable[dict[str, Tensor]]:
        """Return cells in minibatches, for the argument `dataloader` of the methods of the model.

        Parameters
        ----------
        indices
            Increasing positions of cells; None is all, in the order of the collection.
        batch_size
            Cells in a minibatch.
        """
        rows = np.arange(self.n_obs) if indices is None else np.asarray(indices)
        if len(rows) and (np.diff(rows) <= 0).any():
            raise DataError("indices of cells of a collection must be increasing; sort them.")
        return _Stretches(self, rows, batch_size)

    def minibatch(self, rows: NDArray[np.integer], counts: NDArray[np.float32]) -> dict[str, Tensor]:
        """Return what the module reads of cells, at these positions and with these counts."""
        values = {REGISTRY_KEYS.X_KEY: counts, **self._annotations[rows]}
        return {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in values.items()}


class _Pass:
    """Minibatches of some cells, read by annbatch."""

    def __init__(self, data: CollectionDataModule, rows: NDArray[np.integer], *, shuffle: bool) -> None:
        self.data, self.rows, self.shuffle = data, rows, shuffle

    def __len__(self) -> int:
        return max(1, round(len(self.rows) / self.data.batch_size))

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        data, rng = self.data, _drawn_generator() if self.shuffle else None
        sizes = {"chunk_size": data.chunk_size, "preload_nchunks": data.preload_nchunks}
        requests = load_requests(self.rows, data.n_obs, len(self), **sizes, rng=rng)
        for rows, counts in data.collection.minibatches(requests, len(self)):
            yield data.minibatch(rows, counts)


class _Stretches:
    """Minibatches of some cells in the order of the collection."""

    def __init__(self, data: CollectionDataModule, rows: NDArray[np.integer], batch_size: int) -> None:
        self.data, self.rows, self.batch_size = data, rows, batch_size

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for start in range(0, len(self.rows), self.batch_size):
            rows = self.rows[start : start + self.batch_size]
            counts = self.data.collection.counts[rows].toarray().astype(np.float32, copy=False)
            yield self.data.minibatch(rows, counts)


def _drawn_generator() -> Generator:
    """Return a generator seeded by torch's, as torch's own samplers are: a training that is resumed restores that."""
    return np.random.default_rng(int(torch.empty((), dtype=torch.int64).random_()))
