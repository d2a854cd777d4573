"""Baselines for combinations, doses and perturbations that were never seen."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from cfmvc_scvi import benchmark as bm
from cfmvc_scvi.errors import DataError, UnknownConditionError
from cfmvc_scvi.metrics import log_normalize

N_GENES = 40


def cells(rng, groups, **kwargs):
    """Training cells of groups {(condition, context): log fold change of each gene}, 60 each."""
    base = rng.gamma(3.0, 1.0, N_GENES) * 20
    rows = [rng.poisson(base * np.exp(change), (60, N_GENES)) for change in groups.values()]
    labels = [np.repeat(np.array(part), 60) for part in zip(*groups, strict=True)]
    return bm.TrainingCells(sparse.csr_matrix(np.vstack(rows).astype(float)), *labels, **kwargs)


def change(genes, size):
    """Opposite changes of two blocks of genes, so that depth stays."""
    values = np.zeros(N_GENES)
    values[genes], values[[gene + 20 for gene in genes]] = size, -size
    return values


@pytest.fixture
def parts(rng):
    a, b, none = change([0, 1], 0.8), change([5, 6], 0.6), np.zeros(N_GENES)
    groups = {("control", "x"): none, ("A", "x"): a, ("B", "x"): b, ("control", "y"): none, ("A", "y"): a}
    return cells(rng, groups | {("B", "y"): 0.5 * b})


def test_additive_is_the_sum_of_the_parts(parts):
    model = bm.AdditiveShift().fit(parts)
    shift = model.expected_shift(parts.group("control", "x"), "A+B", "x")
    np.testing.assert_allclose(shift, model.shift("A", "x") + model.shift("B", "x"))


def test_a_part_not_seen_in_the_context_comes_from_the_others(parts):
    keep = ~((parts.condition == "B") & (parts.context == "x"))
    less = bm.TrainingCells(parts.counts[keep], parts.condition[keep], parts.context[keep])
    model = bm.AdditiveShift().fit(less)
    shift = model.expected_shift(less.group("control", "x"), "A+B", "x")
    np.testing.assert_allclose(shift, model.shift("A", "x") + model.shift("B", "y"))
    with pytest.raises(UnknownConditionError, match="'C'"):
        model.expected_shift(less.group("control", "x"), "A+C", "x")


@pytest.fixture
def doses(rng):
    sizes = {"A@1": 0.4, "A@4": 1.2, "B@1": 0.3}
    groups = {(name, "x"): change([0, 1], size) for name, size in sizes.items()}
    return cells(rng, {("control", "x"): np.zeros(N_GENES), ("control", "y"): np.zeros(N_GENES)} | groups, dosed=True)


def test_doses_are_interpolated_in_their_logarithm(doses):
    model = bm.DoseInterpolation().fit(doses)
    control = doses.group("control", "x")
    between, below, above = (model.expected_shift(control, f"A@{dose}", "x") for dose in (2, 0.5, 9))
    share = (np.log1p(2) - np.log1p(1)) / (np.log1p(4) - np.log1p(1))
    low, high = model.shift("A@1", "x"), model.shift("A@4", "x")
    np.testing.assert_allclose(between, (1 - share) * low + share * high)
    np.testing.assert_allclose(below, low * np.log1p(0.5) / np.log1p(1))
    np.testing.assert_allclose(above, high)
    np.testing.assert_allclose(model.expected_shift(control, "A@2", "y"), between)  # from the context that has doses
    with pytest.raises(UnknownConditionError, match="no dose of 'C@1'"):
        model.expected_shift(control, "C@1", "x")


def test_a_part_at_an_unseen_dose_is_interpolated(doses):
    shift = bm.AdditiveShift().fit(doses).expected_shift(doses.group("control", "x"), "A@2+B@1", "x")
    single = bm.DoseInterpolation().fit(doses)
    expected = single.expected_shift(doses.counts[:0], "A@2", "x") + single.shift("B@1", "x")
    np.testing.assert_allclose(shift, expected)


@pytest.fixture
def screen(rng):
    """Ten knock-outs; the effect of each is the sum of two programmes, by its features."""
    features = pd.DataFrame(rng.normal(size=(11, 2)), index=[f"g{i}" for i in range(11)])
    programmes = np.stack([change([0, 1, 2], 0.5), change([7, 8], 0.5)])
    groups = {(name, "x"): features.loc[name].to_numpy() @ programmes for name in features.index[:10]}
    train = cells(rng, {("control", "x"): np.zeros(N_GENES)} | groups, genes=tuple(f"g{i}" for i in range(N_GENES)))
    return train, features, features.loc["g10"].to_numpy() @ programmes


def test_linear_finds_what_features_predict(screen):
    train, features, truth = screen
    control = train.group("control", "x")
    known = bm.LinearPerturbation(features).fit(train).expected_shift(control, "g10", "x")
    mean = bm.MeanOfOtherPerturbations().fit(train).expected_shift(control, "g10", "x")
    assert np.corrcoef(known, truth)[0, 1] > 0.9
    specific = np.abs(truth) > 0.5
    assert np.abs(known - truth)[specific].mean() < 0.3 * np.abs(mean - truth)[specific].mean()


def test_linear_without_features_of_the_target_is_the_mean(screen):
    train, features, _ = screen
    control = train.group("control", "x")
    mean = bm.MeanOfOtherPerturbations().fit(train).expected_shift(control, "other", "x")
    for model in (bm.LinearPerturbation(features), bm.LinearPerturbation()):
        np.testing.assert_allclose(model.fit(train).expected_shift(control, "other", "x"), mean)
    with pytest.raises(DataError, match="ridge 0"):
        bm.LinearPerturbation(ridge=0)


def test_coexpression_describes_targets_by_default(rng):
    """Two modules of genes; knocking a gene out lowers its module."""
    base, n_cells = rng.gamma(3.0, 1.0, N_GENES) * 20, 400
    module = np.repeat([0, 1], 20)
    state = rng.normal(0, 0.5, (n_cells, 2))
    counts, labels = [rng.poisson(base * np.exp(state[:, module]))], ["control"] * n_cells
    for target in (0, 1, 2, 20, 21, 22):
        fold = np.where(module == module[target], 0.5, 1.0)
        counts.append(rng.poisson(base * fold, (80, N_GENES)))
        labels += [f"g{target}"] * 80
    context = np.repeat("x", len(labels))
    names = tuple(f"g{i}" for i in range(N_GENES))
    train = bm.TrainingCells(sparse.csr_matrix(np.vstack(counts).astype(float)), np.array(labels), context, genes=names)
    model = bm.LinearPerturbation(n_components=2).fit(train)
    first, second = (model.expected_shift(train.group("control", "x"), name, "x") for name in ("g5", "g35"))
    assert first[:20].mean() < first[20:].mean() - 0.2
    assert second[20:].mean() < second[:20].mean() - 0.2


def test_a_shift_realised_in_counts_has_the_mean_of_the_shift(parts, rng):
    model = bm.CountCoupled(bm.AdditiveShift(), dispersion=5.0).fit(parts)
    control = parts.group("control", "x")
    values = model.predict(control, "A+B", "x", 60, rng).log_values().mean(axis=0)
    goal = log_normalize(control).mean(axis=0) + model.of.expected_shift(control, "A+B", "x")
    assert np.abs(values - goal).mean() < 0.3 * np.abs(log_normalize(control).mean(axis=0) - goal).mean()


def test_default_baselines_fit_what_is_held_out(tiny_adata):
    folds = bm.make_folds(tiny_adata)
    one = bm.make_folds(tiny_adata[tiny_adata.obs.perturbation != "B"].copy())
    assert "mean of others" in bm.default_baselines("cell_type", folds)
    assert "mean of others" not in bm.default_baselines("cell_type", one)
    assert "nearest shift" not in bm.default_baselines("perturbation", folds)
    for holdout in ("cell_type", "perturbation", "combination", "dose"):
        chosen = bm.default_baselines(holdout)
        assert next(iter(chosen)) == bm.FLOOR and len(chosen) > 3
        assert all(isinstance(make(), bm.Baseline) for make in chosen.values())
