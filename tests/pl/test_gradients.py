import numpy as np
import pandas as pd
import pytest

from cfmvc_scvi import pl
from cfmvc_scvi.errors import DataError


def _frame(values) -> pd.DataFrame:
    return pd.DataFrame({"any": values}, index=[0, 10, 20])


HISTORY = {
    "flow_gradient_norm/flow.trunk": _frame([1.0, 0.1, 0.01]),
    "flow_gradient_norm/flow.out": _frame([0.1, 0.0, 1e-9]),
    "flow_gradient_flow/base": _frame([2.0, 1.0, 0.5]),
    "flow_loss": _frame([3.0, 2.0, 1.0]),
}


def test_norms_of_layers_as_logarithms_four_decades_deep():
    ax = pl.gradients(HISTORY)[0]
    np.testing.assert_allclose(ax.images[0].get_array(), [[0.0, -1.0, -2.0], [-1.0, -4.0, -4.0]])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["trunk", "out"]


def test_parts_as_lines_over_steps():
    (line,) = pl.gradients(HISTORY, stage="flow")[1].lines
    np.testing.assert_allclose(line.get_xydata(), [[0, 2.0], [10, 1.0], [20, 0.5]])
    assert line.get_label() == "base"


def test_a_stage_that_was_not_watched():
    with pytest.raises(DataError, match="recorded: flow"):
        pl.gradients(HISTORY, stage="joint")
    with pytest.raises(DataError, match="none were recorded"):
        pl.gradients({"flow_loss": _frame([3.0, 2.0, 1.0])})
