"""A search by Optuna: each trial trains anew on folds of the data, and is scored on the groups that it did not see."""

from __future__ import annotations

__all__ = ["METRICS", "options", "search"]

import os
import socket
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData
from scipy import sparse

from cfmvc_scvi._optional import require_extra
from cfmvc_scvi.benchmark import Fold, GroupScore, cfmvc_predictor, make_folds, score_prediction
from cfmvc_scvi.errors import DataError, NonFiniteError

if TYPE_CHECKING:
    import optuna

METRICS = ("energy", "pearson_delta", "weighted_mse", "sig_jaccard", "de_overlap")
"""What a search can be by; of energy distance and weighted MSE the lowest is best, of the others the highest."""

_PARTS = ("setup", "model", "train", "predict")
_LOWEST = ("energy", "weighted_mse")
_PROCESS = "process"


def search(
    adata: AnnData,
    space: Mapping[str, optuna.distributions.BaseDistribution],
    *,
    setup: Mapping[str, Any],
    train: Mapping[str, Any] | None = None,
    holdout: str | None = None,
    metric: str = "energy",
    n_trials: int = 20,
    n_folds: int = 3,
    storage: str | os.PathLike[str] | None = None,
    name: str = "cfmvc",
    seed: int = 0,
) -> optuna.Study:
    """Search for the options with which held-out groups of cells are predicted best.

    In each trial a model is trained on each of a few folds of the data, a group of perturbed cells left out (one
    perturbation in one context), and the group is predicted from its control cells. The score of a trial is the mean
    over folds; one whose running mean is worse than the median of earlier trials is pruned. A trial in which training
    becomes NaN is recorded as failed, and the search goes on.

    Parameters
    ----------
    adata
        Training cells; leave out what the final model shall be judged by.
    space
        Distributions of Optuna by the name of the option: ``"model.n_intrinsic"``, ``"train.plan_kwargs.lr"``,
        ``"setup.batch_key"``, ``"predict.heterogeneity"`` and so on.
    setup, train
        Fixed arguments of `CFMVC.setup_anndata` and of `CFMVC.train`.
    holdout
        What is left out, as in `benchmark.make_folds`; None is `labels_key` of the setup.
    metric
        One of `METRICS`.
    n_trials
        Trials of the study in all, those of earlier calls and other processes included.
    n_folds
        Groups that are left out one after the other, spread evenly over all that can be.
    storage
        File of an SQLite data base, or the address of any that Optuna knows: a search that is killed goes on there, and
        several processes may share it. None keeps the study in memory.
    name
        Name of the study in the data base.
    seed
        Seed of the sampler, and of training and prediction in each trial.

    Returns
    -------
    The study; ``options(study.best_params)`` are the arguments to train the final model with.

    Raises
    ------
    MissingExtraError
        If Optuna is not installed.
    DataError
        If `metric`, an option's name or the number of folds is impossible, or nothing can be held out.
    CFMVCError
        If an option cannot be used; only trials that end in NaN are taken for failures of their options.

    Examples
    --------
    >>> from optuna.distributions import FloatDistribution, IntDistribution
    >>> space = {
    ...     "model.n_intrinsic": IntDistribution(8, 64, log=True),
    ...     "train.plan_kwargs.lr": FloatDistribution(1e-4, 1e-2, log=True),
    ... }
    >>> setup = {"labels_key": "cell_type", "perturbation_key": "perturbation"}
    >>> study = search(adata, space, setup=setup, storage="search.db")
    >>> best = options(study.best_params)
    """
    tool = require_extra("optuna", "tune")
    if metric not in METRICS:
        raise DataError(f"metric is {metric!r}; choose one of {', '.join(METRICS)}.")
    _check_names(space)
    folds = _chosen_folds(adata, setup, holdout, n_folds)
    place = None if storage is None else str(storage)
    if place is not None and "://" not in place:
        place = f"sqlite:///{Path(place).absolute()}"
    study = tool.create_study(
        storage=place,
        study_name=name,
        load_if_exists=True,
        direction="minimize" if metric in _LOWEST else "maximize",
        pruner=tool.pruners.MedianPruner(n_startup_trials=4),
    )
    _take_up(tool, study)
    study.sampler = tool.samplers.TPESampler(seed=seed + len(study.trials))  # not the draws of earlier calls again
    score = partial(_score, adata=adata, folds=folds, setup=setup, train=train or {}, metric=metric, seed=seed)
    ended = [trial for trial in study.trials if trial.state.is_finished()]
    left = n_trials - len(ended)
    if left > 0:
        study.optimize(lambda trial: _objective(tool, trial, space, score), n_trials=left, catch=(NonFiniteError,))
    return study


