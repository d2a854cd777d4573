"""Training: plans, the data of the flow, and what each stage freezes."""

from cfmvc_scvi.train.checkpoint import Checkpoint
from cfmvc_scvi.train.joint import MinibatchCoupler
from cfmvc_scvi.train.latents import LatentDataModule, LatentTable, PairSampler, principal_axes
from cfmvc_scvi.train.plans import FlowPlan, JointPlan, RepresentationPlan
from cfmvc_scvi.train.stages import STAGES, Stage, stage_of

__all__ = [
    "STAGES",
    "Checkpoint",
    "FlowPlan",
    "JointPlan",
    "LatentDataModule",
    "LatentTable",
    "MinibatchCoupler",
    "PairSampler",
    "RepresentationPlan",
    "Stage",
    "principal_axes",
    "stage_of",
]
