"""Simulated perturbation experiments whose every counterfactual is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations as subsets

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.stats import norm

from cfmvc_scvi._keys import COMBINATION_SEPARATOR
from cfmvc_scvi.config import SimulationConfig
from cfmvc_scvi.data import Vocabulary
from cfmvc_scvi.datasets._truth import CONTROL, RESPONSE_KEY, STATE_KEY, TRUTH_KEY, Cells, Truth
from cfmvc_scvi.errors import DataError

__all__ = ["simulated_perturbation"]

Array = NDArray[np.float64]

_PROGRAMS = ("activation", "cycle_cos", "cycle_sin", "niche")  # columns of the state; niche in spatial data only
_CYCLE = slice(1, 3)
_CHUNK = 4096  # cells whose dense rates are in memory at once
_N_REGIONS = 4
_N_NEIGHBORS = 10
_CELL_SD = 0.75  # log sd of a gene's rate over the cells of all types, states and batches


@dataclass(frozen=True)
class _Layout:
    """Who is where and gets what: one row per cell; `cells.response` still lacks the perturbations."""

    cells: Cells
    condition: NDArray[np.intp]
    responder: NDArray[np.bool_]
    region: NDArray[np.intp] | None = None
    coordinates: Array | None = None


def simulated_perturbation(
    n_cells: int = 2000,
    n_genes: int = 500,
    *,
    n_cell_types: int = 4,
    n_batches: int = 2,
    n_samples: int = 3,
    perturbations: Sequence[str] = ("A", "B"),
    combinations: bool | Sequence[str] = True,
    doses: Sequence[float] = (1.0,),
    spatial: bool = False,
    config: SimulationConfig | None = None,
    seed: int = 0,
) -> AnnData:
    r"""Simulate raw counts of a perturbation experiment in which the counterfactual of each cell is known.

    Counts are :math:`\mathrm{NB}(l_i \rho_{ig}, \theta_g)` with log-normal depth l, a dispersion that falls with the
    mean, and log rates that add up from cell types in pairs of one lineage, programmes of activation and cell cycle
    shared by all types, gene-wise factors of batches (technical) and samples (donors, mild), and effects of
    perturbations, shared or local to a lineage or type.

    A cell responds if its activation, blurred by chance (`config.state_dependence`), is high enough, so who responds
    can be guessed from the counts of an unperturbed cell. How strongly it responds grows with its activation, differs
    between contexts and samples, and follows a Hill curve of the dose; some genes follow only in a part of the cell
    cycle. Non-responders do not change at all. Perturbations are assigned at random and balanced over cell types,
    samples and batches, so they are confounded with nothing.

    With `spatial`, samples are tissue slices with regions of different composition; the share of the first cell type
    among the ten nearest neighbours and the region change expression and response strength.

    Parameters
    ----------
    n_cells
        Number of cells; genes, effects and dispersions are the same for any number.
    n_genes
        Number of genes.
    n_cell_types
        Number of cell types.
    n_batches
        Number of technical batches, crossed with the samples.
    n_samples
        Number of donors, or slices of spatial data.
    perturbations
        Names, without ``+``.
    combinations
        True: all pairs; False: none; or the wanted ones, for example ``("A+B",)``. What is left out has a truth
        nevertheless.
    doses
        Doses at which each perturbation and combination is given, positive; controls have dose 0.
    spatial
        Whether cells have coordinates (unit: mean distance of cells) and a niche.
    config
        Sizes of all effects. None: the defaults.
    seed
        Seed of a private generator; equal arguments give equal data.

    Returns
    -------
    AnnData with integer counts `X` (CSR, float32); `obs` ``perturbation`` (``"control"``, ``"A"``, ``"A+B"``),
    ``dose``, ``cell_type``, ``batch``, ``sample``, and of the truth ``responder`` (would this cell respond) and
    ``state`` (its activation); `var` ``true_theta``; `obsm` ``true_state``, ``true_response`` and, if `spatial`,
    ``spatial`` (and `obs` ``region``); `uns` ``simulation``. See `true_counterfactual` for the truth of each cell.

    Raises
    ------
    DataError
        If a size, name, dose or share is impossible, or there are too few cells for each cell type to see each
        condition.
    UnknownConditionError
        If `combinations` names a perturbation that is not in `perturbations`.

    Examples
    --------
    >>> from cfmvc_scvi.datasets import simulated_perturbation
    >>> adata = simulated_perturbation(n_cells=300, n_genes=60)
    >>> sorted(adata.obs["perturbation"].unique())
    ['A', 'A+B', 'B', 'control']
    """
    config = SimulationConfig() if config is None else config
    _check(n_cells, n_genes, (n_cell_types, n_batches, n_samples), perturbations, doses, config)
    names = _condition_names(perturbations, combinations)
    treated = [(name, float(dose)) for name in names for dose in doses]
    conditions = [(CONTROL, 0.0)] * max(2, len(treated) // 3) + treated
    truth_rng, cell_rng, count_rng = np.random.default_rng(seed).spawn(3)

    sizes = (n_cell_types, n_batches, n_samples)
    truth = _draw_truth(truth_rng, n_genes, sizes, tuple(perturbations), doses, spatial, config)
    layout = _draw_cells(cell_rng, n_cells, truth, len(conditions), spatial, config)
    obs = _obs(layout, truth, conditions)
    design = truth.design(obs["perturbation"].astype(str), obs["dose"].to_numpy())
    counts, theta = _draw_counts(count_rng, truth, layout.cells, design, config)

    adata = AnnData(counts, obs=obs, var=pd.DataFrame({"true_theta": theta}, index=truth.genes.astype(object)))
    adata.obsm[STATE_KEY] = layout.cells.state
    adata.obsm[RESPONSE_KEY] = layout.cells.response
    if layout.coordinates is not None:
        adata.obsm["spatial"] = layout.coordinates
    adata.uns[TRUTH_KEY] = {
        "truth": asdict(truth),
        "config": asdict(config),
        "programs": np.array(_PROGRAMS[: len(truth.programs)]),
        "max_dose": float(max(doses)),
        "seed": seed,
    }
    return adata


def _check(
    n_cells: int,
    n_genes: int,
    sizes: tuple[int, int, int],
    perturbations: Sequence[str],
    doses: Sequence[float],
    config: SimulationConfig,
) -> None:
    if min(n_cells, n_genes, *sizes) < 1:
        raise DataError(
            f"every size must be at least 1, got n_cells={n_cells}, n_genes={n_genes} and "
            f"(n_cell_types, n_batches, n_samples)={sizes}"
        )
    if not perturbations:
        raise DataError("at least one perturbation is needed")
    if not doses or not all(np.isfinite(dose) and dose > 0 for dose in doses) or len(set(doses)) < len(doses):
        raise DataError(f"doses must be one or more different positive numbers, got {list(doses)}")
    for name in ("responder_fraction", "state_dependence", "sharing"):
        if not 0 <= getattr(config, name) <= 1:
            raise DataError(f"{name} must be between 0 and 1, got {getattr(config, name)}")
    if config.depth <= 0:
        raise DataError(f"depth must be positive, got {config.depth}")


def _condition_names(perturbations: Sequence[str], combinations: bool | Sequence[str]) -> list[str]:
    """Perturbations and combinations, the parts of a combination in the order of `perturbations`."""
    vocabulary = Vocabulary(tuple(perturbations), CONTROL)
    if isinstance(combinations, bool):
        combinations = [COMBINATION_SEPARATOR.join(pair) for pair in subsets(perturbations, 2)] if combinations else []
    names = [*perturbations, *map(vocabulary.canonical, combinations)]
    if len(set(names)) < len(names) or CONTROL in names:
        raise DataError(f"combinations must be different and have at least two parts, got {list(combinations)}")
    return names


def _loadings(rng: Generator, shape: tuple[int, ...], density: float, up: float = 0.5) -> Array:
    """Sparse loadings of size .5 to 1.5, a share `up` of them positive; bounded, so that no gene takes over."""
    signs = np.where(rng.random(shape) < up, 1.0, -1.0)
    return rng.uniform(0.5, 1.5, shape) * signs * (rng.random(shape) < density)


def _theta(base: Array, depth: float) -> Array:
    """Inverse dispersion (..., genes) of genes of log abundance `base`: rises with the mean count."""
    abundance = np.exp(base)
    mean = depth * abundance / abundance.sum(axis=-1, keepdims=True)
    return 1 / (0.1 + 0.2 / np.sqrt(mean + 0.01))


def _abundances(n_genes: int, config: SimulationConfig) -> Array:
    """Log-normal abundances (genes,), wide enough for the wanted share of zeros as far as credible widths allow."""
    normal = norm.ppf((np.arange(n_genes) + 0.5) / n_genes).clip(max=2.2)  # no gene dominates
    candidates = np.linspace(1.0, 2.6, 33)[:, None] * normal
    theta = _theta(candidates, config.depth)
    mean = config.depth * np.exp(candidates) / np.exp(candidates).sum(axis=1, keepdims=True)
    factors = np.exp(_CELL_SD * np.sqrt(3) * np.array([-1, 0, 0, 0, 0, 1]))  # of cells: three points of a normal
    spread = mean * (factors / factors.mean())[:, None, None]
    zeros = ((theta / (theta + spread)) ** theta).mean(axis=(0, 2))
    return candidates[np.argmin(np.abs(zeros - config.zeros))]


def _draw_truth(
    rng: Generator,
    n_genes: int,
    sizes: tuple[int, int, int],
    perturbations: tuple[str, ...],
    doses: Sequence[float],
    spatial: bool,
    config: SimulationConfig,
) -> Truth:
    n_types, n_batches, n_samples = sizes
    n_perturbations = len(perturbations)
    lineage = np.arange(n_types) // 2  # neighbouring types are relatives
    n_lineages = int(lineage[-1]) + 1

    base = rng.permutation(_abundances(n_genes, config))
    types = 0.7 * (_loadings(rng, (n_lineages, n_genes), 0.2)[lineage] + _loadings(rng, (n_types, n_genes), 0.2))
    programs = np.array([0.6, 0.5, 0.5, 0.5])[:, None] * _loadings(rng, (len(_PROGRAMS), n_genes), 0.25, up=0.7)

    shared = _loadings(rng, (n_perturbations, 1, n_genes), 0.2, up=0.7)
    relatives = _loadings(rng, (n_perturbations, n_lineages, n_genes), 0.2, up=0.7)[:, lineage]
    local = (relatives + _loadings(rng, (n_perturbations, n_types, n_genes), 0.2, up=0.7)) / np.sqrt(2)
    amplitude = np.exp(config.amplitude_sd * rng.standard_normal((n_perturbations, n_types, 1)))
    effect = config.effect_size * amplitude * (np.sqrt(config.sharing) * shared + np.sqrt(1 - config.sharing) * local)

    n_programs = len(_PROGRAMS) if spatial else len(_PROGRAMS) - 1
    angle = rng.uniform(0, 2 * np.pi, n_perturbations)
    modifier = np.zeros((n_perturbations, n_programs))
    modifier[:, _CYCLE] = np.sqrt(2) * np.column_stack([np.cos(angle), np.sin(angle)])  # state @ modifier has sd 1
    half_dose = np.exp(np.mean(np.log(doses))) * config.half_dose * np.exp(0.2 * rng.standard_normal(n_perturbations))
    return Truth(
        genes=np.array([f"gene_{i}" for i in range(n_genes)]),
        perturbations=np.array(perturbations),
        cell_types=np.array([f"type_{i}" for i in range(n_types)]),
        batches=np.array([f"batch_{i}" for i in range(n_batches)]),
        samples=np.array([f"sample_{i}" for i in range(n_samples)]),
        base=base,
        type_profile=types,
        batch_profile=config.batch_sd * rng.standard_normal((n_batches, n_genes)),
        sample_profile=config.sample_sd * rng.standard_normal((n_samples, n_genes)),
        programs=programs[:n_programs],
        effect=effect,
        state_effect=config.effect_size * config.state_dependence * _loadings(rng, (n_perturbations, n_genes), 0.15),
        modifier=modifier,
        interaction=config.interaction * config.effect_size * _loadings(rng, (n_perturbations, n_genes), 0.1),
        half_dose=half_dose,
        hill=config.hill,
    )


def _draw_cells(
    rng: Generator, n_cells: int, truth: Truth, n_conditions: int, spatial: bool, config: SimulationConfig
) -> _Layout:
    n_types, n_batches, n_samples = len(truth.cell_types), len(truth.batches), len(truth.samples)
    sample_amplitude = config.sample_amplitude_sd * rng.standard_normal((n_samples, len(truth.perturbations)))
    weights = np.linspace(1.4, 0.6, n_types)
    weights /= weights.sum()
    sample = rng.permutation(np.arange(n_cells) % n_samples)
    region, coordinates = None, None
    if spatial:
        coordinates, region, enrichment = _draw_tissue(rng, sample, n_samples, n_types)
        weights = weights * enrichment
        weights /= weights.sum(axis=1, keepdims=True)
        cell_type = (rng.random((n_cells, 1)) > weights.cumsum(axis=1)[region]).sum(axis=1).clip(max=n_types - 1)
    else:
        cell_type = rng.choice(n_types, n_cells, p=weights)
    condition, batch = _assign(cell_type, sample, n_conditions, n_batches, truth)

    activation, chance = rng.standard_normal((2, n_cells))
    phase = rng.uniform(0, 2 * np.pi, n_cells)
    state = np.column_stack([activation, np.cos(phase), np.sin(phase)])
    gamma = config.state_dependence
    competence = gamma * activation + np.sqrt(1 - gamma**2) * chance
    responder = competence > norm.ppf(1 - config.responder_fraction)
    log_strength = 0.3 * competence[:, None] + sample_amplitude[sample]
    if coordinates is not None and region is not None:
        niche = _niche(rng, coordinates, region, cell_type)
        state = np.column_stack([state, niche])
        log_strength = log_strength + config.niche_strength * niche[:, None]
    response = responder[:, None] * np.exp(log_strength)
    return _Layout(Cells(cell_type, batch, sample, state, response), condition, responder, region, coordinates)


def _assign(
    cell_type: NDArray[np.intp], sample: NDArray[np.intp], n_conditions: int, n_batches: int, truth: Truth
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Condition and batch of each cell, dealt in turn within cell type and sample, hence balanced over both."""
    rank = np.empty(len(cell_type), dtype=np.intp)
    for kind, name in enumerate(truth.cell_types):
        rows = np.flatnonzero(cell_type == kind)
        if len(rows) < n_conditions:
            raise DataError(
                f"cell type '{name}' has {len(rows)} cells for {n_conditions} conditions; "
                "raise n_cells, or ask for fewer cell types, perturbations, combinations or doses"
            )
        rank[rows[np.argsort(sample[rows], kind="stable")]] = np.arange(len(rows))
    return rank % n_conditions, rank // n_conditions % n_batches


