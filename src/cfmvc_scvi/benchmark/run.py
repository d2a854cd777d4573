"""Predict and score over folds and seeds."""

from __future__ import annotations

__all__ = ["baseline_predictor", "evaluate"]

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from cfmvc_scvi import metrics
from cfmvc_scvi.benchmark.adapter import PerturbationModel, Predictor, as_predictor
from cfmvc_scvi.benchmark.baselines import Baseline
from cfmvc_scvi.benchmark.calibration import measured_effect, stated_scores
from cfmvc_scvi.benchmark.cells import Prediction, TrainingCells
from cfmvc_scvi.benchmark.fold import Columns, Fold, fold_seed, group_labels
from cfmvc_scvi.benchmark.score import CEILING, GroupScore, score_ceiling, score_prediction, tidy_scores
from cfmvc_scvi.benchmark.store import PredictionStore
from cfmvc_scvi.errors import DataError

_SCORING = 1  # stream of random numbers: what is drawn for scoring is the same for all methods

Report = Callable[[str, Fold, int], None]


def baseline_predictor(baseline: Callable[[], Baseline], columns: Columns | None = None) -> Predictor:
    """Wrap a baseline class as a predictor over folds; `columns` are those the folds were made with."""
    return _BaselinePredictor(baseline, Columns() if columns is None else columns)


class _BaselinePredictor:
    def __init__(self, baseline: Callable[[], Baseline], columns: Columns) -> None:
        self._baseline, self._columns = baseline, columns

    @property
    def settings(self) -> dict[str, str]:
        """What decides the predictions, as text."""
        return {"baseline": self._baseline().description}

    def __call__(self, train: AnnData, query: AnnData, fold: Fold, seed: int) -> Prediction:
        own = self._columns
        condition, context = group_labels(train, own)
        names = tuple(str(name) for name in train.var_names)
        cells = TrainingCells(sp.csr_matrix(train.X), condition, context, own.control, names, own.dose_key is not None)
        rng = np.random.default_rng(fold_seed(seed, fold.number))
        n_cells = max(int(fold.truth.sum()), query.n_obs)  # as many as a model predicts; scoring chooses among them
        baseline = self._baseline().fit(cells)
        return baseline.predict(sp.csr_matrix(query.X), fold.condition, fold.context, n_cells, rng)


def evaluate(
    adata: AnnData,
    folds: Iterable[Fold],
    predictors: Mapping[str, Predictor | PerturbationModel],
    seeds: Iterable[int] = (0, 1),
    *,
    store: PredictionStore | None = None,
    report: Report | None = None,
) -> pd.DataFrame:
    """Score predictors and the ceiling over folds and seeds.

    A predictor is called with the training cells, the control cells to perturb, the fold and a seed; it never sees the
    truth. Calls with the same training cells and seed follow each other, so that a model can be trained once for them.

    Parameters
    ----------
    adata
        UMI counts in X.
    folds
        Held-out groups, as of `make_folds`.
    predictors
        Name to predictor or model; `NoChange` is the floor.
    seeds
        Whole numbers >= 0. Halves and subsets drawn for scoring depend on the seed and `Fold.number` and are the same
        for all predictors: differences between methods are paired.
    store
        Where predictions are kept: those that are there are not made again.
    report
        Called with (name, fold, seed) after each prediction is scored.

    Returns
    -------
    One row per score: method, condition, context, seed, metric, value. Discrimination across contexts has context `*`,
    across perturbations condition `*`. Metric `cpu_seconds` is what training and prediction took; a training counts for
    the first prediction that needed it. Where a method states its effects with intervals and trust, their scores
    (`stated_scores`) are among the metrics.

    Raises
    ------
    DataError
        If there is no fold, or a predictor is called like the ceiling.
    """
    held_out, all_seeds = list(folds), list(seeds)
    if not held_out or not all_seeds:
        raise DataError(f"There are {len(held_out)} folds and {len(all_seeds)} seeds; at least one of each is needed.")
    if CEILING in predictors:
        raise DataError(f"'{CEILING}' is computed for every table; give the predictor another name.")
    called = {name: as_predictor(predictor) for name, predictor in predictors.items()}
    order = [(name, seed) for name in (*called, CEILING) for seed in all_seeds]
    scored: dict[tuple[str, int], dict[tuple[str, str], GroupScore]] = {key: {} for key in order}
    for group in _by_training(held_out):
        train = adata[group[0].train].copy()
        for seed in all_seeds:
            for fold in group:
                place = (fold.condition, fold.context)
                score = _Scorer(adata, fold, seed)
                scored[CEILING, seed][place] = score.ceiling()
                for name, predictor in called.items():
                    ask = partial(_predicted, predictor, train, score.query, fold, seed)
                    scored[name, seed][place] = score(ask() if store is None else _stored(store, name, ask))
                    if report is not None:
                        report(name, fold, seed)
    return tidy_scores(scored)


class _Scorer:
    """Scores predictions of one fold, each with the same random numbers."""

    def __init__(self, adata: AnnData, fold: Fold, seed: int) -> None:
        self.query = adata[fold.query].copy()
        self._truth, self._control = sp.csr_matrix(adata[fold.truth].X), sp.csr_matrix(self.query.X)
        siblings = adata[fold.siblings].X
        self._profile = metrics.log_normalize(siblings).mean(axis=0) if fold.siblings.any() else None
        self._rng = partial(np.random.default_rng, (seed, fold.number, _SCORING))

    def ceiling(self) -> GroupScore:
        return score_ceiling(self._truth, self._control, self._rng(), perturbed_profile=self._profile)

    def __call__(self, prediction: Prediction) -> GroupScore:
        score = score_prediction(prediction, self._truth, self._control, self._rng(), perturbed_profile=self._profile)
        score.values["cpu_seconds"] = float(prediction.cpu_seconds or 0.0)
        if prediction.stated is not None:
            score.values.update(stated_scores(prediction.stated, measured_effect(self._truth, self._control)))
        return score


def _by_training(folds: Iterable[Fold]) -> list[list[Fold]]:
    """Folds in groups of equal training cells, in order."""
    groups: dict[bytes, list[Fold]] = {}
    for fold in folds:
        groups.setdefault(fold.train.tobytes(), []).append(fold)
    return list(groups.values())


def _predicted(predictor: Predictor, train: AnnData, query: AnnData, fold: Fold, seed: int) -> Prediction:
    """Predict, and measure the CPU time unless the predictor knows better."""
    start = time.process_time()
    prediction = predictor(train, query, fold, seed)
    if prediction.cpu_seconds is not None:
        return prediction
    return replace(prediction, cpu_seconds=time.process_time() - start)


def _stored(store: PredictionStore, name: str, ask: partial[Prediction]) -> Prediction:
    """Return the stored prediction; made and stored first if there is none."""
    _, train, _, fold, seed = ask.args
    if (found := store.read(name, fold, seed, train.var_names)) is not None:
        return found
    store.write(name, fold, seed, ask(), train.var_names)
    made = store.read(name, fold, seed, train.var_names)
    assert made is not None
    return made
