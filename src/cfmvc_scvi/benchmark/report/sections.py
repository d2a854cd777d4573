"""Sections of a report: what is said, with which table and which images."""

from __future__ import annotations

__all__ = [
    "Card",
    "Section",
    "all_methods",
    "conditions",
    "limits",
    "metric_by_metric",
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
    caption: str = ""
    table: Table | None = None
    kind: str = ""
    cards: Sequence[Card] = ()
    cards_caption: str = ""
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
        caption="The best of the others may be another one in each metric; the table names the best simple baseline.",
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
    words = {
        outcome: [METRICS[str(name)].label for name in gain.index[gain["outcome"] == outcome]]
        for outcome in ("win", "lose", "tie")
    }
    found = [
        f"{phrase} {', '.join(words[outcome])}"
        for outcome, phrase in (("win", "improves"), ("lose", "worsens"), ("tie", "makes no clear difference to"))
        if words[outcome]
    ]
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
    image, caption = None, ""
    texts = [
        "Averages hide the condition that goes wrong. Each was predicted by a model that never saw its perturbed cells."
    ]
    if len(groups) < n_groups:
        texts.append(
            f"Figures are shown for {len(groups)} of {n_groups} conditions, at equal steps from the worst to the best "
            "Pearson Delta."
        )
    if coordinates is not None and len(groups) > 1:
        image = figures.umap(*coordinates, "all conditions with figures below")
        caption = (
            "Joint UMAP of control, true and predicted cells: log1p CP10k, PCA fitted on control and true cells and "
            "applied to all, 15 neighbours, fixed seeds. Groups are drawn in equal numbers at most. Distances on such "
            "a map mean little; overlap of true and predicted cells is what to look for."
        )
    below = (
        f"Seed {seed}. Left: effect on the mean of each gene, predicted against true. Middle: the genes of strongest "
        "true response. Right: the joint UMAP."
    )
    return Section(
        "conditions",
        "Conditions",
        "Held-out conditions, one by one",
        texts,
        image,
        caption,
        table,
        "many",
        cards,
        below,
    )


def trusted(calibration: pd.DataFrame | None, trust: pd.DataFrame | None, model: str) -> Section:
    """Coverage of intervals, and error against trust score."""
    texts, images = [], []
    if calibration is None:
        texts.append("This run measured no intervals, so their calibration is not shown.")
    else:
        covered = ", ".join(f"{observed:.1%} for {nominal:.0%}" for nominal, observed in coverage(calibration).items())
        texts.append(
            f"Intervals of {model} promise to contain the true effect on a gene of a held-out condition. Observed "
            f"for promised coverage: {covered}. On the dashed line they keep the promise, below it they are too narrow."
        )
        images.append(figures.calibration(calibration))
    if trust is None or "error" not in trust:
        texts.append("This run has no trust scores, so whether they foretell errors is not shown.")
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


def all_methods(table: Table) -> Section:
    """Everything that was compared."""
    return Section("methods", "Methods", "All methods", table=table, kind="many")


def limits(compared: pd.DataFrame, sizes: pd.DataFrame, n_seeds: int, model: str) -> Section:
    """What these numbers do not show, as far as the numbers themselves tell."""
    n_contexts, n_conditions = (sizes.index.get_level_values(name).nunique() for name in ("context", "condition"))
    n_drawn, drawn = max((n_contexts, "context"), (n_conditions, "condition"), key=lambda pair: pair[0])
    points = []
    if n_drawn == 1:
        points.append("There is one held-out condition, hence no interval: outcomes are the signs of differences.")
    elif n_drawn < 10:
        points.append(
            f"Intervals come from {n_drawn} {drawn}s. With so few they are rough, and too "
            "narrow rather than too wide: read effect sizes first."
        )
    if n_seeds < 5:
        points.append(
            f"{n_seeds} seed{'s' * (n_seeds != 1)}: how much training and sampling vary is hardly seen; use five."
        )
    small = sizes[sizes["true"] < 50]
    if len(small):
        points.append(
            f"{len(small)} of {len(sizes)} held-out conditions have fewer than 50 real cells: their own scores are "
            "noisy, and their ceilings low."
        )
    reached = compared[compared["skill"] >= 1]
    if len(reached):
        names = ", ".join(METRICS[str(name)].label for name in reached.index)
        points.append(f"{model} is at the ceiling of {names}: these data cannot tell better predictions from it.")
    empty = compared[~np.isfinite(compared["skill"])]
    if len(empty):
        names = ", ".join(METRICS[str(name)].label for name in empty.index)
        points.append(f"Skill is not defined for {names}: the ceiling is no better than the floor.")
    points += [
        "The best simple baseline is chosen for each metric after seeing the scores, which favours the baselines.",
        "Scores hold for the groups held out here. A group unlike all of them may be predicted worse.",
        "Whether single cells are right cannot be scored: no cell is measured under both conditions. Predictions are "
        "causal only as far as the perturbation was assigned independently of all else that shapes a cell.",
    ]
    return Section("limits", "Limits", "What this does not show", points=points)


def provenance(facts: Mapping[str, str], command: str) -> Section:
    """What was run on what, and how to run it again."""
    return Section("provenance", "Provenance", "Provenance", facts=facts, code=command)