def _draw_tissue(
    rng: Generator, sample: NDArray[np.intp], n_samples: int, n_types: int
) -> tuple[Array, NDArray[np.intp], Array]:
    """Coordinates (cells, 2) of slices side by side, regions, and enrichment of types (regions, types)."""
    anchors = rng.random((_N_REGIONS, 2))
    enrichment = np.exp(rng.standard_normal((_N_REGIONS, n_types)))
    position = rng.random((len(sample), 2))
    region = cKDTree(anchors).query(position)[1]
    side = np.sqrt(len(sample) / n_samples)
    offset = np.column_stack([1.5 * side * sample, np.zeros(len(sample))])  # no neighbours across slices
    return side * position + offset, region, enrichment


def _niche(rng: Generator, coordinates: Array, region: NDArray[np.intp], cell_type: NDArray[np.intp]) -> Array:
    """Standardised sum of the neighbours' share of the first cell type and of an effect of the region, (cells,)."""
    k = min(_N_NEIGHBORS + 1, len(cell_type))
    neighbors = cKDTree(coordinates).query(coordinates, k=k)[1][:, 1:]
    share = (cell_type[neighbors] == 0).mean(axis=1)
    score = share / max(share.std(), 1e-12) + 0.7 * rng.standard_normal(_N_REGIONS)[region]
    return (score - score.mean()) / max(score.std(), 1e-12)


