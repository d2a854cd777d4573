import numpy as np
import pandas as pd
import pytest

from cfmvc_scvi import pl
from cfmvc_scvi.errors import DataError

DOSES = np.array([0.1, 0.3, 0.5, 1.0, 2.0])


@pytest.fixture
def result() -> dict[str, pd.DataFrame]:
    """A gene that rises with the dose in two contexts; doses .3 and 1 were seen, 2 lies beyond."""
    rows = []
    for context, slope in (("B", 1.0), ("T", 2.0)):
        delta = slope * np.minimum(DOSES, 1.0)
        frame = pd.DataFrame({"dose": DOSES, "delta": delta, "low": delta - 0.5, "high": delta + 0.5})
        rows.append(frame.assign(context=context, gene="g", seen=np.isin(DOSES, [0.3, 1.0]), extrapolated=DOSES > 1))
    half = pd.DataFrame({"context": ["B", "T"], "gene": "g", "ec50": [0.5, 0.4], "identified": [True, False]})
    return {"curves": pd.concat(rows, ignore_index=True), "ec50": half}


def test_a_solid_line_up_to_the_highest_dose_seen_and_a_dashed_one_beyond(result):
    ax = pl.dose_response(result, context="T")
    inside, beyond = [line for line in ax.lines if len(line.get_xdata()) > 1 and line.get_label() != "_child0"][:2]
    np.testing.assert_allclose(inside.get_xydata(), np.column_stack([DOSES[:4], 2 * DOSES[:4]]))
    np.testing.assert_allclose(beyond.get_xydata(), [[1.0, 2.0], [2.0, 2.0]])
    assert beyond.get_linestyle() == "--"


def test_doses_that_were_seen_are_dots_and_ticks(result):
    ax = pl.dose_response(result)
    dots = ax.collections[-1].get_offsets()
    np.testing.assert_allclose(dots, [[0.3, 0.3], [1.0, 1.0]])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0.3", "1"]


def test_a_triangle_where_the_half_dose_is_known(result):
    def triangles(ax):
        return [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "^"]

    assert triangles(pl.dose_response(result, context="B")) == [0.5]
    assert triangles(pl.dose_response(result, context="T")) == []


def test_bad_input(result):
    with pytest.raises(DataError, match="there are B, T"):
        pl.dose_response(result, context="NK")
    with pytest.raises(DataError, match="first 'h'"):
        pl.dose_response(result, ["g", "h"])
