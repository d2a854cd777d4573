"""Training plans: one objective and one optimiser each."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from lightning.pytorch.strategies import DDPStrategy
from scvi.module.base import LossOutput
from scvi.train import TrainingPlan
from torch import Tensor

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.module import MIN_GROUP, CFMVCModule, flow_matching_loss, mmd_loss
from cfmvc_scvi.train.guard import FiniteGuard
from cfmvc_scvi.train.joint import MinibatchCoupler
from cfmvc_scvi.train.stages import Stage

__all__ = ["FlowPlan", "JointPlan", "RepresentationPlan"]


def check_weight(name: str, value: float) -> None:
    """Refuse a weight of a term of the loss that is not a finite number >= 0."""
    if not (math.isfinite(value) and value >= 0):
        raise DataError(f"{name} is {value}; pass a finite number >= 0 (0 leaves the term out).")


def check_invariance(module: CFMVCModule, lambda_batch: float, lambda_perturbation: float) -> None:
    """Refuse terms of stage 1 that could have no effect on this module."""
    check_weight("lambda_batch", lambda_batch)
    check_weight("lambda_perturbation", lambda_perturbation)
    if lambda_batch and module.n_batch < 2:
        raise DataError(
            f"lambda_batch is {lambda_batch}, but there is one batch, which no latent can know. Pass batch_key= to "
            "setup_anndata, or leave lambda_batch out."
        )
    if lambda_perturbation and module.flow is None:
        raise DataError(
            f"lambda_perturbation is {lambda_perturbation}, but there are no perturbations. Pass perturbation_key= to "
            "setup_anndata, or leave lambda_perturbation out."
        )
    if lambda_perturbation and not module.n_technical:
        raise DataError(
            f"lambda_perturbation is {lambda_perturbation}, but the model has no technical latent (n_technical=0) that "
            "could know the perturbation. Leave lambda_perturbation out."
        )


_FUSED = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}


class RepresentationPlan(FiniteGuard, TrainingPlan):
    """Stage 1: scvi's plan for the VAE, in train mode also when a model is trained again.

    Parameters
    ----------
    module
        The module.
    lambda_batch
        Weight of the dependence (HSIC) of batch and intrinsic latent among cells of a label under one condition, per
        cell (see `module.hsic_loss`). 0 leaves it out. What differs between batches for a reason is lost with it.
    lambda_perturbation
        Weight of that of perturbation and technical latent among cells of a label in one batch: what the depth of
        cells, of which the technical latent is made, tells of their perturbation.
    **kwargs
        Passed to :class:`scvi.train.TrainingPlan`.

    Raises
    ------
    DataError
        If a weight is not a finite number >= 0, or there is nothing that it could weigh: one batch, no perturbations,
        no technical latent, or minibatches without four cells of a group.
    """

    stage: Stage = "representation"
    options = "plan_kwargs"

    def __init__(
        self, module: CFMVCModule, *, lambda_batch: float = 0.0, lambda_perturbation: float = 0.0, **kwargs: Any
    ) -> None:
        self._fuses = "fused_optimizer" not in kwargs  # else as the user says
        if "fused_optimizer" in inspect.signature(TrainingPlan).parameters:
            # a fused optimizer refuses gradient clipping under mixed precision
            kwargs.setdefault("fused_optimizer", False)
        check_invariance(module, lambda_batch, lambda_perturbation)
        super().__init__(module, lambda_batch=lambda_batch, lambda_perturbation=lambda_perturbation, **kwargs)
        self._n_compared: dict[str, float] = {}

    def compute_and_log_metrics(self, loss_output: LossOutput, metrics: Any, mode: str) -> None:
        """Log scvi's metrics, and count the cells that the terms of the invariance could compare."""
        super().compute_and_log_metrics(loss_output, metrics, mode)
        if mode == "train":
            for name in ("n_hsic_batch", "n_hsic_perturbation"):
                if name in loss_output.extra_metrics:
                    self._n_compared[name] = self._n_compared.get(name, 0) + float(loss_output.extra_metrics[name])

    def on_train_epoch_end(self) -> None:
        """Refuse a term that compared no cell in an epoch, which would be without effect."""
        super().on_train_epoch_end()
        for name, n_cells in self._n_compared.items():
            if not n_cells:
                option, within = (
                    ("lambda_batch", "label and condition")
                    if name == "n_hsic_batch"
                    else ("lambda_perturbation", "label and batch")
                )
                raise DataError(
                    f"{option} has no effect: no minibatch held {MIN_GROUP} cells of one {within}. Raise batch_size, "
                    f"or leave {option} out."
                )
        self._n_compared = {}

    def get_optimizer_creator(self) -> Callable[..., torch.optim.Optimizer]:
        """Return scvi's optimizer, in one kernel where precision allows it."""
        kind = _FUSED.get(str(self.optimizer_name))
        if kind is None or not self.is_single or not self._fuses:
            return cast("Callable[..., torch.optim.Optimizer]", super().get_optimizer_creator())
        return partial(kind, lr=self.lr, eps=self.eps, weight_decay=self.weight_decay, fused=True)

    def on_fit_start(self) -> None:
        """Put the module in train mode: scvi leaves a model that was trained before in eval mode."""
        self.module.train()

    def on_train_epoch_start(self) -> None:
        """Put the module in train mode, whatever a callback did to it."""
        self.module.train()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return scvi's loss of the minibatch."""
        with self.explained(batch):
            loss = cast(Tensor, super().training_step(batch, batch_idx))
        self.check(loss=loss.detach())
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Log scvi's validation metrics."""
        with self.explained(batch):
            super().validation_step(batch, batch_idx)


