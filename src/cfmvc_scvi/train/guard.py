"""What stops a training in the step in which it goes wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from scvi import REGISTRY_KEYS
from torch import Tensor

from cfmvc_scvi.errors import NonFiniteError
from cfmvc_scvi.module import CFMVCModule
from cfmvc_scvi.train.epoch_log import EpochLog
from cfmvc_scvi.train.stages import Stage

__all__ = ["FiniteGuard"]


class FiniteGuard(EpochLog):
    """Raises in the step in which a loss, gradient or weight is no longer a finite number."""

    module: CFMVCModule
    stage: Stage
    options: str  # the argument of `train` with the options of the plan

    @property
    def is_single(self) -> bool:
        """Whether all is in single precision: a fused optimizer refuses gradient clipping in mixed precision."""
        return str(self.trainer.precision) == "32-true"

    def check(self, **terms: Tensor) -> None:
        """Raise at the first loss term that is NaN or infinite."""
        for name, value in terms.items():
            if not torch.isfinite(value):
                raise self.error(f"{name} became {value.item()}")

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Check the gradients, but for float16, where lightning's scaler expects and skips infinite ones."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not gradients or self.trainer.precision == "16-mixed":
            return
        # a finite sum has finite summands; it takes a fraction of the time of the largest
        if not torch.isfinite(torch.stack([gradient.sum() for gradient in gradients]).sum()):
            largest = torch.nn.utils.get_total_norm(gradients, norm_type=float("inf"))
            if not torch.isfinite(largest):
                raise self.error(f"gradient became {largest.item()}")

    def on_train_epoch_end(self) -> None:
        """Check the weights, also those that no loss depends on."""
        super().on_train_epoch_end()
        if self._first_bad(self.module.named_parameters()):
            raise self.error("weights became NaN or infinite")

    def on_validation_end(self) -> None:
        """Check the validation loss: early stopping would take NaN for a reason to end the training well."""
        super().on_validation_end()
        value = self.trainer.callback_metrics.get("validation_loss")
        if value is not None:
            self.check(validation_loss=value)

    def on_train_end(self) -> None:
        """Give all processes the buffers of the first: each has counted other cells since they were last shared."""
        super().on_train_end()
        if self.trainer.world_size > 1:
            for buffer in self.buffers():
                torch.distributed.broadcast(buffer, src=0)

    @staticmethod
    def _first_bad(tensors: Iterable[tuple[str, Tensor | None]]) -> str | None:
        return next((name for name, value in tensors if value is not None and not torch.isfinite(value).all()), None)

    @contextmanager
    def explained(self, batch: dict[str, Tensor]) -> Iterator[None]:
        """Say what is wrong where torch refuses the parameters of a distribution, which would print all of them."""
        try:
            yield
        except ValueError:
            if not torch.isfinite(batch[REGISTRY_KEYS.X_KEY]).all():
                raise self.error("counts of a minibatch are NaN or infinite") from None
            if self._first_bad(self.module.named_parameters()):
                raise self.error("latents became NaN or infinite") from None
            raise

    def error(self, what: str) -> NonFiniteError:
        """Return the error, with the place in training and the first bad weight or gradient."""
        parameters = list(self.module.named_parameters())
        weight = self._first_bad(parameters)
        gradient = self._first_bad((name, parameter.grad) for name, parameter in parameters)
        where = f" First bad weight: {weight}." if weight else f" First bad gradient: {gradient}." if gradient else ""
        saved = [
            path for hook in getattr(self.trainer, "callbacks", []) if (path := getattr(hook, "best_model_path", ""))
        ]
        checkpoint = f" Last good checkpoint: {saved[-1]}." if saved else ""
        return NonFiniteError(
            f"The {what} in stage '{self.stage}', epoch {self.current_epoch}, step {self.global_step}."
            f"{where}{checkpoint} Check the counts for extreme values, then try a lower learning rate "
            f"({self.options}={{'lr': ...}}) or gradient_clip_val=1.0."
        )
