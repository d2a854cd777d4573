"""Tools that write what a model says into the data, the scanpy way."""

from cfmvc_scvi.tl.benchmark import benchmark
from cfmvc_scvi.tl.counterfactual import counterfactual
from cfmvc_scvi.tl.counterfactual_trajectory import counterfactual_trajectory
from cfmvc_scvi.tl.diagnose import diagnose
from cfmvc_scvi.tl.disentanglement import disentanglement
from cfmvc_scvi.tl.dose_response import dose_response
from cfmvc_scvi.tl.effect import effect
from cfmvc_scvi.tl.evaluate import evaluate
from cfmvc_scvi.tl.interactions import interactions
from cfmvc_scvi.tl.joint_umap import joint_umap
from cfmvc_scvi.tl.latent import latent
from cfmvc_scvi.tl.rank_perturbations import rank_perturbations
from cfmvc_scvi.tl.trust import trust
from cfmvc_scvi.tl.virtual_tissue import virtual_tissue

__all__ = [
    "benchmark",
    "counterfactual",
    "counterfactual_trajectory",
    "diagnose",
    "disentanglement",
    "dose_response",
    "effect",
    "evaluate",
    "interactions",
    "joint_umap",
    "latent",
    "rank_perturbations",
    "trust",
    "virtual_tissue",
]
