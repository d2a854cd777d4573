"""Mean effects over contexts, combinations and doses, in gene space and in the latent space: arrays in, arrays out."""

from __future__ import annotations

from cfmvc_scvi.shift.combine import additive_goal, interpolate_dose
from cfmvc_scvi.shift.empirical_bayes import EffectPosterior, posterior_level
from cfmvc_scvi.shift.frame import latent_shift
from cfmvc_scvi.shift.goal import EffectGoal, effect_goal
from cfmvc_scvi.shift.links import DepthCurve
from cfmvc_scvi.shift.pseudobulk import DEPTH_LEVELS, PseudoBulk, pseudo_bulk
from cfmvc_scvi.shift.similarity import (
    context_kernel,
    kernel,
    linear_kernel,
    profile_distances,
    project_psd,
    similarity_weights,
)

__all__ = [
    "DEPTH_LEVELS",
    "DepthCurve",
    "EffectGoal",
    "EffectPosterior",
    "PseudoBulk",
    "additive_goal",
    "context_kernel",
    "effect_goal",
    "interpolate_dose",
    "kernel",
    "latent_shift",
    "linear_kernel",
    "posterior_level",
    "profile_distances",
    "project_psd",
    "pseudo_bulk",
    "similarity_weights",
]
