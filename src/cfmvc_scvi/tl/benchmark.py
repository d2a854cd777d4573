"""Hold out, predict, score and compare, on the user's own data."""

from __future__ import annotations

__all__ = ["benchmark"]

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from anndata import AnnData
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cfmvc_scvi import benchmark as bm
from cfmvc_scvi.data import check_counts
from cfmvc_scvi.errors import DataError, UnknownConditionError


def benchmark(
    adata: AnnData,
    holdout: str = "cell_type",
    *,
    models: Mapping[str, Any] | Sequence[Any] | None = None,
    baselines: Mapping[str, Any] | Iterable[str] | None = None,
    seeds: int | Iterable[int] = 5,
    setup: Mapping[str, Any] | None = None,
    n_splits: int | None = None,
    only: Sequence[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = True,
    progress: bool = True,
) -> pd.DataFrame:
    """Hide real perturbed cells, predict them by models and by simple baselines, and score the predictions.

    Parameters
    ----------
    adata
        Cells with raw UMI counts, not altered.
    holdout
        What is hidden: the groups of a column of obs (cell types, donors, patients), one after the other; or
        "perturbation", "combination" or "dose" (see `benchmark.make_folds`).
    models
        Name to model: an object with `fit` and `predict` (`benchmark.PerturbationModel`), a function
        (`benchmark.Predictor`), or a directory of predictions made elsewhere. Or a list of these, and of names of
        defaults. None: the defaults, "CFMVC", "CFMVC, no flow" (the same trained model at ``heterogeneity=0``) and,
        where it is defined, "latent arithmetic" on its VAE.
    baselines
        Names of `benchmark.BASELINES`, or name to what makes a baseline; None: those that make sense here.
    seeds
        How many, or which.
    setup
        Arguments of `CFMVC.setup_anndata`, among them the columns: ``perturbation_key`` ("perturbation"),
        ``control_category`` ("control"), ``labels_key``, ``sample_key``, ``batch_key``, ``dose_key``, ``layer``. The
        column held out becomes the labels, or the sample if others are the labels. If no column is held out, effects
        are compared within the labels, else the samples, else over all cells.
    n_splits
        Number of trainings per seed: perturbations, combinations or doses are then held out several at a time.
    only
        Contexts or conditions to hold out, of those that can be; None: all.
    out
        Directory for predictions (``predictions/<method>/<fold id>-seed<k>.h5ad``), ``run.json`` and ``scores.csv``.
    resume
        Go on with a run that is in `out`: predictions that are there are not made again. It must be of the same data
        and settings; seeds, methods and groups may be added.
    progress
        Show a bar on stderr.

    Returns
    -------
    One row per score: method, condition, context, seed, metric, value; "ceiling" is one half of the real cells
    predicting the other. `benchmark.compare` and `benchmark.verdict` say what they mean. Metric ``cpu_seconds`` is what
    training and prediction took.

    Raises
    ------
    UnknownConditionError
        If a column, a name or a control is missing, or a model does not know what it is asked for.
    DataError
        If the counts are no counts, nothing can be held out, or `out` has a run of other data or settings.

    Examples
    --------
    >>> scores = cfmvc_scvi.tl.benchmark(
    ...     adata, "cell_type", setup={"batch_key": "batch"}, only=["type_0"], seeds=1, out="run"
    ... )
    >>> verdict = cfmvc_scvi.benchmark.verdict(cfmvc_scvi.benchmark.compare(scores))
    """
    full, columns = bm.benchmark_setup(holdout, setup)
    cells = _counts_in_x(adata, full.pop("layer", None))
    folds = _chosen(_folds(cells, holdout, columns, n_splits), only)
    numbers = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    makers = bm.named_baselines(baselines, bm.default_baselines(holdout, folds))
    methods: dict[str, Any] = {name: bm.baseline_predictor(make, columns) for name, make in makers.items()}
    names = cells.obs[columns.perturbation_key].unique()
    own = bm.named_models(models, bm.default_models(holdout, full, columns, conditions=names))
    if both := sorted(methods.keys() & own.keys()):
        raise DataError(f"'{both[0]}' is the name of a baseline; give the model another one.")
    methods |= own
    store = None if out is None else bm.PredictionStore(out)
    if store is not None:
        record = bm.run_record(cells, holdout, full, columns, folds=folds, methods=methods, seeds=numbers)
        store.open_run(record, resume=resume)
    with _bar(progress) as bar:
        task = bar.add_task("benchmark", total=len(folds) * len(numbers) * len(methods))

        def report(name: str, fold: bm.Fold, seed: int) -> None:
            bar.update(task, advance=1, description=f"{fold.condition} in {fold.context}, seed {seed}: {name}")

        scores = bm.evaluate(cells, folds, methods, numbers, store=store, report=report)
    if store is not None:
        store.write_scores(scores)
    return scores


def _counts_in_x(adata: AnnData, layer: str | None) -> AnnData:
    check_counts(adata, layer)
    if layer is None:
        return adata
    return AnnData(adata.layers[layer], obs=adata.obs, var=adata.var, obsm=adata.obsm, uns=adata.uns)


def _folds(cells: AnnData, holdout: str, columns: bm.Columns, n_splits: int | None) -> list[bm.Fold]:
    return bm.make_folds(
        cells,
        holdout,
        perturbation_key=columns.perturbation_key,
        context_key=columns.context_key,
        control=columns.control,
        dose_key=columns.dose_key,
        n_splits=n_splits,
    )


def _chosen(folds: list[bm.Fold], only: Sequence[str] | None) -> list[bm.Fold]:
    if only is None:
        return folds
    known = sorted({name for fold in folds for name in (fold.condition, fold.context)})
    if unknown := [name for name in only if name not in known]:
        raise UnknownConditionError(f"'{unknown[0]}' cannot be held out; what can: {', '.join(known)}.")
    return [fold for fold in folds if fold.condition in only or fold.context in only]


def _bar(shown: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), disable=not shown)
