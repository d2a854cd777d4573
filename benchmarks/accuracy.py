"""Tables of the model, the same without its flow, simple baselines and the ceiling on real data, and other models'.

python benchmarks/accuracy.py DATA --sets kang_small gbm --seeds 5 --out runs
python benchmarks/accuracy.py DATA --sets kang_small --seeds 1 --out runs --join peers/predictions/CellFlow

DATA is a directory with the .h5ad files that the sets name: raw counts in X; obs perturbation, cell_type, batch. Each
set gets a directory in --out with predictions and scores.csv, and a table in --tables; a run that is started again
goes on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

from cfmvc_scvi import benchmark as bm
from cfmvc_scvi import tl


@dataclass(frozen=True)
class Task:
    """A file, what is left out of it, and the arguments of `CFMVC.setup_anndata`."""

    file: str
    holdout: str
    setup: Mapping[str, str] = field(default_factory=dict)
    only: tuple[str, ...] | None = None
    cells: Callable[[ad.AnnData], np.ndarray] | None = None
    n_splits: int | None = None


def known_donors(adata: ad.AnnData) -> np.ndarray:
    """Cells whose cell type was annotated, and not transferred by a classifier."""
    return (adata.obs["batch"] != "donor_unknown").to_numpy()


TASKS = {
    "kang_small": Task("kang_small.h5ad", "cell_type", {"batch_key": "batch"}),
    "kang": Task("kang.h5ad", "cell_type", {"batch_key": "batch"}, cells=known_donors),
    "kang_donors": Task("kang.h5ad", "batch", {"labels_key": "cell_type"}, cells=known_donors),
    "kang_whole_transcriptome": Task("kang_whole_transcriptome.h5ad", "cell_type"),
    "gbm": Task("gbm.h5ad", "batch", {"batch_key": "batch"}),
    "papalexi": Task("papalexi.h5ad", "batch", {"batch_key": "batch"}),
    "papalexi_unseen": Task("papalexi.h5ad", "perturbation", {"labels_key": "batch"}, n_splits=5),
}

COLUMNS = {
    "pearson_delta": "Pearson",
    "weighted_mse": "wMSE",
    "energy": "energy",
    "sig_jaccard": "DE Jaccard",
    "de_overlap": "DE overlap",
    "context_discrimination": "ctx discr.",
    "perturbation_discrimination": "pert. discr.",
    "variance_log_ratio": "log2 var.",
    "zero_share_error": "zeros",
    "pearson_delta_top": "Pearson top 50",
    "pearson_delta_specific": "Pearson specific",
    "mmd": "MMD",
    "cpu_seconds": "CPU s",
}


def cells_of(task: Task, directory: Path) -> ad.AnnData:
    """Cells of a task, read from the directory of the data sets."""
    adata = ad.read_h5ad(directory / task.file)
    return adata if task.cells is None else adata[task.cells(adata)].copy()


def run(name: str, args: argparse.Namespace) -> str:
    """Benchmark one data set; returns its section in Markdown."""
    task = TASKS[name]
    models = ["CFMVC", bm.NO_FLOW, *([bm.LATENT_ARITHMETIC] if args.latent_arithmetic else []), *args.join]
    scores = tl.benchmark(
        cells_of(task, args.data),
        task.holdout,
        models=models,
        seeds=args.seeds,
        setup=task.setup,
        n_splits=task.n_splits,
        only=args.only or task.only,
        out=args.out / name,
    )
    return section(name, task, scores, args.seeds)


def section(name: str, task: Task, scores: pd.DataFrame, n_seeds: int) -> str:
    """What is said of one run: all methods, then the model against the best simple baseline of each metric."""
    summary = bm.summarise(scores)
    shown = summary[[column for column in COLUMNS if column in summary]].rename(columns=COLUMNS)
    shown.insert(0, "mean rank", bm.mean_rank(bm.summarise(bm.losses(scores))).reindex(shown.index))
    groups = scores.loc[~(scores[["condition", "context"]] == "*").any(axis=1), ["condition", "context"]]
    compared = bm.compare(scores)
    numbers = compared[["model", "best", "by", "floor", "ceiling", "difference", "low", "high", "outcome"]]
    return "\n".join(
        [
            f"## {name}",
            "",
            f"`{task.file}`, left out by {task.holdout}: {len(groups.drop_duplicates())} groups, seeds: {n_seeds}.",
            "",
            bm.verdict(compared),
            "",
            markdown(shown),
            "",
            markdown(numbers),
            "",
        ]
    )


def markdown(table: pd.DataFrame) -> str:
    """Table with three digits; what has no value is left empty."""
    cells = [[_text(value) for value in row] for row in table.itertuples(index=True)]
    head = ["", *map(str, table.columns)]
    lines = [" | ".join(row) for row in (head, ["---"] * len(head), *cells)]
    return "\n".join(f"| {line} |" for line in lines)


def _text(value: object) -> str:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.3f}"
    return str(value)


def write_table(text: str, args: argparse.Namespace, name: str) -> None:
    """Write a section into the directory of tables, if one is asked for."""
    if args.tables is not None:
        args.tables.mkdir(parents=True, exist_ok=True)
        (args.tables / f"{name}.md").write_text(text, encoding="utf-8")


def main() -> None:
    """Run the sets one after the other and write and print their sections."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="directory of the data sets")
    parser.add_argument("--sets", nargs="+", choices=TASKS, default=["kang_small", "gbm"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="+", help="contexts or conditions to leave out; all, if not given")
    parser.add_argument("--join", nargs="+", default=[], help="directories of predictions made elsewhere")
    parser.add_argument("--latent-arithmetic", action="store_true", help="with latent arithmetic on the model's VAE")
    parser.add_argument("--out", type=Path, required=True, help="directory of the runs")
    parser.add_argument("--tables", type=Path, help="directory for the tables, such as docs/tables")
    args = parser.parse_args()
    for name in args.sets:
        start = time.perf_counter()
        text = run(name, args)
        write_table(text, args, f"{name}_peers" if args.join else name)
        print(text)
        print(f"{time.perf_counter() - start:.0f} s\n")


if __name__ == "__main__":
    main()
