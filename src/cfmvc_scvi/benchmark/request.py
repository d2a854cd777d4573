"""From what a user asks of a benchmark to columns, models, baselines, and the record of it in the store."""

from __future__ import annotations

__all__ = ["NO_FLOW", "benchmark_setup", "default_models", "named_baselines", "named_models", "run_record"]

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

from anndata import AnnData

from cfmvc_scvi.benchmark.adapter import PerturbationModel, Predictor, predictions_from
from cfmvc_scvi.benchmark.baselines import BASELINES, LATENT_ARITHMETIC, Baseline
from cfmvc_scvi.benchmark.fold import Columns, Fold
from cfmvc_scvi.benchmark.holdout import HOLDOUT_WORDS
from cfmvc_scvi.benchmark.latent import LatentArithmetic
from cfmvc_scvi.benchmark.model import cfmvc_predictors
from cfmvc_scvi.benchmark.store import data_fingerprint
from cfmvc_scvi.errors import DataError, UnknownConditionError

MODEL = "CFMVC"
NO_FLOW = "CFMVC, no flow"
_PACKAGES = ("scvi-tools", "torch", "numpy", "scipy", "anndata")
_OBS_KEYS = ("perturbation_key", "labels_key", "sample_key", "batch_key", "dose_key")

AnyModel: TypeAlias = Predictor | PerturbationModel
Makers: TypeAlias = Mapping[str, Callable[[], Baseline]]


def benchmark_setup(holdout: str, setup: Mapping[str, Any] | None = None) -> tuple[dict[str, Any], Columns]:
    """Complete the arguments of `CFMVC.setup_anndata`, and say which columns a benchmark reads.

    Parameters
    ----------
    holdout
        As of `make_folds`. A column becomes ``labels_key``, or ``sample_key`` if there are other labels.
    setup
        Arguments of `CFMVC.setup_anndata`.

    Returns
    -------
    The arguments, and the columns. If no column is held out, contexts are the labels, else the samples, else all cells.
    """
    full = {"perturbation_key": "perturbation", "control_category": "control", **(setup or {})}
    if holdout in HOLDOUT_WORDS:
        context = full.get("labels_key") or full.get("sample_key")
    else:
        context = holdout
        if holdout not in (full.get("labels_key"), full.get("sample_key")):
            free = [key for key in ("labels_key", "sample_key") if full.get(key) is None]
            if not free:
                raise DataError(
                    f"'{holdout}' is held out, but setup names '{full['labels_key']}' as labels_key and "
                    f"'{full['sample_key']}' as sample_key; one of them must be '{holdout}'."
                )
            full[free[0]] = holdout
    return full, Columns(full["perturbation_key"], context, full["control_category"], full.get("dose_key"))


def default_models(
    holdout: str, setup: Mapping[str, Any], columns: Columns, *, train_kwargs: Mapping[str, Any] | None = None
) -> dict[str, Predictor]:
    """CFMVC, the same without its flow, and latent arithmetic on its VAE where that is defined; one training for all.

    Parameters
    ----------
    holdout
        As of `make_folds`.
    setup, columns
        As of `benchmark_setup`.
    train_kwargs
        Arguments of `CFMVC.train`.
    """
    variants: dict[str, Any] = {MODEL: {}, NO_FLOW: {"heterogeneity": 0.0}}
    if holdout not in ("perturbation", "dose"):
        variants[LATENT_ARITHMETIC] = LatentArithmetic(columns)
    training = {"enable_progress_bar": False, **(train_kwargs or {})}
    return cfmvc_predictors(setup, variants, train_kwargs=training)


def named_models(
    models: Mapping[str, AnyModel | str | os.PathLike[str]] | Sequence[AnyModel | str | os.PathLike[str]] | None,
    defaults: Mapping[str, Predictor],
) -> dict[str, AnyModel]:
    """Models by name.

    Parameters
    ----------
    models
        Name to model, predictor, or directory of predictions; or these in a list, where a text is first looked for
        among the names of the defaults, a directory is called like itself, and an object by its `name`, else its class.
        None: the defaults.
    defaults
        As of `default_models`.

    Raises
    ------
    DataError
        If two have one name.
    UnknownConditionError
        If a text is neither the name of a default nor a directory.
    """
    if models is None:
        return dict(defaults)
    pairs = list(models.items()) if isinstance(models, Mapping) else [(_name(model), model) for model in models]
    found: dict[str, AnyModel] = {}
    for name, model in pairs:
        if name in found:
            raise DataError(f"two models are called '{name}'; pass a mapping from names to models.")
        found[name] = _model(model, defaults)
    return found


def _name(model: Any) -> str:
    if isinstance(model, (str, os.PathLike)):
        return Path(model).name
    return str(getattr(model, "name", None) or getattr(model, "__name__", type(model).__name__))


def _model(model: Any, defaults: Mapping[str, Predictor]) -> AnyModel:
    if isinstance(model, str) and model in defaults:
        return defaults[model]
    if isinstance(model, (str, os.PathLike)):
        if not Path(model).is_dir():
            raise UnknownConditionError(f"'{model}' is neither a directory nor one of: {', '.join(defaults)}.")
        return predictions_from(model)
    return model


def named_baselines(
    baselines: Mapping[str, Callable[[], Baseline]] | Iterable[str] | None,
    defaults: Mapping[str, Callable[[], Baseline]],
) -> dict[str, Callable[[], Baseline]]:
    """Baselines by name: those given, those of `BASELINES` with the names given, or the defaults for None."""
    if baselines is None:
        return dict(defaults)
    if isinstance(baselines, Mapping):
        return dict(baselines)
    names = list(baselines)
    if unknown := [name for name in names if name not in BASELINES]:
        raise UnknownConditionError(f"'{unknown[0]}' is no baseline; there are: {', '.join(BASELINES)}.")
    return {name: BASELINES[name] for name in names}


def run_record(
    adata: AnnData,
    holdout: str,
    setup: Mapping[str, Any],
    columns: Columns,
    *,
    folds: Iterable[Fold],
    methods: Mapping[str, Any],
    seeds: Iterable[int],
) -> dict[str, Any]:
    """What ``run.json`` says of a run; see `PredictionStore.open_run` for what may change from call to call."""
    read = [name for name in (columns.perturbation_key, columns.context_key, columns.dose_key) if name is not None]
    of_setup = sorted({str(setup[key]) for key in _OBS_KEYS if setup.get(key) is not None})
    keys = ("perturbation_key", "context_key", "control", "dose_key")
    return {
        "holdout": holdout,
        "columns": {key: getattr(columns, key) for key in keys},
        "setup": dict(setup),
        "fingerprint": data_fingerprint(adata, read),
        "fingerprint_of_setup": data_fingerprint(adata[:, :0], of_setup),
        "package": f"cfmvc-scvi {version('cfmvc-scvi')}",
        "versions": {name: version(name) for name in ("cfmvc-scvi", *_PACKAGES)},
        "seeds": [int(seed) for seed in seeds],
        "methods": {name: getattr(method, "settings", None) for name, method in methods.items()},
        "folds": [_of_fold(fold) for fold in folds],
    }


def _of_fold(fold: Fold) -> dict[str, Any]:
    sizes = {f"n_{name}": int(getattr(fold, name).sum()) for name in ("train", "query", "truth")}
    names = {"id": fold.id, "condition": fold.condition, "context": fold.context}
    return {**names, "dose": fold.dose, "number": fold.number, "training": fold.training, **sizes}
