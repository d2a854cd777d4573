"""Dose of half effect of curves that are known."""

import numpy as np
import pytest

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.shift import fit_hill

DOSES = np.array([0.25, 0.5, 1.0, 2.0, 4.0])


def curve(half_dose: np.ndarray, slope: float, top: np.ndarray) -> np.ndarray:
    power = DOSES[:, None] ** slope
    return top * power / (power + np.asarray(half_dose) ** slope)


def test_noise_free_curves_are_recovered() -> None:
    half, top = np.array([0.4, 1.0, 2.0]), np.array([1.0, -2.0, 0.5])
    fit = fit_hill(DOSES, curve(half, 1.5, top), np.full((5, 3), 0.005))
    np.testing.assert_allclose(fit.half_dose, half, rtol=0.1)
    np.testing.assert_allclose(fit.top[:, 0], top, rtol=0.1)
    assert fit.identified.all() and (fit.low < fit.half_dose).all() and (fit.half_dose < fit.high).all()
    np.testing.assert_allclose(fit.effect(1.0)[:, 0], curve(half, 1.5, top)[2], atol=0.02)


def test_intervals_hold_the_half_dose(rng: np.random.Generator) -> None:
    half, sd = np.exp(rng.uniform(np.log(0.4), np.log(2.5), 300)), np.full((5, 300), 0.1)
    values = curve(half, 1.5, np.ones(300)) + sd * rng.standard_normal((5, 300))
    for level in (0.5, 0.9):
        fit = fit_hill(DOSES, values, sd, level)
        held = ((fit.low <= half) & (half <= fit.high)).mean()
        assert level - 0.08 < held < min(1.0, level + 0.2)
    small = fit_hill(DOSES, 0.2 * values, sd)
    assert small.identified.mean() < 0.2 and np.median(small.high / small.low) > 5 * np.median(fit.high / fit.low)


def test_a_shared_half_dose_is_known_better(rng: np.random.Generator) -> None:
    sd = np.full((5, 20), 0.2)
    values = curve(np.full(20, 0.8), 2.0, rng.choice([-1.0, 1.0], 20)) + sd * rng.standard_normal((5, 20))
    each, together = (fit_hill(DOSES, values, sd, shared=shared) for shared in (False, True))
    assert together.half_dose.shape == (1,) and together.top.shape == (1, 20)
    assert together.half_dose[0] == pytest.approx(0.8, rel=0.2) and together.identified[0]
    assert together.high[0] / together.low[0] < 0.5 * np.median(each.high / each.low)


def test_a_plateau_that_was_not_reached_is_not_identified() -> None:
    fit = fit_hill(DOSES, curve(np.array([20.0]), 1.0, np.ones(1)), np.full((5, 1), 0.02))
    assert not fit.identified[0] and fit.high[0] > DOSES.max()


@pytest.mark.parametrize(
    ("doses", "shape", "words"),
    [([1.0], (1, 3), "two or more"), ([1.0, 1.0], (2, 3), "distinct"), ([0.0, 1.0], (2, 3), "positive"),
     ([1.0, 2.0], (3, 3), r"\(3, 3\).*2 doses")],
)  # fmt: skip
def test_what_is_no_curve(doses: list[float], shape: tuple[int, int], words: str) -> None:
    with pytest.raises(DataError, match=words):
        fit_hill(doses, np.zeros(shape), np.ones(shape))
