import matplotlib.pyplot as plt
import numpy as np
import pytest

from cfmvc_scvi import pl
from cfmvc_scvi.errors import DataError, NonFiniteError

GENES = ["up", "flat", "down"]
TIMES = np.repeat([0.0, 0.5, 1.0], 4)


@pytest.fixture
def values(rng: np.random.Generator) -> np.ndarray:
    return (
        np.column_stack([1 + TIMES, np.full(12, 2.0), 5 - 3 * TIMES])
        + rng.permutation(np.tile([-0.1, 0.1], 6))[:, None]
    )


def test_lines_are_means_over_time_of_the_genes_that_change_most(values):
    ax = pl.trajectory(values, TIMES, GENES, n_genes=2)
    assert [line.get_label() for line in ax.lines] == ["up", "down"]
    for line, column in zip(ax.lines, (0, 2), strict=True):
        expected = [values[TIMES == time, column].mean() for time in (0.0, 0.5, 1.0)]
        np.testing.assert_allclose(line.get_xydata(), np.column_stack([[0.0, 0.5, 1.0], expected]))


def test_bands_hold_the_middle_half(values):
    ax = pl.trajectory(values, TIMES, GENES, n_genes=1, ax=plt.subplots()[1])
    corners = ax.collections[0].get_paths()[0].vertices
    at_end = corners[corners[:, 0] == 1.0, 1]
    low, high = np.quantile(values[TIMES == 1.0, 2], [0.25, 0.75])
    assert at_end.min() == pytest.approx(low) and at_end.max() == pytest.approx(high)


def test_bad_input(values):
    with pytest.raises(DataError, match="give one of each"):
        pl.trajectory(values, TIMES[:-1], GENES)
    with pytest.raises(DataError, match="1 times"):
        pl.trajectory(values, np.zeros(12), GENES)
    values[3, 1] = np.nan
    with pytest.raises(NonFiniteError, match="1 of 12 cells"):
        pl.trajectory(values, TIMES, GENES)
