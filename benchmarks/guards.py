"""What it costs to watch a training: CPU time of a step with the guard against NaN, with a monitor, and with neither.

The variants take turns within one process, and the medians of their ratios are printed.

python benchmarks/guards.py
python benchmarks/guards.py --cells 4000 --genes 2000 --repeats 20
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from unittest import mock

import numpy as np
import scvi
import torch

from cfmvc_scvi import CFMVC
from cfmvc_scvi.callbacks import GradientMonitor
from cfmvc_scvi.datasets import simulated_perturbation
from cfmvc_scvi.train import Stage
from cfmvc_scvi.train.guard import FiniteGuard

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", ".*LeafSpec")
QUIET = {"accelerator": "cpu", "enable_progress_bar": False}


@contextmanager
def no_guard() -> Iterator[None]:
    """Take away every check of the plans."""
    guard, nothing = FiniteGuard, lambda *args, **kwargs: None
    names = ("check", "on_before_optimizer_step", "on_train_epoch_end", "on_validation_end")
    patches = [mock.patch.object(guard, name, nothing) for name in names]
    patches.append(mock.patch.object(guard, "explained", lambda *args: nullcontext()))
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


def measure(model: CFMVC, stage: Stage, epochs: int, repeats: int) -> dict[str, list[float]]:
    """CPU seconds of trainings that nothing watches, that the guard watches, and that a monitor watches too."""
    times: dict[str, list[float]] = {"neither": [], "guard": [], "monitor": []}
    for _ in range(repeats):
        for name, values in times.items():
            hooks = [GradientMonitor()] if name == "monitor" else []
            model.trained_stages_ = ["representation", "flow"]
            with no_guard() if name == "neither" else nullcontext():
                start = time.process_time()
                model.train(epochs, stage=stage, callbacks=hooks, **QUIET)
                values.append(time.process_time() - start)
    return times


def main() -> None:
    """Print a line for each stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("cells", 2000), ("genes", 1000), ("epochs", 5), ("repeats", 12)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    torch.set_num_threads(1)
    scvi.settings.seed = 0
    adata = simulated_perturbation(n_cells=options.cells, n_genes=options.genes, seed=0)
    CFMVC.setup_anndata(adata, batch_key="batch", labels_key="cell_type", perturbation_key="perturbation")
    model = CFMVC(adata)
    model.train(max_epochs=1, **QUIET)
    print(f"{adata.n_obs} cells, {adata.n_vars} genes; CPU ms per step, ratio to a training that nothing watches")
    print(f"{'stage':<16}{'neither':>10}{'guard':>20}{'guard + monitor':>20}")
    n_batches = int(np.ceil(len(model.train_indices) / 128))
    for stage, n_steps in {"representation": options.epochs * n_batches, "flow": options.epochs * 50}.items():
        times = measure(model, stage, options.epochs, options.repeats)
        plain, *watched = (1e3 * np.array(values) / n_steps for values in times.values())
        ratios = "".join(f"{np.median(x):>12.2f} ({np.median(x / plain):5.3f})" for x in watched)
        print(f"{stage:<16}{np.median(plain):>10.2f}{ratios}", flush=True)


if __name__ == "__main__":
    main()
