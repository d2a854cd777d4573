"""Contexts left out: coverage, planted amplitude and scales, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from cfmvc_scvi.config import CalibrationConfig, EffectConfig
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.shift import Calibration, LeftOut, PseudoBulk, calibrate, leave_one_out, pairs_to_leave_out, pseudo_bulk

CONFIG = CalibrationConfig()


def left_out(
    context: int, n_genes: int, rng: np.random.Generator, *, strength: float = 1.0, scale: float = 1.0
) -> LeftOut:
    """Errors of a context whose response has a strength, and whose own errors have `scale` times the predicted sd."""
    sd, noise = rng.lognormal(-2, 0.7, n_genes), rng.lognormal(-5, 0.3, n_genes)
    delta = rng.normal(0, 0.5, n_genes)
    error = (strength - 1) * delta + scale * rng.normal(0, sd) + rng.normal(0, np.sqrt(noise))
    return LeftOut(context, error, delta, sd, noise, noise)


def covered(calibration: Calibration, new: LeftOut, level: float = 0.9) -> np.ndarray:
    """Which errors the interval holds (genes,)."""
    variance = calibration.variance(new.delta, new.sd) + new.expected_noise
    return np.abs(new.error) <= calibration.quantile(level) * np.sqrt(variance)


@pytest.mark.parametrize("n_contexts", [2, 3, 12])
@pytest.mark.parametrize("level", [0.5, 0.9])
def test_coverage_of_new_contexts_is_near_nominal_with_many_contexts_and_with_few(
    n_contexts: int, level: float
) -> None:
    rng = np.random.default_rng(n_contexts)
    shares, wide = [], []
    for _ in range(150):
        draws = [left_out(k, 300, rng, scale=2 * rng.lognormal(0, 0.35)) for k in range(n_contexts + 1)]
        inside = covered(calibrate(draws[:-1], CONFIG), draws[-1], level)
        shares.append(inside.mean())
        wide.append(inside[draws[-1].sd > np.quantile(draws[-1].sd, 0.75)].mean())
    assert abs(np.mean(shares) - level) < 0.035 and abs(np.mean(wide) - level) < 0.08


def test_planted_amplitude_is_found_and_widens_intervals_of_responding_genes_alone() -> None:
    rng = np.random.default_rng(1)
    strengths = 1 + 0.4 * np.tile([-1.0, 1.0], 10)
    found = calibrate([left_out(k, 2000, rng, strength=s) for k, s in enumerate(strengths)], CONFIG)
    assert found.amplitude == pytest.approx(0.16, rel=0.1)
    new = left_out(99, 4000, rng, strength=1.4)
    responding = np.abs(new.delta) > 0.8
    assert (
        covered(found, new)[responding].mean() > 0.85 > covered(replace(found, amplitude=0.0), new)[responding].mean()
    )
    assert (found.variance(np.zeros(3), np.ones(3)) == 1).all()


def test_amplitude_is_zero_where_contexts_do_not_tell() -> None:
    rng = np.random.default_rng(2)
    alike = [left_out(k, 500, rng) for k in range(40)]
    assert calibrate(alike, CONFIG).amplitude < 1e-3
    assert calibrate([replace(one, error=0 * one.error) for one in alike[:3]], CONFIG).amplitude == 0


def test_quantiles_grow_with_the_level_and_as_contexts_get_few_or_differ() -> None:
    rng = np.random.default_rng(3)
    many = [left_out(k, 400, rng) for k in range(20)]
    odd = [*many[:-1], replace(many[-1], error=5 * many[-1].error)]
    alike, few, unlike = (calibrate(chosen, CONFIG) for chosen in (many, many[:2], odd))
    halves = [alike.quantile(level) for level in (0.1, 0.5, 0.8, 0.9, 0.999)]
    assert all(low < high for low, high in zip(halves, halves[1:], strict=False))
    assert few.quantile(0.9) > 1.02 * alike.quantile(0.9) and unlike.quantile(0.9) > 1.1 * alike.quantile(0.9)


def test_expected_error_is_that_of_new_contexts_and_knows_the_odd_one() -> None:
    rng = np.random.default_rng(4)
    errors = [
        [left_out(context, 1000, rng, scale=3.0 if context == 5 else 1.0) for context in range(6)] for _ in range(8)
    ]
    found = calibrate([one for condition in errors[:-1] for one in condition], CONFIG)
    truth = [np.sqrt((one.error**2 - one.noise).sum() / (one.delta**2).sum()) for one in errors[-1]]
    told = [found.expected_error(one.delta, one.sd, one.context) for one in errors[-1]]
    assert np.abs(np.log(np.array(told[:5]) / truth[:5])).mean() < 0.25
    assert told[5] > 1.8 * max(told[:5])
    one = errors[-1][0]
    assert found.expected_error(one.delta, one.sd) == found.expected_error(one.delta, one.sd, 99) > told[0]
    assert found.expected_error(0 * one.delta, one.sd) == np.inf


def test_contexts_weigh_the_same_whatever_their_number_of_conditions() -> None:
    rng = np.random.default_rng(5)
    small, large = left_out(0, 3000, rng), left_out(1, 3000, rng, scale=6.0)
    once, often = (calibrate([small] * n + [large], CONFIG) for n in (1, 9))
    assert often.n_contexts == 2 and often.inflation == pytest.approx(once.inflation)
    np.testing.assert_allclose(often.scores, once.scores, rtol=1e-2, atol=1e-3)


def test_nothing_left_out_is_the_normal_distribution_and_says_so() -> None:
    calibration = calibrate([], CONFIG)
    assert not calibration.calibrated and calibration.quantile(0.9) == pytest.approx(norm.ppf(0.95))
    assert calibration.expected_error(np.full(4, 2.0), np.ones(4), 1) == 0.5


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, 90.0, float("nan")])
def test_a_level_that_is_no_share_is_refused(level: float) -> None:
    with pytest.raises(DataError, match=r"level is .*between 0 and 1"):
        calibrate([], CONFIG).quantile(level)


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
    assert (unlike[3].error ** 2).sum() > 3 * (alike[3].error ** 2).sum()  # only one left out can be a surprise
    for one in alike:
        np.testing.assert_allclose(one.error + one.delta, (shifted.log_mean - control.log_mean)[one.context])
        assert abs(np.log(one.expected_noise / one.noise)).mean() < 0.5
    assert [one.context for one in leave_one_out(control, shifted, EffectConfig(), [2, 3])] == [2, 3]
    told = leave_one_out(control, shifted, EffectConfig(), decoded=shifted.log_mean)  # a decoder that is right
    for one, other in zip(told, leave_one_out(control, shifted, EffectConfig()), strict=True):
        assert np.linalg.norm(one.error) < np.linalg.norm(other.error)
    nothing = pseudo_bulk(np.zeros((0, 60)), np.empty(0, dtype=int), 1)
    single = PseudoBulk.concatenate([shifted, nothing]).take([0, 4, 4, 4])
    assert leave_one_out(control, single, EffectConfig()) == []
    assert leave_one_out(control, single, EffectConfig(), [0]) == []


def test_pairs_left_out_are_bounded_and_spread_over_contexts_and_conditions() -> None:
    condition, context = (grid.ravel() for grid in np.meshgrid(np.arange(1, 13), np.arange(6), indexing="ij"))
    pairs = pairs_to_leave_out(condition, context, 400, CONFIG)
    assert len(pairs) * 400 * 36 <= max(CONFIG.work, 6 * 400 * 36) and sorted(context[pairs[:6]]) == list(range(6))
    assert len(set(condition[pairs[:6]])) == 6
    assert len(pairs_to_leave_out(condition, context, 10, CONFIG)) == CONFIG.most_pairs
    many = np.arange(30)
    assert len(pairs_to_leave_out(np.ones(30, dtype=int), many, 400, CONFIG)) == CONFIG.least_pairs
    lonely = pairs_to_leave_out(np.array([1, 2, 3, 3, 4]), np.array([0, 1, 0, 2, 2]), 400, CONFIG)
    assert sorted(lonely) == [2, 3]
    assert len(pairs_to_leave_out(many, many, 400, CONFIG)) == 0
