"""`cfmvc-scvi evaluate`."""

from __future__ import annotations

__all__ = ["evaluate"]

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cfmvc_scvi.cli import _options as options


def evaluate(
    data: options.Data,
    context_key: Annotated[str, typer.Option(help="Column of obs whose groups are held out, for example cell types.")],
    hold_out: Annotated[
        list[str] | None,
        typer.Option(help="Group to hold out; may be repeated. All groups, one after the other, if not given."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File (.csv) for all scores.")] = None,
    perturbation_key: options.PerturbationKey = "perturbation",
    control: options.Control = "control",
    labels_key: options.LabelsKey = None,
    batch_key: options.BatchKey = None,
    sample_key: options.SampleKey = None,
    layer: options.Layer = None,
    seed: options.Seed = 0,
    epochs_representation: options.RepresentationEpochs = None,
    epochs_flow: options.FlowEpochs = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Hold out the perturbed cells of one group after the other, and compare the model with simple baselines.

    The model is trained anew for each group and perturbation. The context key is the label of the cells unless it is
    given as --sample-key.

    Example: cfmvc-scvi evaluate kang.h5ad --context-key cell_type --batch-key batch --hold-out "B cells"
    """
    if out is not None:
        options.refuse_existing(out, overwrite)

    from cfmvc_scvi import benchmark as bm
    from cfmvc_scvi.cli._cells import counts_in_x, read_cells
    from cfmvc_scvi.cli._progress import progress_bars
    from cfmvc_scvi.cli._scores import MODEL, PredictorProgress, baselines, comparison, score_table, verdict
    from cfmvc_scvi.errors import UnknownConditionError

    console = Console()
    adata = counts_in_x(read_cells(data), layer)
    folds = list(
        bm.leave_one_context_out(adata, perturbation_key=perturbation_key, context_key=context_key, control=control)
    )
    known = sorted({fold.context for fold in folds})
    if unknown := sorted(set(hold_out or []) - set(known)):
        raise UnknownConditionError(f"'{unknown[0]}' cannot be held out; groups that can: {', '.join(known)}")
    folds = [fold for fold in folds if not hold_out or fold.context in hold_out]
    if labels_key is None and context_key != sample_key:
        labels_key = context_key
    setup = {
        "perturbation_key": perturbation_key,
        "control_category": control,
        "labels_key": labels_key,
        "batch_key": batch_key,
        "sample_key": sample_key,
    }
    train = {"max_epochs": options.epochs(epochs_representation, epochs_flow), "enable_progress_bar": False}
    model = bm.cfmvc_predictor(setup, train_kwargs=train)
    with progress_bars(Console(stderr=True)) as progress:
        predictors = {**baselines(perturbation_key, context_key, control), MODEL: model}
        moving = PredictorProgress(progress, predictors, len(folds)).predictors()
        scores = bm.evaluate(adata, folds, moving, seeds=[seed])
    compared = comparison(bm.summarise(scores))
    console.print(score_table(compared, f"Mean over {len(folds)} held-out groups, seed {seed}"))
    console.print(verdict(compared), soft_wrap=True)
    if out is not None:
        scores.to_csv(out, index=False)
        console.print(f"all scores: {out}", soft_wrap=True)
