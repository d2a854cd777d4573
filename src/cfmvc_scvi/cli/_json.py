"""Results for other programs."""

from __future__ import annotations

__all__ = ["print_json", "records"]

import json
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import pandas as pd


def print_json(result: Any) -> None:
    """Print a result to standard output, as one line of strict JSON: no NaN, no infinity."""
    typer.echo(json.dumps(result, allow_nan=False, ensure_ascii=False))


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table as plain values, what is not finite as null."""
    return json.loads(table.to_json(orient="records", double_precision=15))
