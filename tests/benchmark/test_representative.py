"""Cells that represent many: nearer to all than random ones, as spread out, each once."""

import numpy as np
import pytest

from cfmvc_scvi.benchmark import representative as module
from cfmvc_scvi.benchmark import representative_cells
from cfmvc_scvi.errors import DataError


@pytest.fixture
def values(rng):
    """400 log1p CP10k of 30 genes in two unequal groups."""
    level = np.where(np.arange(400)[:, None] % 4 == 0, 3.0, 1.0) * rng.gamma(2.0, 0.5, 30)
    return np.log1p(rng.poisson(level))


def test_means_are_nearer_and_the_spread_stays(values, rng):
    errors, spreads = [], []
    for _ in range(10):
        rows = representative_cells(values, 60, rng)
        drawn = rng.permutation(len(values))[:60]
        errors.append([np.linalg.norm(values[chosen].mean(axis=0) - values.mean(axis=0)) for chosen in (rows, drawn)])
        spreads.append(values[rows].var(axis=0, ddof=1).sum() / values.var(axis=0, ddof=1).sum())
    ours, random = np.mean(errors, axis=0)
    assert ours < 0.4 * random
    assert np.mean(spreads) == pytest.approx(1.0, abs=0.05)


def test_small_groups_have_their_share(values, rng):
    rows = representative_cells(values, 40, rng)
    assert np.mean(rows % 4 == 0) == pytest.approx(0.25, abs=0.1)


def test_each_cell_once_and_no_more_than_there_are(values, rng):
    rows = representative_cells(values, 399, rng)
    assert len(set(rows.tolist())) == 399
    np.testing.assert_array_equal(np.sort(representative_cells(values, 500, rng)), np.arange(400))


def test_exchanges_lower_the_energy_distance(values, rng):
    def energy(rows):
        apart = [np.linalg.norm(values[rows][:, None] - other, axis=2).mean() for other in (values, values[rows])]
        return 2 * apart[0] - apart[1]

    order = np.random.default_rng(5).permutation(len(values))[:30]  # what the generator draws first
    assert energy(representative_cells(values, 30, np.random.default_rng(5))) < energy(order)


def test_many_cells_are_thinned_out_first(values, rng, monkeypatch):
    monkeypatch.setattr(module, "_MOST", 50)
    rows = representative_cells(values, 20, rng)
    assert len(set(rows.tolist())) == 20
    assert len(representative_cells(values, 80, rng)) == 80


def test_no_cell_wanted_is_refused(values, rng):
    with pytest.raises(DataError, match="at least one"):
        representative_cells(values, 0, rng)
