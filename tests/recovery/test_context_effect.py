"""A planted effect that differs between contexts is recovered where it was not observed, with honest uncertainty."""

import numpy as np

from cfmvc_scvi.config import EffectConfig
from cfmvc_scvi.shift import PseudoBulk, effect_goal, pseudo_bulk

N_GENES = 300


def planted(seed: int, n_cells: int = 80) -> tuple[PseudoBulk, PseudoBulk, PseudoBulk]:
    """Control and perturbed cells, and many more perturbed ones, of two lineages of three contexts.

    Effects are shared by all, or by the lineage, or belong to the context; depths differ threefold.
    """
    rng = np.random.default_rng(seed)
    base = rng.gamma(0.4, 1.0, N_GENES) + 0.02
    responds = rng.random(N_GENES) < 0.25
    shared = rng.normal(0, 1.0, N_GENES) * responds
    parts = [], [], []
    for _ in range(2):
        lineage = rng.normal(0, 0.8, N_GENES)
        special = rng.normal(0, 1.0, N_GENES) * responds
        for _ in range(3):
            level = base * np.exp(lineage + rng.normal(0, 0.15, N_GENES))
            change = np.exp(shared + special + rng.normal(0, 0.2, N_GENES) * responds)
            depth = rng.uniform(800, 2400)
            for kind, (rate, n) in enumerate([(level, n_cells), (level * change, n_cells), (level * change, 1000)]):
                depths = depth * rng.lognormal(0, 0.3, (n, 1))
                counts = rng.poisson(rng.gamma(3.0, rate / rate.sum() * depths / 3))
                parts[kind].append(pseudo_bulk(counts, np.zeros(n, dtype=int), 1))
    return tuple(PseudoBulk.concatenate(part) for part in parts)


def test_planted_effects_are_recovered_in_contexts_that_were_left_out() -> None:
    found, mean_shift, standardised = [], [], []
    for seed in range(2):
        control, perturbed, _ = planted(seed)
        delta = perturbed.log_mean - control.log_mean
        for context in range(6):
            goal = effect_goal(control, perturbed, EffectConfig(), exclude=context)
            guess = goal.goal[context] - control.log_mean[context]
            found.append(np.corrcoef(guess, delta[context])[0, 1])
            mean_shift.append(np.corrcoef(np.delete(delta, context, axis=0).mean(axis=0), delta[context])[0, 1])
            spread = np.sqrt(goal.sd[context] ** 2 + perturbed.log_noise[context])
            standardised.append((perturbed.log_mean[context] - goal.goal[context]) / spread)
    assert np.mean(found) > np.mean(mean_shift) + 0.1
    assert min(found) > 0.8
    covered = np.mean(np.abs(np.concatenate(standardised)) < 1.645)
    assert 0.8 < covered < 0.97


def test_own_cells_and_other_contexts_together_are_better_than_either_alone() -> None:
    control, few, truth = planted(seed=3, n_cells=15)
    both = effect_goal(control, few, EffectConfig())
    for context in range(6):
        borrowed = effect_goal(control, few, EffectConfig(), exclude=context)
        errors = [
            np.sqrt(np.mean((estimate - truth.log_mean[context]) ** 2))
            for estimate in (both.goal[context], borrowed.goal[context], few.log_mean[context])
        ]
        assert errors[0] < 0.95 * min(errors[1:])
        assert (both.sd[context] < borrowed.sd[context]).mean() > 0.9