class FlowPlan(FiniteGuard):
    """Stage 2: conditional flow matching over cached latents; only the flow is registered, the VAE is out of reach.

    Parameters
    ----------
    module
        The module whose `flow` is fitted.
    lr
        Peak learning rate; it decays to zero along a cosine over the planned steps.
    weight_decay
        Weight decay of AdamW.
    optimizer_creator
        Called with the parameters instead of AdamW.
    lambda_mmd
        Weight of the squared MMD between cells that the flow moves and observed cells of the same condition and
        context (`module.mmd_loss`). It makes a step several times as long, since the flow is solved in it.
    bandwidths
        Of its kernel; needed where the weight is not zero.

    Raises
    ------
    DataError
        If the module has no flow, or the weight is not a finite number >= 0.
    """

    stage: Stage = "flow"
    options = "flow_plan_kwargs"

    def __init__(
        self,
        module: CFMVCModule,
        *,
        lr: float = 2e-3,
        weight_decay: float = 1e-3,
        optimizer_creator: Callable[..., torch.optim.Optimizer] | None = None,
        lambda_mmd: float = 0.0,
        bandwidths: Tensor | None = None,
    ) -> None:
        super().__init__()
        check_weight("lambda_mmd", lambda_mmd)
        self.lambda_mmd, self.bandwidths = lambda_mmd, bandwidths
        self.flow = module.velocity
        # hidden from nn.Module: checkpoints and runners ask for it, optimisers and DDP must not find it
        object.__setattr__(self, "module", module)
        self.lr, self.weight_decay, self.optimizer_creator = lr, weight_decay, optimizer_creator
        self.n_obs_training = self.n_obs_validation = None

    @property
    def use_sync_dist(self) -> bool:
        """Whether logged values are averaged over processes."""
        return isinstance(self.trainer.strategy, DDPStrategy)

    def on_fit_start(self) -> None:
        """Put the flow, and nothing else, in train mode."""
        self.flow.train()

    def on_train_epoch_start(self) -> None:
        """Put the flow, and nothing else, in train mode, whatever a callback did to it."""
        self.flow.train()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return the flow matching loss of coupled pairs, at path times drawn uniformly, and the MMD if asked for."""
        pairs = {key: value.detach() for key, value in batch.items()}
        loss = flow_matching_loss(self.flow, pairs, torch.rand(len(pairs["z_0"]), device=pairs["z_0"].device))
        self.check(flow_loss=loss.detach())
        return self._total("train", loss, pairs)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Log the loss of the validation pairs at evenly spaced path times."""
        n_pairs = len(batch["z_0"])
        time = (torch.arange(n_pairs, device=batch["z_0"].device) + 0.5) / n_pairs
        self._total("validation", flow_matching_loss(self.flow, batch, time), batch)

    def _total(self, mode: str, flow_loss: Tensor, pairs: dict[str, Tensor]) -> Tensor:
        """Return the sum of the terms, and log it and them."""
        n_pairs, total, terms = len(pairs["z_0"]), flow_loss, {f"flow_loss_{mode}": flow_loss}
        if self.lambda_mmd:
            if self.bandwidths is None:
                raise DataError("lambda_mmd needs bandwidths of its kernel.")
            mmd = mmd_loss(self.flow, pairs, self.bandwidths.to(flow_loss.device))
            self.check(mmd=mmd.detach())
            total, terms[f"mmd_{mode}"] = flow_loss + self.lambda_mmd * mmd, mmd
        for name, value in {f"{mode}_loss": total, **terms}.items():
            self.log(
                name,
                value,
                prog_bar=name == f"{mode}_loss",
                on_step=False,
                on_epoch=True,
                batch_size=n_pairs,
                sync_dist=self.use_sync_dist,
            )
        return total

    def configure_optimizers(self) -> Any:
        """Return AdamW with a cosine decay over the planned steps."""
        if self.optimizer_creator is not None:
            return self.optimizer_creator(self.flow.parameters())
        optimizer = torch.optim.AdamW(
            self.flow.parameters(), lr=self.lr, weight_decay=self.weight_decay, fused=self.is_single
        )
        n_steps = max(1, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=n_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class JointPlan(RepresentationPlan):
    r"""Stage 3: :math:`L_1 + \lambda L_2` with the latents not detached, so that the flow also shapes the VAE.

    Pairs are coupled within the minibatch.

    Parameters
    ----------
    module
        The module.
    couple
        Maps a minibatch, its latents u and their means to coupled pairs (`train.joint.MinibatchCoupler`); None where it
        holds none.
    lr
        Learning rate; small, since both parts are already fitted.
    flow_weight
        :math:`\lambda`.
    **kwargs
        Passed to :class:`scvi.train.TrainingPlan`.
    """

    stage: Stage = "joint"
    options = "joint_plan_kwargs"

    def __init__(
        self,
        module: CFMVCModule,
        *,
        couple: Callable[[dict[str, Tensor], Tensor, Tensor], dict[str, Tensor] | None],
        lr: float = 1e-4,
        flow_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(module, lr=lr, **kwargs)
        self.couple, self.flow_weight = couple, flow_weight

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the coupler, which rests on the latents that the stage began with."""
        if isinstance(self.couple, MinibatchCoupler):
            checkpoint["coupler"] = self.couple.state()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return the joint loss of the minibatch."""
        loss, flow_loss = super().training_step(batch, batch_idx), self._flow_loss(batch)
        if flow_loss is None:
            return loss
        self.check(flow_loss=flow_loss.detach())
        self._log("flow_loss_train", flow_loss, len(batch["X"]))
        return loss + self.flow_weight * flow_loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Log scvi's validation metrics and the flow's loss."""
        super().validation_step(batch, batch_idx)
        flow_loss = self._flow_loss(batch, at_random=False)
        if flow_loss is not None:
            self._log("flow_loss_validation", flow_loss, len(batch["X"]))

    def _log(self, name: str, loss: Tensor, n_cells: int) -> None:
        self.log(name, loss, on_step=False, on_epoch=True, batch_size=n_cells, sync_dist=bool(self.use_sync_dist))

    def _flow_loss(self, batch: dict[str, Tensor], at_random: bool = True) -> Tensor | None:
        posterior = self.module.inference(**self.module._get_inference_input(batch))["qz"]
        sample, mean = (values[:, : self.module.n_intrinsic] for values in (posterior.rsample(), posterior.loc))
        pairs = self.couple(batch, self.module.standardise(sample), self.module.standardise(mean))
        if pairs is None:
            return None
        n_pairs, device = len(pairs["z_0"]), pairs["z_0"].device
        time = (
            torch.rand(n_pairs, device=device) if at_random else (torch.arange(n_pairs, device=device) + 0.5) / n_pairs
        )
        return flow_matching_loss(self.module.velocity, pairs, time)
