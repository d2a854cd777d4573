import numpy as np
import pytest

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.metrics import centroid_accuracy, pds_cosine

EFFECTS = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])


def test_own_effects_are_found_whatever_their_size():
    np.testing.assert_array_equal(pds_cosine(5 * EFFECTS, EFFECTS), [1, 1, 1])
    assert centroid_accuracy(EFFECTS, EFFECTS) == 1.0


def test_rank_counts_the_closer_effects():
    predicted = np.array([[0.1, 0.5, 1.0], [0.0, 0.5, 1.0], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(pds_cosine(predicted, EFFECTS), [0.0, 0.5, 1.0])


def test_no_effect_and_one_effect_for_all_score_a_half_on_average():
    np.testing.assert_array_equal(pds_cosine(np.zeros((3, 3)), EFFECTS), [0.5, 0.5, 0.5])
    assert pds_cosine(np.tile([0.3, 0.2, 0.1], (3, 1)), EFFECTS).mean() == pytest.approx(0.5)


def test_centroid_accuracy_counts_hits_and_no_ties():
    predicted = np.array([[0.9, 0.1, 0], [0.9, 0.2, 0], [0.5, 0, 0.5]])
    assert centroid_accuracy(predicted, EFFECTS) == pytest.approx(1 / 3)


def test_bad_input_is_refused():
    with pytest.raises(DataError, match="2 predictions for 3 truths"):
        pds_cosine(EFFECTS[:2], EFFECTS)
    with pytest.raises(DataError, match="1 true effects are zero"):
        pds_cosine(EFFECTS, EFFECTS * [[1], [1], [0]])
    with pytest.raises(DataError, match="at least 2"):
        centroid_accuracy(EFFECTS[:1], EFFECTS[:1])
