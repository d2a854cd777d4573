"""From rates to counts: dispersion, fixed uniforms, counterfactual counts coupled to a cell's own, and their mean."""

from __future__ import annotations

from cfmvc_scvi.observe._counts import mean_rate
from cfmvc_scvi.observe.coupling import couple_counts, expected_rate
from cfmvc_scvi.observe.curve import expected_log1p_curve, rates_of_expected_log1p
from cfmvc_scvi.observe.dispersion import perturbed_dispersion, residual_dispersion
from cfmvc_scvi.observe.matching import RateMatch, match_rates
from cfmvc_scvi.observe.profile import cell_rates, relative_profile
from cfmvc_scvi.observe.quantiles import partner_uniforms, randomised_quantiles
from cfmvc_scvi.observe.response import ResponseFilter, fit_response_filter, redrawn_counts
from cfmvc_scvi.observe.uniforms import cell_choice, cell_uniforms, count_uniforms

__all__ = [
    "RateMatch",
    "ResponseFilter",
    "cell_choice",
    "cell_rates",
    "cell_uniforms",
    "count_uniforms",
    "couple_counts",
    "expected_log1p_curve",
    "expected_rate",
    "fit_response_filter",
    "match_rates",
    "mean_rate",
    "partner_uniforms",
    "perturbed_dispersion",
    "randomised_quantiles",
    "rates_of_expected_log1p",
    "redrawn_counts",
    "relative_profile",
    "residual_dispersion",
]
