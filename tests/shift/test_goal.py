from dataclasses import replace

import numpy as np
import pytest

from cfmvc_scvi.config import EffectConfig
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.shift import EffectGoal, PseudoBulk, context_weights, effect_goal, pseudo_bulk, with_decoded

CONFIG = EffectConfig()
N_GENES = 80


def bulks(nb_counts, n_contexts: int = 4, n_cells: int = 60, depths=None, fold: float = 4.0, seed: int = 0):
    """Control and perturbed pseudo-bulks; the first 15 genes go up `fold` times in every context."""
    rng = np.random.default_rng(seed)
    profile = rng.gamma(0.5, 1.0, N_GENES) + 0.05
    effect = np.where(np.arange(N_GENES) < 15, fold, 1.0)
    depths = np.full((n_contexts, 2), 1500.0) if depths is None else np.asarray(depths)
    parts = [], []
    for context in range(n_contexts):
        rate = profile * rng.lognormal(0, 0.3, N_GENES)
        for kind, change in enumerate((np.ones(N_GENES), effect)):
            mean = 1e4 * rate * change / (rate * change).sum()
            counts = nb_counts(mean, n_cells, depths[context, kind], rng)
            parts[kind].append(pseudo_bulk(counts, np.zeros(n_cells, dtype=int), 1))
    return PseudoBulk.concatenate(parts[0]), PseudoBulk.concatenate(parts[1])


def without(bulk: PseudoBulk, context: int) -> PseudoBulk:
    nothing = pseudo_bulk(np.zeros((0, bulk.n_genes)), np.empty(0, dtype=int), 1)
    rows = np.arange(bulk.n_groups)
    rows[context] = bulk.n_groups
    return PseudoBulk.concatenate([bulk, nothing]).take(rows)


def test_observed_context_keeps_its_own_mean_and_is_not_stretched(nb_counts) -> None:
    control, perturbed = bulks(nb_counts, n_cells=2000)
    goal = effect_goal(control, perturbed, CONFIG)
    np.testing.assert_allclose(goal.goal, perturbed.log_mean, atol=0.06)
    np.testing.assert_array_equal(goal.stretch, 1.0)
    assert goal.observed.all() and (goal.sd > 0).all()
    np.testing.assert_array_equal(goal.control, control.log_mean)


def test_excluded_context_is_predicted_as_if_unobserved(nb_counts) -> None:
    control, perturbed = bulks(nb_counts)
    excluded = effect_goal(control, perturbed, CONFIG, exclude=2)
    hidden = effect_goal(control, without(perturbed, 2), CONFIG)
    for name in ("goal", "sd", "stretch", "weights", "observed"):
        np.testing.assert_array_equal(getattr(excluded, name), getattr(hidden, name))
    assert not excluded.observed[2] and excluded.observed[[0, 1, 3]].all()
    assert (perturbed.n_cells > 0).all()


def test_unseen_context_is_stretched_within_bounds_and_close_to_the_truth(nb_counts) -> None:
    control, perturbed = bulks(nb_counts, n_cells=200)
    goal = effect_goal(control, perturbed, CONFIG, exclude=0)
    lower, upper = CONFIG.stretch_bounds
    assert lower <= goal.stretch[0] <= upper
    truth = perturbed.log_mean[0] - control.log_mean[0]
    assert np.corrcoef(goal.goal[0] - control.log_mean[0], truth)[0, 1] > 0.9
    assert (goal.goal >= 0).all()


def test_stretch_undoes_a_posterior_mean_that_is_too_short(nb_counts) -> None:
    control, perturbed = bulks(nb_counts, n_cells=12, fold=3.0)
    goal = effect_goal(control, perturbed, CONFIG, exclude=1)
    plain = effect_goal(control, perturbed, EffectConfig(stretch_bounds=(1.0, 1.0)), exclude=1)
    delta, short = (g.goal[1] - g.control[1] for g in (goal, plain))
    kept = goal.goal[1] > 0
    np.testing.assert_allclose(delta[kept], goal.stretch[1] * short[kept], atol=1e-12)
    np.testing.assert_allclose(goal.sd[1], goal.stretch[1] * plain.sd[1])


