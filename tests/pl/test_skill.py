import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba

from cfmvc_scvi import pl
from cfmvc_scvi.errors import DataError, UnknownConditionError
from cfmvc_scvi.pl._style import ROLES


@pytest.fixture
def table() -> pd.DataFrame:
    columns = {"pearson_delta": [0.7, 0.8, 0.9], "energy": [0.95, 0.6, 0.9], "new": [np.nan, 0.2, -3.0]}
    return pd.DataFrame(columns, index=["mean shift", "resampling", "CFMVC"])


def _places(ax, colour):
    """(x, y) of the dots filled with a colour."""
    dots = [c for c in ax.collections if len(c.get_facecolor()) and tuple(c.get_facecolor()[0]) == to_rgba(colour)]
    return [tuple(map(float, point)) for c in dots for point in c.get_offsets()]


def test_model_and_the_best_of_the_others_stand_out(table):
    ax = pl.skill(table, "CFMVC")
    assert _places(ax, ROLES["predicted"])[:2] == [(0.9, 0.0), (0.9, 1.0)]
    assert _places(ax, ROLES["true"]) == [(0.8, 0.0), (0.95, 1.0), (0.2, 2.0)]
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "Pearson Delta",
        "energy distance",
        "new",
    ]


def test_a_very_bad_score_stays_inside_and_undefined_ones_are_not_drawn(table):
    ax = pl.skill(table, "CFMVC")
    assert ax.get_xlim()[0] > -1.0
    assert (-0.5, 2.0) in _places(ax, ROLES["predicted"])
    table.loc["CFMVC", "new"] = np.nan
    assert len(_places(pl.skill(table, "CFMVC"), ROLES["predicted"])) == 2


def test_draws_where_it_is_told(table, tmp_path):
    ax = plt.subplots()[1]
    assert pl.skill(table, "CFMVC", ax=ax, save=tmp_path / "skill.png") is ax
    assert (tmp_path / "skill.png").stat().st_size > 1000


def test_bad_input(table):
    with pytest.raises(UnknownConditionError, match="mean shift"):
        pl.skill(table, "CPA")
    with pytest.raises(DataError, match="no metric"):
        pl.skill(table[[]], "CFMVC")
