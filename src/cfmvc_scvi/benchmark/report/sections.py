"""Sections of a report: what is said, with which table and which images."""

from __future__ import annotations

__all__ = [
    "Card",
    "Section",
    "all_methods",
    "conditions",
    "limits",
    "metric_by_metric",
    "pairs",
    "parts",
    "provenance",
    "trusted",
]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from cfmvc_scvi._keys import METRICS
from cfmvc_scvi.benchmark.report import figures, tables
from cfmvc_scvi.benchmark.report.figures import GroupCells, Image, coverage
from cfmvc_scvi.benchmark.report.tables import Table, number

_MEANING = {
    "pearson_delta": "whether the means of all genes move in the right proportions",
    "energy": "distance of predicted from real cells; 0: as two halves of the real cells, 1: as control cells",
    "weighted_mse": "squared error of mean effects, weighted to genes that respond",
    "sig_jaccard": "overlap of the genes called significant in predicted and in real cells",
    "de_overlap": "share of the strongest real genes that are among the strongest predicted ones",
    "variance_log_ratio": "error in the spread between cells, in genes that respond; 1: half or double",
    "zero_share_error": "error in the share of counts that are zero",
    "context_discrimination": "whether a prediction resembles its own context's response more than another context's",
    "perturbation_discrimination": "whether a prediction resembles its own perturbation more than another one",
}


_FEW_CLUSTERS, _FEW_SEEDS, _FEW_CELLS = 10, 5, 50


@dataclass(frozen=True)
class Card:
    """One held-out condition: a heading, a line of numbers, images."""

    title: str
    note: str
    images: Sequence[Image]


@dataclass(frozen=True)
class Section:
    """A part of the page; what is empty is not shown."""

    anchor: str
    short: str
    title: str
    texts: Sequence[str] = ()
    image: Image | None = None
    table: Table | None = None
    kind: str = ""
    cards: Sequence[Card] = ()
    points: Sequence[str] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    code: str = ""


def metric_by_metric(compared: pd.DataFrame, skills: pd.DataFrame, model: str) -> Section:
    """The model between floor, best simple baseline and ceiling."""
    return Section(
        "metrics",
        "Metrics",
        "Metric by metric",
        texts=[
            "Skill puts all metrics on one scale: 0 is the floor, control cells taken as the prediction; 1 is the "
            "ceiling, one half of the real cells predicting the other half, which no model can be expected to pass. A "
            "win needs a difference whose interval leaves out zero; without an interval, its sign decides."
        ],
        image=figures.skill(skills, model),
        table=tables.metric_table(compared, model),
        kind="metrics",
        facts={tables.label(name): _MEANING[name] for name in map(str, compared.index) if name in _MEANING},
    )


def parts(gain: pd.DataFrame | None, model: str, without: str) -> Section:
    """What the flow adds to the closed-form mean and the coupled counts."""
    names = ("parts", "Parts", "What the flow adds")
    if gain is None:
        text = f"The run has no method called '{without}', so what the flow adds to {model} was not measured."
        return Section(*names, texts=[text])
    phrases = {"win": "improves", "lose": "worsens", "tie": "makes no clear difference to"}
    named = {outcome: _labels(gain, gain["outcome"] == outcome) for outcome in phrases}
    found = [f"{phrases[outcome]} {labels}" for outcome, labels in named.items() if labels]
    texts = [
        "A prediction has three parts: the mean effect, estimated in closed form from the contexts that saw the "
        "perturbation; counts that are coupled to each cell's own; and differences between cells, which come from the "
        f"flow. '{without}' has the first two only. Here the flow {'; '.join(found)}."
    ]
    return Section(*names, texts=texts, table=tables.part_table(gain, model, without), kind="metrics")


def _card(group: GroupCells, note: str, coordinates: tuple[np.ndarray, pd.DataFrame] | None) -> Card:
    title, images = f"{group.context} under {group.condition}", [figures.delta(group), figures.distributions(group)]
    if coordinates is not None:
        points, labels = coordinates
        own = ((labels["condition"] == group.condition) & (labels["context"] == group.context)).to_numpy()
        images.append(figures.umap(points[own], labels[own], title, small=True))
    return Card(title, note, images)


def conditions(
    table: Table,
    groups: Sequence[GroupCells],
    n_groups: int,
    seed: int,
    notes: Mapping[tuple[str, str], str],
    coordinates: tuple[np.ndarray, pd.DataFrame] | None,
) -> Section:
    """Each held-out condition: scores of all, figures of those in `groups`."""
    cards = [_card(group, notes.get((group.condition, group.context), ""), coordinates) for group in groups]
    texts = [
        "Averages hide the condition that goes wrong. Each was predicted by a model that never saw its perturbed "
        f"cells. Figures are of seed {seed}."
    ]
    if len(groups) < n_groups:
        texts.append(
            f"Figures are shown for {len(groups)} of {n_groups} conditions, at equal steps from the worst to the best "
            "Pearson Delta."
        )
    image = None if coordinates is None else figures.umap(*coordinates, "all conditions with figures below")
    return Section(
        "conditions", "Conditions", "Held-out conditions, one by one", texts, image, table, kind="many", cards=cards
    )


