"""What the questions of `breadth.py` share."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

from cfmvc_scvi import CFMVC
from cfmvc_scvi.metrics import log_normalize, normalised_energy

__all__ = ["QUIET", "Table", "distance", "mean_log", "trained"]

QUIET: dict[str, Any] = {"accelerator": "cpu", "enable_progress_bar": False}
Table = tuple[str, pd.DataFrame, dict[str, Any]]  # what is said of it, the table, and all rows behind it


def trained(
    cells: ad.AnnData, setup: dict[str, Any], seed: int, *, training: dict[str, Any] | None = None, **options: Any
) -> CFMVC:
    """Return a model of these cells, with default settings but for those named.

    The seed is set again before training: models that differ in the flow alone learn the same latents.
    """
    from scvi import settings

    settings.seed = seed
    keys = {"perturbation_key": "perturbation", "control_category": "control", **setup}
    CFMVC.setup_anndata(cells, **keys)
    model = CFMVC(cells, **options)
    settings.seed = seed
    model.train(**QUIET, **(training or {}))
    return model


def distance(found: ad.AnnData, real: ad.AnnData, control: ad.AnnData, seed: int) -> float:
    """Return the normalised energy distance: 0 is the real cells' like, 1 the control cells."""
    logs = [log_normalize(each.X) for each in (found, real, control)]
    return float(normalised_energy(*logs, np.random.default_rng(seed)).value)


def mean_log(cells: ad.AnnData) -> np.ndarray:
    """Return the mean log1p CP10k of each gene."""
    return np.asarray(log_normalize(cells.X).mean(axis=0))