@pytest.mark.parametrize(("fold", "signal"), [(4.0, (0.5, 1.0)), (1.0, (0.0, 0.1))])
def test_prior_is_wide_as_far_as_effects_stand_out_of_the_noise(nb_counts, fold, signal) -> None:
    control, perturbed = bulks(nb_counts, n_cells=60, fold=fold)

    def delta(config: EffectConfig) -> np.ndarray:
        goal = effect_goal(control, perturbed, config, exclude=1)
        return goal.goal[1] - goal.control[1]

    plain = EffectConfig(stretch_bounds=(1.0, 1.0))
    both, wide = delta(plain), delta(replace(plain, effect_scales=(plain.wide_scale,)))
    # a wide prior as narrow as the narrowest of the mixture tells how much of `both` is of the mixture
    narrow = delta(replace(plain, effect_scales=(1e-4,), wide_scale=1e-4))
    none = delta(replace(plain, wide_scale=1e-4))
    share = ((both - none) @ (wide - narrow)) / ((wide - narrow) @ (wide - narrow))
    assert signal[0] <= share <= signal[1]


def test_similarity_weights_cover_the_other_observed_contexts(nb_counts) -> None:
    control, perturbed = bulks(nb_counts)
    weights = effect_goal(control, without(perturbed, 3), CONFIG).weights
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)
    assert (np.diag(weights) == 0).all() and (weights[:, 3] == 0).all() and (weights >= 0).all()


def test_depth_is_not_an_effect(nb_counts) -> None:
    """Perturbed cells of one context sequenced six times as deep: nothing happened to its genes, nor to the others'."""
    depths = [[1500, 1500], [1500, 1500], [300, 1800]]
    control, perturbed = bulks(nb_counts, 3, 400, depths, fold=1.0)
    raw = np.abs(perturbed.log_mean - control.log_mean).mean(axis=1)
    goal = effect_goal(control, perturbed, CONFIG)
    assert raw[2] > 0.3
    assert np.abs(goal.goal - control.log_mean).mean(axis=1).max() < 0.08
    held_out = effect_goal(control, perturbed, CONFIG, exclude=0)
    assert np.abs(held_out.goal[0] - control.log_mean[0]).mean() < 0.06


def test_permuting_genes_and_contexts_permutes_the_goal(nb_counts) -> None:
    control, perturbed = bulks(nb_counts)
    perturbed = without(perturbed, 1)
    rng = np.random.default_rng(1)
    contexts, genes = rng.permutation(4), rng.permutation(N_GENES)

    def move(bulk: PseudoBulk) -> PseudoBulk:
        rows = bulk.take(contexts)
        by_gene = [getattr(rows, n)[:, genes] for n in ("log_mean", "log_noise", "rate", "rate_noise")]
        return PseudoBulk(*by_gene, rows.n_cells, rows.depth_quantiles)

    goal, moved = effect_goal(control, perturbed, CONFIG), effect_goal(move(control), move(perturbed), CONFIG)
    np.testing.assert_allclose(moved.goal, goal.goal[contexts][:, genes], atol=1e-8)
    np.testing.assert_allclose(moved.sd, goal.sd[contexts][:, genes], atol=1e-7)
    np.testing.assert_allclose(moved.weights, goal.weights[contexts][:, contexts], atol=1e-10)
    np.testing.assert_allclose(moved.stretch, goal.stretch[contexts], atol=1e-8)


def test_one_context_two_contexts_and_one_cell(nb_counts) -> None:
    control, perturbed = bulks(nb_counts, n_contexts=1)
    alone = effect_goal(control, perturbed, CONFIG)
    assert np.corrcoef(alone.goal[0], perturbed.log_mean[0])[0, 1] > 0.95
    np.testing.assert_array_equal(alone.weights, [[0.0]])
    control, perturbed = bulks(nb_counts, n_contexts=2)
    np.testing.assert_array_equal(effect_goal(control, perturbed, CONFIG, exclude=0).weights, [[0, 1], [0, 0]])
    control, perturbed = bulks(nb_counts, n_contexts=3, n_cells=1)
    few = effect_goal(control, perturbed, CONFIG, exclude=1)
    assert np.isfinite(few.goal).all() and np.isfinite(few.sd).all()


def test_genes_without_counts_are_predicted_near_zero(nb_counts) -> None:
    rng = np.random.default_rng(0)
    parts = []
    for _ in range(6):
        counts = nb_counts(np.full(40, 250.0), 80, 1500.0, rng)
        counts[:, :3] = 0
        parts.append(pseudo_bulk(counts, np.zeros(80, dtype=int), 1))
    goal = effect_goal(PseudoBulk.concatenate(parts[:3]), PseudoBulk.concatenate(parts[3:]), CONFIG, exclude=0)
    assert (goal.goal[:, :3] < 1e-3).all() and np.isfinite(goal.sd).all()


