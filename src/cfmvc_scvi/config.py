"""Frozen dataclasses: the only home of the defaults that are not arguments of a public method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "CalibrationConfig",
    "EffectConfig",
    "FeatureConfig",
    "FlowConfig",
    "ObservationConfig",
    "PairConfig",
    "SimulationConfig",
    "SolverConfig",
]


@dataclass(frozen=True)
class EffectConfig:
    """Empirical-Bayes effect of a perturbation over contexts (grids of the mixture; see `shift.empirical_bayes`).

    `control_scales` t, `effect_scales` s, `shrinkages` kappa and `sharings` rho span the mixture; `wide_scale` is the
    one s of the second prior, which shortens no effect that stands out of the noise; `effect_locality`
    l and `control_locality` l0 are lengths of its kernels, and each context has the share `own_share` of an effect's
    variance between contexts to itself; `mean_scale` is the prior sd of a gene's overall level, `noise_floor` a
    variance added to every sampling variance (in the link's unit, squared). Its weights come from `em_iterations` of
    EM with `em_prior` pseudo-genes per component. The link is log(CP10k + `pseudocount`); `bulk_weight` is the share
    in a goal of levels read off the summed cells, the rest being read off the mean log1p CP10k; `curve_dispersion` is
    the NB dispersion of the curve between the two. `stretch_bounds` clip the lengthening of the posterior mean;
    `similarity_power` is gamma in (d_k / d_min)^-gamma. `decoded_share` is the weight that the decoder's expectation
    can have, of genes of which least is known, in contexts in which a perturbation was not seen.
    """

    control_scales: tuple[float, ...] = (0.02, 0.07, 0.2, 0.5, 1.2)
    effect_scales: tuple[float, ...] = (0.0, 0.03, 0.08, 0.2, 0.5, 1.2, 2.5)
    wide_scale: float = 1.2
    shrinkages: tuple[float, ...] = (0.0, 0.5)
    sharings: tuple[float, ...] = (0.0, 0.4, 0.8, 0.95)
    effect_locality: float = 1.5
    own_share: float = 0.05
    control_locality: float = 0.8
    mean_scale: float = 2.0
    noise_floor: float = 2e-5
    em_iterations: int = 40
    em_prior: float = 0.1
    pseudocount: float = 1.5
    bulk_weight: float = 0.5
    curve_dispersion: float = 3.0
    stretch_bounds: tuple[float, float] = (1.1, 1.6)
    similarity_power: float = 2.0
    decoded_share: float = 0.3


@dataclass(frozen=True)
class FeatureConfig:
    """Effects of unseen perturbations from features (grids of the mixture; see `shift.features`).

    `scales` s (sd of what perturbations do apart from what they share, log1p CP10k), `shares` h and `lengths` l (in
    units of the root mean squared distance of features) span the mixture; its weights come from `em_iterations` of EM
    with `em_prior` pseudo-columns per component, on at most `max_columns` columns.
    """

    scales: tuple[float, ...] = (0.01, 0.03, 0.08, 0.2, 0.5, 1.2)
    shares: tuple[float, ...] = (0.3, 0.6, 0.9, 1.0)
    lengths: tuple[float, ...] = (0.35, 0.7, 1.4)
    em_iterations: int = 40
    em_prior: float = 0.1
    max_columns: int = 4000
    permutations: int = 400
    chance: float = 0.05


@dataclass(frozen=True)
class CalibrationConfig:
    """Intervals and trust from contexts left out in training.

    Pairs of condition and context are left out, spread evenly over both, as many as take `work`, each takes its genes
    (`n_genes` at most) times its squared number of contexts; but `most_pairs` at most and, where there are as many,
    one in each of `least_pairs` contexts.
    Quantiles are of `n_quantiles` residuals in `n_quantiles` contexts. The sd of log scales over contexts has a prior
    guess `scale_sd` with the weight of `scale_prior` contexts; the inflation of errors one of 1 with `inflation_prior`
    contexts, that of a context that of all contexts with `context_prior` conditions. Trust is high from `high`, medium
    from `medium`, else low.
    """

    n_genes: int = 400
    work: float = 6e4
    least_pairs: int = 8
    most_pairs: int = 24
    n_quantiles: int = 200
    scale_sd: float = 0.2
    scale_prior: float = 2.0
    inflation_prior: float = 4.0
    context_prior: float = 2.0
    high: float = 0.75
    medium: float = 0.5


@dataclass(frozen=True)
class ObservationConfig:
    """Coupled counts: dispersion of the negative binomial, and the matching of gene rates to the goal.

    Dispersions are shrunk to `dispersion_prior` with the weight of a squared mean count of `dispersion_prior_weight`
    and clipped to `dispersion_bounds`; a goal counts as reached within `match_tolerance` (log1p CP10k), after at most
    `match_iterations` evaluations, in which the mean log depth may move by `match_depth_change`; `depth_levels`
    quantiles stand for the depths of a group where an expectation is computed; the rate of a cell relative to its
    context is at most `largest_profile`. Expected counts shrink the differences between the responses of cells in up to
    `response_axes` directions, by the scatter of `response_replicates` redrawn counts of each reference cell.
    """

    dispersion_prior: float = 5.0
    dispersion_prior_weight: float = 0.02
    dispersion_bounds: tuple[float, float] = (0.3, 50.0)
    match_iterations: int = 100
    match_tolerance: float = 1e-3
    match_depth_change: float = 0.2
    depth_levels: int = 20
    largest_profile: float = 10.0
    response_axes: int = 20
    response_replicates: int = 4


@dataclass(frozen=True)
class SolverConfig:
    """Fixed-step ODE solver of the flow."""

    method: Literal["euler", "midpoint", "heun", "rk4"] = "midpoint"
    n_steps: int = 5


@dataclass(frozen=True)
class FlowConfig:
    """Architecture of the velocity field."""

    n_hidden: int = 128
    n_layers: int = 2
    n_basis: int = 16


@dataclass(frozen=True)
class PairConfig:
    """Minibatches of coupled latents for the flow.

    An epoch is `steps_per_epoch` minibatches of `batch_size` pairs, coupled anew; transport problems are split at
    random into blocks of `max_coupling_cells` and solved in the first `coupling_dims` principal components of the
    latent, where the states of cells are rather than the noise of their latents; `identity_share` of the pairs are
    control cells that stay where they are. With `posterior_noise` both ends are drawn from the posterior instead of
    its mean.
    """

    batch_size: int = 512
    steps_per_epoch: int = 50
    max_coupling_cells: int = 512
    coupling: Literal["optimal", "random"] = "optimal"
    coupling_dims: int = 5
    posterior_noise: bool = True
    identity_share: float = 0.1


@dataclass(frozen=True)
class SimulationConfig:
    """What simulated cells are like (see `datasets.simulated_perturbation`); logs are natural, effects in log rate.

    `depth` and `depth_sd`: median counts per cell and log sd. `zeros`: share of zeros aimed at. `effect_size`: mean
    size of the effect on a perturbed gene at saturation. `responder_fraction`: share of cells that respond at all.
    `state_dependence` in [0, 1]: how far a cell's state, rather than chance, decides whether it responds and which
    genes follow. `sharing` in [0, 1]: share of the effect's variance common to all cell types. `interaction`: size of
    what two perturbations do only together. `half_dose` and `hill`: dose of half effect (in units of the geometric
    mean of the doses) and steepness. `amplitude_sd`, `sample_amplitude_sd`: log sd of response strength over (cell
    type, perturbation) and (sample, perturbation). `batch_sd`, `sample_sd`: log sd of the gene-wise factors of a batch
    and a sample. `niche_strength`: log change of response strength per sd of the niche.
    """

    depth: float = 2000.0
    depth_sd: float = 0.4
    zeros: float = 0.7
    effect_size: float = 1.0
    responder_fraction: float = 0.6
    state_dependence: float = 0.9
    sharing: float = 0.6
    interaction: float = 0.0
    half_dose: float = 0.4
    hill: float = 1.5
    amplitude_sd: float = 0.3
    sample_amplitude_sd: float = 0.15
    batch_sd: float = 0.2
    sample_sd: float = 0.08
    niche_strength: float = 0.4


@dataclass(frozen=True)
class ReferenceConfig:
    """Real training cells that a model keeps: about `n_panel_cells`, shared between the groups within bounds."""

    n_panel_cells: int = 20_000
    min_group_cells: int = 32
    max_group_cells: int = 512


@dataclass(frozen=True)
class TrainingConfig:
    """Defaults of the stages.

    Stage 1: `representation_steps` minibatches, but at least `representation_epochs`; Adam's `representation_lr` and
    `representation_eps`; `kl_weight` is beta. Stages 2 and 3: epochs. Batch sizes are cells of counts; that of stage 3
    is large, because it couples cells within a minibatch.
    """

    representation_steps: int = 700
    representation_epochs: int = 20
    representation_batch_size: int = 128
    representation_lr: float = 3e-3
    representation_eps: float = 1e-4
    kl_weight: float = 0.1
    flow_epochs: int = 8
    joint_epochs: int = 10
    joint_batch_size: int = 1024
