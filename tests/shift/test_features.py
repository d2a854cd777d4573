"""Effects of unseen perturbations: planted pathways are found, and features that say nothing change nothing."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from cfmvc_scvi.config import FeatureConfig
from cfmvc_scvi.errors import DataError, NonFiniteError
from cfmvc_scvi.shift import FeatureRegression, expected_weights

SD = 0.1


def planted(rng, n=24, n_columns=150, n_pathways=3):
    """Effects of pathways that the features name, the same with noise, and the features."""
    features = rng.normal(size=(n, n_pathways))
    pathways = rng.normal(0, 0.5, (n_pathways, n_columns)) * (rng.random((n_pathways, n_columns)) < 0.4)
    truth = features @ pathways + 0.2 * rng.normal(size=n_columns)
    return truth, truth + SD * rng.normal(size=truth.shape), features


def fit(effects, features, **options):
    return FeatureRegression(effects, np.full(effects.shape, SD**2), features, FeatureConfig(**options))


def error(predicted, truth):
    return ((predicted - truth) ** 2).mean()


def test_informative_features_beat_the_mean_of_the_others(rng):
    ratios = []
    for _ in range(6):
        truth, effects, features = planted(rng)
        regression = fit(effects[1:], features[1:])
        assert regression.factor > 0.5
        predicted = regression.predict(features[0]).mean
        ratios.append(error(predicted, truth[0]) / error(effects[1:].mean(axis=0), truth[0]))
    assert np.median(ratios) < 0.5


def test_features_of_a_seen_one_give_its_effect(rng):
    truth, effects, features = planted(rng)
    assert error(fit(effects, features).predict(features[3]).mean, truth[3]) < 4 * SD**2


def test_features_that_say_nothing_leave_what_is_expected_of_any(rng):
    factors = []
    for _ in range(15):
        _, effects, features = planted(rng)
        regression = fit(effects[1:], rng.permutation(features)[1:])
        factors.append(regression.factor)
        predicted = regression.predict(features[0])
        scale = np.abs(predicted.mean - regression.common).max()
        assert regression.factor > 0 or scale < 1e-12
    assert np.mean(factors) < 0.1


def test_without_features_the_prediction_is_what_is_expected_of_any(rng):
    _, effects, features = planted(rng)
    regression = fit(effects, features)
    predicted = regression.predict(np.full(3, np.nan))
    np.testing.assert_allclose(predicted.mean, regression.common)
    np.testing.assert_allclose(predicted.weights, expected_weights(effects, np.full(len(effects), SD**2)))
    nobody = fit(effects, np.full_like(features, np.nan))
    assert nobody.factor == 0
    np.testing.assert_allclose(nobody.predict(features[0]).mean, nobody.common)


def test_weights_say_what_the_mean_is_made_of(rng):
    truth, effects, features = planted(rng)
    predicted = fit(effects[1:], features[1:]).predict(features[0])
    assert np.corrcoef(predicted.weights @ effects[1:], predicted.mean)[0, 1] > 0.98


def test_sd_covers_the_effect(rng):
    inside = []
    for _ in range(8):
        truth, effects, features = planted(rng)
        predicted = fit(effects[1:], features[1:]).predict(features[0])
        inside.append(np.abs(predicted.mean - truth[0]) < 1.645 * predicted.sd)
    assert 0.75 < np.mean(inside) < 0.99


def test_one_component_is_the_gaussian_process(rng):
    _, effects, features = planted(rng, n=6, n_columns=1)
    regression = fit(effects, features, scales=(0.7,), shares=(1.0,), lengths=(1.0,))
    residual = effects - regression.common
    expected, likelihood = [], []
    scaled = features / features.std(axis=0)
    for values in (None, features, scaled):
        if values is None:
            kernel = np.eye(6)
        else:
            distance = ((values[:, None] - values) ** 2).sum(axis=-1)
            squared = distance.sum() / 30
            kernel = np.exp(-0.5 * distance / squared)
        covariance = 0.49 * kernel + SD**2 * np.eye(6)
        likelihood.append(multivariate_normal(cov=covariance).pdf(residual[:, 0]))
        left_out = residual[:, 0] - np.linalg.solve(covariance, residual[:, 0]) / np.diag(np.linalg.inv(covariance))
        expected.append((left_out, np.diag(np.linalg.inv(covariance)), np.linalg.solve(covariance, residual[:, 0])))
    assert min(likelihood) > 0
    weights = np.array(list(regression._weights.values()))[:, None] * np.array(likelihood)[:, None]
    # the likelihood without one perturbation is that of all over that of the one given the others
    conditional = np.array([np.sqrt(i) * np.exp(-0.5 * s**2 / i) for _, i, s in expected])
    shares = weights / conditional
    mean = (shares * np.array([left for left, _, _ in expected])).sum(axis=0) / shares.sum(axis=0)
    np.testing.assert_allclose(regression._left_out(np.array([0]))[:, 0], mean, rtol=1e-6)


def test_chunks_change_nothing(rng, monkeypatch):
    _, effects, features = planted(rng)
    whole = fit(effects[1:], features[1:]).predict(features[0])
    monkeypatch.setattr("cfmvc_scvi.shift.features._CHUNK_ELEMENTS", 20_000)
    parts = fit(effects[1:], features[1:]).predict(features[0])
    np.testing.assert_allclose(parts.mean, whole.mean, atol=1e-10)
    np.testing.assert_allclose(parts.sd, whole.sd, atol=1e-10)
    np.testing.assert_allclose(parts.weights, whole.weights, atol=1e-10)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda e, n, f: (e[:2], n[:2], f[:2]), DataError, "at least three"),
        (lambda e, n, f: (e, n, f[1:]), DataError, "must be"),
        (lambda e, n, f: (e, n * 0, f), NonFiniteError, "not finite"),
        (lambda e, n, f: (e, n, np.where(np.arange(3) == 1, np.nan, f)), NonFiniteError, "in part"),
    ],
)
def test_bad_input_is_named(rng, change, kind, message):
    _, effects, features = planted(rng, n=5)
    with pytest.raises(kind, match=message):
        FeatureRegression(*change(effects, np.full(effects.shape, 0.01), features), FeatureConfig())


def test_features_of_another_width_are_refused(rng):
    _, effects, features = planted(rng, n=5)
    with pytest.raises(DataError, match="features of the unseen"):
        fit(effects, features).predict(np.zeros(2))
