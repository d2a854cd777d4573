"""Scores of predictions, on arrays: means, distributions, differential expression, spread, discrimination, cells."""

from __future__ import annotations

from cfmvc_scvi.metrics.cells import cell_effect_correlation
from cfmvc_scvi.metrics.de import (
    DEResult,
    auprc_de,
    de_overlap,
    direction_fidelity,
    equal_cells,
    lfc_nmae,
    rank_sum_de,
    sig_jaccard,
)
from cfmvc_scvi.metrics.discrimination import centroid_accuracy, pds_cosine
from cfmvc_scvi.metrics.distances import (
    CrossFittedPCA,
    DistanceRatio,
    HeldOutHalf,
    energy_distance,
    median_bandwidths,
    normalised_distance,
    normalised_energy,
    normalised_mmd,
    rbf_mmd2,
)
from cfmvc_scvi.metrics.effects import (
    de_scores,
    log_normalize,
    pearson_delta,
    pearson_delta_top,
    r2_of_means,
    score_weights,
    top_genes,
    weighted_mse,
    weighted_r2,
)
from cfmvc_scvi.metrics.leakage import hsic, latent_auc, mutual_information_gap
from cfmvc_scvi.metrics.resampling import EnergyBootstrap, bootstrap_energy
from cfmvc_scvi.metrics.spread import correlation_structure, variance_log_ratio, zero_share

__all__ = [
    "CrossFittedPCA",
    "DEResult",
    "DistanceRatio",
    "EnergyBootstrap",
    "HeldOutHalf",
    "auprc_de",
    "bootstrap_energy",
    "cell_effect_correlation",
    "centroid_accuracy",
    "correlation_structure",
    "de_overlap",
    "de_scores",
    "direction_fidelity",
    "energy_distance",
    "equal_cells",
    "hsic",
    "latent_auc",
    "lfc_nmae",
    "log_normalize",
    "median_bandwidths",
    "mutual_information_gap",
    "normalised_distance",
    "normalised_energy",
    "normalised_mmd",
    "pds_cosine",
    "pearson_delta",
    "pearson_delta_top",
    "r2_of_means",
    "rank_sum_de",
    "rbf_mmd2",
    "score_weights",
    "sig_jaccard",
    "top_genes",
    "variance_log_ratio",
    "weighted_mse",
    "weighted_r2",
    "zero_share",
]
