import numpy as np
import pytest

from cfmvc_scvi.errors import DataError, NonFiniteError
from cfmvc_scvi.shift import latent_shift

CONTROL = np.arange(8.0).reshape(4, 2)
SHIFT = np.array([[1.0, 0.0], [2.0, 1.0], [4.0, -1.0], [0.0, 0.0]])
WEIGHTS = np.array([[9.0, 1.0, 3.0, 7.0], [1.0, 9.0, 1.0, 7.0], [0.5, 0.5, 9.0, 7.0], [0.2, 0.3, 0.5, 9.0]])


def perturbed(*seen: int) -> np.ndarray:
    means = np.full_like(CONTROL, np.nan)
    means[list(seen)] = (CONTROL + SHIFT)[list(seen)]
    return means


def test_shift_is_the_weighted_mean_over_the_other_contexts_that_saw_it() -> None:
    shifts = latent_shift(CONTROL, perturbed(0, 1, 2), WEIGHTS)
    borrowed = np.array(
        [
            (1 * SHIFT[1] + 3 * SHIFT[2]) / 4,
            (SHIFT[0] + SHIFT[2]) / 2,
            (SHIFT[0] + SHIFT[1]) / 2,
            0.2 * SHIFT[0] + 0.3 * SHIFT[1] + 0.5 * SHIFT[2],
        ]
    )
    share = shifts[3, 0] / borrowed[3, 0]
    np.testing.assert_allclose(shifts, share * borrowed)
    error = [((SHIFT[:3] - factor * borrowed[:3]) ** 2).sum() for factor in (share - 0.01, share, share + 0.01)]
    assert 0 < share < 1 and np.argmin(error) == 1


def test_shifts_that_contexts_share_are_borrowed_whole_and_opposite_ones_not_at_all() -> None:
    same, weights = CONTROL + [1.0, -2.0], np.ones((4, 4))
    np.testing.assert_allclose(latent_shift(CONTROL, same, weights), np.tile([1.0, -2.0], (4, 1)))
    opposite = CONTROL + np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    np.testing.assert_array_equal(latent_shift(CONTROL, opposite, weights), np.zeros((4, 2)))


def test_own_data_decide_only_how_much_a_context_that_is_left_out_borrows() -> None:
    means = perturbed(0, 1, 2)
    before = latent_shift(CONTROL, means, WEIGHTS)
    means[1] += 2.0
    after = latent_shift(CONTROL, means, WEIGHTS)
    np.testing.assert_allclose(after[1] / np.linalg.norm(after[1]), before[1] / np.linalg.norm(before[1]))
    assert (after[[0, 2, 3]] != before[[0, 2, 3]]).all()


def test_without_leaving_out_seen_contexts_keep_their_own_shift() -> None:
    shifts = latent_shift(CONTROL, perturbed(0, 1), WEIGHTS, leave_one_out=False)
    np.testing.assert_allclose(shifts[:2], SHIFT[:2])
    share = shifts[2, 0] / 1.5
    np.testing.assert_allclose(shifts[2], share * (SHIFT[0] + SHIFT[1]) / 2)


def test_context_that_alone_saw_it_lends_to_all_and_keeps_its_own() -> None:
    np.testing.assert_allclose(latent_shift(CONTROL, perturbed(2), WEIGHTS), np.tile(SHIFT[2], (4, 1)))
    one = np.zeros((1, 1))
    np.testing.assert_allclose(latent_shift(CONTROL[:1], (CONTROL + SHIFT)[:1], one), SHIFT[:1])


def test_unseen_everywhere_is_refused() -> None:
    with pytest.raises(DataError, match="None of the 4 contexts"):
        latent_shift(CONTROL, perturbed(), WEIGHTS)


def test_bad_input_is_refused() -> None:
    with pytest.raises(DataError, match="3 contexts give no weight"):
        latent_shift(CONTROL, perturbed(0), np.zeros((4, 4)))
    with pytest.raises(DataError, match=r"\(3, 3\)"):
        latent_shift(CONTROL, perturbed(0), WEIGHTS[:3, :3])
    partly = perturbed(0, 1)
    partly[0, 0] = np.nan
    with pytest.raises(NonFiniteError, match="1 contexts"):
        latent_shift(CONTROL, partly, WEIGHTS)
    with pytest.raises(NonFiniteError, match="1 contexts"):
        latent_shift(np.where(np.arange(4)[:, None] == 1, np.inf, CONTROL), perturbed(0, 1), WEIGHTS)