def test_bad_input_is_refused(nb_counts) -> None:
    control, perturbed = bulks(nb_counts)
    with pytest.raises(DataError, match="same"):
        effect_goal(control, perturbed.take([0, 1]), CONFIG)
    with pytest.raises(DataError, match="1 contexts have no control"):
        effect_goal(without(control, 2), perturbed, CONFIG)
    with pytest.raises(DataError, match="none of the 1 contexts"):
        effect_goal(control.take([0]), perturbed.take([0]), CONFIG, exclude=0)
    for outside in (-1, 4):
        with pytest.raises(DataError, match=f"exclude is {outside}"):
            effect_goal(control, perturbed, CONFIG, exclude=outside)


def two_axes(nb_counts, places, changes, seed: int) -> tuple[PseudoBulk, PseudoBulk]:
    """Contexts at places of a plane, whose first gene, 1000 per 10,000, changes by a log fold of its own in each."""
    rng = np.random.default_rng(seed)
    axes, profile = rng.normal(0, 1.0, (2, 400)), rng.gamma(0.5, 1.0, 400) + 0.05
    parts: tuple[list[PseudoBulk], list[PseudoBulk]] = [], []
    for place, change in zip(places, changes, strict=True):
        for kind, log_fold in enumerate((0.0, change)):
            rate = profile * np.exp(np.asarray(place) @ axes)
            rate *= 1e4 / rate.sum()
            rate[0] = 1e3 * np.exp(log_fold)
            parts[kind].append(pseudo_bulk(nb_counts(rate, 200, 2000, rng), np.zeros(200, dtype=int), 1))
    return PseudoBulk.concatenate(parts[0]), PseudoBulk.concatenate(parts[1])


@pytest.mark.parametrize("seed", [0, 1])
def test_near_contexts_that_differ_do_not_make_a_steep_line(nb_counts, seed: int) -> None:
    """A line through contexts that are alike but for a gene's effect would be far off in a context far away."""
    places = [(0, 0), (0.1, 0), (0.1, 0.1), (1, 1), (1.6, 0.6)]
    control, perturbed = two_axes(nb_counts, places, [-1.1, -0.4, -1.2, -0.6, -0.6], seed)
    goal = effect_goal(control, perturbed, CONFIG, exclude=4)
    assert abs(goal.goal[4, 0] - perturbed.log_mean[4, 0]) < 0.75


def test_weights_are_those_of_the_goal(nb_counts) -> None:
    control, perturbed = bulks(nb_counts)
    np.testing.assert_array_equal(
        context_weights(control, perturbed, CONFIG, exclude=1),
        effect_goal(control, perturbed, CONFIG, exclude=1).weights,
    )


def test_a_decoder_has_a_say_only_where_nothing_was_observed(nb_counts) -> None:
    control, perturbed = bulks(nb_counts)
    goal = effect_goal(control, without(perturbed, 1), CONFIG, exclude=2)
    decoded = np.random.default_rng(0).gamma(2.0, 1.0, goal.goal.shape)
    decoded[2] = np.nan  # of which it tells nothing
    mixed = with_decoded(goal, decoded, 0.3)
    for name in ("goal", "sd", "stretch"):
        np.testing.assert_array_equal(getattr(mixed, name)[[0, 2, 3]], getattr(goal, name)[[0, 2, 3]])
    assert np.abs(mixed.goal[1] - goal.goal[1]).max() > 0
    assert with_decoded(goal, None, 0.3) is goal
    np.testing.assert_allclose(with_decoded(goal, decoded, 0.0).goal, goal.goal, atol=1e-12)


def test_a_decoder_moves_genes_by_what_is_not_known_of_them_and_keeps_the_length_of_the_effect() -> None:
    delta, sd = np.array([[3.0, 4.0, 0.0, 0.0]]), np.array([[0.0, 0.1, 0.2, 0.4]])
    control = np.full_like(delta, 10.0)
    never = np.zeros(1, dtype=bool)
    goal = EffectGoal(control + delta, sd, control, np.ones(1), np.zeros((1, 1)), never)
    expected = np.array([[5.0, 2.0, 1.0, -1.0]])
    mixed = with_decoded(goal, control + expected, 0.5).goal - control
    assert np.linalg.norm(mixed) == pytest.approx(5.0)
    v = sd**2
    weight = 0.5 * v / (v + (v**2).sum() / v.sum())
    np.testing.assert_allclose(mixed * (3.0 / mixed[0, 0]), delta + weight * (expected - delta))
    assert weight[0, 0] == 0 and (np.diff(weight) > 0).all()
    low = with_decoded(replace(goal, goal=1 + delta, control=np.ones_like(delta)), -1e3 * expected, 0.5)
    assert low.goal.min() == 0.0  # a level is never negative
    still = EffectGoal(control, sd, control, np.ones(1), np.zeros((1, 1)), never)
    np.testing.assert_array_equal(with_decoded(still, control + expected, 0.5).goal, control)  # no effect, no length
