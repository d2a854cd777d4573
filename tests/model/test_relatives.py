"""What perturbations tell of each other, on pseudo-bulks of which the truth is known."""

import numpy as np
import pytest
from scipy import sparse

from cfmvc_scvi.config import EffectConfig
from cfmvc_scvi.model.relatives import Relatives
from cfmvc_scvi.shift import effect_goal, pseudo_bulk, shared_shift


def screen(rng, n_perturbations, n_contexts=3, n_each=60, n_genes=50):
    """Relatives of a screen: in context k all perturbations triple genes 5k .. 5k + 4, and each a gene of its own."""
    profile = 4 * rng.gamma(2.0, 1.0, (n_contexts, n_genes))
    groups, rows = [], []
    for condition in range(n_perturbations + 1):
        for context in range(n_contexts):
            fold = np.ones(n_genes)
            if condition:
                fold[5 * context : 5 * context + 5], fold[20 + condition] = 3.0, 3.0
            groups.append((condition, context))
            rows.append(rng.poisson(np.tile(profile[context] * fold, (n_each, 1))))
    designs = np.vstack([np.zeros(n_perturbations), np.eye(n_perturbations)]).astype(np.float32)
    counts = sparse.csr_matrix(np.vstack(rows))
    code = np.repeat(np.arange(len(groups)), n_each)
    return Relatives(designs, np.array(groups), pseudo_bulk(counts, code, len(groups)))


@pytest.mark.parametrize("n_perturbations", [1, 2, 3])
def test_without_three_others_nothing_is_expected(rng, n_perturbations):
    relatives = screen(rng, n_perturbations)
    control = relatives.bulk.take(range(3))
    for condition in range(1, n_perturbations + 1):
        expected = relatives.expected(condition)
        for name in ("log_mean", "log_noise", "rate", "rate_noise", "n_cells", "depth_quantiles"):
            np.testing.assert_array_equal(getattr(expected, name), getattr(control, name))


def test_what_others_share_is_expected(rng):
    relatives = screen(rng, 6)
    bulk, expected = relatives.bulk, relatives.expected(2)
    control = bulk.take(range(3))
    for context in range(3):
        shifts = np.array([bulk.log_mean[3 * c + context] - control.log_mean[context] for c in (1, 3, 4, 5, 6)])
        shared = shared_shift(shifts)
        np.testing.assert_allclose(expected.log_mean[context] - control.log_mean[context], shared.weights @ shifts)
        shift = shared.weights @ shifts
        own = np.arange(50) // 5 == context
        assert shift[own].mean() > 0.5 + np.abs(shift[~own]).mean()
    assert (expected.log_noise > 0).all()


def test_a_perturbation_seen_elsewhere_does_in_a_context_what_all_do_there(rng):
    relatives = screen(rng, 6)
    control, perturbed = relatives.bulk.take(range(3)), relatives.bulk.take(range(6, 9))
    truth = perturbed.log_mean[0] - control.log_mean[0]
    errors = [
        np.linalg.norm(effect_goal(start, perturbed, EffectConfig(), exclude=0).goal[0] - control.log_mean[0] - truth)
        for start in (control, relatives.expected(2))
    ]
    assert errors[1] < 0.7 * errors[0]


def test_combinations_are_expected_to_add_up(rng):
    relatives = screen(rng, 6)
    relatives.designs[2] = relatives.designs[1] + relatives.designs[3]
    control, first, second = (relatives.bulk.take(range(3 * code, 3 * code + 3)) for code in (0, 1, 3))
    expected = relatives.expected(2)
    total = np.maximum(first.log_mean + second.log_mean - control.log_mean, 0)
    np.testing.assert_allclose(expected.log_mean, total)
    np.testing.assert_allclose(expected.log_noise, first.log_noise + second.log_noise + control.log_noise)
    logs = [np.log(bulk.rate + EffectConfig().pseudocount) for bulk in (control, first, second)]
    product = np.exp(logs[1] + logs[2] - logs[0]) - EffectConfig().pseudocount
    np.testing.assert_allclose(expected.rate, np.maximum(product, 0))
    np.testing.assert_array_equal(expected.depth_quantiles, control.depth_quantiles)


def test_combinations_of_parts_that_were_not_seen_alone_are_expected_from_control(rng):
    relatives = screen(rng, 6)
    relatives.designs[2] = relatives.designs[1] + relatives.designs[3]
    relatives.designs[3] = relatives.designs[4] + relatives.designs[5]  # and nothing by itself any more
    np.testing.assert_array_equal(relatives.expected(2).log_mean, relatives.bulk.take(range(3)).log_mean)


def test_of_many_perturbations_some_tell_what_all_share_and_never_a_perturbation_of_itself(rng, monkeypatch):
    monkeypatch.setattr("cfmvc_scvi.model.relatives._MOST_LENDERS", 4)
    relatives = screen(rng, 9)
    bulk, lenders = relatives.bulk, [1, 3, 6, 9]  # evenly chosen of nine
    for condition in range(1, 10):
        weights = relatives.shared_weights(condition)
        np.testing.assert_allclose(weights.sum(axis=1), 1.0)
        others = [code for code in lenders if code != condition]
        for context in range(3):
            shifts = np.array([bulk.log_mean[3 * code + context] - bulk.log_mean[context] for code in others])
            np.testing.assert_allclose(weights[context, others], shared_shift(shifts).weights, atol=1e-12)
            assert not np.delete(weights[context], [0, *others]).any()


def test_a_condition_is_found_by_its_perturbations_and_doses(rng):
    relatives = screen(rng, 3)
    relatives.designs[2] = [1, 2, 0]
    relatives.designs[3] = [1, 1.5, 0]
    for code, design in enumerate(relatives.designs):
        assert relatives.condition(design * np.float32(1 + 1e-7)) == code
    for unseen in ([1, 1, 0], [0, 1, 0], [1, 2, 1e-3]):
        assert relatives.condition(np.array(unseen, dtype=np.float32)) == -1


def test_doses_are_told_apart_in_whatever_unit_they_are(rng):
    relatives = screen(rng, 3)
    relatives.designs[:] *= np.float32(1e-7)
    relatives.designs[3] = 5 * relatives.designs[1]
    assert [relatives.condition(design) for design in relatives.designs] == [0, 1, 2, 3]
    assert relatives.condition(2 * relatives.designs[1]) == -1


def test_what_is_kept_of_conditions_is_bounded(rng, monkeypatch):
    free = screen(rng, 6)
    weights = [free.shared_weights(condition) for condition in range(1, 7)]
    monkeypatch.setattr("cfmvc_scvi.model.relatives._MOST_BYTES", 2 * weights[0].nbytes)
    bounded = Relatives(free.designs, free.groups, free.bulk)
    for _ in range(2):
        for condition in range(1, 7):
            np.testing.assert_array_equal(bounded.shared_weights(condition), weights[condition - 1])
            assert len(bounded._shared) <= 2
