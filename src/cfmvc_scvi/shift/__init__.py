"""Mean effects over contexts, combinations and doses, in gene space and in the latent space: arrays in, arrays out."""

from __future__ import annotations

from cfmvc_scvi.shift.combine import additive_goal, averaged_goal, interpolate_dose, monotone_effects
from cfmvc_scvi.shift.conformal import Calibration, LeftOut, calibrate, check_level, leave_one_out, pairs_to_leave_out
from cfmvc_scvi.shift.depth import depth_changes
from cfmvc_scvi.shift.empirical_bayes import EffectPosterior, posterior_level
from cfmvc_scvi.shift.epistasis import GENE_CLASSES, PairFit, gene_classes, pair_fit
from cfmvc_scvi.shift.features import FeatureRegression, UnseenEffect
from cfmvc_scvi.shift.frame import latent_shift
from cfmvc_scvi.shift.goal import EffectGoal, context_weights, effect_goal, with_decoded
from cfmvc_scvi.shift.hill import HillFit, fit_hill
from cfmvc_scvi.shift.interaction import InteractionFit, fit_interactions, interaction_rows
from cfmvc_scvi.shift.links import DepthCurve
from cfmvc_scvi.shift.niche import NicheResponse, distance_to_region, fit_niche_response, niche_field
from cfmvc_scvi.shift.pseudobulk import DEPTH_LEVELS, PseudoBulk, expected_noise, pseudo_bulk
from cfmvc_scvi.shift.shared import (
    SharedShift,
    calibrated_factor,
    expected_weights,
    inner_products,
    own_gene_fold,
    shared_of_products,
    shared_shift,
)
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
    "GENE_CLASSES",
    "Calibration",
    "DepthCurve",
    "EffectGoal",
    "EffectPosterior",
    "FeatureRegression",
    "HillFit",
    "InteractionFit",
    "LeftOut",
    "NicheResponse",
    "PairFit",
    "PseudoBulk",
    "SharedShift",
    "UnseenEffect",
    "additive_goal",
    "averaged_goal",
    "calibrate",
    "calibrated_factor",
    "check_level",
    "context_kernel",
    "context_weights",
    "depth_changes",
    "distance_to_region",
    "effect_goal",
    "expected_noise",
    "expected_weights",
    "fit_hill",
    "fit_interactions",
    "fit_niche_response",
    "gene_classes",
    "interaction_rows",
    "inner_products",
    "interpolate_dose",
    "kernel",
    "latent_shift",
    "leave_one_out",
    "linear_kernel",
    "monotone_effects",
    "niche_field",
    "own_gene_fold",
    "pair_fit",
    "pairs_to_leave_out",
    "posterior_level",
    "profile_distances",
    "project_psd",
    "pseudo_bulk",
    "shared_of_products",
    "shared_shift",
    "similarity_weights",
    "with_decoded",
]
