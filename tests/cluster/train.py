"""One process of a training, alone or with others: python train.py FOLDER PROCESSES."""

import hashlib
import json
import os
import sys
from pathlib import Path

import scvi

from cfmvc_scvi import CFMVC
from cfmvc_scvi.datasets import simulated_perturbation
from cfmvc_scvi.train import Checkpoint

SETUP = {"batch_key": "batch", "labels_key": "cell_type", "perturbation_key": "perturbation"}


def main(folder: Path, n_processes: int) -> None:
    scvi.settings.seed = 0
    adata = simulated_perturbation(1200, 80, n_cell_types=2, perturbations=("A",), combinations=False, seed=0)
    CFMVC.setup_anndata(adata, **SETUP)
    model = CFMVC(adata, n_intrinsic=8, n_hidden=32, flow_kwargs={"n_hidden": 32})
    options = {"strategy": "ddp_find_unused_parameters_true"} if n_processes > 1 else {}
    model.train(
        {"representation": 60, "flow": 4, "joint": 2},
        stage=["representation", "flow", "joint"],
        accelerator="cpu",
        devices=n_processes,
        early_stopping=True,
        early_stopping_patience=2,
        early_stopping_min_delta=4.0,  # which the first stage meets for some epochs only
        batch_size=128 // n_processes,
        pair_kwargs={"batch_size": 128 // n_processes, "steps_per_epoch": 20},
        enable_progress_bar=False,
        callbacks=[Checkpoint(folder / "checkpoints", load_best_on_end=True)],
        **options,
    )
    rank = int(os.environ.get("RANK", 0))
    digest = hashlib.sha256()
    for name, value in model.module.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
    history = {key: len(frame) for key, frame in model.history.items()}
    indices = hashlib.sha256(model.train_indices_.tobytes()).hexdigest()
    report = {"weights": digest.hexdigest(), "split": indices, "history": history, "stages": model.trained_stages_}
    (folder / f"rank{rank}.json").write_text(json.dumps(report))
    if rank == 0:
        model.save(folder / "model")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
