"""`cfmvc-scvi export`."""

from __future__ import annotations

__all__ = ["export"]

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cfmvc_scvi.cli import _options as options


class _Solver(StrEnum):
    """Methods of the ODE."""

    EULER = "euler"
    MIDPOINT = "midpoint"
    HEUN = "heun"
    RK4 = "rk4"


def export(
    model_dir: Annotated[
        Path, typer.Argument(metavar="MODEL_DIR", exists=True, file_okay=False, help="Directory of a trained model.")
    ],
    out: Annotated[Path, typer.Option(help="Directory to write the exported model to.")],
    solver: Annotated[
        list[_Solver] | None, typer.Option(help="Method of the ODE to export, once for each; all if not given.")
    ] = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Export a trained model to ONNX: it then predicts without torch, and can be served.

    Example: cfmvc-scvi export model --out exported
    """
    options.refuse_existing(out, overwrite)

    from cfmvc_scvi.export import to_onnx
    from cfmvc_scvi.model import CFMVC

    console = Console(stderr=True)
    with console.status("loading the model"):
        model = CFMVC.load(model_dir, adata=False, accelerator="cpu")
    with console.status("exporting"):
        to_onnx(model, out, solvers=[method.value for method in solver or _Solver], overwrite=overwrite)
    size = sum(file.stat().st_size for file in out.iterdir())
    console.print(
        f"wrote an exported model of {size / 1e6:.1f} MB to {out}; it answers as '{model_dir}'", soft_wrap=True
    )
