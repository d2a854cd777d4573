"""`cfmvc-scvi predict`."""

from __future__ import annotations

__all__ = ["predict"]

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from cfmvc_scvi.cli import _options as options

_ACTION = "What changes; all else stays as it is"


def predict(
    model_dir: Annotated[
        Path, typer.Argument(metavar="MODEL_DIR", exists=True, file_okay=False, help="Directory of a trained model.")
    ],
    data: options.Data,
    out: Annotated[
        Path,
        typer.Option(help="File (.h5ad, .zarr) to write the predicted cells to; after a crash, the same call goes on."),
    ],
    perturbation: Annotated[
        list[str] | None,
        typer.Option(
            rich_help_panel=_ACTION,
            help="Perturbation, combination (A+B), or the control. Given several times, each becomes a layer.",
        ),
    ] = None,
    dose: Annotated[
        float | None, typer.Option(min=0.0, rich_help_panel=_ACTION, help="Dose, in the unit of the training data.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(rich_help_panel=_ACTION, help="Cell type to turn the cells into.")
    ] = None,
    batch: Annotated[str | None, typer.Option(rich_help_panel=_ACTION, help="Batch to measure the cells in.")] = None,
    output: Annotated[
        Literal["counts", "rate", "normalized", "latent"],
        typer.Option(help="Integer counts, expected counts, expected counts per 10,000, or latents alone."),
    ] = "counts",
    only_control: Annotated[
        bool, typer.Option("--only-control/--all-cells", help="Ask about control cells, or about all cells.")
    ] = True,
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
) -> None:
    """Predict what cells would look like under another condition.

    Example: cfmvc-scvi predict model kang.h5ad --perturbation IFNb --out predicted.h5ad
    """
    if not perturbation and dose is None and labels is None and batch is None:
        raise typer.BadParameter("nothing changes; give --perturbation, --dose, --labels or --batch.")
    options.refuse_existing(out, overwrite)

    from cfmvc_scvi.cli._cells import of_control, read_cells
    from cfmvc_scvi.errors import DataError
    from cfmvc_scvi.model import CFMVC

    console = Console(stderr=True)
    with console.status("loading model and cells"):
        model = CFMVC.load(model_dir, adata=False)
        adata = read_cells(data, backed=True)
    setup = model.registry["setup_args"]
    if model.vocabulary is None:
        raise DataError(f"the model in '{model_dir}' was trained without perturbations, so it predicts none.")
    rows = None
    if overwrite:
        options.remove(out)
        options.remove(out.with_name(f"{out.name}.partial"))
    if only_control:
        rows = of_control(adata, setup["perturbation_key"], setup["control_category"])
    asked = perturbation if perturbation and len(perturbation) > 1 else next(iter(perturbation or []), None)
    with console.status(f"predicting {adata.n_obs if rows is None else len(rows):,} cells"):
        result = model.predict_counterfactual(
            adata,
            rows,
            perturbation=asked,
            dose=dose,
            labels=labels,
            batch=batch,
            output=output,
            seed=seed,
            out=out,
        )
    console.print(f"wrote {result.n_obs:,} cells ({output}) to {out}", soft_wrap=True)
    if n_unseen := result.uns["cfmvc"]["n_conditions_unseen"]:
        console.print(f"{n_unseen} of the groups were never seen under this condition: their means are extrapolated")