def options(params: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return chosen values as arguments of the steps.

    Parameters
    ----------
    params
        Values by dotted names, such as ``study.best_params``.

    Returns
    -------
    Keyword arguments by ``"setup"``, ``"model"``, ``"train"`` and ``"predict"``, nested where names are.

    Examples
    --------
    >>> options({"model.n_intrinsic": 16, "train.plan_kwargs.lr": 0.001})["train"]
    {'plan_kwargs': {'lr': 0.001}}
    """
    _check_names(params)
    nested: dict[str, dict[str, Any]] = {part: {} for part in _PARTS}
    for path, value in params.items():
        *parents, last = path.split(".")
        place: dict[str, Any] = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return nested


def _check_names(names: Mapping[str, Any]) -> None:
    wrong = [name for name in names if name.partition(".")[0] not in _PARTS or not name.partition(".")[2]]
    if wrong:
        raise DataError(
            f"{len(wrong)} options cannot be searched, first {wrong[0]!r}; a name begins with "
            f"{', '.join(f'{part}.' for part in _PARTS)} as in 'train.plan_kwargs.lr'."
        )


def _chosen_folds(adata: AnnData, setup: Mapping[str, Any], holdout: str | None, n_folds: int) -> list[Fold]:
    what = holdout or setup.get("labels_key")
    if what is None or n_folds < 1:
        raise DataError(f"holdout is {what!r} and n_folds {n_folds}; say what to hold out, and at least one fold.")
    keys = {"perturbation_key": setup["perturbation_key"], "control": setup.get("control_category", "control")}
    folds = make_folds(adata, what, **keys)
    chosen = np.unique(np.linspace(0, len(folds) - 1, min(n_folds, len(folds))).round().astype(int))
    return [folds[number] for number in chosen]


def _take_up(tool: Any, study: optuna.Study) -> None:
    """Record trials of processes of this machine that are no longer there as failed, and try their values again."""
    for trial in study.trials:
        host, _, process = trial.user_attrs.get(_PROCESS, "").partition(":")
        if (
            trial.state == tool.trial.TrialState.RUNNING
            and host == socket.gethostname()
            and not _is_alive(int(process))
        ):
            study.tell(trial.number, state=tool.trial.TrialState.FAIL)
            study.enqueue_trial(trial.params)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _objective(tool: Any, trial: Any, space: Mapping[str, Any], score: Any) -> float:
    trial.set_user_attr(_PROCESS, f"{socket.gethostname()}:{os.getpid()}")
    params = {name: _suggested(tool, trial, name, distribution) for name, distribution in space.items()}
    return float(score(trial, options(params)))


def _suggested(tool: Any, trial: Any, name: str, distribution: Any) -> Any:
    if isinstance(distribution, tool.distributions.CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    number = trial.suggest_int if isinstance(distribution, tool.distributions.IntDistribution) else trial.suggest_float
    return number(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)


def _score(
    trial: Any,
    chosen: dict[str, dict[str, Any]],
    *,
    adata: AnnData,
    folds: Sequence[Fold],
    setup: Mapping[str, Any],
    train: Mapping[str, Any],
    metric: str,
    seed: int,
) -> float:
    """Mean score over the folds, reported after each."""
    import optuna

    predictor = cfmvc_predictor(
        {**setup, **chosen["setup"]},
        model_kwargs=chosen["model"],
        train_kwargs=_merged(train, chosen["train"]),
        predict_kwargs=chosen["predict"],
    )
    layer, values = setup.get("layer"), []
    counts = sparse.csr_matrix(adata.X if layer is None else adata.layers[layer])
    for number, fold in enumerate(folds):
        prediction = predictor(adata[fold.train].copy(), adata[fold.query].copy(), fold, seed)
        rng = np.random.default_rng([seed, number])
        values.append(_value(score_prediction(prediction, counts[fold.truth], counts[fold.query], rng), metric))
        trial.report(float(np.mean(values)), number)
        if number < len(folds) - 1 and trial.should_prune():
            raise optuna.TrialPruned
    return float(np.mean(values))


def _value(score: GroupScore, metric: str) -> float:
    if metric == "energy":
        return score.values["energy_distance"] / score.values["energy_scale"]
    return score.values[metric]


def _merged(fixed: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return fixed arguments with the chosen ones in their place, dictionaries merged."""
    both = {key: {**fixed[key], **value} for key, value in chosen.items() if isinstance(fixed.get(key), Mapping)}
    return {**fixed, **chosen, **both}
