"""Watching gradients and updates during training, per part and layer of the module."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import lightning.pytorch as pl
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from cfmvc_scvi.train.stages import logger_history

__all__ = ["GradientMonitor"]

_FLAT = 0.1  # slope of a bound, relative to its middle, below which a value counts as saturated
_PARTS = {  # by the beginning of a parameter's name
    "z_encoder.": "encoder",
    "decoder.": "decoder",
    "px_r": "dispersion",
    "flow.context_encoder.": "context",
    "flow.base_out.": "base",
    "flow.perturbation_encoder.": "effect",
    "flow.basis_": "effect",
    "flow.": "trunk",
}


class GradientMonitor(pl.Callback):
    r"""Records gradients and updates in ``model.history`` and in every logger of lightning.

    Pass it to ``train(callbacks=[GradientMonitor()])``; `pl.gradients` draws what it records. Metrics of later stages
    carry the stage's name in front, as all do. A step is an optimizer step.

    Per layer, at every `every_n_steps`-th step:

    * ``gradient_norm/<layer>``: :math:`|g|_2`, before clipping;
    * ``update_ratio/<layer>``: :math:`|\Delta w|_2 / |w|_2` of that step; NaN for weights that are zero.

    At the same steps:

    * ``gradient_flow/<part>``: :math:`|g|_2` of encoder, decoder, dispersion, and of the flow's context, base, effect
      and trunk;
    * ``gradient_norm``: of all weights.

    Per epoch, at its last such step:

    * ``gradient_clipped``: share of these steps at which ``gradient_clip_val`` shortened the gradient;
    * ``dead_units/<layer>``: share of the units of a linear layer whose weights had no gradient at any of these steps;
    * ``saturated/<parameter>``: share of a bounded parameter (the dispersion) so near its bound that its slope is
      below a tenth.

    Parameters
    ----------
    every_n_steps
        Optimizer steps from one record to the next. A record costs about one step.
    """

    def __init__(self, every_n_steps: int = 10) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps is {every_n_steps}; pass at least 1.")
        self.every_n_steps = every_n_steps
        self._rows: dict[int, dict[str, float]] = {}  # of the epoch, by step
        self._before: dict[str, Tensor] = {}
        self._alive: dict[str, Tensor] = {}
        self._clipped: list[bool] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget what an earlier training left."""
        self._clear()

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Record the gradients of the step, and keep the weights to compare with."""
        if trainer.global_step % self.every_n_steps:
            return
        learning = {name: p for name, p in _module(pl_module).named_parameters() if p.grad is not None}
        gradients = {name: p.grad for name, p in learning.items() if p.grad is not None}
        squares = _squares(gradients)
        row = self._rows[trainer.global_step] = {"gradient_norm": math.sqrt(sum(squares.values()))}
        row |= {f"gradient_norm/{key}": value for key, value in _norms(squares, _layer).items()}
        row |= {f"gradient_flow/{key}": value for key, value in _norms(squares, _part).items()}
        self._watch_clipping(trainer, row["gradient_norm"], gradients.values())
        for name in gradients.keys() & _linear_weights(_module(pl_module)):
            alive = (gradients[name] != 0).any(dim=1)
            self._alive[name] = self._alive[name] | alive if name in self._alive else alive
        self._before = {name: p.detach().clone() for name, p in learning.items()}

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Record how far the weights moved, and hand the record to the loggers."""
        if not self._before:
            return
        now = dict(_module(pl_module).named_parameters())
        moved = _norms(_squares({name: now[name].detach() - old for name, old in self._before.items()}), _layer)
        size = _norms(_squares(self._before), _layer)
        step = max(self._rows)
        ratios = {f"update_ratio/{key}": moved[key] / size[key] if size[key] else math.nan for key in moved}
        self._rows[step] |= ratios
        self._before = {}
        self._log(trainer, self._rows[step], step)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record what needs a whole epoch, and write the epoch to the history."""
        if self._rows:
            step = max(self._rows)
            summary = {
                f"dead_units/{_layer(name)}": float((~alive).float().mean()) for name, alive in self._alive.items()
            }
            summary |= _saturation(_module(pl_module))
            if self._clipped:
                summary["gradient_clipped"] = sum(self._clipped) / len(self._clipped)
            self._rows[step] |= summary
            self._log(trainer, summary, step)
        self._flush(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Keep the steps before a failure, which tell most."""
        self._flush(trainer)

    def _watch_clipping(self, trainer: pl.Trainer, norm: float, gradients: Iterable[Tensor]) -> None:
        limit = trainer.gradient_clip_val
        if limit:
            by_value = str(trainer.gradient_clip_algorithm or "norm").endswith("value")
            size = max(float(g.abs().max()) for g in gradients) if by_value else norm
            self._clipped.append(size > float(limit))

    def _log(self, trainer: pl.Trainer, row: dict[str, float], step: int) -> None:
        for logger in trainer.loggers:
            if not isinstance(getattr(logger, "history", None), dict):  # scvi's own gets whole epochs
                logger.log_metrics(row, step=step)

    def _flush(self, trainer: pl.Trainer) -> None:
        columns: dict[str, dict[int, float]] = defaultdict(dict)
        for step, row in self._rows.items():
            for name, value in row.items():
                columns[name][step] = value
        history = logger_history(trainer)
        for name, values in columns.items():
            frame = pd.DataFrame({name: list(values.values())}, index=pd.Index(list(values), name="step"))
            history[name] = pd.concat([history[name], frame]) if name in history else frame
        self._clear()

    def _clear(self) -> None:
        self._rows, self._before, self._alive, self._clipped = {}, {}, {}, []


def _module(plan: pl.LightningModule) -> nn.Module:
    return getattr(plan, "module", plan)


def _layer(name: str) -> str:
    """Name of the layer that a parameter belongs to; of the parameter itself where it stands alone or is bounded."""
    name = name.replace("parametrizations.", "").removesuffix(".original")
    parent, _, leaf = name.rpartition(".")
    return parent if leaf in ("weight", "bias") else name


def _part(name: str) -> str:
    name = name.replace("parametrizations.", "")
    return next((part for start, part in _PARTS.items() if name.startswith(start)), "other")


def _squares(tensors: dict[str, Tensor]) -> dict[str, float]:
    """Sum of squares of each tensor, with one transfer for all."""
    if not tensors:
        return {}
    sums = torch.stack([value.float().square().sum() for value in tensors.values()])
    return dict(zip(tensors, sums.tolist(), strict=True))


def _norms(squares: dict[str, float], group: Any) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for name, value in squares.items():
        total[group(name)] += value
    return {name: math.sqrt(value) for name, value in total.items()}


def _linear_weights(module: nn.Module) -> set[str]:
    return {f"{name}.weight" for name, layer in module.named_modules() if isinstance(layer, nn.Linear)}


def _saturation(module: nn.Module) -> dict[str, float]:
    found = {}
    for owner, layer in module.named_modules():
        if not parametrize.is_parametrized(layer):
            continue
        for name, bound in layer.parametrizations.items():
            raw = bound.original.detach().clone().requires_grad_()
            with torch.enable_grad():
                value = bound[0](raw)
                slope = torch.autograd.grad(value.sum(), raw)[0]
            found[f"saturated/{owner + '.' if owner else ''}{name}"] = float((slope < _FLAT).float().mean())
    return found
