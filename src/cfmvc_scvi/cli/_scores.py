"""Tables of scores for the terminal."""

from __future__ import annotations

__all__ = ["group_table", "score_table"]

import numpy as np
import pandas as pd
from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from cfmvc_scvi._keys import METRICS

_ARROWS = {"high": "↑", "low": "↓", "zero": "→0"}
_OUTCOMES = {"win": ("yes", "green"), "tie": ("tie", "yellow"), "lose": ("no", "red")}


def score_table(compared: pd.DataFrame, model: str, title: str) -> Table:
    """Show a comparison, 80 columns wide.

    Parameters
    ----------
    compared
        As of `benchmark.compare`.
    model
        What to call the model.
    title
        What stands above.
    """
    caption = "↑ higher, ↓ lower, →0 zero is best (magnitudes). Floor: no change; ceiling: real cells for real cells."
    table = Table(title=title, caption=caption, box=SIMPLE, pad_edge=False, collapse_padding=True)
    table.title_justify = table.caption_justify = "left"
    table.add_column("metric", no_wrap=True)
    for name in (model, "best simple", "floor", "ceiling"):
        table.add_column(name, justify="right", min_width=6)
    table.add_column("won")
    table.add_column("best simple baseline", min_width=16, overflow="fold")
    for name, row in compared.iterrows():
        metric, (word, style) = METRICS[str(name)], _OUTCOMES[row["outcome"]]
        scores = [f"{row[c]:.3f}" if np.isfinite(row[c]) else "-" for c in ("model", "best", "floor", "ceiling")]
        label = f"{metric.label} {_ARROWS[metric.best]}"
        table.add_row(label, *scores, Text(word, style=style), row["by"])
    return table


def group_table(summary: pd.DataFrame, title: str) -> Table:
    """Show scores as they are, metrics in rows and methods in columns.

    Parameters
    ----------
    summary
        Methods x metrics, as of `benchmark.summarise`.
    title
        What stands above.
    """
    table = Table(title=title, box=SIMPLE, pad_edge=False, collapse_padding=True)
    table.title_justify = "left"
    table.add_column("metric", no_wrap=True)
    for method in summary.index:
        table.add_column(str(method), justify="right")
    for name in summary.columns:
        table.add_row(str(name), *(f"{value:.3f}" if np.isfinite(value) else "-" for value in summary[name]))
    return table
