import numpy as np
import pytest

from cfmvc_scvi.shift import depth_changes

LEVELS = np.linspace(0.02, 0.98, 30)


def measured(changes, n_cells=400, seed=0, depth_sd=0.4):
    """Quantiles of depths, and cells, of control and of conditions whose log depths change so (conditions, contexts).

    None: not seen in this context.
    """
    rng = np.random.default_rng(seed)
    rows = [[0.0] * len(changes[0]), *changes]
    quantiles = np.full((len(rows), len(rows[0]), len(LEVELS)), np.nan)
    cells = np.zeros((len(rows), len(rows[0])), dtype=int)
    for row, shifts in enumerate(rows):
        for context, shift in enumerate(shifts):
            if shift is not None:
                cells[row, context] = n_cells if row else 400
                depth = np.exp(8 + shift + rng.normal(0, depth_sd, cells[row, context]))
                quantiles[row, context] = np.quantile(depth, LEVELS)
    return quantiles, cells


def test_planted_changes_are_found_and_lent_to_contexts_that_saw_nothing() -> None:
    found = depth_changes(*measured([[0.3, 0.2, None, 0.25]]))
    np.testing.assert_allclose(found[1], [0.3, 0.2, 0.25, 0.25], atol=0.06)
    np.testing.assert_array_equal(found[0], np.zeros(4))


@pytest.mark.parametrize("seed", range(4))
def test_what_noise_explains_is_taken_for_no_change(seed) -> None:
    quantiles, cells = measured([[0.0, 0.0, 0.0, None]] * 3, n_cells=30, seed=seed)
    change = np.log(quantiles).mean(axis=2) - np.log(quantiles[0]).mean(axis=1)
    found = depth_changes(quantiles, cells)
    assert (np.abs(found[1:, :3]) < 0.5 * np.abs(change[1:, :3])).all()
    assert (np.abs(found[1:, 3]) < 0.06).all()


def test_contexts_that_contradict_each_other_say_nothing_of_another() -> None:
    assert depth_changes(*measured([[0.5, -0.5, 0.4, -0.4, None]]))[1, 4] == 0


def test_what_contexts_differ_by_is_learnt_from_other_conditions() -> None:
    alike = [[0.3, 0.3], [-0.3, -0.3], [0.2, 0.2], [-0.2, -0.2]]
    apart = [[0.3, -0.3], [-0.3, 0.3], [0.2, -0.2], [-0.2, 0.2]]
    lent, refused = (depth_changes(*measured([*others, [0.3, None]]))[5, 1] for others in (alike, apart))
    assert lent == pytest.approx(0.3, abs=0.08)
    assert refused < 0.4 * lent


def test_nothing_changes_where_nothing_was_seen() -> None:
    np.testing.assert_array_equal(depth_changes(*measured([[None, None]])), np.zeros((2, 2)))


def test_one_context_lends_its_own_change() -> None:
    found = depth_changes(*measured([[0.3, None]]))
    assert found[1, 1] == found[1, 0] == pytest.approx(0.3, abs=0.08)


def test_one_cell_says_as_little_as_one_cell_can() -> None:
    for seed in range(20):
        quantiles, cells = measured([[0.0]], n_cells=1, seed=seed)
        change = np.log(quantiles[1] / quantiles[0]).mean()
        assert abs(depth_changes(quantiles, cells)[1, 0]) < max(abs(change) - 0.1, 1e-9)
