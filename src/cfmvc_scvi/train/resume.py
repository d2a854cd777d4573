"""The state of a training at the end of each epoch: when it is written, and what lightning does not know of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from cfmvc_scvi.train.stages import logger_history

__all__ = ["EpochState", "GivenIO", "rng_state", "set_rng_state"]

_OWN = "cfmvc"  # key of lightning's checkpoint under which this package's part stands


def rng_state() -> dict[str, Any]:
    """Return the state of torch's global generators, from which sampling in training draws."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore what `rng_state` returned; generators of devices that are not here are left out."""
    torch.set_rng_state(state["cpu"])
    n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for device, value in enumerate(state["cuda"][:n_devices]):
        torch.cuda.set_rng_state(value, device)


class GivenIO(TorchCheckpointIO):
    """Lets lightning write its state by a function, and read it from a value; files of other names are its own.

    Parameters
    ----------
    path
        Name of the checkpoint that is not lightning's own.
    write
        Takes the state that is to be written there.
    state
        What is read from there.
    """

    def __init__(self, path: Path, write: Callable[[dict[str, Any]], None], state: dict[str, Any] | None) -> None:
        super().__init__()
        self.path, self._write, self._state = str(path), write, state

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Hand the state over."""
        if str(path) == self.path:
            self._write(checkpoint)
        else:
            super().save_checkpoint(checkpoint, path, storage_options)

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the given state."""
        if str(path) == self.path and self._state is not None:
            return dict(self._state)
        return super().load_checkpoint(path, *args, **kwargs)


class EpochState(pl.Callback):
    """Has the state written after each epoch, and takes it up again.

    It is written before the first step of the next epoch, when everything that ends an epoch (validation, schedulers,
    loggers) is over; so a training that goes on from there repeats nothing and misses nothing. To lightning's state it
    adds the history of the stage, the split of the cells and, in a single process, the generators of random numbers.

    Parameters
    ----------
    path
        Name of the checkpoint.
    """

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._due = self._saving = False

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that there is something new to write."""
        self._due = True

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the state of the epochs before this one."""
        if not self._due:
            return
        self._due, self._saving = False, True
        try:
            trainer.save_checkpoint(self.path, weights_only=False)
        finally:
            self._saving = False

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        """Add what lightning does not know, and say that the epoch that is about to begin has not begun."""
        if not self._saving:
            return
        progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]
        for count in (progress["total"], progress["current"]):
            count["ready"] = count["completed"]
        data: Any = trainer.datamodule  # type: ignore[attr-defined]  # set by fit
        splits = {name: getattr(data, f"{name}_idx", None) for name in ("train", "val", "test")}
        checkpoint[_OWN] = {"history": logger_history(trainer), "splits": splits, "rng": rng_state()}

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        """Take up history and random numbers; nothing draws any between here and the first minibatch."""
        own = checkpoint[_OWN]
        logger_history(trainer).update(own["history"])
        if trainer.world_size == 1:  # processes must not draw the same noise
            set_rng_state(own["rng"])
