"""Speed of stage 1 against scvi's own SCVI, in one run: same cells, sizes, minibatches, optimiser and epochs.

python benchmarks/representation.py DATA/kang.h5ad DATA/kang_small.h5ad DATA/gbm.h5ad --table representation.md

Runs alternate. Seconds of CPU of one epoch are those of a run of --epochs less those of a run of one epoch, which takes
setting up out of the count. ELBO: of the validation cells after --epochs (lower is better), at the KL weight of 1.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import scvi
import torch

from cfmvc_scvi import CFMVC
from cfmvc_scvi.config import TrainingConfig

SIZES = {"n_layers": 1, "n_hidden": 128}
N_LATENT = 32


def scvis(adata: ad.AnnData) -> scvi.model.SCVI:
    """Return SCVI with the sizes of CFMVC."""
    scvi.model.SCVI.setup_anndata(adata, batch_key="batch")
    return scvi.model.SCVI(adata, n_latent=N_LATENT, gene_likelihood="nb", **SIZES)


def ours(adata: ad.AnnData) -> CFMVC:
    """Return CFMVC without perturbations: stage 1 is all there is."""
    CFMVC.setup_anndata(adata, batch_key="batch")
    return CFMVC(adata, n_intrinsic=N_LATENT, **SIZES)


def run(make, adata: ad.AnnData, epochs: int, seed: int) -> tuple[float, float]:
    """Train, and return the seconds of CPU and the validation ELBO."""
    scvi.settings.seed = seed
    config = TrainingConfig()
    plan = {"lr": config.representation_lr, "eps": config.representation_eps, "n_epochs_kl_warmup": 1}
    model = make(adata.copy())
    begin = time.process_time()
    model.train(
        epochs,
        accelerator="cpu",
        batch_size=config.representation_batch_size,
        plan_kwargs={**plan, "max_kl_weight": 1.0},
        check_val_every_n_epoch=epochs,
        enable_progress_bar=False,
    )
    return time.process_time() - begin, float(model.history["elbo_validation"].iloc[-1, 0])


def compare(path: Path, epochs: int, repeats: int) -> dict[str, Any]:
    """Return seconds an epoch and ELBO of both, and the ratio of their speeds, medians over repeats."""
    adata = ad.read_h5ad(path)
    seconds: dict[str, list[float]] = {"SCVI": [], "CFMVC": []}
    elbo: dict[str, list[float]] = {"SCVI": [], "CFMVC": []}
    for repeat in range(repeats):
        for name, make in (("SCVI", scvis), ("CFMVC", ours)):
            once, _ = run(make, adata, 1, repeat)
            whole, value = run(make, adata, epochs, repeat)
            seconds[name].append((whole - once) / (epochs - 1))
            elbo[name].append(value)
    ratios = [theirs / own for theirs, own in zip(seconds["SCVI"], seconds["CFMVC"], strict=True)]
    return {
        "file": path.name,
        "cells": adata.n_obs,
        "genes": adata.n_vars,
        "share_of_counts_not_zero": round(adata.X.nnz / (adata.n_obs * adata.n_vars), 3),
        "cpu_seconds_an_epoch": {name: round(statistics.median(values), 3) for name, values in seconds.items()},
        "elbo_validation": {name: round(statistics.median(values), 1) for name, values in elbo.items()},
        "times_faster": round(statistics.median(ratios), 2),
        "times_faster_each": [round(ratio, 2) for ratio in ratios],
    }


def table(results: list[dict[str, Any]]) -> str:
    """Return the results as a table in markdown."""
    lines = [
        "| data | cells x genes | not zero | SCVI, s an epoch | stage 1 | times faster | ELBO of SCVI | of stage 1 |",
        "|---" * 8 + "|",
    ]
    for row in results:
        seconds, elbo = row["cpu_seconds_an_epoch"], row["elbo_validation"]
        lines.append(
            f"| {Path(row['file']).stem} | {row['cells']:,} x {row['genes']:,} | {row['share_of_counts_not_zero']:.2f} "
            f"| {seconds['SCVI']:.2f} | {seconds['CFMVC']:.2f} | {row['times_faster']:.2f} "
            f"| {elbo['SCVI']:.1f} | {elbo['CFMVC']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Compare on each file, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help=".h5ad with raw counts in X and a column batch in obs")
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--table", type=Path, help="markdown file to write")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    results = [compare(path, options.epochs, options.repeats) for path in options.files]
    text = json.dumps(results, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text)
    if options.table:
        options.table.write_text(table(results))


if __name__ == "__main__":
    main()
