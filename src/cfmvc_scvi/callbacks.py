"""Callbacks of lightning for ``train(callbacks=[...])``."""

from cfmvc_scvi.train.checkpoint import Checkpoint
from cfmvc_scvi.train.gradients import GradientMonitor

__all__ = ["Checkpoint", "GradientMonitor"]
