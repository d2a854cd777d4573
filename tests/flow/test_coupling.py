import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfmvc_scvi.errors import DataError, NonFiniteError
from cfmvc_scvi.flow import optimal_coupling, random_coupling

both = pytest.mark.parametrize("couple", [optimal_coupling, random_coupling])
sizes = st.integers(1, 40)


def _groups(n: int, m: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 3)), rng.normal(1.0, 2.0, size=(m, 3))


@both
@settings(max_examples=60, deadline=None)
@given(n=sizes, m=sizes, max_cells=st.integers(1, 50), seed=st.integers(0, 99))
def test_every_target_appears_once(couple, n: int, m: int, max_cells: int, seed: int) -> None:
    z_0, z_1 = _groups(n, m, seed)
    index_0, index_1 = couple(z_0, z_1, np.random.default_rng(seed), max_cells=max_cells)
    assert np.array_equal(index_1, np.arange(m))
    assert index_0.shape == (m,) and index_0.min() >= 0 and index_0.max() < n
    if n == m:
        assert np.array_equal(np.sort(index_0), np.arange(n))


@both
@pytest.mark.parametrize(("n", "max_cells"), [(5, 3), (41, 10), (64, 7)])
def test_equal_groups_are_permuted_also_across_uneven_blocks(couple, n: int, max_cells: int) -> None:
    for seed in range(20):
        index_0, _ = couple(*_groups(n, n, seed), np.random.default_rng(seed), max_cells=max_cells)
        assert np.array_equal(np.sort(index_0), np.arange(n))


@both
def test_same_generator_same_pairs_and_inputs_untouched(couple) -> None:
    z_0, z_1 = _groups(30, 45, 0)
    before = z_0.copy(), z_1.copy()
    first, again, other = (couple(z_0, z_1, np.random.default_rng(s), max_cells=10)[0] for s in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(before[0], z_0) and np.array_equal(before[1], z_1)


@both
def test_rounds_pair_every_target_again_and_reach_every_source(couple) -> None:
    z_0, z_1 = _groups(40, 6, 0)
    index_0, index_1 = couple(z_0, z_1, np.random.default_rng(0), max_cells=50, n_rounds=400)
    np.testing.assert_array_equal(index_1, np.tile(np.arange(6), 400))
    used = np.bincount(index_0, minlength=40)
    np.testing.assert_allclose(used / 400, 6 / 40, atol=0.05)


def test_random_coupling_deals_sources_evenly() -> None:
    z_0, z_1 = _groups(7, 38, 0)
    used = np.bincount(random_coupling(z_0, z_1, np.random.default_rng(0), max_cells=1)[0], minlength=7)
    assert used.max() - used.min() == 1


@pytest.mark.parametrize(("n", "m"), [(200, 200), (9, 200), (200, 9), (130, 200)])
def test_blocks_are_never_larger_than_max_cells(n: int, m: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from cfmvc_scvi.flow import coupling

    shapes = []
    solve = coupling.ot.emd
    monkeypatch.setattr(
        coupling.ot, "emd", lambda a, b, cost, **kw: (shapes.append(cost.shape), solve(a, b, cost, **kw))[1]
    )
    optimal_coupling(*_groups(n, m, 0), np.random.default_rng(0), max_cells=32)
    assert np.max(shapes) <= 32
    assert min(rows for rows, _ in shapes) >= min(n, 20), "a block with few sources pairs almost at random"


def test_blocks_still_shorten_the_pairs() -> None:
    z_0, z_1 = _groups(300, 300, 0)

    def length(couple, max_cells: int) -> float:
        index_0, index_1 = couple(z_0, z_1, np.random.default_rng(0), max_cells=max_cells)
        return float(np.square(z_0[index_0] - z_1[index_1]).sum(axis=1).mean())

    whole, blocks, chance = length(optimal_coupling, 300), length(optimal_coupling, 50), length(random_coupling, 50)
    assert whole < blocks < 0.75 * chance


def test_float32_states_are_paired_as_their_doubles() -> None:
    z_0, z_1 = (z.astype(np.float32) for z in _groups(20, 20, 0))
    pairs = [
        optimal_coupling(a, b, np.random.default_rng(0), max_cells=50)[0]
        for a, b in ((z_0, z_1), (z_0.astype(float), z_1.astype(float)))
    ]
    assert np.array_equal(*pairs)


@both
def test_identical_cells_are_no_problem(couple) -> None:
    index_0, _ = couple(np.zeros((6, 2)), np.zeros((6, 2)), np.random.default_rng(0), max_cells=4)
    assert np.array_equal(np.sort(index_0), np.arange(6))


@both
@pytest.mark.parametrize(
    ("shape_0", "shape_1", "max_cells", "message"),
    [
        ((0, 2), (3, 2), 5, "z_0 holds no cells"),
        ((3, 2), (0, 2), 5, "z_1 holds no cells"),
        ((3, 2), (3, 4), 5, "equal dimension"),
        ((3,), (3,), 5, "matrices"),
        ((3, 2), (3, 2), 0, "max_cells is 0"),
    ],
)
def test_bad_groups_are_refused(couple, shape_0, shape_1, max_cells, message) -> None:
    with pytest.raises(DataError, match=message):
        couple(np.zeros(shape_0), np.zeros(shape_1), np.random.default_rng(0), max_cells=max_cells)


@both
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_states_are_named(couple, bad: float) -> None:
    z_0, z_1 = _groups(5, 6, 0)
    z_1[[2, 4], 1] = bad
    with pytest.raises(NonFiniteError, match="z_1 is not finite in 2 of 6 cells, first row 2"):
        couple(z_0, z_1, np.random.default_rng(0), max_cells=5)
