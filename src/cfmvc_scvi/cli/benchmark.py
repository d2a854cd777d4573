"""`cfmvc-scvi benchmark`."""

from __future__ import annotations

__all__ = ["benchmark"]

import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from cfmvc_scvi.cli import _options as options

_RUN = "run"  # directory of the store, beside the page


def benchmark(
    data: options.Data,
    report: Annotated[Path, typer.Option(file_okay=False, help="Directory for the report, index.html, and the run.")],
    holdout: Annotated[
        str,
        typer.Option(
            help="What is held out and predicted: the groups of a column of obs (cell types, donors), or "
            "'perturbation', 'combination' or 'dose'."
        ),
    ] = "cell_type",
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="GROUP", help="Group or perturbation to hold out; may be repeated. All if not given."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds; the model is trained anew for each.")] = 5,
    predictions: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=DIR", help="Another model, as a directory of its predictions; may be repeated."),
    ] = None,
    perturbation_key: options.PerturbationKey = "perturbation",
    control: options.Control = "control",
    labels_key: options.LabelsKey = None,
    batch_key: options.BatchKey = None,
    sample_key: options.SampleKey = None,
    dose_key: options.DoseKey = None,
    layer: options.Layer = None,
    epochs_representation: options.RepresentationEpochs = None,
    epochs_flow: options.FlowEpochs = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start anew. Without it a run that is there is gone on with.")
    ] = False,
    json: options.Json = False,
    config: options.Config = None,
) -> None:
    """Hide perturbed cells of your data, predict them, and write a report that says whether to believe the predictions.

    The model is compared with simple baselines, and trained anew for each held-out group and seed. A run that was
    stopped goes on where it was when the command is given again. Needs no network.

    Example: cfmvc-scvi benchmark kang.h5ad --holdout cell_type --batch-key batch --report out
    """
    others = _directories(predictions or [])
    if overwrite:
        _remove(report)

    from cfmvc_scvi import benchmark as bm
    from cfmvc_scvi import tl
    from cfmvc_scvi.benchmark.report import write_report
    from cfmvc_scvi.cli._cells import counts_in_x, read_cells
    from cfmvc_scvi.cli._json import print_json, records
    from cfmvc_scvi.cli._scores import score_table

    console = Console(stderr=json)
    adata = counts_in_x(read_cells(data), layer)
    keys = {
        "perturbation_key": perturbation_key,
        "labels_key": labels_key,
        "batch_key": batch_key,
        "sample_key": sample_key,
        "dose_key": dose_key,
    }
    epochs = {"epochs_representation": epochs_representation, "epochs_flow": epochs_flow}
    setup, columns = bm.benchmark_setup(holdout, {**keys, "control_category": control})
    train = {"max_epochs": options.epochs(**{name.removeprefix("epochs_"): n for name, n in epochs.items()})}
    names = set(adata.obs.get(columns.perturbation_key, ()))
    models = {**bm.default_models(holdout, setup, columns, conditions=names, train_kwargs=train), **others}
    scores = tl.benchmark(adata, holdout, models=models, seeds=seeds, setup=setup, only=only, out=report / _RUN)
    compared = bm.compare(scores)
    n_groups = len(scores.loc[scores["metric"] == "pearson_delta", ["condition", "context"]].drop_duplicates())
    title = f"Mean over {n_groups} held-out groups and {scores['seed'].nunique()} seeds"
    console.print(score_table(compared, "CFMVC", title))
    console.print(bm.verdict(compared), soft_wrap=True)
    joined = [f"{name}={directory.resolve().name}" for name, directory in others.items()]
    asked = {"holdout": holdout, "report": report.resolve().name, "only": only, "seeds": seeds, "predictions": joined}
    command = _command(data.name, {**asked, **keys, "control": control, "layer": layer, **epochs})
    with Console(stderr=True).status("drawing the report"):
        page = write_report(report / _RUN, adata, report, title=f"{data.name}: CFMVC", command=command)
    if json:
        table = records(compared.rename_axis("metric").reset_index())
        print_json({"verdict": bm.verdict(compared), "report": str(page), "metrics": table})
    console.print(f"report: {page}", soft_wrap=True)


def _directories(named: Sequence[str]) -> dict[str, Path]:
    """Directories by name, of texts NAME=DIR; a usage error if one is not like that."""
    found: dict[str, Path] = {}
    for text in named:
        name, _, directory = text.partition("=")
        if not name or not directory or name in found or not Path(directory).is_dir():
            raise typer.BadParameter(
                f"'{text}' is not NAME=DIR with a new name and a directory that exists.", param_hint="--predictions"
            )
        found[name] = Path(directory)
    return found


def _remove(report: Path) -> None:
    """Remove a run that is there, and nothing else."""
    if (report / _RUN / "run.json").exists():
        shutil.rmtree(report / _RUN)


def _command(data: str, given: Mapping[str, Any]) -> str:
    """Write the line that repeats the run, for a shell; files by their names, for the page is sent to others."""
    words = ["cfmvc-scvi", "benchmark", data]
    for name, value in given.items():
        values = value if isinstance(value, list) else [] if value is None else [value]
        for one in values:
            words += [f"--{name.replace('_', '-')}", str(one)]
    return shlex.join(words)
