"""Progress of training, one bar per stage."""

from __future__ import annotations

__all__ = ["EpochProgress", "progress_bars"]

from typing import Any

from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

_STAGES = {
    "RepresentationPlan": "stage 1: representation",
    "FlowPlan": "stage 2: flow",
    "JointPlan": "stage 3: joint",
}


def progress_bars(console: Console) -> Progress:
    """Bars with the number of steps done and the time; for use as a context."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


class EpochProgress(Callback):
    """Moves a bar with each epoch of a stage; stages that are trained again start it anew.

    Parameters
    ----------
    progress
        Where the bars are drawn.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress, self._tasks = progress, dict[str, TaskID]()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Add the bar of a stage, or start it anew."""
        name = _STAGES.get(type(pl_module).__name__, type(pl_module).__name__)
        if name in self._tasks:
            self._progress.reset(self._tasks[name], total=trainer.max_epochs)
        else:
            self._tasks[name] = self._progress.add_task(name, total=trainer.max_epochs)
        self._current = self._tasks[name]

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Move the bar."""
        self._progress.advance(self._current)
