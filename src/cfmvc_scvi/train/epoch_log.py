"""Means over an epoch, handed to lightning once."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["EpochLog"]


class EpochLog(pl.LightningModule):
    """Collects what training steps log for the epoch, and logs it after the last of them.

    With small minibatches lightning's own account of each value takes a fifth of the time of a step. Names and values
    in the history are those it would write; what is logged step by step is left to it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sums: dict[str, Tensor] = {}
        self._collected: dict[str, tuple[int, Any, dict[str, Any]]] = {}

    def log(self, name: str, value: Any, *args: Any, **options: Any) -> None:
        """Collect a mean over the epoch; pass anything else on to lightning, and all where there is no trainer."""
        of_epoch = not args and options.get("on_epoch") and options.get("on_step") is False
        if not (
            of_epoch
            and self._trainer is not None
            and self._trainer.training
            and options.get("reduce_fx", "mean") == "mean"
        ):
            super().log(name, value, *args, **options)
            return
        n_cells = options.get("batch_size") or self._n_cells
        if not isinstance(value, Metric):
            term = torch.as_tensor(value).detach() * n_cells
            self._sums[name] = self._sums[name] + term if name in self._sums else term
            n_cells += self._collected[name][0] if name in self._collected else 0
        self._collected[name] = n_cells, value, options

    def on_train_batch_start(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Note how many cells the minibatch has."""
        super().on_train_batch_start(batch, batch_idx)
        self._n_cells = len(next(iter(batch.values())))

    def on_train_batch_end(self, outputs: Any, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Log the means after the last minibatch."""
        super().on_train_batch_end(outputs, batch, batch_idx)
        if self.trainer.is_last_batch:
            self._log_means()

    def on_train_epoch_end(self) -> None:
        """Log the means of an epoch that was ended early."""
        self._log_means()
        super().on_train_epoch_end()

    def _log_means(self) -> None:
        for name, (n_cells, value, options) in self._collected.items():
            mean = self._sums[name] / n_cells if name in self._sums else value
            super().log(name, mean, **{**options, "batch_size": n_cells})
        self._sums.clear()
        self._collected.clear()
