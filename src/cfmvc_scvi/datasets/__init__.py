"""Data sets: a simulator whose counterfactuals are known, and loaders of public perturbation experiments."""

from __future__ import annotations

from cfmvc_scvi.datasets._truth import true_counterfactual
from cfmvc_scvi.datasets.public import gbm, kang, norman, papalexi
from cfmvc_scvi.datasets.simulation import simulated_perturbation

__all__ = ["gbm", "kang", "norman", "papalexi", "simulated_perturbation", "true_counterfactual"]
