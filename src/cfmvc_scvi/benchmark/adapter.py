"""How other models join a benchmark: as an object with `fit` and `predict`, or by files of their predictions."""

from __future__ import annotations

__all__ = ["PerturbationModel", "Predictor", "as_predictor", "export_folds", "predictions_from"]

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol, TypeAlias, cast, runtime_checkable

import numpy as np
from anndata import AnnData

from cfmvc_scvi.benchmark.cells import Prediction, Scale
from cfmvc_scvi.benchmark.fold import Fold
from cfmvc_scvi.benchmark.store import KEY, read_prediction
from cfmvc_scvi.data import match_genes
from cfmvc_scvi.errors import DataError, UnknownConditionError

Predictor: TypeAlias = Callable[[AnnData, AnnData, Fold, int], Prediction]
"""Predicts from training cells, the control cells to perturb, the fold (whose truth it must not use) and a seed."""


@runtime_checkable
class PerturbationModel(Protocol):
    """What a model needs for joining a benchmark: both methods draw from generators made of `seed` only."""

    def fit(self, train: AnnData, seed: int) -> Any:
        """Train on cells with raw counts in X and all columns of obs; forget what was trained before."""
        ...

    def predict(self, query: AnnData, fold: Fold, seed: int) -> Prediction | AnnData:
        """Predict the control cells `query` under ``fold.perturbation`` (and ``fold.dose``).

        Returns
        -------
        A `Prediction`; or an AnnData with whole counts in X, or with log1p CP10k if
        ``uns["cfmvc_benchmark"]["scale"]`` is ``"log1p_cp10k"``. Genes of an AnnData are matched by name.
        """
        ...


def as_predictor(model: PerturbationModel | Predictor) -> Predictor:
    """Wrap a model as a predictor that trains it once per training set and seed; predictors pass unchanged.

    Raises
    ------
    DataError
        If `model` has neither `fit` and `predict` nor can be called.
    """
    if isinstance(model, PerturbationModel) and not isinstance(model, type):
        return _FittedOnce(model)
    if callable(model) and not isinstance(model, type):
        return model
    raise DataError(f"{model!r} is no model: it needs the methods fit and predict, or must be a function.")


class _FittedOnce:
    def __init__(self, model: PerturbationModel) -> None:
        self._model = model
        self._fitted: tuple[Any, ...] | None = None

    def __call__(self, train: AnnData, query: AnnData, fold: Fold, seed: int) -> Prediction:
        key = (seed, *train.shape, hash(tuple(train.obs_names)))
        if key != self._fitted:
            self._fitted = None  # training that fails half-way must not count
            self._model.fit(train.copy(), seed)
            self._fitted = key
        predicted = self._model.predict(query.copy(), fold, seed)
        if isinstance(predicted, AnnData):
            scale = str(predicted.uns.get(KEY, {}).get("scale", "counts"))
            return Prediction(match_genes(predicted, np.asarray(train.var_names, dtype=str)).X, cast(Scale, scale))
        return predicted


def predictions_from(directory: str | os.PathLike[str]) -> Predictor:
    """Read the predictions of a model that ran elsewhere, as a predictor.

    Parameters
    ----------
    directory
        With files ``<fold id>-seed<k>.h5ad`` as of `PredictionStore`: X the cells (counts or log1p CP10k), var_names
        the genes, ``uns["cfmvc_benchmark"]`` with ``scale`` and, if known, ``condition``, ``context`` and
        ``cpu_seconds``.

    Raises
    ------
    UnknownConditionError
        When a prediction is asked that has no file.
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise UnknownConditionError(f"there is no directory '{folder}' of predictions.")

    def predict(train: AnnData, query: AnnData, fold: Fold, seed: int) -> Prediction:
        path = folder / f"{fold.id}-seed{seed}.h5ad"
        if not path.exists():
            n_files = len(list(folder.glob("*.h5ad")))
            raise UnknownConditionError(
                f"'{folder}' has {n_files} predictions, but no '{path.name}' ({fold.condition}, {fold.context}); make "
                "it, or leave the fold or the seed out."
            )
        return read_prediction(path, train.var_names, fold)

    return predict


def export_folds(adata: AnnData, folds: Iterable[Fold], directory: str | os.PathLike[str]) -> list[Path]:
    """Write what a model in another environment may see of each fold; never the truth.

    ``folds/<fold id>/train.h5ad``: training cells, X as it is, all columns of obs. ``folds/<fold id>/query.h5ad``: the
    control cells to perturb, with obs ``target_perturbation`` (and ``target_dose``). Folds that share a training set
    have the same one, as a hard link where the file system has such.

    Parameters
    ----------
    adata
        UMI counts in X.
    folds
        As of `make_folds`.
    directory
        Of the run; the predictions belong into its ``predictions/<method>/<fold id>-seed<k>.h5ad``.

    Returns
    -------
    The directories of the folds.
    """
    written: dict[bytes, Path] = {}
    places = []
    for fold in folds:
        place = Path(directory) / "folds" / fold.id
        place.mkdir(parents=True, exist_ok=True)
        train, key = place / "train.h5ad", fold.train.tobytes()
        train.unlink(missing_ok=True)
        if key not in written or not _linked(written[key], train):
            _plain(adata[fold.train]).write_h5ad(train, compression="gzip")
        written.setdefault(key, train)
        query = _plain(adata[fold.query])
        query.obs["target_perturbation"] = fold.perturbation
        if fold.dose is not None:
            query.obs["target_dose"] = fold.dose
        query.write_h5ad(place / "query.h5ad", compression="gzip")
        places.append(place)
    return places


def _plain(cells: AnnData) -> AnnData:
    """Counts and annotations only: layers, embeddings and uns may have been made with the held-out cells."""
    return AnnData(cells.X.copy(), obs=cells.obs.copy(), var=cells.var[[]].copy())


def _linked(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except OSError:
        return False
    return True
