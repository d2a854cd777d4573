"""Why predictions of a model that two processes trained are not those of one process: size of the minibatch, or seed.

python benchmarks/processes.py --table docs/tables/processes.md

Simulated cells; two processes by gloo on one machine. Differences of the predicted mean effect from that of one process
at the default size, relative to the effect (mean absolute log1p CP10k). A minibatch is that of one process.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import scvi
import torch

from cfmvc_scvi import CFMVC
from cfmvc_scvi.datasets import simulated_perturbation

SETUP = {"batch_key": "batch", "labels_key": "cell_type", "perturbation_key": "perturbation"}
RUNS = {  # processes, cells in a minibatch, seed
    "one process": (1, 128, 0),
    "one process, another seed": (1, 128, 1),
    "one process, a third seed": (1, 128, 2),
    "one process, minibatches twice as large": (1, 256, 0),
    "two processes": (2, 128, 0),
    "two processes, minibatches half as large": (2, 64, 0),
}


def train(n_processes: int, size: int, seed: int, out: Path) -> None:
    """Train in this process, perhaps with others, and write the predicted mean effects of the cell types."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    scvi.settings.seed = seed
    adata = simulated_perturbation(2000, 200, n_cell_types=2, perturbations=("A",), combinations=False, seed=0)
    CFMVC.setup_anndata(adata, **SETUP)
    model = CFMVC(adata)
    splits = np.array_split(np.random.default_rng(0).permutation(adata.n_obs), [1800])
    options = {"strategy": "ddp_find_unused_parameters_true"} if n_processes > 1 else {}
    model.train(
        {"representation": 40, "flow": 8},
        batch_size=size,
        pair_kwargs={"batch_size": 4 * size},
        datasplitter_kwargs={"external_indexing": [*splits, np.empty(0, dtype=int)]},
        accelerator="cpu",
        devices=n_processes,
        enable_progress_bar=False,
        **options,
    )
    if not model.trainer.is_global_zero:
        return
    control = adata[adata.obs["perturbation"] == "control"].copy()
    answer = model.predict_counterfactual(control, perturbation="A", seed=0)
    after, before = (
        np.log1p(1e4 * x / x.sum(axis=1, keepdims=True)) for x in (answer.X.toarray(), control.X.toarray())
    )
    changes = after - before
    kinds = control.obs["cell_type"]
    np.save(out, np.stack([changes[(kinds == kind).to_numpy()].mean(axis=0) for kind in kinds.unique()]))


def main() -> None:
    """Train each way in processes of its own, compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--table", type=Path, help="markdown file to write")
    parser.add_argument("--ways", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ways:
        train(*map(int, options.ways[:3]), Path(options.ways[3]))
        return
    effects = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, run in RUNS.items():
            out = Path(folder) / "effects.npy"
            launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"] if run[0] > 1 else []
            command = [sys.executable, *launcher, __file__, "--ways", *map(str, run), str(out)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
            effects[name] = np.load(out)
    first = effects["one process"]
    results = {name: float(np.abs(each - first).mean() / np.abs(first).mean()) for name, each in effects.items()}
    print(json.dumps(results, indent=1))
    if options.out:
        options.out.write_text(json.dumps(results, indent=1))
    if options.table:
        rows = [f"| {name} | {100 * value:.1f} % |" for name, value in results.items() if name != "one process"]
        options.table.write_text("\n".join(["| trained by | difference from one process |", "|---|---|", *rows]) + "\n")


if __name__ == "__main__":
    main()
