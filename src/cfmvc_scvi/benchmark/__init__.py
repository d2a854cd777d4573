"""Hold-out folds, simple baselines, and scores between floor and ceiling."""

from __future__ import annotations

from cfmvc_scvi.benchmark.adapter import PerturbationModel, Predictor, as_predictor, export_folds, predictions_from
from cfmvc_scvi.benchmark.baselines import (
    BASELINES,
    FLOOR,
    LATENT_ARITHMETIC,
    AdditiveShift,
    Baseline,
    CountCoupled,
    CountCoupledNearestShift,
    DoseInterpolation,
    FoldChangeResampling,
    LinearPerturbation,
    MeanOfOtherPerturbations,
    MeanShift,
    NearestContextShift,
    NoChange,
    PooledOtherContexts,
    Shift,
    default_baselines,
)
from cfmvc_scvi.benchmark.calibration import (
    MeasuredEffect,
    coverage_table,
    measured_effect,
    relative_error,
    stated_scores,
    trust_table,
)
from cfmvc_scvi.benchmark.cells import Prediction, Scale, StatedEffect, TrainingCells, draw_cells
from cfmvc_scvi.benchmark.challenge import challenge_scores
from cfmvc_scvi.benchmark.compare import compare, verdict
from cfmvc_scvi.benchmark.fold import Columns, Fold
from cfmvc_scvi.benchmark.holdout import leave_one_context_out, make_folds
from cfmvc_scvi.benchmark.latent import LatentArithmetic
from cfmvc_scvi.benchmark.model import cfmvc_predictor, cfmvc_predictors
from cfmvc_scvi.benchmark.representative import representative_cells
from cfmvc_scvi.benchmark.request import (
    NO_FLOW,
    benchmark_setup,
    default_models,
    named_baselines,
    named_models,
    run_record,
)
from cfmvc_scvi.benchmark.run import baseline_predictor, evaluate
from cfmvc_scvi.benchmark.score import CEILING, GroupScore, score_ceiling, score_prediction, tidy_scores
from cfmvc_scvi.benchmark.store import PredictionStore, data_fingerprint
from cfmvc_scvi.benchmark.summary import (
    losses,
    mean_rank,
    paired_differences,
    seed_spread,
    skills,
    summarise,
)

__all__ = [
    "BASELINES",
    "CEILING",
    "FLOOR",
    "LATENT_ARITHMETIC",
    "NO_FLOW",
    "AdditiveShift",
    "Baseline",
    "Columns",
    "CountCoupled",
    "CountCoupledNearestShift",
    "DoseInterpolation",
    "Fold",
    "FoldChangeResampling",
    "GroupScore",
    "LatentArithmetic",
    "LinearPerturbation",
    "MeanOfOtherPerturbations",
    "MeanShift",
    "MeasuredEffect",
    "NearestContextShift",
    "NoChange",
    "PerturbationModel",
    "PooledOtherContexts",
    "Prediction",
    "PredictionStore",
    "Predictor",
    "Scale",
    "Shift",
    "StatedEffect",
    "TrainingCells",
    "as_predictor",
    "baseline_predictor",
    "benchmark_setup",
    "cfmvc_predictor",
    "cfmvc_predictors",
    "challenge_scores",
    "compare",
    "coverage_table",
    "data_fingerprint",
    "default_baselines",
    "default_models",
    "draw_cells",
    "evaluate",
    "export_folds",
    "leave_one_context_out",
    "losses",
    "make_folds",
    "mean_rank",
    "measured_effect",
    "named_baselines",
    "named_models",
    "paired_differences",
    "predictions_from",
    "representative_cells",
    "relative_error",
    "run_record",
    "score_ceiling",
    "score_prediction",
    "seed_spread",
    "skills",
    "stated_scores",
    "summarise",
    "tidy_scores",
    "trust_table",
    "verdict",
]
