"""Options of the trainer of one stage."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from scvi.train import LoudEarlyStopping, Trainer

from cfmvc_scvi._compat import use_distributed_sampler
from cfmvc_scvi.train import Checkpoint, Stage

__all__ = ["trainer_options"]


def trainer_options(run: Mapping[str, Any], stage: Stage) -> dict[str, Any]:
    """Return the options of the trainer for one stage: callbacks of its own list, and a metric that the stage logs."""
    options = dict(run)
    callbacks = list(options.pop("callbacks", None) or [])  # scvi's trainer adds its own to the list it is given
    if options.pop("enable_checkpointing", False) and not any(isinstance(hook, Checkpoint) for hook in callbacks):
        callbacks.append(Checkpoint(monitor=options.get("checkpointing_monitor", "validation_loss")))
    monitor = options.get("early_stopping_monitor")
    common, of_flow = ("validation_loss", "train_loss"), str(monitor).startswith("flow_loss")
    if stage == "flow" and not (monitor in common or of_flow):
        options["early_stopping_monitor"] = "validation_loss"
    elif stage == "representation" and of_flow:
        del options["early_stopping_monitor"]
    if options.get("early_stopping") and use_distributed_sampler(options.get("strategy")):
        callbacks.append(_early_stopping(options))
        options.setdefault("check_val_every_n_epoch", 1)
    return {**options, "callbacks": callbacks}


def _early_stopping(options: Mapping[str, Any]) -> LoudEarlyStopping:
    """Return the callback that scvi's trainer adds by these options, but not to processes that train together.

    Their losses are averages over all of them, so that all stop at once.
    """
    given = {key: value.default for key, value in inspect.signature(Trainer).parameters.items()} | dict(options)
    names = ("monitor", "min_delta", "patience", "mode", "warmup_epochs")
    return LoudEarlyStopping(**{name: given[f"early_stopping_{name}"] for name in names})
