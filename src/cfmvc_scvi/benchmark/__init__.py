"""Hold-out folds, simple baselines, and scores between floor and ceiling."""

from __future__ import annotations

from cfmvc_scvi.benchmark.adapter import PerturbationModel, Predictor, as_predictor, export_folds, predictions_from
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
from cfmvc_scvi.benchmark.cells import Prediction, TrainingCells, draw_cells
from cfmvc_scvi.benchmark.fold import Columns, Fold
from cfmvc_scvi.benchmark.holdout import leave_one_context_out, make_folds
from cfmvc_scvi.benchmark.model import cfmvc_predictor, cfmvc_predictors
from cfmvc_scvi.benchmark.run import baseline_predictor, evaluate
from cfmvc_scvi.benchmark.score import CEILING, GroupScore, score_ceiling, score_prediction
from cfmvc_scvi.benchmark.store import PredictionStore, data_fingerprint
from cfmvc_scvi.benchmark.summary import paired_differences, summarise

__all__ = [
    "CEILING",
    "Baseline",
    "Columns",
    "CountCoupledNearestShift",
    "Fold",
    "FoldChangeResampling",
    "GroupScore",
    "MeanOfOtherPerturbations",
    "MeanShift",
    "NearestContextShift",
    "NoChange",
    "PerturbationModel",
    "PooledOtherContexts",
    "Prediction",
    "PredictionStore",
    "Predictor",
    "TrainingCells",
    "as_predictor",
    "baseline_predictor",
    "cfmvc_predictor",
    "cfmvc_predictors",
    "data_fingerprint",
    "draw_cells",
    "evaluate",
    "export_folds",
    "leave_one_context_out",
    "make_folds",
    "paired_differences",
    "predictions_from",
    "score_ceiling",
    "score_prediction",
    "summarise",
]
