import numpy as np
import pytest
import scipy.sparse as sp

from cfmvc_scvi.shift import depth_changes, pseudo_bulk


def bulks(changes, n_cells=400, seed=0, depth_sd=0.4):
    """Control and perturbed pseudo-bulks whose log depths differ by `changes`, None where nothing was observed."""
    rng = np.random.default_rng(seed)
    parts = []
    for shifts in (np.zeros(len(changes)), changes):
        seen = [context for context, shift in enumerate(shifts) if shift is not None]
        groups = np.repeat(seen, n_cells).astype(np.int64)
        depth = np.exp(8 + np.array([shifts[k] for k in groups], float) + rng.normal(0, depth_sd, len(groups)))
        parts.append(pseudo_bulk(sp.csr_matrix(rng.poisson(depth[:, None] * [0.3, 0.7])), groups, len(changes)))
    return parts


def test_planted_changes_are_found_and_lent_to_contexts_that_saw_nothing() -> None:
    found = depth_changes(*bulks([0.3, 0.2, None, 0.25]))
    np.testing.assert_allclose(found, [0.3, 0.2, 0.25, 0.25], atol=0.06)


@pytest.mark.parametrize("seed", range(4))
def test_what_noise_explains_is_taken_for_no_change(seed) -> None:
    control, perturbed = bulks([0.0, 0.0, 0.0, None], n_cells=30, seed=seed)
    measured = np.log(perturbed.depth_quantiles).mean(axis=1) - np.log(control.depth_quantiles).mean(axis=1)
    found = depth_changes(control, perturbed)
    assert (np.abs(found[:3]) < np.abs(measured[:3])).all() and abs(found[3]) < 0.06


def test_contexts_that_contradict_each_other_say_nothing_of_another() -> None:
    assert depth_changes(*bulks([0.5, -0.5, 0.4, -0.4, None]))[4] == 0


def test_nothing_changes_where_nothing_was_seen_or_did_anything() -> None:
    control, _ = bulks([0.0, 0.0])
    np.testing.assert_array_equal(depth_changes(control, control), [0.0, 0.0])
    np.testing.assert_array_equal(depth_changes(control, bulks([None, None])[1]), [0.0, 0.0])


def test_one_context_lends_its_own_change() -> None:
    found = depth_changes(*bulks([0.3, None]))
    assert found[1] == found[0] == pytest.approx(0.3, abs=0.08)


def test_one_cell_says_as_little_as_one_cell_can() -> None:
    control, _ = bulks([0.0], n_cells=400)
    for seed in range(20):
        _, single = bulks([0.0], n_cells=1, seed=seed)
        measured = np.log(single.depth_quantiles / control.depth_quantiles).mean()
        assert abs(depth_changes(control, single)[0]) < max(abs(measured) - 0.1, 1e-9)
