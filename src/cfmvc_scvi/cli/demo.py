"""`cfmvc-scvi demo`."""

from __future__ import annotations

__all__ = ["demo"]

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from cfmvc_scvi.cli import _options as options

_N_CELLS, _N_GENES = 4000, 500
_CONDITION, _CONTEXT = "A", "type_0"
_MODEL = "CFMVC"
_KEYS = {"perturbation_key": "perturbation", "labels_key": "cell_type", "batch_key": "batch"}


def demo(
    out: Annotated[Path, typer.Option(file_okay=False, help="Directory for model, cells, scores and figures.")] = Path(
        "cfmvc_demo"
    ),
    seed: options.Seed = 0,
) -> None:
    """Simulate an experiment, hide a part of it, predict it, and compare with the truth. Takes about a minute.

    The simulated cells have four types and three perturbations (A, B, A+B). The cells of one type under A are held out
    and predicted from control cells of that type. As the simulation knows what each single cell would have become, the
    prediction of the individual cell is scored too.
    """
    out.mkdir(parents=True, exist_ok=True)

    import scvi

    from cfmvc_scvi import benchmark as bm
    from cfmvc_scvi.cli._progress import EpochProgress, progress_bars
    from cfmvc_scvi.cli._scores import score_table
    from cfmvc_scvi.datasets import simulated_perturbation
    from cfmvc_scvi.model import CFMVC

    console = Console()
    adata = simulated_perturbation(_N_CELLS, _N_GENES, seed=seed)
    fold = next(f for f in bm.leave_one_context_out(adata) if (f.condition, f.context) == (_CONDITION, _CONTEXT))
    n_truth, n_query = int(fold.truth.sum()), int(fold.query.sum())
    console.print(
        f"Simulated {adata.n_obs:,} cells, {adata.n_vars} genes. Held out: {n_truth} cells of {_CONTEXT} under "
        f"{_CONDITION}, to be predicted from {n_query} control cells of {_CONTEXT}.",
        soft_wrap=True,
    )
    scvi.settings.seed = seed
    train, query = adata[fold.train].copy(), adata[fold.query].copy()
    CFMVC.setup_anndata(train, **_KEYS)
    model = CFMVC(train)
    with progress_bars(Console(stderr=True)) as progress:
        model.train(enable_progress_bar=False, callbacks=[EpochProgress(progress)])
        predicted = model.predict_counterfactual(query, perturbation=_CONDITION, seed=seed)
        makers = bm.default_baselines("cell_type", [fold])
        predictors = {name: bm.baseline_predictor(make) for name, make in makers.items()}
        predictors[_MODEL] = lambda *_: bm.Prediction(predicted.X)
        task = progress.add_task("comparing", total=len(predictors))
        scores = bm.evaluate(adata, [fold], predictors, [seed], report=lambda *_: progress.advance(task))
    summary = bm.summarise(scores)
    compared, per_cell = bm.compare(scores, _MODEL), _per_cell_correlation(model, query, seed)
    console.print(score_table(compared, _MODEL, "Predicted against held-out cells"))
    console.print(
        f"{bm.verdict(compared, _MODEL)}\nIndividual cells: correlation of predicted and planted effect, means "
        f"removed, {per_cell:.3f} (any shift common to all cells: 0).\nThis is one simulated data set and one seed.",
        soft_wrap=True,
    )
    model.save(out / "model", overwrite=True)
    predicted.write_h5ad(out / "counterfactual.h5ad", compression="gzip")
    summary.assign(per_cell_correlation=summary.index.map({_MODEL: per_cell})).to_csv(out / "metrics.csv")
    _figures(out, model, predicted, query, adata[fold.truth], summary)
    console.print(f"Model, predicted cells, scores and figures: {out}", soft_wrap=True)


def _per_cell_correlation(model: Any, query: Any, seed: int) -> float:
    """Correlation of predicted and planted effects of single cells in log1p of expected counts per 10k."""
    import numpy as np

    from cfmvc_scvi.datasets import true_counterfactual
    from cfmvc_scvi.metrics import cell_effect_correlation

    def effect(of: Any) -> Any:
        return np.log1p(of(_CONDITION)) - np.log1p(of("control"))

    predicted = effect(
        lambda name: model.predict_counterfactual(query, perturbation=name, output="normalized", seed=seed).X
    )
    return cell_effect_correlation(predicted, effect(lambda name: true_counterfactual(query, name)))


def _figures(out: Path, model: Any, predicted: Any, control: Any, truth: Any, summary: Any) -> None:
    import matplotlib.pyplot as plt
    import numpy as np
    from sklearn.decomposition import PCA

    from cfmvc_scvi import metrics, pl

    cells = {"control": control, "predicted": predicted, "true": truth}
    values = {name: metrics.log_normalize(part.X) for name, part in cells.items()}
    mean = {name: part.mean(axis=0) for name, part in values.items()}
    genes = list(truth.var_names)
    top = metrics.top_genes(metrics.de_scores(values["true"], values["control"]), 5)
    plt.switch_backend("Agg")
    pl.history(model.history, show=False, save=out / "history.png")
    predicted_effect, true_effect = (mean[name] - mean["control"] for name in ("predicted", "true"))
    title = f"{_CONDITION} in {_CONTEXT}, never seen together"
    pl.delta(predicted_effect, true_effect, genes, title=title, show=False, save=out / "delta.png")
    few = {name: part[:, top] for name, part in values.items()}
    pl.distributions(few, [genes[i] for i in top], show=False, save=out / "distributions.png")
    pl.benchmark(summary, model=_MODEL, show=False, save=out / "benchmark.png")
    points = PCA(2, random_state=0).fit_transform(np.vstack(list(values.values())))
    labels = np.repeat(list(values), [len(part) for part in values.values()])
    pl.embedding(points, labels, axis_name="PC", show=False, save=out / "embedding.png")
    plt.close("all")
