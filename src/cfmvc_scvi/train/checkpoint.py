"""Saving the best model during training, in the files of this package."""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from scvi.train import SaveCheckpoint

from cfmvc_scvi.errors import CFMVCWarning

__all__ = ["Checkpoint"]

logger = logging.getLogger(__name__)


class Checkpoint(SaveCheckpoint):
    """`scvi.train.SaveCheckpoint` for models with safe files; parameters as there.

    Each checkpoint is the directory that ``model.save`` writes, marked as trained, without history and indices of the
    running training; ``best_model_path`` can be given to ``load``. Unlike its parent it writes no pickle, reads none,
    leaves the train or eval mode of every submodule and ``is_trained_`` as they were, and does not overwrite
    checkpoints of an earlier training in the same directory. With ``load_best_on_end``, a training that saved nothing
    ends with a warning and its last weights. One callback may serve several stages: each writes into a folder of its
    name and starts without a best model, since losses of stages cannot be compared.
    """

    _root: str | os.PathLike[str] | None = None
    FILE_EXTENSION = ""  # a checkpoint is a directory: its path is used as it is

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Forget the best model of an earlier training, and choose the folder of the stage."""
        folder = getattr(pl_module, "stage", "")
        self._root = self._root or vars(self)["dirpath"]
        if self._root is not None and folder:
            self.dirpath = os.path.join(self._root, str(folder))
        self.best_k_models: dict[str, torch.Tensor] = {}
        self.best_model_path = self.kth_best_model_path = self.last_model_path = ""
        self.best_model_score, self._last_global_step_saved = None, 0
        self.kth_value = torch.tensor(torch.inf if self.mode == "min" else -torch.inf)
        self.loss_is_nan = False
        super().setup(trainer, pl_module, stage)

    def on_save_checkpoint(self, trainer: pl.Trainer, *args: Any) -> None:
        """Do nothing: a checkpoint that another callback writes is not ours."""

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Load the best weights at the end of training, if asked to."""
        if self.load_best_on_end:
            self._restore_best(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Load the best weights after a failure, if asked to by ``check_nan_gradients``; the exception goes on."""
        if not self.check_nan_gradients or isinstance(exception, KeyboardInterrupt):
            return
        cause = "the loss became NaN" if self.loss_is_nan else f"training failed ({type(exception).__name__})"
        self.reason = f"{cause}; the model goes back to its best checkpoint '{self.best_model_path}'"
        logger.warning(self.reason)
        trainer.should_stop = True
        self._restore_best(trainer)

    def _restore_best(self, trainer: pl.Trainer) -> None:
        if not self.best_model_path:
            warnings.warn(
                f"no checkpoint was saved ('{self.monitor}' was never logged?); the model keeps its last weights",
                CFMVCWarning,
                stacklevel=2,
            )
            return
        trainer._model.restore_weights(self.best_model_path)  # type: ignore[attr-defined]

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        """Write the model in place of lightning's own checkpoint, which is a pickle."""
        model = trainer._model  # type: ignore[attr-defined]  # where scvi's TrainRunner puts it for this purpose
        if trainer.is_global_zero:
            was_trained = model.is_trained_
            model.is_trained_ = True
            try:
                model.save(filepath, overwrite=True)
            finally:
                model.is_trained_ = was_trained
        trainer.strategy.barrier()
        self._last_global_step_saved = trainer.global_step
        self._last_checkpoint_saved = filepath

    def _remove_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        """Remove a checkpoint that is no longer among the best; by the first process alone."""
        if trainer.is_global_zero:
            shutil.rmtree(filepath)

    def _update_best_and_save(
        self, current: torch.Tensor, trainer: pl.Trainer, monitor_candidates: dict[str, torch.Tensor]
    ) -> None:
        # past the parent, which deletes the file that lightning would have written
        ModelCheckpoint._update_best_and_save(self, current, trainer, monitor_candidates)