def trusted(calibration: pd.DataFrame | None, trust: pd.DataFrame | None, model: str) -> Section:
    """Coverage of intervals, and error against trust score."""
    texts, images = [], []
    if calibration is None:
        texts.append(f"{model} states no intervals here, so their calibration is not shown.")
    else:
        covered = ", ".join(f"{observed:.1%} for {nominal:.0%}" for nominal, observed in coverage(calibration).items())
        texts.append(
            f"Intervals of {model} promise to contain the true effect on a gene of a held-out condition. Observed "
            f"for promised coverage: {covered}. On the dashed line they keep the promise, below it they are too narrow."
        )
        images.append(figures.calibration(calibration))
    if trust is None:
        texts.append(f"{model} states no trust scores here, so whether they foretell errors is not shown.")
    else:
        rho = trust["trust"].corr(trust["error"], method="spearman") if len(trust) > 2 else np.nan
        texts.append(
            "A trust score is given before the truth is seen. It is of use if errors are small where it is high: the "
            f"rank correlation of score and error over {len(trust)} held-out conditions is {number(rho, 2)} "
            "(−1: perfect, 0: useless)."
        )
        images.append(figures.trust(trust))
    cards = [Card("As measured on the held-out conditions", "", images)] if images else []
    return Section("trust", "Uncertainty", "Can its uncertainty be believed?", texts, cards=cards)


def pairs(compared: Mapping[str, pd.DataFrame], model: str) -> Section:
    """The model against each of the others; `compared` is by their names, as of `compare` with the one."""
    text = (
        "Both are scored on the same cells with the same random numbers, so what is hard about a condition cancels in "
        "the difference."
    )
    table = tables.pair_table(compared, model)
    return Section("pairs", "Pairs", "Against each method, pair by pair", [text], table=table, kind="many")


def all_methods(table: Table) -> Section:
    """Everything that was compared."""
    return Section("methods", "Methods", "All methods", table=table, kind="many")


def limits(compared: pd.DataFrame, sizes: pd.DataFrame, n_seeds: int, model: str) -> Section:
    """What these numbers do not show, as far as the numbers themselves tell."""
    points = [*_few(sizes, n_seeds), *_bounds(compared, model)]
    points += [
        "The best simple baseline is chosen for each metric after seeing the scores, which favours the baselines.",
        "Scores hold for the groups held out here. A group unlike all of them may be predicted worse.",
        "Whether single cells are right cannot be scored: no cell is measured under both conditions. Predictions are "
        "causal only as far as the perturbation was assigned independently of all else that shapes a cell.",
    ]
    return Section("limits", "Limits", "What this does not show", points=points)


def _few(sizes: pd.DataFrame, n_seeds: int) -> list[str]:
    """Limits that come from small numbers of groups, seeds and cells."""
    n_contexts, n_conditions = (sizes.index.get_level_values(name).nunique() for name in ("context", "condition"))
    n_drawn, drawn = max((n_contexts, "context"), (n_conditions, "condition"), key=lambda pair: pair[0])
    points = []
    if n_drawn == 1:
        points.append("There is one held-out condition, hence no interval: outcomes are the signs of differences.")
    elif n_drawn < _FEW_CLUSTERS:
        points.append(
            f"Intervals come from {n_drawn} {drawn}s. With so few they are rough, and too narrow rather than too wide: "
            "read effect sizes first."
        )
    if n_seeds < _FEW_SEEDS:
        points.append(
            f"{n_seeds} seed{'s' * (n_seeds != 1)}: how much training and sampling vary is hardly seen; use five."
        )
    n_small = int((sizes["true"] < _FEW_CELLS).sum())
    if n_small:
        points.append(
            f"{n_small} of {len(sizes)} held-out conditions have fewer than {_FEW_CELLS} real cells: their own scores "
            "are noisy, and their ceilings low."
        )
    return points


def _bounds(compared: pd.DataFrame, model: str) -> list[str]:
    """Limits that come from where floor and ceiling lie."""
    points = []
    if reached := _labels(compared, compared["skill"] >= 1):
        points.append(f"{model} is at the ceiling of {reached}: these data cannot tell better predictions from it.")
    if undefined := _labels(compared, ~np.isfinite(compared["skill"])):
        points.append(f"Skill is not defined for {undefined}: the ceiling is no better than the floor.")
    return points


def _labels(compared: pd.DataFrame, chosen: pd.Series) -> str:
    return ", ".join(METRICS[str(name)].label for name in compared.index[chosen])


def provenance(facts: Mapping[str, str], command: str) -> Section:
    """What was run on what, and how to run it again."""
    return Section("provenance", "Provenance", "Provenance", facts=facts, code=command)
