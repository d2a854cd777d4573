"""Simple predictions that any model must beat, all with `fit` and `predict`."""

from __future__ import annotations

from cfmvc_scvi.benchmark.baselines.base import Baseline
from cfmvc_scvi.benchmark.baselines.choice import BASELINES, FLOOR, LATENT_ARITHMETIC, default_baselines
from cfmvc_scvi.benchmark.baselines.counts import CountCoupled, CountCoupledNearestShift, FoldChangeResampling
from cfmvc_scvi.benchmark.baselines.linear import LinearPerturbation
from cfmvc_scvi.benchmark.baselines.real import NoChange, PooledOtherContexts
from cfmvc_scvi.benchmark.baselines.shifts import (
    AdditiveShift,
    DoseInterpolation,
    MeanOfOtherPerturbations,
    MeanShift,
    NearestContextShift,
    Shift,
)

__all__ = [
    "BASELINES",
    "FLOOR",
    "LATENT_ARITHMETIC",
    "AdditiveShift",
    "Baseline",
    "CountCoupled",
    "CountCoupledNearestShift",
    "DoseInterpolation",
    "FoldChangeResampling",
    "LinearPerturbation",
    "MeanOfOtherPerturbations",
    "MeanShift",
    "NearestContextShift",
    "NoChange",
    "PooledOtherContexts",
    "Shift",
    "default_baselines",
]
