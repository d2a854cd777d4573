"""Tables of a report: text in cells, with what the text means."""

from __future__ import annotations

__all__ = [
    "Cell",
    "Table",
    "condition_table",
    "label",
    "method_table",
    "metric_table",
    "number",
    "pair_table",
    "part_table",
]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from cfmvc_scvi._keys import METRICS
from cfmvc_scvi.benchmark.baselines import BASELINES, FLOOR, LATENT_ARITHMETIC
from cfmvc_scvi.benchmark.score import CEILING
from cfmvc_scvi.benchmark.summary import losses, summarise

Mark = Literal["", "win", "tie", "lose", "best"]
_NOTHING = 1e-9  # rounding of floating point
_ARROWS = {"high": "↑", "low": "↓", "zero": "→\N{NO-BREAK SPACE}0"}


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Parameters
    ----------
    text, note
        What it says, and below it in small print.
    mark
        What it means, shown by colour and weight besides the text.
    numeric
        Set to the right.
    """

    text: str
    note: str = ""
    mark: Mark = ""
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """A table whose first column names the row.

    Parameters
    ----------
    caption
        What it shows, in one sentence.
    head
        Names of the columns.
    rows
        Cells, as many in each row as there are columns.
    """

    caption: str
    head: Sequence[Cell]
    rows: Sequence[Sequence[Cell]]


def number(value: float, digits: int = 3) -> str:
    """Text of a number; a dash if it is not defined."""
    if not np.isfinite(value):
        return "–"
    return f"{value:z.{digits}f}".replace("-", "−")


def _difference(value: float) -> str:
    """Text of a difference, whose sign is seen however small it is."""
    text = number(value)
    if float(text.replace("−", "-")) == 0 and abs(value) > _NOTHING:
        return np.format_float_positional(value, precision=1, fractional=False).replace("-", "−")
    return text


def label(metric: str) -> str:
    """Name of a metric with an arrow to its best values."""
    known = METRICS.get(metric)
    return f"{known.label}\N{NO-BREAK SPACE}{_ARROWS[known.best]}" if known else metric


def _numeric(value: float, note: str = "", mark: Mark = "") -> Cell:
    return Cell(number(value), note, mark, numeric=True)


def _interval(row: pd.Series) -> str:
    return f"{_difference(row['low'])} to {_difference(row['high'])}" if np.isfinite(row["low"]) else "no interval"


def metric_table(compared: pd.DataFrame, model: str) -> Table:
    """One row per primary metric: the model between floor, best simple baseline and ceiling.

    Parameters
    ----------
    compared
        As of `compare`.
    model
        Name of the model.
    """
    names = (model, "best simple baseline", "difference (95 % interval)", "floor", "ceiling", "skill")
    head = [Cell("metric"), Cell("outcome"), *(Cell(name, numeric=True) for name in names)]
    rows = []
    for name, row in compared.iterrows():
        rows.append(
            [
                Cell(label(str(name))),
                Cell(row["outcome"], mark=row["outcome"]),
                _numeric(row["model"], mark="best"),
                _numeric(row["best"], str(row["by"])),
                _gain(row),
                _numeric(row["floor"]),
                _numeric(row["ceiling"]),
                Cell(number(row["skill"], 2), numeric=True),
            ]
        )
    caption = (
        f"{model} against the best simple baseline of each metric. Difference: {model} minus that baseline. "
        "The interval is a bootstrap over contexts, or over conditions where those are more. Where zero is best, all "
        "are magnitudes."
    )
    return Table(caption, head, rows)


def method_table(summary: pd.DataFrame, cpu_seconds: Mapping[str, float], model: str) -> Table:
    """All methods, the best of each metric marked, with the CPU seconds of one prediction.

    Parameters
    ----------
    summary
        Methods x metrics, as of `summarise` of `losses`.
    cpu_seconds
        Method to mean CPU seconds of training and prediction in one fold.
    model
        Name of the model.
    """
    chosen = [name for name in METRICS if name in summary]
    methods = [str(name) for name in summary.index]
    ranked = [name for name in methods if name not in (FLOOR, CEILING)]
    head = [Cell("method"), *(Cell(label(name), numeric=True) for name in chosen), Cell("CPU s per fold", numeric=True)]
    badness = {name: _badness(name, summary.loc[ranked, name]) for name in chosen}
    best = {name: values.idxmin() for name, values in badness.items() if pd.notna(values).any()}
    kinds = dict.fromkeys((*BASELINES, LATENT_ARITHMETIC), "simple baseline")
    kinds |= {FLOOR: "floor", CEILING: "real cells"}
    rows = []
    for method in methods:
        scores = [
            _numeric(float(summary.loc[method, name]), mark="best" if best.get(name) == method else "")
            for name in chosen
        ]
        seconds = Cell(number(cpu_seconds.get(method, float("nan")), 1), numeric=True)
        rows.append([Cell(method, kinds.get(method, ""), mark="best" if method == model else ""), *scores, seconds])
    caption = (
        "Means over held-out conditions and seeds, of magnitudes where zero is best. Bold: the best of each metric, "
        "floor and ceiling aside."
    )
    return Table(caption, head, rows)


def part_table(gain: pd.DataFrame, model: str, without: str) -> Table:
    """What a part of the model adds: the model with it, without it, and the difference."""
    names = (without, model, "difference (95 % interval)")
    head = [Cell("metric"), Cell("outcome"), *(Cell(name, numeric=True) for name in names)]
    words = {"win": "better", "tie": "no clear difference", "lose": "worse"}
    rows = [
        [
            Cell(label(str(name))),
            Cell(words[row["outcome"]], mark=row["outcome"]),
            _numeric(row["best"]),
            _numeric(row["model"]),
            _gain(row),
        ]
        for name, row in gain.iterrows()
    ]
    return Table(f"{model} with its flow against without it, on the same trained models.", head, rows)


def pair_table(compared: Mapping[str, pd.DataFrame], model: str) -> Table:
    """One row per other method: differences of the model from it in each metric.

    Parameters
    ----------
    compared
        Name of the other method to the result of `compare` with it alone.
    model
        Name of the model.
    """
    chosen = [name for name in METRICS if any(name in pair.index for pair in compared.values())]
    rows = []
    for other, pair in compared.items():
        row = [Cell(other)]
        for name in chosen:
            if name in pair.index:
                found = pair.loc[name]
                row.append(_gain(found, found["outcome"]))
            else:
                row.append(_numeric(np.nan))
        rows.append(row)
    caption = (
        f"Differences, {model} minus the other method, with 95 % intervals. Bold: {model} is better; underlined: it is "
        "worse; plain: no clear difference. Where zero is best, of magnitudes."
    )
    return Table(caption, [Cell(f"{model} minus"), *(Cell(label(name), numeric=True) for name in chosen)], rows)


def condition_table(
    single: pd.DataFrame, compared: pd.DataFrame, model: str, sizes: pd.DataFrame, trust: pd.Series | None
) -> Table:
    """One row per held-out condition: the model, and below it the baseline that is best over all conditions.

    Parameters
    ----------
    single
        Tidy scores of single groups.
    compared
        As of `compare`.
    model
        Name of the model.
    sizes
        Index (condition, context) to the numbers of cells: control, true.
    trust
        Index (condition, context) to trust score; None makes no such column.
    """
    chosen = [str(name) for name in compared.index if name in set(summarise(single))]
    head = [Cell("held out"), Cell("cells", "control / true", numeric=True)]
    head += [Cell(label(name), numeric=True) for name in chosen]
    rows = []
    for (condition, context), group in single.groupby(["condition", "context"], sort=False):
        table, size = summarise(losses(group)), sizes.loc[(condition, context)]
        row = [Cell(f"{context}", f"{condition}"), Cell(f"{size['control']:,} / {size['true']:,}", numeric=True)]
        for name in chosen:
            own, other = (_score(table, method, name) for method in (model, compared.loc[name, "by"]))
            row.append(_numeric(own, number(other), _mark(_badness(name, own) - _badness(name, other))))
        if trust is not None:
            row.append(Cell(number(trust.get((condition, context), np.nan), 2), numeric=True))
        rows.append(row)
    if trust is not None:
        head.append(Cell("trust", "before the truth", numeric=True))
    by = "; ".join(f"{METRICS[name].label}: {compared.loc[name, 'by']}" for name in chosen)
    caption = (
        f"Means over seeds: {model}, and below it the best simple baseline of the metric ({by}). Underlined: {model} "
        "is not better."
    )
    return Table(caption, head, rows)


def _gain(row: pd.Series, mark: Mark = "") -> Cell:
    return Cell(_difference(row["difference"]), _interval(row), mark, numeric=True)


def _mark(worse_by: float) -> Mark:
    return "tie" if np.isnan(worse_by) else "win" if worse_by < 0 else "lose"


def _score(summary: pd.DataFrame, method: str, metric: str) -> float:
    known = metric in summary and method in summary.index
    return float(summary.loc[method, metric]) if known else float("nan")


def _badness(metric: str, value: Any) -> Any:
    """The lower, the better; of one value or of many."""
    return {"high": -value, "low": value, "zero": abs(value)}[METRICS[metric].best]
