import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from cfmvc_scvi import pl
from cfmvc_scvi.errors import DataError, UnknownConditionError


def _lines(ax):
    return {line.get_label(): np.column_stack(line.get_data()) for line in ax.lines[1:]}


def test_points_are_drawn_in_order_with_their_counts(tmp_path):
    ax = plt.subplots()[1]
    assert pl.calibration([0.9, 0.5], [0.88, 0.4], [1200, 1000], ax=ax, save=tmp_path / "c.png") is ax
    assert np.allclose(_lines(ax)["all"], [[0.5, 0.4], [0.9, 0.88]])
    assert [text.get_text() for text in ax.texts] == ["n = 1,000", "n = 1,200"]
    assert ax.get_legend() is None


def test_the_dashed_line_is_a_kept_promise():
    line = pl.calibration([0.5], [0.4]).lines[0]
    assert np.array_equal(*line.get_data())


def test_a_frame_has_a_line_per_label_and_averages_by_counts():
    frame = pd.DataFrame({"nominal": [0.9, 0.9, 0.9], "observed": [0.8, 1.0, 0.5], "label": ["a", "a", "b"]})
    assert np.allclose(_lines(pl.calibration(frame))["a"], [[0.9, 0.9]])
    ax = pl.calibration(frame.assign(n=[300, 100, 10]))
    assert np.allclose(_lines(ax)["a (n = 400)"], [[0.9, 0.85]])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a (n = 400)", "b (n = 10)"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.9], [1.2]), "1 of 1"),
        (([0.9, 0.5], [0.9, np.nan]), "1 of 2"),
        (([0.9], [0.9], [0]), "1 of 1"),
        (([], []), "0 of 0"),
        (([0.9, 0.8], [0.9]), "one of each"),
        (([0.9],), "one of each"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(DataError, match=message):
        pl.calibration(*arguments)


def test_a_frame_without_a_column():
    with pytest.raises(UnknownConditionError, match="'observed'"):
        pl.calibration(pd.DataFrame({"nominal": [0.9]}))
