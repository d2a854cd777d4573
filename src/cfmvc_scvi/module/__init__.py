"""The module: networks, flow and scvi's VAE wired together, and their losses."""

from cfmvc_scvi.module.cfmvc import CFMVCModule
from cfmvc_scvi.module.invariance import MIN_GROUP, hsic_loss
from cfmvc_scvi.module.losses import flow_matching_loss, mmd_loss

__all__ = ["MIN_GROUP", "CFMVCModule", "flow_matching_loss", "hsic_loss", "mmd_loss"]