def _draw_counts(
    rng: Generator, truth: Truth, cells: Cells, design: Array, config: SimulationConfig
) -> tuple[sp.csr_matrix, Array]:
    """NB counts (cells, genes) as a Poisson of a Gamma rate, and theta (genes,)."""
    theta = _theta(truth.base, config.depth) * np.exp(0.3 * rng.standard_normal(len(truth.genes)))
    batch_depth = np.exp(0.15 * rng.standard_normal(len(truth.batches)))
    depth = config.depth * batch_depth[cells.batch] * np.exp(config.depth_sd * rng.standard_normal(len(design)))
    blocks = []
    for start in range(0, len(design), _CHUNK):
        rows = slice(start, start + _CHUNK)
        mu = depth[rows, None] * truth.fractions(cells[rows], design[rows])
        blocks.append(sp.csr_matrix(rng.poisson(rng.gamma(theta, mu / theta)).astype(np.float32)))
    return sp.vstack(blocks, format="csr"), theta


def _obs(layout: _Layout, truth: Truth, conditions: list[tuple[str, float]]) -> pd.DataFrame:
    labels, doses = zip(*conditions, strict=True)
    cells = layout.cells
    columns = {
        "perturbation": pd.Categorical.from_codes(
            pd.Index(pd.unique(np.array(labels))).get_indexer(np.array(labels))[layout.condition],
            list(dict.fromkeys(labels)),
        ),
        "dose": np.array(doses)[layout.condition],
        "cell_type": pd.Categorical.from_codes(cells.cell_type, truth.cell_types),
        "batch": pd.Categorical.from_codes(cells.batch, truth.batches),
        "sample": pd.Categorical.from_codes(cells.sample, truth.samples),
        "responder": layout.responder,
        "state": cells.state[:, 0],
    }
    if layout.region is not None:
        columns["region"] = pd.Categorical.from_codes(layout.region, [f"region_{i}" for i in range(_N_REGIONS)])
    return pd.DataFrame(columns, index=[f"cell_{i}" for i in range(len(layout.condition))])
