"""The model as a predictor of a benchmark: trained anew in each fold."""

from __future__ import annotations

__all__ = ["Variant", "cfmvc_predictor", "cfmvc_predictors"]

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeAlias

import pandas as pd
import scvi
from anndata import AnnData
from lightning.pytorch.utilities.seed import isolate_rng

from cfmvc_scvi.benchmark.adapter import Predictor
from cfmvc_scvi.benchmark.cells import Prediction, StatedEffect
from cfmvc_scvi.benchmark.fold import Fold, fold_seed
from cfmvc_scvi.model import CFMVC

_LEVELS = (0.5, 0.8, 0.9, 0.95)  # of intervals

Variant: TypeAlias = Callable[[CFMVC, AnnData, AnnData, Fold, int], Prediction]
"""Predicts from a trained model, the training cells, the query, the fold and a seed."""


def cfmvc_predictor(
    setup: Mapping[str, Any],
    *,
    model_kwargs: Mapping[str, Any] | None = None,
    train_kwargs: Mapping[str, Any] | None = None,
    predict_kwargs: Mapping[str, Any] | None = None,
) -> Predictor:
    """Wrap `CFMVC` as a predictor over folds: set up, train on the training cells, predict the query's counts.

    Parameters, randomness and errors are those of `cfmvc_predictors`, with the arguments of one variant.

    Examples
    --------
    >>> from cfmvc_scvi import benchmark as bm
    >>> setup = {"perturbation_key": "perturbation", "labels_key": "cell_type"}
    >>> folds = list(bm.leave_one_context_out(adata))[:1]
    >>> scores = bm.evaluate(adata, folds, {"CFMVC": bm.cfmvc_predictor(setup)})
    """
    name = "CFMVC"
    variants = {name: predict_kwargs or {}}
    return cfmvc_predictors(setup, variants, model_kwargs=model_kwargs, train_kwargs=train_kwargs)[name]


def cfmvc_predictors(
    setup: Mapping[str, Any],
    variants: Mapping[str, Variant | Mapping[str, Any]],
    *,
    model_kwargs: Mapping[str, Any] | None = None,
    train_kwargs: Mapping[str, Any] | None = None,
    prepare: Callable[[AnnData], None] | None = None,
) -> dict[str, Predictor]:
    """Wrap several ways to predict from one trained `CFMVC` as predictors that share its training in each fold.

    Training depends on the seed and `Fold.training` alone, prediction on the seed and `Fold.number`; the global
    generators are left as they were. If the query has fewer cells than were held out, its cells are drawn again until
    there are as many.

    Parameters
    ----------
    setup
        Arguments of `CFMVC.setup_anndata`; with `perturbation_key`, and with the context of the folds as `labels_key`
        or `sample_key`.
    variants
        Name to arguments of `CFMVC.predict_counterfactual` (in which `n_samples` fixes the draws), or to a function of
        the trained model, the training cells, the query, the fold and a seed, such as `latent_arithmetic`.
    model_kwargs, train_kwargs
        Arguments of `CFMVC` and of `CFMVC.train`.
    prepare
        Called with a copy of the training cells before they are set up, for what must be made of training cells only,
        such as features of genes.

    Returns
    -------
    Name to predictor, for `evaluate`. Each has `settings`, what it was made with. Its CPU time includes the training,
    at the first prediction that each predictor makes with it.
    """
    training = _Training(dict(setup), dict(model_kwargs or {}), dict(train_kwargs or {}), prepare)
    return {name: _CFMVCPredictor(name, variant, training) for name, variant in variants.items()}


class _Training:
    """The latest trained model and what it took; another training set or seed replaces it."""

    def __init__(
        self,
        setup: dict[str, Any],
        model_kwargs: dict[str, Any],
        train_kwargs: dict[str, Any],
        prepare: Callable[[AnnData], None] | None,
    ) -> None:
        self.setup, self.model_kwargs, self.train_kwargs, self.prepare = setup, model_kwargs, train_kwargs, prepare
        self.seconds = 0.0
        self.charged: set[str] = set()  # predictors that counted these seconds
        self._key: tuple[Any, ...] | None = None
        self._model: CFMVC | None = None

    def model(self, train: AnnData, fold: Fold, seed: int) -> CFMVC:
        key = (fold.training, seed, *train.shape, hash(tuple(train.obs_names)))
        if self._model is None or key != self._key:
            self._key, self._model, start = key, None, time.process_time()
            cells = train.copy()
            with _seeded(fold_seed(seed, fold.training)):
                if self.prepare is not None:
                    self.prepare(cells)
                CFMVC.setup_anndata(cells, **self.setup)
                model = CFMVC(cells, **self.model_kwargs)
                model.train(**self.train_kwargs)
            self._model = model
            self.seconds, self.charged = time.process_time() - start, set()
        return self._model


class _CFMVCPredictor:
    def __init__(self, name: str, variant: Variant | Mapping[str, Any], training: _Training) -> None:
        self._name, self._variant, self._training = name, variant, training

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the predictions, as texts and numbers."""
        variant = _name_of(self._variant) if callable(self._variant) else dict(self._variant)
        training = self._training
        own = {"setup": training.setup, "model": training.model_kwargs, "train": training.train_kwargs}
        prepare = None if training.prepare is None else _name_of(training.prepare)
        return {"predict": variant, **own, "prepare": prepare}

    def __call__(self, train: AnnData, query: AnnData, fold: Fold, seed: int) -> Prediction:
        model = self._training.model(train, fold, seed)
        paid = self._training.seconds if self._name not in self._training.charged else 0.0
        self._training.charged.add(self._name)
        start, own_seed = time.process_time(), fold_seed(seed, fold.number)
        with _seeded(own_seed):
            if callable(self._variant):
                prediction = self._variant(model, train, query, fold, own_seed)
            else:
                prediction = _counterfactual(model, query, fold, own_seed, self._variant)
        return replace(prediction, cpu_seconds=paid + time.process_time() - start)


def _name_of(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)


def _counterfactual(model: CFMVC, query: AnnData, fold: Fold, seed: int, options: Mapping[str, Any]) -> Prediction:
    n_true = int(fold.truth.sum())
    asked = {"perturbation": fold.perturbation, "dose": fold.dose, "n_samples": -(-n_true // query.n_obs), **options}
    result = model.predict_counterfactual(query.copy(), seed=seed, **asked)
    stated = _stated(model, result.obs["target_context"], fold)
    return Prediction(result.X[: max(n_true, query.n_obs)], stated=stated)


def _stated(model: CFMVC, contexts: pd.Series, fold: Fold) -> StatedEffect | None:
    """What the model says of the effect and of its uncertainty; None if the fold has several contexts of the model."""
    names = contexts.astype(str).unique()
    if len(names) != 1:
        return None
    n_cells, tables = int(fold.truth.sum()), {}
    for level in _LEVELS:
        table = model.get_effect(fold.perturbation, dose=fold.dose, level=level, n_cells=n_cells)
        tables[level] = table[table["context"] == names[0]].set_index("gene").loc[model.adata.var_names]
    ends = {level: (table["low"].to_numpy(), table["high"].to_numpy()) for level, table in tables.items()}
    trust = model.get_trust(fold.perturbation, dose=fold.dose).set_index("context").loc[names[0], "trust"]
    return StatedEffect(tables[_LEVELS[0]]["delta"].to_numpy(), ends, float(trust))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed scvi-tools, and put its seed and all global generators back afterwards."""
    before = scvi.settings.seed
    with isolate_rng():
        scvi.settings.seed = seed
        try:
            yield
        finally:
            scvi.settings.seed = before
