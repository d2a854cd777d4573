"""What a trained model keeps of its cells: groups, levels, latents in the flow's coordinates."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager

from cfmvc_scvi._keys import CFMVC_REGISTRY_KEYS
from cfmvc_scvi.config import PairConfig, ReferenceConfig
from cfmvc_scvi.data import Contexts, CountRows, PerturbationField, condition_table
from cfmvc_scvi.errors import DataError, NotTrainedError
from cfmvc_scvi.model.cells import input_columns
from cfmvc_scvi.model.collection import CollectionMixin
from cfmvc_scvi.model.engine import flow_coordinates
from cfmvc_scvi.model.niche import Niche, niche_features
from cfmvc_scvi.model.panel import Panel
from cfmvc_scvi.model.reference import Reference
from cfmvc_scvi.model.relatives import Embeddings
from cfmvc_scvi.model.torch_networks import TorchNetworks
from cfmvc_scvi.train import LatentTable, MinibatchCoupler, evenly_chosen, principal_axes

__all__ = ["Latents", "MemoryMixin"]

_ENCODED = 2048 * 16  # cells at a time, whole minibatches
_IN_MEMORY = 2**29  # bytes of latents; more are kept in a temporary file

Splits = tuple[np.ndarray, np.ndarray, np.ndarray]


class Latents(NamedTuple):
    """Latents of all cells in the flow's coordinates: `(cells, dims)` means and variances, and the niche, if any."""

    mean: NDArray[np.float32]
    variance: NDArray[np.float32]
    niche: NDArray[np.float32] | None


