"""Tools that write what a model says into the data, the scanpy way."""

from cfmvc_scvi.tl.benchmark import benchmark
from cfmvc_scvi.tl.counterfactual import counterfactual
from cfmvc_scvi.tl.effect import effect
from cfmvc_scvi.tl.evaluate import evaluate
from cfmvc_scvi.tl.latent import latent
from cfmvc_scvi.tl.rank_perturbations import rank_perturbations
from cfmvc_scvi.tl.trust import trust

__all__ = ["benchmark", "counterfactual", "effect", "evaluate", "latent", "rank_perturbations", "trust"]
