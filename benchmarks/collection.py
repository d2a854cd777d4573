"""Training from a collection of annbatch, from the file it was made of, and from memory: seconds and peaks of memory.

python benchmarks/collection.py
python benchmarks/collection.py --cells 200000 --genes 2000

Simulated cells, one epoch of each stage; each line comes from a process of its own, with one thread. Needs the extra
annbatch (Python 3.12). Linux only: peaks are those the kernel keeps (VmHWM).
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
from pathlib import Path
from typing import Any

import anndata as ad
import torch
from speed import SETUP, peak, write_cells

from cfmvc_scvi import CFMVC

KINDS = ("memory", "file", "collection")


def source(kind: str, folder: Path) -> tuple[Any, CFMVC]:
    """Return what the model is trained on, and the model."""
    if kind == "collection":
        data = CFMVC.setup_annbatch(folder / "cells.zarr", **SETUP)
        return data, CFMVC(registry=data.registry)
    adata = ad.read_h5ad(folder / "cells.h5ad", backed="r" if kind == "file" else None)
    CFMVC.setup_anndata(adata, **SETUP)
    return None, CFMVC(adata)


def measure(kind: str, folder: Path) -> None:
    """Train and print what it took."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    before, begin, seconds = peak(), time.perf_counter(), []
    data, model = source(kind, folder)
    seconds.append(time.perf_counter() - begin)
    for stage in ("representation", "flow"):
        begin = time.perf_counter()
        model.train(1, stage=stage, accelerator="cpu", enable_progress_bar=False, datamodule=data)
        seconds.append(time.perf_counter() - begin)
    print(json.dumps({"seconds": seconds, "cpu": time.process_time(), "peak": peak() - before}))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=50_000)
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.kind:
        measure(options.kind, options.folder)
        return
    from annbatch import DatasetCollection

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_cells(folder / "cells.h5ad", options.cells, options.genes)
        warnings.simplefilter("ignore")
        DatasetCollection(folder / "cells.zarr").add_adatas([folder / "cells.h5ad"])
        print(f"{options.cells:,} cells x {options.genes:,} genes; wall seconds, and GiB above what importing takes")
        print(f"{'cells in':<12}{'setup':>10}{'stage 1':>10}{'stage 2':>10}{'CPU s':>10}{'peak':>10}", flush=True)
        for kind in KINDS:
            command = [sys.executable, __file__, "--kind", kind, "--folder", name]
            run = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            told = json.loads(run.stdout.strip().splitlines()[-1])
            cells = "".join(f"{value:>10.1f}" for value in [*told["seconds"], told["cpu"]])
            print(f"{kind:<12}{cells}{told['peak']:>10.2f}", flush=True)


if __name__ == "__main__":
    main()
