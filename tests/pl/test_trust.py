import matplotlib.pyplot as plt
import numpy as np
import pytest

from cfmvc_scvi import pl
from cfmvc_scvi.errors import DataError, NonFiniteError


def test_errors_that_fall_with_trust(tmp_path):
    ax = plt.subplots()[1]
    assert pl.trust([0.9, 0.7, 0.4], [0.1, 0.2, 0.5], ["x", "y", "z"], ax=ax, save=tmp_path / "t.png") is ax
    assert ax.get_title(loc="left") == "Spearman -1.00, n = 3"
    assert np.allclose(ax.collections[0].get_offsets(), [[0.9, 0.1], [0.7, 0.2], [0.4, 0.5]])
    assert [text.get_text() for text in ax.texts] == ["x", "y", "z"]


@pytest.mark.parametrize(("score", "error"), [([0.9, 0.8], [0.1, 0.2]), ([0.5, 0.5, 0.5], [0.1, 0.2, 0.3])])
def test_no_correlation_of_too_little(score, error):
    assert pl.trust(score, error).get_title(loc="left") == ""


def test_bad_input():
    with pytest.raises(DataError, match="give one of each"):
        pl.trust([0.9, 0.8], [0.1])
    with pytest.raises(DataError, match="1 names"):
        pl.trust([0.9, 0.8], [0.1, 0.2], ["x"])
    with pytest.raises(DataError, match="give one of each"):
        pl.trust([], [])
    with pytest.raises(NonFiniteError, match="1 of 2"):
        pl.trust([0.9, np.nan], [0.1, 0.2])
