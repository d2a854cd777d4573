"""Names that rooms share: registry keys, reserved columns, how combinations are written, what scores are called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

__all__ = ["CFMVC_REGISTRY_KEYS", "COMBINATION_SEPARATOR", "DESIGN_OBSM_KEY", "METRICS", "Metric"]


class _RegistryKeys(NamedTuple):
    """Keys of a minibatch: our own, and those of `scvi.REGISTRY_KEYS` that predictions read where there is no scvi.

    `PERTURBATION_KEY` is the design matrix (cells, perturbations), with doses as weights. `SAMPLE_KEY` is scvi's own
    name, so that its data modules find it.
    """

    X_KEY: str = "X"
    BATCH_KEY: str = "batch"
    LABELS_KEY: str = "labels"
    CAT_COVS_KEY: str = "extra_categorical_covs"
    CONT_COVS_KEY: str = "extra_continuous_covs"
    PERTURBATION_KEY: str = "perturbation"
    SAMPLE_KEY: str = "sample"
    SPATIAL_KEY: str = "spatial"


CFMVC_REGISTRY_KEYS = _RegistryKeys()

COMBINATION_SEPARATOR = "+"
DESIGN_OBSM_KEY = "_scvi_perturbation"


@dataclass(frozen=True)
class Metric:
    """How a score is called, and which value is best: the highest, the lowest, or zero."""

    label: str
    best: Literal["high", "low", "zero"]


METRICS = {
    "pearson_delta": Metric("Pearson Delta", "high"),
    "weighted_mse": Metric("weighted MSE", "low"),
    "energy": Metric("energy distance", "low"),
    "sig_jaccard": Metric("DE Jaccard", "high"),
    "de_overlap": Metric("DE overlap", "high"),
    "context_discrimination": Metric("context discrim.", "high"),
    "perturbation_discrimination": Metric("perturbation discrim.", "high"),
    "variance_log_ratio": Metric("log2 var. ratio", "zero"),
    "zero_share_error": Metric("zero-share error", "zero"),
}
"""The primary metrics of a benchmark, in the order of reading; a table need not have all of them."""
