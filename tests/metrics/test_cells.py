import numpy as np
import pytest

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.metrics import cell_effect_correlation


@pytest.fixture
def truth(rng):
    return rng.normal(size=(60, 7))


def test_perfect_opposite_and_rescaled(truth):
    assert cell_effect_correlation(truth, truth) == pytest.approx(1.0)
    assert cell_effect_correlation(3 * truth + 1, truth) == pytest.approx(1.0)
    assert cell_effect_correlation(-truth, truth) == pytest.approx(-1.0)


def test_closed_form_in_one_dimension(rng, truth):
    predicted = truth + rng.normal(size=truth.shape)
    expected = np.corrcoef(predicted[:, 0], truth[:, 0])[0, 1]
    assert cell_effect_correlation(predicted[:, :1], truth[:, :1]) == pytest.approx(expected)


def test_any_shift_per_group_scores_zero(truth):
    groups = np.repeat(["a", "b", "c"], 20)
    shift = np.repeat([[1.0], [5.0], [-2.0]], 20, axis=0) * np.ones((1, 7))
    assert cell_effect_correlation(shift, truth + 10 * shift, groups) == 0.0
    assert cell_effect_correlation(shift, truth + 10 * shift) > 0.9  # group means count if groups are not told


def test_group_means_do_not_matter(rng, truth):
    groups = rng.integers(3, size=60)
    predicted = truth + rng.normal(size=truth.shape)
    moved = predicted + np.array([0.0, 7.0, -3.0])[groups][:, None]
    expected = cell_effect_correlation(predicted, truth, groups)
    assert cell_effect_correlation(moved, truth, groups) == pytest.approx(expected)


def test_bad_input_is_refused(truth):
    with pytest.raises(DataError, match="60 predicted, 59 true cells and 59 labels"):
        cell_effect_correlation(truth, truth[:-1])
    with pytest.raises(DataError, match="nothing to correlate"):
        cell_effect_correlation(truth, np.ones_like(truth))
