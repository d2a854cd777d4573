"""What each part of a prediction is worth: the model with one part changed at a time.

python benchmarks/ablation.py DATA --sets kang_small gbm --seeds 2 --out runs/ablation

DATA and the sets are those of accuracy.py. All rows but those of another training predict from the same trained models.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from accuracy import COLUMNS, TASKS, cells_of, markdown, write_table
from anndata import AnnData

from cfmvc_scvi import CFMVC, tl
from cfmvc_scvi import benchmark as bm
from cfmvc_scvi.config import EffectConfig

PREDICTION: dict[str, Mapping[str, Any]] = {
    "CFMVC": {},
    bm.NO_FLOW: {"heterogeneity": 0.0},
    "half the flow's differences between cells": {"heterogeneity": 0.5},
}
EFFECT: dict[str, Mapping[str, Any]] = {
    "without the decoder's expectation": {"decoded_share": 0.0},
    "twice the share of the decoder's expectation": {"decoded_share": 2 * EffectConfig().decoded_share},
    "posterior mean not lengthened": {"stretch_bounds": (1.0, 1.0)},
    "no regression of treated to common levels": {"shrinkages": (0.0,)},
    "treated levels common to all contexts": {"shrinkages": (1.0,)},
    "effects not shared": {"sharings": (0.0,)},
    "effects mostly shared": {"sharings": (0.95,)},
    "wide prior alone": {"effect_scales": (EffectConfig().wide_scale,)},
    "nearest context weighs more": {"similarity_power": 4.0},
    "goal from summed cells only": {"bulk_weight": 1.0},
    "goal from mean log counts only": {"bulk_weight": 0.0},
}
TRAINING: dict[str, Mapping[str, Any]] = {
    "flow from noise": {"model_kwargs": {"source": "noise"}},
    "flow of another training length (32 epochs)": {"train_kwargs": {"max_epochs": {"flow": 32}}},
    "flow also matched by MMD": {"train_kwargs": {"flow_plan_kwargs": {"lambda_mmd": 1.0}}},
}


class MixtureAlone:
    """Variant of `benchmark.cfmvc_predictors`: effects under the mixture of scales, however strong they are."""

    def __call__(self, model: CFMVC, train: AnnData, query: AnnData, fold: bm.Fold, seed: int) -> bm.Prediction:
        """Predict, and leave the model as it was."""
        with mock.patch("cfmvc_scvi.shift.goal._signal_share", lambda *_: 0.0):
            return OtherEffect({})(model, train, query, fold, seed)


class OtherEffect:
    """Variant of `benchmark.cfmvc_predictors`: the trained model with other options of its empirical-Bayes effect."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = dict(options)

    def __call__(self, model: CFMVC, train: AnnData, query: AnnData, fold: bm.Fold, seed: int) -> bm.Prediction:
        """Predict, and leave the model as it was."""
        usual = model._reference
        config = replace(usual.config, **self.options)
        model._reference = type(usual)(**{name: getattr(usual, name) for name in _public(usual)} | {"config": config})
        try:
            result = model.predict_counterfactual(
                query.copy(), perturbation=fold.perturbation, dose=fold.dose, seed=seed
            )
        finally:
            model._reference = usual
        return bm.Prediction(result.X)


def _public(reference: Any) -> list[str]:
    """Fields that make a reference; those that cache what depends on its options begin with an underscore."""
    return [name for name in reference.__dataclass_fields__ if not name.startswith("_")]


def predictors(setup: Mapping[str, Any]) -> dict[str, bm.Predictor]:
    """All rows by name."""
    quiet = {"enable_progress_bar": False}
    variants = {
        **PREDICTION,
        "mixture of scales alone": MixtureAlone(),
        **{name: OtherEffect(options) for name, options in EFFECT.items()},
    }
    found = bm.cfmvc_predictors(setup, variants, train_kwargs=quiet)
    for name, options in TRAINING.items():
        train = {**quiet, **options.get("train_kwargs", {})}
        model = options.get("model_kwargs")
        found |= bm.cfmvc_predictors(setup, {name: {}}, model_kwargs=model, train_kwargs=train)
    return found


def run(name: str, args: argparse.Namespace) -> str:
    """All rows of one data set; returns its section in Markdown."""
    task = TASKS[name]
    setup, _ = bm.benchmark_setup(task.holdout, task.setup)
    scores = tl.benchmark(
        cells_of(task, args.data),
        task.holdout,
        models=predictors(setup),
        baselines=[bm.FLOOR],
        seeds=args.seeds,
        setup=task.setup,
        n_splits=task.n_splits,
        out=args.out / name,
    )
    summary = bm.summarise(scores)
    shown = summary[[column for column in COLUMNS if column in summary]].rename(columns=COLUMNS)
    return f"## {name}, seeds: {args.seeds}\n\n{markdown(shown)}\n"


def main() -> None:
    """Run the sets one after the other and print their sections."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="directory of the data sets")
    parser.add_argument("--sets", nargs="+", choices=TASKS, default=["kang_small", "gbm"])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True, help="directory of the runs")
    parser.add_argument("--tables", type=Path, help="directory for the tables, such as docs/tables")
    args = parser.parse_args()
    for name in args.sets:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            text = run(name, args)
        write_table(text, args, f"{name}_ablation")
        print(text)


if __name__ == "__main__":
    main()
