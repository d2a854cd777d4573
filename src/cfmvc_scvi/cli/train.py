"""`cfmvc-scvi train`."""

from __future__ import annotations

__all__ = ["train"]

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cfmvc_scvi.cli import _options as options


def train(
    context: typer.Context,
    data: options.Data,
    out: Annotated[Path, typer.Option(help="Directory to save the model to.")],
    perturbation_key: options.PerturbationKey = "perturbation",
    control: options.Control = "control",
    labels_key: options.LabelsKey = None,
    batch_key: options.BatchKey = None,
    sample_key: options.SampleKey = None,
    dose_key: options.DoseKey = None,
    layer: options.Layer = None,
    seed: options.Seed = 0,
    epochs_representation: options.RepresentationEpochs = None,
    epochs_flow: options.FlowEpochs = None,
    source: options.Source = "control",
    overwrite: options.Overwrite = False,
    config: options.Config = None,
) -> None:
    """Train a model on perturbed and control cells, and save it.

    Beside the model, OUT.yaml records all options and versions; --config repeats the run.

    Example: cfmvc-scvi train kang.h5ad --labels-key cell_type --batch-key batch --out model
    """
    options.refuse_existing(out, overwrite)

    import scvi

    from cfmvc_scvi.cli._cells import read_cells
    from cfmvc_scvi.cli._config import write_config
    from cfmvc_scvi.cli._progress import EpochProgress, progress_bars
    from cfmvc_scvi.model import CFMVC

    console = Console(stderr=True)
    adata = read_cells(data)
    scvi.settings.seed = seed
    CFMVC.setup_anndata(
        adata,
        layer=layer,
        batch_key=batch_key,
        labels_key=labels_key,
        perturbation_key=perturbation_key,
        control_category=control,
        dose_key=dose_key,
        sample_key=sample_key,
    )
    model = CFMVC(adata, source=source)
    n_perturbations = model.summary_stats.n_perturbations
    console.print(f"{adata.n_obs:,} cells, {adata.n_vars:,} genes, {n_perturbations} perturbations")
    with progress_bars(console) as progress:
        callbacks = [EpochProgress(progress)]
        max_epochs = options.epochs(epochs_representation, epochs_flow)
        model.train(max_epochs, enable_progress_bar=False, callbacks=callbacks)
    model.save(out, overwrite=overwrite)
    write_config(context, out.with_name(f"{out.name}.yaml"))
    console.print(f"saved the model to {out}; look at it with: cfmvc-scvi info {out}", soft_wrap=True)
