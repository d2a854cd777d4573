"""Hold-out folds, simple baselines, and scores between floor and ceiling."""

from __future__ import annotations

from cfmvc_scvi.benchmark.baselines import (
    Baseline,
    CountCoupledNearestShift,
    FoldChangeResampling,
    MeanOfOtherPerturbations,
    MeanShift,
    NearestContextShift,
    NoChange,
    PooledOtherContexts,
)
from cfmvc_scvi.benchmark.calibration import (
    HeldOutEffect,
    MeasuredEffect,
    coverage_table,
    measured_effect,
    relative_error,
    trust_table,
)
from cfmvc_scvi.benchmark.cells import Prediction, TrainingCells, draw_cells
from cfmvc_scvi.benchmark.holdout import Fold, leave_one_context_out
from cfmvc_scvi.benchmark.model import cfmvc_predictor, cfmvc_predictors
from cfmvc_scvi.benchmark.score import (
    CEILING,
    GroupScore,
    Predictor,
    baseline_predictor,
    evaluate,
    score_ceiling,
    score_prediction,
)
from cfmvc_scvi.benchmark.summary import paired_differences, summarise

__all__ = [
    "CEILING",
    "Baseline",
    "CountCoupledNearestShift",
    "Fold",
    "FoldChangeResampling",
    "GroupScore",
    "HeldOutEffect",
    "MeanOfOtherPerturbations",
    "MeanShift",
    "MeasuredEffect",
    "NearestContextShift",
    "NoChange",
    "PooledOtherContexts",
    "Prediction",
    "Predictor",
    "TrainingCells",
    "baseline_predictor",
    "cfmvc_predictor",
    "cfmvc_predictors",
    "coverage_table",
    "draw_cells",
    "evaluate",
    "leave_one_context_out",
    "measured_effect",
    "paired_differences",
    "relative_error",
    "score_ceiling",
    "score_prediction",
    "summarise",
    "trust_table",
]
