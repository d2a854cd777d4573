"""How much a latent tells of a label that it should not know."""

from __future__ import annotations

__all__ = ["hsic", "latent_auc", "mutual_information_gap"]

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist
from sklearn.feature_selection import mutual_info_classif
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.metrics._checks import Array, cell_values

_FOLDS = 5
_N_PERMUTATIONS = 99


def _labelled(latent: ArrayLike, labels: ArrayLike) -> tuple[Array, NDArray[np.intp]]:
    values = cell_values("latent", latent, min_cells=2 * _FOLDS)
    names = np.asarray(labels)
    if names.shape != (len(values),):
        raise DataError(f"labels have shape {names.shape} for {len(values)} cells; give one per cell.")
    kinds, code = np.unique(names.astype(str), return_inverse=True)
    few = kinds[np.bincount(code) < _FOLDS]
    if len(kinds) < 2 or len(few):
        raise DataError(
            f"{len(kinds)} labels, of which {len(few)} have fewer than {_FOLDS} cells; two or more with at least "
            f"{_FOLDS} are told apart."
        )
    return values, code


def latent_auc(latent: ArrayLike, labels: ArrayLike, rng: Generator) -> float:
    """Area under the curve of a logistic regression that reads the label from the latent, cross-validated.

    One label against the rest, averaged over labels; .5 is chance, 1 is full knowledge. It sees linear traces only; for
    others see `hsic`.

    Parameters
    ----------
    latent
        Cells (cells, dims).
    labels
        Label of each cell (cells,).
    rng
        Draws the folds.

    Raises
    ------
    DataError
        If there are fewer than two labels, one has fewer than five cells, or the lengths differ.
    """
    values, code = _labelled(latent, labels)
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=int(rng.integers(2**31)))
    reader = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    share = cross_val_predict(reader, values, code, cv=folds, method="predict_proba")
    return float(np.mean([roc_auc_score(code == kind, share[:, kind]) for kind in range(share.shape[1])]))


def hsic(latent: ArrayLike, labels: ArrayLike, rng: Generator) -> tuple[float, float]:
    """Hilbert-Schmidt independence criterion of latent and label, normalised, and its p-value by permutation.

    With K a Gaussian kernel of the median distance between cells and L the indicator of equal labels, both centred:
    tr(KL) / sqrt(tr(KK) tr(LL)), 0 for independence in the limit (Gretton et al. 2005).

    Parameters
    ----------
    latent
        Cells (cells, dims).
    labels
        Label of each cell (cells,).
    rng
        Draws 99 permutations.

    Raises
    ------
    DataError
        As of `latent_auc`.

    Notes
    -----
    Cost: the square of the number of cells.
    """
    values, code = _labelled(latent, labels)
    distance = cdist(values, values)
    width = np.median(distance[np.triu_indices(len(values), 1)])
    kernel = _doubly_centred(np.exp(-0.5 * (distance / (width if width > 0 else 1.0)) ** 2))
    equal = _doubly_centred((code[:, None] == code).astype(float))
    scale = np.linalg.norm(kernel) * np.linalg.norm(equal)
    if not scale > 0:
        return 0.0, 1.0
    found = float((kernel * equal).sum() / scale)
    orders = (rng.permutation(len(code)) for _ in range(_N_PERMUTATIONS))
    chance = [float((kernel * equal[np.ix_(order, order)]).sum() / scale) for order in orders]
    return found, (1 + sum(value >= found for value in chance)) / (1 + _N_PERMUTATIONS)


def mutual_information_gap(latent: ArrayLike, labels: ArrayLike, rng: Generator) -> float:
    """Lead of the dimension that knows most of the label over the next, in units of the label's entropy.

    Chen et al. 2018, eq. 6: near 1 if one dimension alone knows the label, 0 if none or several do. With one dimension,
    what it knows.

    Parameters
    ----------
    latent
        Cells (cells, dims).
    labels
        Label of each cell (cells,).
    rng
        Breaks ties of the nearest-neighbour estimate.

    Raises
    ------
    DataError
        As of `latent_auc`.
    """
    values, code = _labelled(latent, labels)
    known = np.sort(mutual_info_classif(values, code, random_state=int(rng.integers(2**31))))[::-1]
    share = np.bincount(code) / len(code)
    return float((known[0] - (known[1] if len(known) > 1 else 0.0)) / -(share * np.log(share)).sum())


def _doubly_centred(matrix: Array) -> Array:
    return matrix - matrix.mean(axis=0) - matrix.mean(axis=1, keepdims=True) + matrix.mean()
