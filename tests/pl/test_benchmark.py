import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from cfmvc_scvi import pl
from cfmvc_scvi.errors import UnknownConditionError


@pytest.fixture
def table() -> pd.DataFrame:
    rows = ["no change", "mean shift", "CFMVC", "ceiling"]
    columns = {"zero_share": [0.7] * 4, "energy": [0.9, 0.3, 0.1, 0.0], "pearson_delta": [0.0, 0.8, 0.9, 0.95]}
    return pd.DataFrame(columns, index=rows)


def test_bars_are_scores_and_lines_are_bounds(table):
    axes = pl.benchmark(table, model="CFMVC")
    assert [ax.get_title() for ax in axes] == ["Pearson Delta", "energy distance"]
    assert [bar.get_width() for bar in axes[0].patches] == [0.8, 0.9]
    drawn = {line.get_label(): line.get_xdata()[0] for line in axes[0].lines}
    assert drawn["no change"] == 0.0
    assert drawn["ceiling"] == 0.95
    assert [tick.get_text() for tick in axes[0].get_yticklabels()] == ["mean shift", "CFMVC"]


def test_model_is_highlighted(table):
    bars = pl.benchmark(table, model="CFMVC")[0].patches
    assert bars[0].get_facecolor() != bars[1].get_facecolor()


def test_any_column_and_scores_that_are_not_defined(table):
    table.loc["CFMVC", "zero_share"] = np.nan
    ax = plt.subplots()[1]
    assert pl.benchmark(table, metrics=["zero_share"], axes=[ax]) == [ax]
    assert np.isnan(ax.patches[1].get_width())


@pytest.mark.parametrize("options", [{"metrics": ["unknown"]}, {"model": "unknown"}, {"metrics": []}])
def test_bad_input(table, options):
    with pytest.raises(UnknownConditionError, match="mean shift"):
        pl.benchmark(table, **options)
