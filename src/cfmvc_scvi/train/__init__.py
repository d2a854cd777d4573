"""Training: plans, the data of the flow, and what each stage freezes."""

from cfmvc_scvi.train.checkpoint import Checkpoint
from cfmvc_scvi.train.collection import CollectionDataModule
from cfmvc_scvi.train.gradients import GradientMonitor
from cfmvc_scvi.train.joint import MinibatchCoupler
from cfmvc_scvi.train.latents import LatentDataModule, LatentTable, PairSampler, evenly_chosen, principal_axes
from cfmvc_scvi.train.plans import FlowPlan, JointPlan, RepresentationPlan
from cfmvc_scvi.train.resume import EpochState, GivenIO, rng_state, set_rng_state
from cfmvc_scvi.train.stages import STAGES, Stage, logger_history, merged_history, stage_of

__all__ = [
    "STAGES",
    "Checkpoint",
    "CollectionDataModule",
    "EpochState",
    "FlowPlan",
    "GivenIO",
    "GradientMonitor",
    "JointPlan",
    "LatentDataModule",
    "LatentTable",
    "MinibatchCoupler",
    "PairSampler",
    "RepresentationPlan",
    "Stage",
    "logger_history",
    "merged_history",
    "evenly_chosen",
    "principal_axes",
    "rng_state",
    "set_rng_state",
    "stage_of",
]
