"""Speed and scale on simulated cells: prediction, the flow's training, scaling, and memory of training from a file.

python benchmarks/speed.py --out speed.json --table docs/tables/speed.md
python benchmarks/speed.py --parts memory --memory-cells 10000 100000 1000000 --out memory.json

Figures are seconds of CPU, with one thread; each ratio is of two numbers of one run. Linux only: peaks of memory are
those the kernel keeps (VmHWM), each of a process of its own. Stage 1 against SCVI is `representation.py`.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import scvi
import torch

from cfmvc_scvi import CFMVC
from cfmvc_scvi.config import PairConfig
from cfmvc_scvi.datasets import simulated_perturbation
from cfmvc_scvi.module import flow_matching_loss
from cfmvc_scvi.train import LatentDataModule

PARTS = ("prediction", "flow", "scaling", "memory")
SETUP = {"batch_key": "batch", "labels_key": "cell_type", "perturbation_key": "perturbation"}
SHORT = {"representation": 4, "flow": 2}  # epochs: enough to predict, and what is predicted does not matter here


def cpu(run: Callable[[], Any], repeats: int = 1) -> float:
    """Seconds of CPU, the least of some repeats."""
    seconds = []
    for _ in range(repeats):
        begin = time.process_time()
        run()
        seconds.append(time.process_time() - begin)
    return min(seconds)


def trained(adata: ad.AnnData, epochs: dict[str, int] | None = None) -> CFMVC:
    """Return a model after a short training."""
    CFMVC.setup_anndata(adata, **SETUP)
    model = CFMVC(adata)
    model.train(epochs or SHORT, accelerator="cpu", enable_progress_bar=False)
    return model


def one_pass(adata: ad.AnnData) -> Callable[[], None]:
    """Return what encodes and decodes all cells once with scvi's SCVI of the same sizes, in minibatches of 1024."""
    adata = adata.copy()
    scvi.model.SCVI.setup_anndata(adata, batch_key="batch")
    model = scvi.model.SCVI(adata, n_latent=32, n_hidden=128, n_layers=1, gene_likelihood="nb")
    module = model.module.eval()

    @torch.inference_mode()
    def run() -> None:
        for tensors in model._make_data_loader(model.adata, batch_size=1024):
            inferred = module.inference(**module._get_inference_input(tensors))
            module.generative(**module._get_generative_input(tensors, inferred))

    return run


