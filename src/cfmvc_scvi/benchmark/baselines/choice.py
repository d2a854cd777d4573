"""The baselines by name, and which make sense for what is held out."""

from __future__ import annotations

__all__ = ["BASELINES", "FLOOR", "LATENT_ARITHMETIC", "default_baselines"]

from collections.abc import Callable, Iterable

from cfmvc_scvi.benchmark.baselines.base import Baseline
from cfmvc_scvi.benchmark.baselines.counts import CountCoupled, CountCoupledNearestShift, FoldChangeResampling
from cfmvc_scvi.benchmark.baselines.linear import LinearPerturbation
from cfmvc_scvi.benchmark.baselines.real import NoChange, PooledOtherContexts
from cfmvc_scvi.benchmark.baselines.shifts import (
    AdditiveShift,
    DoseInterpolation,
    MeanOfOtherPerturbations,
    MeanShift,
    NearestContextShift,
)
from cfmvc_scvi.benchmark.fold import Fold

FLOOR = "no change"
LATENT_ARITHMETIC = "latent arithmetic"

_THETA = 1.0  # of added counts; moments of control cells make genes that turn on over-dispersed

BASELINES: dict[str, Callable[[], Baseline]] = {
    FLOOR: NoChange,
    "mean shift": MeanShift,
    "nearest shift": NearestContextShift,
    "fold-change resampling": FoldChangeResampling,
    "pooled others": PooledOtherContexts,
    "count-coupled nearest": CountCoupledNearestShift,
    "count-coupled nearest, theta 1": lambda: CountCoupledNearestShift(_THETA),
    "mean of others": MeanOfOtherPerturbations,
    "count-coupled mean of others": lambda: CountCoupled(MeanOfOtherPerturbations(), _THETA),
    "linear": LinearPerturbation,
    "count-coupled linear": lambda: CountCoupled(LinearPerturbation(), _THETA),
    "additive": AdditiveShift,
    "count-coupled additive": lambda: CountCoupled(AdditiveShift(), _THETA),
    "dose interpolation": DoseInterpolation,
    "count-coupled dose interpolation": lambda: CountCoupled(DoseInterpolation(), _THETA),
}
"""Simple baselines by name; `LATENT_ARITHMETIC` is one more, which needs a trained model."""

_OTHERS = ("mean of others", "count-coupled mean of others")
_BY_HOLDOUT = {
    "perturbation": (FLOOR, *_OTHERS, "linear", "count-coupled linear"),
    "combination": (FLOOR, "additive", "count-coupled additive", *_OTHERS),
    "dose": (FLOOR, "dose interpolation", "count-coupled dose interpolation", *_OTHERS),
}
_CONTEXT = (
    FLOOR,
    "mean shift",
    "nearest shift",
    "fold-change resampling",
    "pooled others",
    "count-coupled nearest",
    "count-coupled nearest, theta 1",
)


def default_baselines(holdout: str, folds: Iterable[Fold] = ()) -> dict[str, Callable[[], Baseline]]:
    """Baselines that make sense for what is held out.

    Parameters
    ----------
    holdout
        As of `make_folds`: a column of obs, or "perturbation", "combination" or "dose".
    folds
        With them, "mean of others" is left out or, for contexts, taken in by whether every fold has other perturbations
        in its context.

    Returns
    -------
    Name to what makes the baseline; those of `BASELINES`.
    """
    siblings = [bool(fold.siblings.any()) for fold in folds]
    names: tuple[str, ...] = _BY_HOLDOUT.get(holdout, _CONTEXT)
    if siblings and not all(siblings):
        names = tuple(name for name in names if name not in _OTHERS)
    elif siblings and holdout not in _BY_HOLDOUT:
        names = (*names, *_OTHERS)
    return {name: BASELINES[name] for name in names}
