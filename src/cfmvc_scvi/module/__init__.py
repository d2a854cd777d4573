"""The module: networks, flow and scvi's VAE wired together, and their losses."""

from cfmvc_scvi.module.cfmvc import CFMVCModule
from cfmvc_scvi.module.losses import flow_matching_loss
from cfmvc_scvi.module.transport import ConditionTensors, advance, transport

__all__ = ["CFMVCModule", "ConditionTensors", "advance", "flow_matching_loss", "transport"]