def prediction(n_cells: int, n_genes: int) -> dict[str, Any]:
    """Time predictions of control cells, as a whole and per cell, against one encode and decode of the same cells."""
    model = trained(simulated_perturbation(5000, n_genes, seed=0))
    control = model.adata[model.adata.obs["perturbation"] == "control"]
    asked = ad.concat([control] * -(-n_cells // control.n_obs), index_unique="-")[:n_cells].copy()
    few = asked[:1024].copy()
    base = cpu(one_pass(asked), 3)
    result: dict[str, Any] = {"cells": n_cells, "genes": n_genes, "pass_microseconds_a_cell": 1e6 * base / n_cells}
    for output in ("latent", "counts", "normalized"):

        def ask(cells: ad.AnnData, output: str = output) -> None:
            model.predict_counterfactual(cells, perturbation="A", output=output, seed=0)

        first = cpu(lambda ask=ask: ask(few))
        again = cpu(lambda ask=ask: ask(few), 3)
        whole = cpu(lambda ask=ask: ask(asked), 2)
        a_cell = (whole - again) / (n_cells - few.n_obs)
        result[output] = {
            "first_1024_seconds": first,
            "again_1024_seconds": again,
            "seconds": whole,
            "whole_over_pass": whole / base,
            "a_cell_over_pass": a_cell * n_cells / base,
            "million_values_a_second": 1e-6 / a_cell * n_genes,
        }
    return result


def flow(n_cells: int, n_genes: int) -> dict[str, Any]:
    """Time an epoch of stage 2 against a bare loop over the same minibatches, coupled alike."""
    model = trained(simulated_perturbation(n_cells, n_genes, seed=0))
    table, splits = model._latent_table(), model._splits()
    n_epochs = 4

    def ours(epochs: int) -> None:
        model.train(epochs, stage="flow", accelerator="cpu", enable_progress_bar=False)

    def bare(epochs: int) -> None:
        data = LatentDataModule(table, splits, source=model.source_, config=PairConfig(), seed=0)
        field = model.module.velocity.train()
        optimizer = torch.optim.AdamW(field.parameters(), lr=2e-3, fused=True)
        for _ in range(epochs):
            for pairs in data.train_dataloader():
                optimizer.zero_grad()
                flow_matching_loss(field, pairs, torch.rand(len(pairs["z_0"]))).backward()
                optimizer.step()

    seconds = {
        name: (cpu(lambda run=run: run(1 + n_epochs)) - cpu(lambda run=run: run(1))) / n_epochs
        for name, run in (("bare", bare), ("stage 2", ours))
    }
    return {"seconds_an_epoch": seconds, "over_bare_loop": seconds["stage 2"] / seconds["bare"]}


def scaling() -> dict[str, Any]:
    """Fit log-log slopes of the seconds of training and of prediction over cells, genes and perturbations.

    A tenth of the cells is asked about, control cells, under every perturbation.
    """
    result = {}
    sizes = {"cells": (4000, 16000), "genes": (1000, 4000), "perturbations": (2, 8)}
    for name, values in sizes.items():
        train, predict = [], []
        for value in values:
            n = {"cells": 4000, "genes": 1000, "perturbations": 2, name: value}
            names = [f"p{number}" for number in range(n["perturbations"])]
            cells = simulated_perturbation(n["cells"], n["genes"], perturbations=names, combinations=False, seed=0)
            CFMVC.setup_anndata(cells, **SETUP)
            model = CFMVC(cells)
            # in proportion to the cells: an epoch of the flow has as many minibatches, whatever their number
            epochs = {"representation": 3, "flow": 2}
            train.append(cpu(lambda m=model, e=epochs: m.train(e, accelerator="cpu", enable_progress_bar=False)))
            asked = np.flatnonzero(cells.obs["perturbation"] == "control")[: n["cells"] // 10]
            predict.append(
                cpu(lambda m=model, p=names, i=asked: m.predict_counterfactual(None, i, perturbation=p, seed=0))
            )
        span = np.log(values[1] / values[0])
        result[name] = {
            "sizes": list(values),
            "train_seconds": train,
            "predict_seconds": predict,
            "slope_train": float(np.log(train[1] / train[0]) / span),
            "slope_predict": float(np.log(predict[1] / predict[0]) / span),
        }
    return result


def write_cells(path: Path, n_cells: int, n_genes: int, block: int = 10_000) -> None:
    """Write simulated cells to a file, block by block: counts uncompressed, in CSR."""
    first = simulated_perturbation(min(block, n_cells), n_genes, combinations=False, seed=0)
    first.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        group = file["X"]
        parts = {key: group[key][:] for key in ("data", "indices", "indptr")}
        attributes = dict(group.attrs)
        del file["X"]
        group = file.create_group("X")
        group.attrs.update({**attributes, "shape": np.array([n_cells, n_genes])})
        n, rows = len(parts["data"]), first.n_obs
        copies = -(-n_cells // rows)
        for key in ("data", "indices"):
            data = group.create_dataset(key, (n * copies,), dtype=parts[key].dtype, chunks=(2**16,))
            for copy in range(copies):
                data[copy * n : (copy + 1) * n] = parts[key]
        indptr = np.concatenate([[0], *(parts["indptr"][1:].astype(np.int64) + n * copy for copy in range(copies))])
        group.create_dataset("indptr", data=indptr)
    obs = first.obs.iloc[np.arange(n_cells) % rows][list(SETUP.values())].reset_index(drop=True)
    obs.index = obs.index.astype(str)
    with h5py.File(path, "r+") as file:
        for key in ("obs", "obsm", "uns", "layers"):
            if key in file:
                del file[key]
        ad.io.write_elem(file, "obs", obs)


def peak() -> float:
    """Largest memory of this process so far, in GiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 2**20


def from_file(path: Path) -> None:
    """Train one epoch from a file, predict to a file, and print peaks and seconds."""
    adata, peaks, begin = ad.read_h5ad(path, backed="r"), {"import": peak()}, time.process_time()
    CFMVC.setup_anndata(adata, **SETUP)
    model = CFMVC(adata)
    peaks["setup"] = peak()
    for stage in ("representation", "flow"):
        model.train(1, stage=stage, accelerator="cpu", enable_progress_bar=False)
        peaks[stage] = peak()
    out = path.with_suffix(".answers.zarr")
    model.predict_counterfactual(adata, perturbation="A", seed=0, out=out)
    peaks["prediction"] = peak()
    print(json.dumps({"peak_gib": peaks, "seconds": time.process_time() - begin}))


def memory(sizes: list[int], n_genes: int) -> dict[str, Any]:
    """Return the peaks of memory of training and predicting from files of these sizes."""
    result = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "cells.h5ad"
            write_cells(path, size, n_genes)
            command = [sys.executable, __file__, "--file", str(path)]
            run = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            result[str(size)] = json.loads(run.stdout.strip().splitlines()[-1])
    return result


def table(results: dict[str, Any]) -> str:
    """Return the results as tables in markdown."""
    lines = []
    if "prediction" in results:
        told = results["prediction"]
        lines += [
            f"Prediction of {told['cells']:,} cells x {told['genes']:,} genes, times one encode and decode by SCVI "
            f"({told['pass_microseconds_a_cell']:.0f} us a cell):",
            "",
            "| output | whole call | per further cell | million values a second | first 1,024 cells, s | again, s |",
            "|---|---|---|---|---|---|",
        ]
        for name in ("latent", "counts", "normalized"):
            row = told[name]
            values = ("whole_over_pass", "a_cell_over_pass", "million_values_a_second")
            numbers = [f"{row[key]:.1f}" for key in values]
            numbers += [f"{row[key]:.2f}" for key in ("first_1024_seconds", "again_1024_seconds")]
            lines.append(f"| {name} | {' | '.join(numbers)} |")
    if "flow" in results:
        lines += [
            "",
            f"Stage 2 takes {results['flow']['over_bare_loop']:.2f} times a bare loop over the same minibatches.",
        ]
    if "scaling" in results:
        lines += ["", "| over | sizes | slope of training | slope of prediction |", "|---|---|---|---|"]
        for name, row in results["scaling"].items():
            sizes = " to ".join(f"{size:,}" for size in row["sizes"])
            lines.append(f"| {name} | {sizes} | {row['slope_train']:.2f} | {row['slope_predict']:.2f} |")
    if "memory" in results:
        stages = ("import", "setup", "representation", "flow", "prediction")
        lines += ["", f"| cells in a file | {' | '.join(stages)} | CPU s |", "|---" * 7 + "|"]
        for size, row in results["memory"].items():
            peaks = " | ".join(f"{row['peak_gib'][stage]:.2f}" for stage in stages)
            lines.append(f"| {int(size):,} | {peaks} | {row['seconds']:.0f} |")
        lines += ["", "Peak memory of the process, GiB, up to the end of each step."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the parts, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--cells", type=int, default=8192)
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--memory-cells", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--out", type=Path, help="JSON file to write; parts in it that are not run are kept")
    parser.add_argument("--table", type=Path, help="markdown file to write")
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    scvi.settings.seed = 0
    if options.file:
        from_file(options.file)
        return
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "prediction": lambda: prediction(options.cells, options.genes),
        "flow": lambda: flow(4000, options.genes),
        "scaling": scaling,
        "memory": lambda: memory(options.memory_cells, options.genes),
    }
    kept = json.loads(options.out.read_text()) if options.out and options.out.exists() else {}
    results = kept
    for name in options.parts:
        results[name] = parts[name]()
        if options.out:
            options.out.write_text(json.dumps(results, indent=1))
    print(json.dumps(results, indent=1))
    if options.table:
        options.table.write_text(table(results))


if __name__ == "__main__":
    main()
