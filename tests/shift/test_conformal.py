"""Residuals of contexts left out: coverage, monotony, and what is refused."""

import numpy as np
import pytest
from scipy.stats import norm

from cfmvc_scvi.config import CalibrationConfig, EffectConfig
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.shift import LeftOut, PseudoBulk, calibrate, leave_one_out, pseudo_bulk

CONFIG = CalibrationConfig()


def exchangeable(n_contexts: int, n_genes: int, rng: np.random.Generator) -> list[LeftOut]:
    """Residuals whose scale is drawn anew in each context and grows with the sd of the gene."""
    result = []
    for context in range(n_contexts):
        sd = rng.lognormal(-2, 0.7, n_genes)
        residual = np.abs(rng.normal(size=n_genes)) * rng.lognormal(0, 0.3) * (1 + 3 * sd)
        result.append(LeftOut(context, residual, sd, 4.0))
    return result


def test_coverage_of_new_groups_is_near_nominal_overall_and_at_any_sd() -> None:
    rng = np.random.default_rng(0)
    overall, wide = [], []
    for _ in range(60):
        *known, new = exchangeable(13, 800, rng)
        covered = new.residual <= calibrate(known, CONFIG).quantile(0.9, new.sd)
        overall.append(covered.mean())
        wide.append(covered[new.sd > np.quantile(new.sd, 0.75)].mean())
    assert abs(np.mean(overall) - 0.9) < 0.02 and abs(np.mean(wide) - 0.9) < 0.03


def test_quantiles_grow_with_the_level_and_end_at_infinity() -> None:
    known = exchangeable(3, 40, np.random.default_rng(1))
    calibration = calibrate(known, CONFIG)
    sd = np.geomspace(1e-3, 10, 30)
    halves = [calibration.quantile(level, sd) for level in (0.1, 0.5, 0.8, 0.9, 0.999)]
    assert all((low <= high).all() for low, high in zip(halves, halves[1:], strict=False))
    assert (halves[0] < halves[3]).all() and np.isinf(halves[-1]).all()  # 120 residuals cannot speak of 1 in 1000


def test_contexts_weigh_the_same_whatever_their_number_of_conditions() -> None:
    sd = np.full(99, 0.1)
    once = [LeftOut(0, np.linspace(0, 1, 99), sd, 1.0), LeftOut(1, np.linspace(9, 10, 99), sd, 9.0)]
    often = [*once, *once[:1] * 8]
    for left_out in (once, often):
        calibration = calibrate(left_out, CONFIG)
        assert calibration.inflation == pytest.approx(np.sqrt(5.0)) and calibration.n_contexts == 2
        assert calibration.quantile(0.4, sd[:1]) < 1 and calibration.quantile(0.6, sd[:1]) > 9


def test_without_residuals_it_is_the_normal_quantile_and_says_so() -> None:
    calibration = calibrate([], CONFIG)
    assert not calibration.calibrated and calibration.inflation == 1.0
    np.testing.assert_allclose(calibration.quantile(0.9, np.ones(3)), norm.ppf(0.95))


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, 90.0, float("nan")])
def test_a_level_that_is_no_share_is_refused(level: float) -> None:
    with pytest.raises(DataError, match=r"level is .*between 0 and 1"):
        calibrate([], CONFIG).quantile(level, np.ones(3))


def test_leaving_out_predicts_each_observed_context_without_its_own_cells() -> None:
    rng = np.random.default_rng(2)
    rate = rng.gamma(1.0, 1.0, (4, 60)) + 0.2
    fold = np.where(np.arange(60) < 10, 3.0, 1.0)
    groups = np.repeat(np.arange(4), 50)
    control = pseudo_bulk(rng.poisson(rate[groups]), groups, 4)
    shifted = pseudo_bulk(rng.poisson((rate * fold)[groups]), groups, 4)
    odd = pseudo_bulk(rng.poisson((rate * np.where(np.arange(4)[:, None] == 3, fold[::-1], fold))[groups]), groups, 4)
    alike, unlike = (leave_one_out(control, bulk, EffectConfig()) for bulk in (shifted, odd))
    assert [one.context for one in alike] == [0, 1, 2, 3]
    assert unlike[3].excess > 3 * alike[3].excess  # only one that was left out can be a surprise
    nothing = pseudo_bulk(np.zeros((0, 60)), np.empty(0, dtype=int), 1)
    single = PseudoBulk.concatenate([shifted, nothing]).take([0, 4, 4, 4])
    assert leave_one_out(control, single, EffectConfig()) == []
