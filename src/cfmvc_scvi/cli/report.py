"""`cfmvc-scvi report`."""

from __future__ import annotations

__all__ = ["report"]

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cfmvc_scvi.cli import _options as options


def report(
    model_dir: Annotated[
        Path, typer.Argument(metavar="MODEL_DIR", exists=True, file_okay=False, help="Directory of a trained model.")
    ],
    out: Annotated[Path, typer.Option(dir_okay=False, help="File (.html) to write.")],
    data: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Cells (.h5ad) for the map of the latent; no map without."),
    ] = None,
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
) -> None:
    """Write one HTML page about a model: its training, its latents, its effects, and how far to rely on them.

    Accuracy is that of effects left out and predicted from other contexts, without training again. Whether simple
    baselines are better, and whether cells are right, says cfmvc-scvi benchmark.

    Example: cfmvc-scvi report model --data kang.h5ad --out model.html
    """
    options.refuse_existing(out, overwrite)

    from cfmvc_scvi.benchmark.report import write_model_report
    from cfmvc_scvi.cli._cells import read_cells
    from cfmvc_scvi.model import CFMVC

    console = Console(stderr=True)
    with console.status("loading model and cells"):
        model = CFMVC.load(model_dir, adata=False)
        cells = None if data is None else read_cells(data)
    with console.status("drawing the report"):
        page = write_model_report(model, out, cells, title=f"{model_dir.name}: CFMVC", seed=seed)
    console.print(f"report: {page}", soft_wrap=True)
