"""Networks of the flow: weights and one forward each, no loss and no solver."""

from __future__ import annotations

from cfmvc_scvi.nn.blocks import MLP, TimeEmbedding
from cfmvc_scvi.nn.condition import PerturbationEncoder
from cfmvc_scvi.nn.context import ContextEncoder
from cfmvc_scvi.nn.velocity import VelocityComponents, VelocityField

__all__ = [
    "MLP",
    "ContextEncoder",
    "PerturbationEncoder",
    "TimeEmbedding",
    "VelocityComponents",
    "VelocityField",
]
