"""Running one stage: what is frozen, which history it writes, and that the model is left as it was found otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd

__all__ = ["STAGES", "Stage", "logger_history", "merged_history", "stage_of"]

Stage: TypeAlias = Literal["representation", "flow", "joint"]
STAGES: tuple[Stage, ...] = ("representation", "flow", "joint")

# parts of the module that learn in each stage
_LEARNS: dict[Stage, Callable[[str], bool]] = {
    "representation": lambda name: not name.startswith("flow."),
    "flow": lambda name: name.startswith("flow."),
    "joint": lambda name: True,
}


@contextmanager
def stage_of(model: Any, stage: Stage) -> Iterator[None]:
    """Freeze what does not learn in `stage`, and keep the histories of the stages apart.

    scvi's runner overwrites the history of an untrained model and drops new metrics of a trained one, so each stage
    runs on an empty history that is merged afterwards: `history_` holds the metrics of stage 1 under scvi's names and
    those of later stages with the stage's name in front; training a stage again appends to it. The flags of the
    parameters come back as they were, and the module to eval mode, also after an error.

    While it runs, the stage counts as trained, so that a checkpoint can be used; a new representation makes the later
    stages of a reference model untrained again, since their latents are gone.

    Parameters
    ----------
    model
        The model, a `CFMVC`.
    stage
        Name of the stage.
    """
    flags = {name: parameter.requires_grad for name, parameter in model.module.named_parameters()}
    history, was_trained, trained_stages = model.history_ or {}, model.is_trained_, model.trained_stages_
    model.history_, model.is_trained_ = None, False
    kept = [] if stage == "representation" and not model.is_query_ else trained_stages
    model.trained_stages_ = [name for name in STAGES if name == stage or name in kept]
    finished = False
    try:
        for name, parameter in model.module.named_parameters():
            parameter.requires_grad_(_LEARNS[stage](name) and (flags[name] or stage == "flow"))
        yield
        finished = True
    finally:
        for name, parameter in model.module.named_parameters():
            parameter.requires_grad_(flags[name])
            parameter.grad = None
        model.module.eval()
        model.history_ = merged_history(history, model.history_ or {}, stage)
        model.is_trained_ = finished or was_trained
        if not finished:
            model.trained_stages_ = trained_stages


def merged_history(old: dict[str, pd.DataFrame], new: dict[str, Any], stage: Stage) -> dict[str, pd.DataFrame]:
    """Return the history of earlier stages with that of one more, each metric under its name in `history_`."""
    merged = dict(old)
    for key, frame in new.items():
        name = key if stage == "representation" or key.startswith(stage) else f"{stage}_{key}"
        # plain python strings: an Index of pandas 3 strings cannot be read by pandas 2
        frame = frame.set_axis(pd.Index([name], dtype=object), axis=1)
        if name in merged:
            start = len(merged[name])
            later = frame.set_axis(pd.Index(np.arange(start, start + len(frame)), name=frame.index.name), axis=0)
            frame = pd.concat([merged[name], later])
        merged[name] = frame
    return merged


def logger_history(trainer: Any) -> dict[str, pd.DataFrame]:
    """Return the metrics that scvi's logger holds, to read and to change; empty with another logger."""
    history = getattr(trainer.logger, "history", None)
    return history if isinstance(history, dict) else {}
