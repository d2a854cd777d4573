"""Latent arithmetic on the trained VAE: what is left of the model without its flow and its coupled counts."""

from __future__ import annotations

__all__ = ["LatentArithmetic"]

import numpy as np
import scipy.sparse as sp
import torch
from anndata import AnnData
from numpy.typing import NDArray

from cfmvc_scvi.benchmark.cells import Prediction, TrainingCells
from cfmvc_scvi.benchmark.fold import Columns, Fold, group_labels
from cfmvc_scvi.model import CFMVC

Array = NDArray[np.float64]

_MINIBATCH = 1024


class LatentArithmetic:
    """Encode the control cells, add the mean latent shift of the other contexts, decode, and sample counts.

    The shift of a context is the difference of mean intrinsic latents of perturbed and control cells; each context has
    the same weight (scGen: Lotfollahi, Wolf and Theis, Nat Methods 2019, here on the model's own VAE). A combination
    that no other context has gets the sum of the shifts of its parts. Depth and technical latent of each cell stay.

    Parameters
    ----------
    columns
        Those that the folds were made with.
    """

    def __init__(self, columns: Columns) -> None:
        self._columns = columns

    def __call__(self, model: CFMVC, train: AnnData, query: AnnData, fold: Fold, seed: int) -> Prediction:
        """Predict as many cells as `query` has.

        Raises
        ------
        UnknownConditionError
            If no other context has the condition, nor one of its parts.
        """
        condition, context = group_labels(train, self._columns)
        dosed = self._columns.dose_key is not None
        latents = np.asarray(model.get_latent_representation(train.copy()), dtype=np.float64)
        cells = TrainingCells(sp.csr_matrix(train.shape), condition, context, self._columns.control, dosed=dosed)
        shift = _shift(latents, cells, fold)
        with torch.inference_mode(), torch.random.fork_rng():
            torch.manual_seed(seed)
            return Prediction(sp.csr_matrix(np.vstack(_decoded(model, query.copy(), shift))))


def _shift(latents: Array, cells: TrainingCells, fold: Fold) -> Array:
    known = fold.condition in cells.condition
    parts = [fold.condition] if known else list(cells.parts(fold.condition).values())
    return np.sum([_mean_shift(latents, cells, part, fold.context) for part in parts], axis=0)


def _mean_shift(latents: Array, cells: TrainingCells, condition: str, context: str) -> Array:
    contexts = [context] if cells.has(condition, context) else cells.other_contexts(condition, context)

    def mean(name: str, other: str) -> Array:
        return latents[(cells.condition == name) & (cells.context == other)].mean(axis=0)

    return np.mean([mean(condition, other) - mean(cells.control, other) for other in contexts], axis=0)


def _decoded(model: CFMVC, query: AnnData, shift: Array) -> list[NDArray[np.float32]]:
    """Sampled counts of the query at shifted latents, minibatch by minibatch."""
    data, module, blocks = model._validate_anndata(query), model.module, []
    for tensors in model._make_data_loader(data, batch_size=_MINIBATCH):
        moved = {key: value.to(model.device) for key, value in tensors.items()}
        inferred = module.inference(**module._get_inference_input(moved))
        inferred["z"] = inferred["qz"].loc.clone()
        inferred["z"][:, : module.n_intrinsic] += torch.as_tensor(shift).to(inferred["z"])
        px = module.generative(**module._get_generative_input(moved, inferred))["px"]
        blocks.append(px.sample().cpu().numpy())
    return blocks
