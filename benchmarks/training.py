"""CPU seconds of a whole job on a file, from the first import to the prediction, and of stage 2 on 100,000 cells.

python benchmarks/training.py --job kang_small.h5ad --out training.json --table docs/tables/training.md
python benchmarks/training.py --cells 100000

One thread. The file has raw counts in X; obs perturbation, cell_type, batch.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_JOB = """
import time, json, sys
laps, begin = {}, time.process_time()
def lap(name):
    global begin
    now = time.process_time()
    laps[name], begin = now - begin, now
import anndata
from cfmvc_scvi import CFMVC
lap("import")
adata = anndata.read_h5ad(sys.argv[1])
CFMVC.setup_anndata(adata, batch_key="batch", labels_key="cell_type", perturbation_key="perturbation")
model = CFMVC(adata)
lap("setup")
model.train(accelerator="cpu", enable_progress_bar=False)
lap("training")
wanted = next(name for name in model.vocabulary.perturbations)
control = adata.obs["perturbation"] == "control"
model.predict_counterfactual(None, control.to_numpy(), perturbation=wanted, seed=0)
lap("prediction")
print(json.dumps({"cells": adata.n_obs, "genes": adata.n_vars, "seconds": laps}))
"""
_SCVI = "import time; begin = time.process_time(); import scvi.model; print(time.process_time() - begin)"


def told(code: str, *arguments: str) -> Any:
    """Run code in a process of its own, with one thread; return what its last line says."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", code, *arguments]
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
    return json.loads(run.stdout.splitlines()[-1])


def job(path: Path) -> dict[str, Any]:
    """Time a job on a file with the default options, and the import of scvi-tools alone."""
    result: dict[str, Any] = {"file": path.name, "import_of_scvi": told(_SCVI), **told(_JOB, str(path))}
    return result


def convergence(n_cells: int, n_genes: int) -> dict[str, Any]:
    """Train stage 2 for its default number of epochs, four and eight times as long; seconds and loss of each."""
    import scvi
    import torch

    from cfmvc_scvi import CFMVC
    from cfmvc_scvi.config import PairConfig, TrainingConfig
    from cfmvc_scvi.datasets import simulated_perturbation

    torch.set_num_threads(1)
    result: dict[str, Any] = {"cells": n_cells, "runs": []}
    for factor in (1, 4, 8):
        scvi.settings.seed = 0
        adata = simulated_perturbation(n_cells, n_genes, seed=0)
        CFMVC.setup_anndata(adata, batch_key="batch", labels_key="cell_type", perturbation_key="perturbation")
        model = CFMVC(adata)
        model.train(3, stage="representation", accelerator="cpu", enable_progress_bar=False)
        epochs = factor * TrainingConfig().flow_epochs
        begin = time.process_time()
        model.train(
            epochs, stage="flow", accelerator="cpu", enable_progress_bar=False, check_val_every_n_epoch=epochs // 8
        )
        seconds = time.process_time() - begin
        loss = model.history["flow_loss_validation"].to_numpy(dtype=float).ravel()
        steps = epochs * PairConfig().steps_per_epoch
        result["runs"].append({"steps": steps, "seconds": seconds, "validation_loss": float(loss[-1])})
    return result


def table(results: dict[str, Any]) -> str:
    """Return the results as tables in markdown."""
    lines = []
    if "job" in results:
        found = results["job"]
        seconds = found["seconds"]
        lines += [
            f"`{found['file']}`, {found['cells']:,} cells x {found['genes']:,} genes, CPU seconds of each step; to "
            f"import scvi-tools alone takes {found['import_of_scvi']:.1f}:",
            "",
            f"| {' | '.join(seconds)} | whole |",
            "|---" * (len(seconds) + 1) + "|",
            f"| {' | '.join(f'{value:.1f}' for value in seconds.values())} | {sum(seconds.values()):.1f} |",
            "",
        ]
    if "convergence" in results:
        found = results["convergence"]
        lines += [
            f"Stage 2 on {found['cells']:,} simulated cells, for the default number of minibatches and longer:",
            "",
            "| minibatches | CPU s | loss of validation pairs |",
            "|---|---|---|",
        ]
        lines += [
            f"| {run['steps']:,} | {run['seconds']:.1f} | {run['validation_loss']:.4f} |" for run in found["runs"]
        ]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", type=Path, help=".h5ad file of a whole job; left out without it")
    parser.add_argument("--cells", type=int, default=100_000, help="simulated cells of stage 2; 0 leaves it out")
    parser.add_argument("--genes", type=int, default=200)
    parser.add_argument("--out", type=Path, help="JSON file to write; parts in it that are not run are kept")
    parser.add_argument("--table", type=Path, help="markdown file to write")
    options = parser.parse_args()
    results = json.loads(options.out.read_text()) if options.out and options.out.exists() else {}
    if options.job:
        results["job"] = job(options.job)
    if options.cells:
        results["convergence"] = convergence(options.cells, options.genes)
    print(json.dumps(results, indent=1))
    if options.out:
        options.out.write_text(json.dumps(results, indent=1))
    if options.table:
        options.table.write_text(table(results))


if __name__ == "__main__":
    main()
