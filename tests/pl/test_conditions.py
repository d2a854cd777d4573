import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from cfmvc_scvi import pl
from cfmvc_scvi.errors import DataError, NonFiniteError

EFFECTS = pd.DataFrame([[3.0, 0.0, 0.0], [6.0, 0.0, 0.0], [0.0, 2.0, 0.0]], index=["A", "2 A", "B"])


def _points(ax) -> dict[str, np.ndarray]:
    return {str(c.get_label()): np.asarray(c.get_offsets()) for c in ax.collections}


def test_distances_in_a_plane_are_kept_and_no_effect_is_the_origin():
    drawn = _points(pl.conditions(EFFECTS))
    a, twice, b = drawn["effect"]
    np.testing.assert_allclose(drawn["no effect"], [[0.0, 0.0]])
    np.testing.assert_allclose(twice, 2 * a, atol=1e-12)
    assert np.linalg.norm(a) == pytest.approx(3.0) and np.linalg.norm(b) == pytest.approx(2.0)
    assert a @ b == pytest.approx(0.0, abs=1e-12)


def test_axes_tell_their_share_and_conditions_their_names():
    ax = pl.conditions(EFFECTS)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("first axis (92%)", "second axis (8%)")
    assert {text.get_text() for text in ax.texts} == {"A", "2 A", "B"}


def test_groups_have_their_colours():
    ax = pl.conditions(EFFECTS, ["x", "x", "y"])
    assert len({to_hex(c.get_facecolor()[0]) for c in ax.collections}) == 3
    assert len(_points(ax)["x"]) == 2


def test_bad_input():
    with pytest.raises(DataError, match="2 groups"):
        pl.conditions(EFFECTS, ["x", "y"])
    with pytest.raises(DataError, match="with an effect"):
        pl.conditions(EFFECTS * 0)
    with pytest.raises(NonFiniteError, match="1 of 3 conditions"):
        pl.conditions(EFFECTS.replace(2.0, np.inf))