class MemoryMixin(CollectionMixin):
    """Groups and latents of the training cells of a `CFMVC`.

    A query model keeps the memory of its reference; cells of conditions or contexts that it does not know have code -1.
    """

    _reference: Any  # a Reference, or None before training
    niche_: Niche

    def _splits(self) -> Splits:
        parts = (self.train_indices_, self.validation_indices_, self.test_indices_)
        empty = np.empty(0, dtype=int)
        train, validation, test = (empty if part is None else np.asarray(part, dtype=int) for part in parts)
        return train, validation, test

    def _groups(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the condition and the context code of each cell in the reference, -1 where it has none."""
        designs, code = condition_table(self._designs())
        known = np.array([self._reference.condition(design) for design in designs])
        labels, samples = self._label_codes()
        context = self._reference.contexts.encode(labels, samples, unseen="new")
        return known[code], np.where(context < self._reference.contexts.n_contexts, context, -1)

    def _designs(self) -> Any:
        """Return the design of each cell, `(cells, perturbations)`, dense or CSR."""
        return self._training_manager.get_from_registry(CFMVC_REGISTRY_KEYS.PERTURBATION_KEY)

    def _label_codes(self) -> tuple[np.ndarray, np.ndarray | None]:
        get = self._training_manager.get_from_registry
        return get(REGISTRY_KEYS.LABELS_KEY), get(CFMVC_REGISTRY_KEYS.SAMPLE_KEY) if self._has_samples else None

    def _category_names(self) -> tuple[list[Any], list[Any] | None]:
        labels, samples = (
            list(self.get_state_registry(key)["categorical_mapping"])
            for key in (REGISTRY_KEYS.LABELS_KEY, CFMVC_REGISTRY_KEYS.SAMPLE_KEY)
        )
        return labels, samples if self._has_samples else None

    def _contexts(self) -> Contexts:
        (labels, samples), (label_names, sample_names) = self._label_codes(), self._category_names()
        return Contexts.from_codes(labels, label_names, samples, sample_names)

    def _adopt_reference(self) -> None:
        """Keep the memory of the reference in a query model, with names for the query's categories; else drop it."""
        if not self.is_query_ or self._reference is None:
            self._reference = None
            return
        none = np.empty(0, dtype=int)
        names = self._category_names()
        contexts = self._reference.contexts.extend(none, none if self._has_samples else None, *names)
        self._reference = replace(self._reference, contexts=contexts)

    def _remember(self, seed: int) -> Latents | None:
        """Summarise the training and validation cells, for everything that is estimated without a network.

        `seed` chooses the cells whose counts are kept. Returns the latents, None where there is nothing to remember.
        """
        if self.module.flow is None or self.is_query_:
            return None
        cells, contexts = np.sort(np.concatenate(self._splits()[:2])), self._contexts()
        designs, condition = condition_table(self._designs()[cells])
        context = contexts.encode(*self._label_codes())[cells]
        get = self._training_manager.get_from_registry
        counts = CountRows(self._training_counts, cells)
        keys = set(self._training_manager.data_registry) - {REGISTRY_KEYS.X_KEY, CFMVC_REGISTRY_KEYS.PERTURBATION_KEY}
        tensors = {key: input_columns(get(key))[cells] for key in sorted(keys)}
        names = np.asarray(self._rna(self._training_cells).obs_names, dtype=str)[cells]
        everything = Panel(counts, tensors, names, condition, context, cells)
        rng = np.random.default_rng(seed)
        embeddings = self._embeddings()
        self._reference = Reference.build(everything, designs, contexts, ReferenceConfig(), rng, embeddings)
        return self._remember_latents()

    def _embeddings(self) -> Embeddings | None:
        """Return the registered features of perturbations."""
        state = self._state(CFMVC_REGISTRY_KEYS.PERTURBATION_KEY)
        if PerturbationField.EMBEDDINGS_KEY not in state:
            return None
        names = pd.Index(self.vocabulary.perturbations)
        genes = pd.Index(np.asarray(self._rna(self._training_cells).var_names, dtype=str))
        named = names.isin(state[PerturbationField.EMBEDDED_KEY])
        return Embeddings(np.asarray(state[PerturbationField.EMBEDDINGS_KEY]), named, genes.get_indexer(names))

    @torch.inference_mode()
    def _remember_latents(self) -> Latents:
        """Encode all cells once; store the standardisation, means and decoded shifts of groups, and the niche."""
        mean, variance = self._encoded()
        cells = np.concatenate(self._splits()[:2])
        if not self.is_query_:
            some = torch.as_tensor(mean[evenly_chosen(cells)], device=self.module.device)
            self.module.fit_standardisation(some)
        location, scale = self.module.latent_location.cpu().numpy(), float(self.module.latent_scale)
        if not self.is_query_:
            condition, context = self._groups()
            means = _group_means(mean, cells, self._reference, condition[cells], context[cells])
        mean -= location  # in place: with many cells, copies of their latents are most of the memory
        mean /= scale
        variance /= scale**2
        niche = self._niche(self._training_manager, mean)
        if not self.is_query_:
            self._reference = self._reference.with_latents(means, niche).with_decoded(TorchNetworks(self.module))
        return Latents(mean, variance, niche)

    def _encoded(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the posterior mean and variance of the intrinsic latent of all cells, `(cells, n_intrinsic)` each.

        No random number is used up, so that a training that encodes again when it is resumed goes on with the same.
        """
        n_cells, n, device = self._training_cells.n_obs, self.module.n_intrinsic, self.module.device
        both = _room((2, n_cells, n))
        with torch.random.fork_rng([device] if device.type == "cuda" else []):  # scvi also draws from the posterior
            for start in range(0, n_cells, _ENCODED):
                rows = np.arange(start, min(start + _ENCODED, n_cells))
                parts = super().get_latent_representation(return_dist=True, **self._minibatches(rows))
                for whole, part in zip(both, parts, strict=True):
                    whole[rows] = part[:, :n]
        return both[0], both[1]

    def _minibatches(self, rows: np.ndarray) -> dict[str, Any]:
        """Return the arguments of scvi's methods that say which cells are read, 2048 at a time."""
        if self._collection is None:
            return {"indices": rows, "batch_size": 2048}
        return {"dataloader": self._collection.inference_dataloader(rows, 2048)}

    def _latent_table(self, latents: Latents | None = None) -> LatentTable:
        """Return what the flow is fitted to; `latents` are those that the weights give, where they are known."""
        if self._reference is None:
            raise NotTrainedError("The flow needs the latents of a trained representation; run train() first.")
        mean, variance, niche = latents or self._remember_latents()
        condition, context = self._groups()
        location, scale = self.module.latent_location.cpu().numpy(), float(self.module.latent_scale)
        return LatentTable(
            mean=mean,
            variance=variance,
            condition=condition,
            context=context,
            designs=self._reference.designs,
            context_features=(self._reference.context_features() - location) / scale,
            offsets=self._offsets(),
            niche=niche,
        )

    def _offsets(self) -> np.ndarray:
        """Return the moving frame of each (condition, context) in the flow's coordinates."""
        frames = np.stack([self._reference.frame(design) for design in self._reference.designs])
        location, scale = self.module.latent_location.cpu().numpy(), float(self.module.latent_scale)
        return flow_coordinates(frames, self._reference, location, scale, self.source_)

    def _niche(self, manager: AnnDataManager, u: np.ndarray) -> np.ndarray | None:
        """Return what is known of the place of each cell, with its latent u; None without space."""
        if CFMVC_REGISTRY_KEYS.SPATIAL_KEY not in manager.data_registry:
            return None
        slices = np.asarray(manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY)).reshape(-1)
        coordinates = np.asarray(manager.get_from_registry(CFMVC_REGISTRY_KEYS.SPATIAL_KEY))
        return niche_features(self.niche_, coordinates, u, slices)

    def _minibatch_coupler(self, seed: int) -> MinibatchCoupler:
        if CFMVC_REGISTRY_KEYS.SPATIAL_KEY in self._training_manager.data_registry:
            raise DataError(
                "Stage 'joint' shuffles cells into minibatches, so it cannot use spatial_key; leave it out."
            )
        table, contexts = self._latent_table(), self._reference.contexts
        shape = (len(contexts.label_names), len(contexts.sample_names or ("",)))
        context_of = np.full(shape, -1)
        context_of[list(contexts.label), list(contexts.sample)] = np.arange(contexts.n_contexts)
        return MinibatchCoupler(
            context_of,
            table.context_features,
            table.designs,
            table.offsets,
            principal_axes(table.mean, self._splits()[0], PairConfig().coupling_dims),
            self.source_,
            np.random.default_rng(seed),
        )


def _room(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return an empty array; if it is large, in a temporary file that is gone when the array is, or the process."""
    if 4 * np.prod(shape, dtype=float) <= _IN_MEMORY:
        return np.empty(shape, dtype=np.float32)
    with tempfile.TemporaryFile(prefix="cfmvc_latents_") as file:
        return np.asarray(np.memmap(file, dtype=np.float32, mode="w+", shape=shape))


def _group_means(
    values: NDArray[np.floating],
    cells: NDArray[np.int64],
    reference: Reference,
    condition: NDArray[np.int64],
    context: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return the mean of `values` `(all cells, dims)` in each group of `reference`, `(groups, dims)`.

    `cells` are those that count, of which `condition` and `context` are the codes.
    """
    number, groups = (
        kinds[:, 0] * reference.contexts.n_contexts + kinds[:, 1]
        for kinds in (np.column_stack([condition, context]), reference.groups)
    )
    order = np.argsort(number, kind="stable")
    starts, ends = (np.searchsorted(number[order], groups, side=side) for side in ("left", "right"))
    members = (cells[order[start:end]] for start, end in zip(starts, ends, strict=True))
    return np.stack([_mean(values, rows) for rows in members])


def _mean(values: NDArray[np.floating], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean of these rows `(rows, dims)`, of which few are copied at a time."""
    parts = (rows[start : start + _ENCODED] for start in range(0, len(rows), _ENCODED))
    total: NDArray[np.float64] = sum(values[part].sum(axis=0, dtype=float) for part in parts) / len(rows)
    return total
