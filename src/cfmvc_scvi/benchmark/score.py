"""Scores of one prediction, and of what a perfect one could reach."""

from __future__ import annotations

__all__ = ["CEILING", "GroupScore", "score_ceiling", "score_prediction", "tidy_scores"]

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.random import Generator
from numpy.typing import NDArray

from cfmvc_scvi import metrics
from cfmvc_scvi.benchmark.cells import ALL_GROUPS, Prediction
from cfmvc_scvi.benchmark.representative import representative_cells

Array = NDArray[np.float64]

CEILING = "ceiling"


@dataclass(frozen=True)
class GroupScore:
    """Scores of one predicted (condition, context).

    Parameters
    ----------
    values
        Metric name to score. `energy_distance` and `energy_scale`, `mmd_distance` and `mmd_scale` are the two parts of
        normalised distances, which are to be added up over groups before dividing.
    effect, true_effect
        Predicted and true difference of mean log1p CP10k from control, (genes,).
    """

    values: dict[str, float]
    effect: Array
    true_effect: Array


def score_prediction(
    predicted: Prediction,
    truth_counts: sp.csr_matrix,
    control_counts: sp.csr_matrix,
    rng: Generator,
    *,
    perturbed_profile: Array | None = None,
    n_top: int = 50,
    n_components: int = 30,
) -> GroupScore:
    """Score predicted cells of one (condition, context) against the real ones.

    Of more predicted than true cells, as many as there are true ones are scored, those that represent all
    (`representative_cells`): a random draw would add the sampling error of a small group to the prediction. Fewer are
    scored as they are, for repeated cells feign a narrow distribution. Differential expression is tested on equal
    numbers of predicted, true and control cells.

    Parameters
    ----------
    predicted
        Predicted cells (cells, genes).
    truth_counts, control_counts
        UMI counts of the real perturbed cells and of the control cells of the context (cells, genes).
    rng
        Draws cells, halves and subsets.
    perturbed_profile
        Mean log1p CP10k of cells with other perturbations in the context (genes,); with it, `pearson_delta_specific` is
        the Pearson correlation of what is specific to the perturbation.
    n_top
        Genes of highest `metrics.de_scores` of the truth for the metrics of top genes.
    n_components
        Dimensions of the cross-fitted PCA.

    Raises
    ------
    DataError
        If a group is too small (four cells), genes differ, or the truth has no effect.
    """
    p, t, c = predicted.log_values(), metrics.log_normalize(truth_counts), metrics.log_normalize(control_counts)
    p = p[representative_cells(p, len(t), rng)]
    mean_p, mean_t, mean_c = p.mean(axis=0), t.mean(axis=0), c.mean(axis=0)
    scores = metrics.de_scores(t, c)
    top = metrics.top_genes(scores, n_top)
    values = {
        "pearson_delta": metrics.pearson_delta(mean_p, mean_t, mean_c),
        "pearson_delta_top": metrics.pearson_delta_top(mean_p, mean_t, mean_c, scores, n_top),
        "r2_of_means": metrics.r2_of_means(mean_p, mean_t),
        "weighted_mse": metrics.weighted_mse(mean_p, mean_t, scores),
        "weighted_r2": metrics.weighted_r2(mean_p, mean_t, mean_c, scores),
        **_distances(p, t, c, rng, n_components),
        **_de_agreement(p, t, c, rng),
        "variance_log_ratio": metrics.variance_log_ratio(p, t, top),
        "zero_share": metrics.zero_share(p),
        "zero_share_error": metrics.zero_share(p) - metrics.zero_share(t),
        "correlation_structure": metrics.correlation_structure(p, t, top),
    }
    if perturbed_profile is not None:
        values["pearson_delta_specific"] = metrics.pearson_delta(mean_p, mean_t, perturbed_profile)
    return GroupScore(values, mean_p - mean_c, mean_t - mean_c)


def _distances(p: Array, t: Array, c: Array, rng: Generator, n_components: int) -> dict[str, float]:
    spaces = metrics.CrossFittedPCA.fit(t, c, rng, n_components=n_components)
    energy = metrics.normalised_distance(p, spaces, lambda x, y, _: metrics.energy_distance(x, y))
    mmd = metrics.normalised_distance(p, spaces, metrics.rbf_mmd2)
    return {
        "energy_distance": energy.distance,
        "energy_scale": energy.scale,
        "mmd_distance": mmd.distance,
        "mmd_scale": mmd.scale,
    }


def _de_agreement(p: Array, t: Array, c: Array, rng: Generator) -> dict[str, float]:
    p, t, c = metrics.equal_cells(p, t, c, rng=rng)
    of_prediction, of_truth = metrics.rank_sum_de(p, c), metrics.rank_sum_de(t, c)
    return {
        "de_overlap": metrics.de_overlap(of_prediction, of_truth),
        "sig_jaccard": metrics.sig_jaccard(of_prediction, of_truth),
        "lfc_nmae": metrics.lfc_nmae(of_prediction, of_truth),
        "direction_fidelity": metrics.direction_fidelity(of_prediction, of_truth),
        "auprc_de": metrics.auprc_de(of_prediction, of_truth),
    }


def score_ceiling(
    truth_counts: sp.csr_matrix,
    control_counts: sp.csr_matrix,
    rng: Generator,
    *,
    perturbed_profile: Array | None = None,
) -> GroupScore:
    """Score one random half of the real cells as the prediction of the other half: what a perfect model could reach.

    Parameters, randomness and errors are those of `score_prediction`; the group needs eight cells.
    """
    order = rng.permutation(truth_counts.shape[0])
    half = len(order) // 2
    predicted, truth = Prediction(truth_counts[order[:half]]), truth_counts[order[half:]]
    return score_prediction(predicted, truth, control_counts, rng, perturbed_profile=perturbed_profile)


def tidy_scores(scored: Mapping[tuple[str, int], Mapping[tuple[str, str], GroupScore]]) -> pd.DataFrame:
    """Table of scores, one row each, with discrimination where a method has several groups.

    Parameters
    ----------
    scored
        (method, seed) to (condition, context) to score.

    Returns
    -------
    Columns method, condition, context, seed, metric, value. Discrimination across contexts has context `*`, across
    perturbations condition `*`.
    """
    return pd.DataFrame([row for key, groups in scored.items() for row in _rows(*key, groups)])


def _rows(method: str, seed: int, groups: Mapping[tuple[str, str], GroupScore]) -> list[dict[str, object]]:
    def row(condition: str, context: str, metric: str, value: float) -> dict[str, object]:
        names = {"method": method, "condition": condition, "context": context, "seed": seed}
        return {**names, "metric": metric, "value": value}

    rows = [row(*group, metric, value) for group, score in groups.items() for metric, value in score.values.items()]
    for axis, metric in ((0, "context_discrimination"), (1, "perturbation_discrimination")):
        for shared in sorted({group[axis] for group in groups}):
            members = [score for group, score in groups.items() if group[axis] == shared]
            if len(members) > 1:
                pds = metrics.pds_cosine([m.effect for m in members], [m.true_effect for m in members])
                rows.append(
                    row(*((shared, ALL_GROUPS) if axis == 0 else (ALL_GROUPS, shared)), metric, float(pds.mean()))
                )
    return rows
