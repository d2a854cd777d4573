"""Peak memory of each stage of training above what the data take, as it is and with counts as a dense matrix.

Each line comes from a process of its own. Linux only: peaks are those the kernel keeps (VmHWM).

python benchmarks/memory.py
python benchmarks/memory.py --cells 20000 --genes 5000
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import warnings
from pathlib import Path

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def megabytes(field: str) -> float:
    """Memory of this process: VmRSS now, VmHWM at its peak since the last reset."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return float(line.split()[1]) / 1024


def measure(n_cells: int, n_genes: int, dense: bool) -> None:
    """Train on random counts, one in ten not zero, and print the peak of each stage."""
    import anndata as ad
    import numpy as np
    import pandas as pd
    import scipy.sparse as sp
    import torch

    from cfmvc_scvi import CFMVC

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    counts = sp.random(n_cells, n_genes, 0.1, format="csr", dtype=np.float32, random_state=rng)
    counts.data = np.ceil(counts.data * 10)
    obs = pd.DataFrame(
        {"perturbation": rng.choice(["control", "A"], n_cells), "cell_type": rng.choice(["B", "T"], n_cells)}
    )
    adata = ad.AnnData(counts.toarray() if dense else counts, obs=obs.set_axis(obs.index.astype(str)))
    del counts
    CFMVC.setup_anndata(adata, labels_key="cell_type", perturbation_key="perturbation")
    model = CFMVC(adata)
    x = adata.X.nbytes if dense else adata.X.data.nbytes + adata.X.indices.nbytes + adata.X.indptr.nbytes
    peaks = []
    for stage in ("representation", "flow", "joint"):
        RESET.write_text("5")
        before = megabytes("VmRSS")
        model.train(1, stage=stage, accelerator="cpu", enable_progress_bar=False)
        peaks.append(megabytes("VmHWM") - before)
    cells = "".join(f"{peak:>16.0f}" for peak in peaks)
    print(f"{'dense' if dense else 'sparse':<10}{x / 2**20:>10.0f}{cells}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--only", choices=["sparse", "dense"], help="in this process")
    options = parser.parse_args()
    if options.only:
        measure(options.cells, options.genes, options.only == "dense")
        return
    print(f"{options.cells} cells, {options.genes} genes; MB, stages: peak above the start of the stage")
    print(f"{'counts':<10}{'X':>10}{'representation':>16}{'flow':>16}{'joint':>16}", flush=True)
    for kind in ("sparse", "dense"):
        command = [
            sys.executable,
            __file__,
            "--only",
            kind,
            "--cells",
            str(options.cells),
            "--genes",
            str(options.genes),
        ]
        run = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        print(run.stdout.strip().splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
