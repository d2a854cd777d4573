"""`cfmvc-scvi evaluate`."""

from __future__ import annotations

__all__ = ["evaluate"]

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from cfmvc_scvi.cli import _options as options

_NAME = "prediction"


def evaluate(
    predicted: Annotated[
        Path, typer.Argument(metavar="PREDICTED.h5ad", exists=True, dir_okay=False, help="Predicted cells (.h5ad).")
    ],
    truth: Annotated[
        Path,
        typer.Argument(
            metavar="TRUTH.h5ad", exists=True, dir_okay=False, help="Real perturbed and control cells, raw UMI counts."
        ),
    ],
    perturbation_key: options.PerturbationKey = "perturbation",
    control: options.Control = "control",
    context_key: Annotated[
        str | None,
        typer.Option(help="Column of obs within whose groups cells are compared, for example cell types."),
    ] = None,
    layer: options.Layer = None,
    suite: Annotated[
        Literal["default", "challenge"],
        typer.Option(help="Metrics: ours, or those of the Virtual Cell Challenge 2026 (extra eval)."),
    ] = "default",
    out: Annotated[Path | None, typer.Option(help="File (.csv) for all scores.")] = None,
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
) -> None:
    """Score predicted cells against real ones, between no change and what real cells predict of real cells.

    Each condition of the real cells is scored within each context; predicted cells of `cfmvc-scvi predict` know their
    condition, others need the column of perturbations.

    Example: cfmvc-scvi evaluate predicted.h5ad kang.h5ad --context-key cell_type
    """
    if out is not None:
        options.refuse_existing(out, overwrite)

    import numpy as np

    from cfmvc_scvi import benchmark as bm
    from cfmvc_scvi import tl
    from cfmvc_scvi.cli._cells import counts_in_x, of_control, read_cells
    from cfmvc_scvi.cli._json import print_json, records
    from cfmvc_scvi.cli._scores import group_table, score_table

    console = Console(stderr=json)
    real = counts_in_x(read_cells(truth), layer)
    is_control = np.isin(np.arange(real.n_obs), of_control(real, perturbation_key, control))
    scores = tl.evaluate(
        read_cells(predicted),
        real[~is_control].copy(),
        real[is_control].copy(),
        perturbation_key=perturbation_key,
        context_key=context_key,
        suite=suite,
        seed=seed,
    )
    groups = scores[["condition", "context"]].drop_duplicates()
    if suite == "challenge":
        if json:
            print_json(records(bm.summarise(scores).rename_axis("method").reset_index()))
        console.print(group_table(bm.summarise(scores), "Metrics of the Virtual Cell Challenge 2026, not rescaled"))
    else:
        compared = bm.compare(scores, _NAME, [bm.FLOOR])
        if json:
            print_json(records(compared.rename_axis("metric").reset_index()))
        n_groups = len(groups[~(groups == "*").any(axis=1)])
        console.print(score_table(compared, _NAME, f"Mean over {n_groups} groups, seed {seed}"))
    if out is not None:
        scores.to_csv(out, index=False)
        console.print(f"all scores: {out}", soft_wrap=True)
