"""Options that several commands share, and checks of files before any work begins."""

from __future__ import annotations

__all__ = [
    "BatchKey",
    "Config",
    "Control",
    "Data",
    "DoseKey",
    "FlowEpochs",
    "Json",
    "LabelsKey",
    "Layer",
    "Overwrite",
    "PerturbationKey",
    "RepresentationEpochs",
    "SampleKey",
    "Seed",
    "Source",
    "epochs",
    "refuse_existing",
    "remove",
]

import shutil
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from cfmvc_scvi.cli._config import read_config

_Stage: TypeAlias = Literal["representation", "flow", "joint"]

_COLUMNS, _TRAINING = "Columns of obs", "Training"

Data: TypeAlias = Annotated[
    Path, typer.Argument(metavar="DATA.h5ad", exists=True, dir_okay=False, help="Cells (.h5ad) with raw UMI counts.")
]
PerturbationKey: TypeAlias = Annotated[
    str,
    typer.Option(rich_help_panel=_COLUMNS, help="Perturbation of each cell; combinations are written A+B."),
]
Control: TypeAlias = Annotated[
    str, typer.Option(rich_help_panel=_COLUMNS, help="Name of the unperturbed cells in that column.")
]
LabelsKey: TypeAlias = Annotated[
    str | None,
    typer.Option(rich_help_panel=_COLUMNS, help="Cell type: a perturbation has one mean effect in each."),
]
BatchKey: TypeAlias = Annotated[
    str | None, typer.Option(rich_help_panel=_COLUMNS, help="Technical batch, which the model removes.")
]
SampleKey: TypeAlias = Annotated[
    str | None,
    typer.Option(rich_help_panel=_COLUMNS, help="Donor or patient, which may respond in its own way."),
]
DoseKey: TypeAlias = Annotated[
    str | None, typer.Option(rich_help_panel=_COLUMNS, help="Dose of each cell, a number >= 0.")
]
Layer: TypeAlias = Annotated[str | None, typer.Option(help="Layer with the counts; X if not given.")]
Seed: TypeAlias = Annotated[int, typer.Option(min=0, help="The same seed gives the same result.")]
RepresentationEpochs: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1, rich_help_panel=_TRAINING, help="Epochs of stage 1; chosen by the number of cells if not given."
    ),
]
FlowEpochs: TypeAlias = Annotated[
    int | None,
    typer.Option(min=1, rich_help_panel=_TRAINING, help="Epochs of stage 2; the default of the model if not given."),
]
Source: TypeAlias = Annotated[
    Literal["control", "noise"],
    typer.Option(
        rich_help_panel=_TRAINING,
        help="Where the flow starts: control cells (best for the individual cell) or noise (can sample new cells).",
    ),
]
Json: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print JSON to standard output, for programs; all else goes to standard error.")
]
Config: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        is_eager=True,
        callback=read_config,
        help="File (.yaml) of these options, by their names; the command line overrides it.",
    ),
]
Overwrite: TypeAlias = Annotated[bool, typer.Option("--overwrite", help="Replace what stands at --out.")]


def refuse_existing(out: Path, overwrite: bool) -> None:
    """Raise a usage error, before any work is done, if `out` exists or cannot be made."""
    if out.exists() and not overwrite:
        raise typer.BadParameter(f"'{out}' exists; choose another name, or add --overwrite.", param_hint="--out")
    if not out.absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no directory '{out.absolute().parent}'; make it first.", param_hint="--out")


def remove(out: Path) -> None:
    """Remove a file or a directory, if it is there."""
    if out.is_dir():
        shutil.rmtree(out)
    else:
        out.unlink(missing_ok=True)


def epochs(representation: int | None, flow: int | None) -> dict[_Stage, int]:
    """Epochs by stage, as `CFMVC.train` takes them; stages that are not named keep their defaults."""
    chosen: dict[_Stage, int] = {}
    if representation is not None:
        chosen["representation"] = representation
    if flow is not None:
        chosen["flow"] = flow
    return chosen
