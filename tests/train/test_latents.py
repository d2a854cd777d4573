"""Pairs for the flow: from which cells, coupled how, and which are left out."""

from __future__ import annotations

import numpy as np
import pytest

from cfmvc_scvi.config import PairConfig
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.train import LatentDataModule, LatentTable, PairSampler

EXACT = PairConfig(batch_size=40, steps_per_epoch=3, posterior_noise=False, identity_share=0.25)


@pytest.fixture
def table(rng):
    n = 120
    condition, context = np.tile([0, 1, 2], 40), np.repeat([0, 1], 60)
    mean = rng.normal(size=(n, 3)).astype(np.float32)
    offsets = np.zeros((3, 2, 3), dtype=np.float32)
    offsets[1, 0] = 5.0
    return LatentTable(
        mean=mean,
        variance=np.full((n, 3), 0.01, dtype=np.float32),
        condition=condition,
        context=context,
        designs=np.array([[0, 0], [1, 0], [0, 1]], dtype=np.float32),
        context_features=np.array([[0.0, 0, 0], [1, 1, 1]], dtype=np.float32),
        offsets=offsets,
    )


def rows_of(table, values):
    """Which cells have these latents; -1 where none has."""
    distance = np.abs(table.mean[None] - np.asarray(values)[:, None]).max(-1)
    return np.where(distance.min(1) < 1e-5, distance.argmin(1), -1)


def test_pairs_join_control_and_perturbed_cells_of_one_context(table, rng):
    cells = np.arange(120)
    pairs = {key: value.numpy() for key, value in PairSampler(table, cells, "control", EXACT).pairs(400, rng).items()}
    target = rows_of(table, pairs["z_1"])
    kind = table.condition[target]
    np.testing.assert_array_equal(pairs["design"], table.designs[kind])
    source = rows_of(table, pairs["z_0"] - table.offsets[kind, table.context[target]])
    assert (table.condition[source] == 0).all()
    np.testing.assert_array_equal(table.context[source], table.context[target])
    np.testing.assert_array_equal(pairs["context"], table.context_features[table.context[target]])
    identity = kind == 0
    assert identity.sum() == 100
    np.testing.assert_array_equal(source[identity], target[identity])


def test_every_control_cell_of_a_context_is_a_source_however_few_its_perturbed_cells(table, rng):
    few = np.flatnonzero((table.condition == 0) | (np.arange(120) < 6))  # two cells of each condition in one context
    pairs = PairSampler(table, few, "control", EXACT).pairs(2000, rng)
    moving = pairs["design"].numpy().any(axis=1)
    kind = pairs["design"].numpy()[moving] @ [1, 2]
    sources = rows_of(table, pairs["z_0"].numpy()[moving] - table.offsets[kind.astype(int), 0])
    assert set(sources) == set(np.flatnonzero((table.condition == 0) & (table.context == 0)))


@pytest.mark.parametrize("source", ["control", "noise"])
def test_cells_outside_the_split_are_never_drawn(table, rng, source):
    train = np.sort(rng.permutation(120)[:70])
    offsets = np.zeros_like(table.offsets)
    clean = LatentTable(**{**vars(table), "offsets": offsets, "variance": np.zeros_like(table.variance)})
    pairs = PairSampler(clean, train, source, EXACT).pairs(500, rng)
    assert np.isin(rows_of(clean, pairs["z_1"].numpy()), train).all()


def test_noise_leaves_out_contexts_whose_centre_is_unknown(table, rng):
    offsets = table.offsets.copy()
    offsets[1, 1] = np.nan
    sampler = PairSampler(LatentTable(**{**vars(table), "offsets": offsets}), np.arange(120), "noise", EXACT)
    assert len(sampler) == 100
    pairs = sampler.pairs(300, rng)
    assert all(np.isfinite(value.numpy()).all() for value in pairs.values())
    drawn = set(map(tuple, np.hstack([pairs["design"].numpy(), pairs["context"].numpy()[:, :1]]).tolist()))
    assert (1.0, 0.0, 1.0) not in drawn
    assert len(drawn) == 5


def test_unknown_conditions_and_contexts_are_left_out(table, rng):
    condition, context = table.condition.copy(), table.context.copy()
    condition[condition == 2] = -1
    context[:10] = -1
    partly = LatentTable(**{**vars(table), "condition": condition, "context": context})
    for source in ("control", "noise"):
        designs = PairSampler(partly, np.arange(120), source, EXACT).pairs(200, rng)["design"].numpy()
        assert (designs[:, 1] == 0).all()


def test_each_epoch_has_new_pairs_and_the_same_seed_the_same(table):
    def epochs(seed):
        splits = np.arange(90), np.arange(90, 120), np.arange(0)
        data = LatentDataModule(table, splits, source="control", config=EXACT, seed=seed)
        loader = data.train_dataloader()
        batches = [[batch["z_0"].numpy() for batch in loader] for _ in range(2)]
        return np.array(batches), next(iter(data.val_dataloader()))["z_0"].numpy()

    (first, validation), (again, same), (other, _) = epochs(0), epochs(0), epochs(1)
    assert first.shape == (2, 3, 40, 3)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(validation, same)
    assert np.abs(first[0] - first[1]).max() > 0
    assert np.abs(first - other).max() > 0


def test_without_any_pair_there_is_nothing_to_train(table):
    cells = np.flatnonzero(table.condition > 0)
    with pytest.raises(DataError, match="both control and perturbed"):
        LatentDataModule(table, (cells, cells[:0], cells[:0]), source="control", config=EXACT, seed=0)


def test_no_validation_pairs_no_validation(table):
    train, alone = np.arange(100), np.flatnonzero(table.condition == 1)[-3:]
    data = LatentDataModule(table, (train, alone, alone[:0]), source="control", config=EXACT, seed=0)
    assert data.val_dataloader() == []


@pytest.mark.parametrize("source", ["control", "noise"])
def test_observed_cells_are_of_the_group_and_leave_the_pairs_alone(table, source):
    config = PairConfig(posterior_noise=False, identity_share=0.25)
    clean = LatentTable(**{**vars(table), "variance": np.zeros_like(table.variance)})
    cells = np.arange(100)
    plain = PairSampler(clean, cells, source, config).pairs(300, np.random.default_rng(3))
    pairs = PairSampler(clean, cells, source, config, observed=True).pairs(300, np.random.default_rng(3))
    for key, value in plain.items():
        assert (pairs[key] == value).all(), key
    pairs = {key: value.numpy() for key, value in pairs.items()}
    drawn, taking = pairs["observed_cell"], pairs["group"] >= 0
    assert np.isin(drawn, cells).all()
    np.testing.assert_array_equal(table.designs[table.condition[drawn]], pairs["design"])
    np.testing.assert_array_equal(table.context_features[table.context[drawn]], pairs["context"])
    kinds = np.column_stack([table.condition[drawn], table.context[drawn], pairs["group"]])[taking]
    assert len(np.unique(kinds, axis=0)) == len(np.unique(kinds[:, :2], axis=0)) == len(np.unique(kinds[:, 2]))
    offset = 0 if source == "control" else clean.offsets[table.condition[drawn], table.context[drawn]]
    np.testing.assert_allclose(pairs["observed"][taking], (table.mean[drawn] - offset)[taking], atol=1e-6)
    if source == "control":
        assert (~taking).sum() == 75  # control cells that stay
        assert set(pairs["source_cell"][taking]) <= set(np.flatnonzero(table.condition == 0))
    target = rows_of(table, pairs["z_1"] + (0 if source == "control" else offset))
    assert np.mean(target[taking] == drawn[taking]) < 0.3  # drawn apart from the pairs
