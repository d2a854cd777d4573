"""The model as a predictor of a benchmark: trained anew in each fold."""

from __future__ import annotations

__all__ = ["cfmvc_predictor", "cfmvc_predictors"]

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import scvi
from anndata import AnnData
from lightning.pytorch.utilities.seed import isolate_rng

from cfmvc_scvi.benchmark.cells import Prediction
from cfmvc_scvi.benchmark.holdout import Fold
from cfmvc_scvi.benchmark.score import Predictor
from cfmvc_scvi.model import CFMVC


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
    >>> scores = bm.evaluate(adata, folds, {"CFMVC": bm.cfmvc_predictor(setup)})
    """
    name = "CFMVC"
    variants = {name: predict_kwargs or {}}
    return cfmvc_predictors(setup, variants, model_kwargs=model_kwargs, train_kwargs=train_kwargs)[name]


def cfmvc_predictors(
    setup: Mapping[str, Any],
    variants: Mapping[str, Mapping[str, Any]],
    *,
    model_kwargs: Mapping[str, Any] | None = None,
    train_kwargs: Mapping[str, Any] | None = None,
) -> dict[str, Predictor]:
    """Wrap several ways to predict from one trained `CFMVC` as predictors that share its training in each fold.

    Training and prediction depend on the seed of the fold alone; the global generators are left as they were. If the
    query has fewer cells than were held out, its cells are drawn again until there are as many.

    Parameters
    ----------
    setup
        Arguments of `CFMVC.setup_anndata`; with `perturbation_key`, and with the context of the folds as `labels_key`
        or `sample_key`.
    variants
        Name to arguments of `CFMVC.predict_counterfactual` (in which `n_samples` fixes the draws).
    model_kwargs, train_kwargs
        Arguments of `CFMVC` and of `CFMVC.train`.

    Returns
    -------
    Name to predictor, for `evaluate`.
    """
    latest: dict[tuple[Any, ...], CFMVC] = {}

    def trained(train: AnnData, fold: Fold, seed: int) -> CFMVC:
        key = (fold.condition, fold.context, seed, *train.shape, hash(tuple(train.obs_names)))
        if key not in latest:
            latest.clear()
            cells = train.copy()
            CFMVC.setup_anndata(cells, **setup)
            model = CFMVC(cells, **(model_kwargs or {}))
            model.train(**(train_kwargs or {}))
            latest[key] = model
        return latest[key]

    def predictor(predict_kwargs: Mapping[str, Any]) -> Predictor:
        def predict(train: AnnData, query: AnnData, fold: Fold, seed: int) -> Prediction:
            with _seeded(seed):
                model = trained(train, fold, seed)
                n_true = int(fold.truth.sum())
                n_samples = -(-n_true // query.n_obs)
                options = {"n_samples": n_samples, **predict_kwargs}
                result = model.predict_counterfactual(query.copy(), perturbation=fold.condition, seed=seed, **options)
            return Prediction(result.X[: max(n_true, query.n_obs)])

        return predict

    return {name: predictor(predict_kwargs) for name, predict_kwargs in variants.items()}


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
