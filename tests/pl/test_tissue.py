import numpy as np
import pytest

from cfmvc_scvi import pl
from cfmvc_scvi.errors import DataError, NonFiniteError

PLACES = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


def test_cells_lie_where_they_are_with_high_values_on_top():
    ax = pl.tissue(PLACES, [0.3, 0.1, np.nan, 0.2], label="response")
    dots = ax.collections[0]
    np.testing.assert_array_equal(dots.get_offsets(), PLACES[[1, 3, 0]])
    np.testing.assert_array_equal(dots.get_array(), [0.1, 0.2, 0.3])
    assert ax.figure.axes[1].get_ylabel() == "response"


def test_the_region_has_an_edge():
    ax = pl.tissue(PLACES, [0.0, 1.0, 2.0, 3.0], [False, True, False, True])
    assert (ax.collections[0].get_edgecolors()[:, 3] > 0).tolist() == [False, True, False, True]


def test_bad_input():
    with pytest.raises(DataError, match="one each"):
        pl.tissue(PLACES, [0.0, 1.0])
    with pytest.raises(NonFiniteError, match="1 cells have coordinates"):
        pl.tissue(np.where(PLACES == PLACES[3], np.nan, PLACES)[[0, 3]], [0.0, 1.0])
    with pytest.raises(NonFiniteError, match="none of the 4 values"):
        pl.tissue(PLACES, np.full(4, np.nan))
