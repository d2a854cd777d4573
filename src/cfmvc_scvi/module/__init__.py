"""The module: networks, flow and scvi's VAE wired together, and their losses."""

from cfmvc_scvi.module.cfmvc import CFMVCModule
from cfmvc_scvi.module.losses import flow_matching_loss, mmd_loss

__all__ = ["CFMVCModule", "flow_matching_loss", "mmd_loss"]
