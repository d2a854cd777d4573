import numpy as np
import pandas as pd
from rich.console import Console

from cfmvc_scvi.cli._scores import group_table, score_table

COLUMNS = ["model", "best", "by", "floor", "ceiling", "outcome"]
COMPARED = pd.DataFrame.from_dict(
    {
        "pearson_delta": (0.9, 0.8, "count-coupled nearest shift", 0.0, 0.95, "win"),
        "energy": (0.3, 0.2, "dispersion-tuned coupled shift", 1.0, 0.0, "lose"),
        "sig_jaccard": (0.5, 0.5, "mean shift", 0.0, np.nan, "tie"),
    },
    orient="index",
    columns=COLUMNS,
)
ROWS = ("Pearson Delta ↑", "energy distance ↓", "DE Jaccard ↑")


def shown(table):
    console = Console(width=80, record=True)
    console.print(table)
    return console.export_text()


def test_comparison_fits_a_terminal():
    text = shown(score_table(COMPARED, "CFMVC", "title"))
    assert "…" not in text
    rows = {name: next(line for line in text.splitlines() if line.strip().startswith(name)) for name in ROWS}
    assert "0.900" in rows["Pearson Delta ↑"] and " yes " in rows["Pearson Delta ↑"]
    assert " no " in rows["energy distance ↓"] and " tie " in rows["DE Jaccard ↑"]
    assert " - " in rows["DE Jaccard ↑"] and "nan" not in text
    assert "dispersion-tuned " in text


def test_groups_show_methods_in_columns():
    text = shown(group_table(pd.DataFrame({"pds": [0.5, np.nan]}, ["prediction", "ceiling"]), "title"))
    assert "0.500" in text and " -" in text and "nan" not in text
