"""What only a flow can do, on simulated cells whose every counterfactual is known.

python benchmarks/simulated.py                                  # 5 seeds
python benchmarks/simulated.py --seeds 10 11 --parts cells

Four parts. `cells`: distributions and single cells, of conditions that were seen in a context ("seen") and of ones
that were held out there ("held out": A in the first type, A+B in the second; both were seen in the other types).
Floors: "true mean, no flow" knows the mean of each gene exactly and realises it on the cells' own counts by the same
coupling, without differences between cells; "no flow" does so with the estimated mean. `interaction`: signs of what two
perturbations do only together, of a combination seen in a type, seen in other types, or never seen (then the prediction
is additive in log1p CP10k). `combination`: error of the whole effect of a combination, |found - true| / |true| of the
mean, estimated around what its parts do, as if it were an unrelated perturbation, and as the sum of its parts. `dose`:
curves over doses, one of them held out everywhere.

Columns of `cells`: "energy", normalised, against cells that were not trained on (0: another half of them, 1: control
cells); "correlation" of the effects of single cells around their mean; "error", |found - true| / |true| over cells and
genes of log1p CP10k (1: no effect); "responders", the area under the curve by which the size of an effect finds them.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import scvi
from anndata import AnnData
from sklearn.metrics import roc_auc_score

from cfmvc_scvi import CFMVC, metrics
from cfmvc_scvi.config import SimulationConfig
from cfmvc_scvi.datasets import simulated_perturbation, true_counterfactual

SETUP = {"batch_key": "batch", "labels_key": "cell_type", "perturbation_key": "perturbation"}
HELD_OUT = {("A", "type_0"), ("A+B", "type_1")}  # the combination is seen in the other types
N_CELLS, TRAINING_SHARE = 6000, 1 / 3  # cells that are not trained on make the truth of distributions sharp
DOSES, HELD_OUT_DOSE = (0.25, 0.5, 1.0, 2.0, 4.0), 1.0
INTERACTING = 0.1  # smallest change of mean log1p CP10k that counts as an interaction
TOLERANCE = 0.02  # fall of a mean log1p CP10k that still counts as none
CLEAR_EFFECT = 0.2  # smallest effect of the highest dose on a gene whose curve is looked at


def trained(adata: AnnData, seed: int, *, means_only: bool = False, **setup: str) -> CFMVC:
    """Train with the defaults, or as much as means need."""
    scvi.settings.seed = seed
    cells = adata.copy()
    CFMVC.setup_anndata(cells, **SETUP, **setup)
    model = CFMVC(cells)
    short = {"stage": "representation", "max_epochs": 2} if means_only else {}
    model.train(accelerator="cpu", enable_progress_bar=False, **short)
    return model


def with_true_mean(model: CFMVC, adata: AnnData, condition: str) -> CFMVC:
    """Return the model with the mean of a condition taken from all simulated cells of each context."""
    reference, names = model._reference, model._reference.contexts.names
    change = np.stack(
        [
            np.subtract(*(mean_log(group(adata, kind, names[code]).X) for kind in (condition, "control")))
            for code in reference.control_contexts
        ]
    )
    code = reference.condition(model.vocabulary.design(condition, None)[0])
    result = copy.copy(model)
    goal = reference.goals.of(code)
    known = dataclasses.replace(goal, goal=np.maximum(goal.control + change, 0.0))
    result._reference = dataclasses.replace(reference, _goals={**reference._goals, code: known})
    return result


def group(adata: AnnData, condition: str, context: str) -> AnnData:
    """Cells of a condition in a cell type."""
    return adata[(adata.obs["perturbation"] == condition) & (adata.obs["cell_type"] == context)]


def controls(adata: AnnData) -> AnnData:
    """Control cells."""
    return adata[adata.obs["perturbation"] == "control"].copy()


def mean_log(counts: object) -> np.ndarray:
    """Mean log1p CP10k (genes,)."""
    return metrics.log_normalize(counts).mean(axis=0)


def true_effect(cells: AnnData, condition: str, dose: float | None = None) -> np.ndarray:
    """Change of log1p CP10k of each cell, (cells, genes)."""
    return np.log1p(true_counterfactual(cells, condition, dose)) - np.log1p(true_counterfactual(cells, "control"))


def predicted_effect(model: CFMVC, cells: AnnData, condition: str, **asked: float) -> np.ndarray:
    """Change of log1p of the expected CP10k of each control cell, (cells, genes)."""
    dose = {"dose": asked.pop("dose")} if "dose" in asked else {}
    options = {"output": "normalized", "seed": 0, **asked}
    after = model.predict_counterfactual(cells.copy(), perturbation=condition, **dose, **options).X
    before = model.predict_counterfactual(cells.copy(), perturbation="control", **options).X
    return np.log1p(after) - np.log1p(before)


def unfiltered() -> AbstractContextManager[object]:
    """Expected counts that keep all differences between the responses of cells."""
    return mock.patch("cfmvc_scvi.model.plan.Observation._response", lambda *_: None)


def split(adata: AnnData, seed: int) -> tuple[AnnData, AnnData]:
    """Cells to train on, and the others."""
    chosen = np.random.default_rng(seed).permutation(adata.n_obs) < adata.n_obs * TRAINING_SHARE
    hidden = [pair in HELD_OUT for pair in zip(adata.obs["perturbation"], adata.obs["cell_type"], strict=True)]
    return adata[chosen & ~np.array(hidden)].copy(), adata[~chosen]


def mean_shift(train: AnnData, cells: AnnData, condition: str) -> np.ndarray:
    """Effect that is the mean over the trained contexts of the change of mean log1p CP10k."""
    types = [name for name in train.obs["cell_type"].cat.categories if group(train, condition, name).n_obs]
    change = [np.subtract(*(mean_log(group(train, kind, name).X) for kind in (condition, "control"))) for name in types]
    return np.tile(np.mean(change, axis=0), (cells.n_obs, 1))


def true_mean_shift(cells: AnnData, condition: str) -> np.ndarray:
    """Effect of adding the true change of the mean CP10k of its type to each cell: the best that no flow can know."""
    before, after = (true_counterfactual(cells, kind) for kind in ("control", condition))
    shift = pd.DataFrame(after - before).groupby(cells.obs["cell_type"].to_numpy(), observed=True).transform("mean")
    return np.log1p(np.maximum(before + shift.to_numpy(), 0.0)) - np.log1p(before)


def cells_part(seed: int) -> Iterator[dict[str, object]]:
    """Scores of single cells and distributions, one row per method, condition and context."""
    adata = simulated_perturbation(N_CELLS, seed=seed, config=SimulationConfig(interaction=1.0))
    train, fresh = split(adata, seed)
    model, cells = trained(train, seed), controls(train)
    context = cells.obs["cell_type"].astype(str).to_numpy()
    responder = cells.obs["responder"].to_numpy()
    for condition in ("A", "B", "A+B"):
        truth = true_effect(cells, condition)
        effects, logs = predictions(model, with_true_mean(model, adata, condition), cells, condition)
        effects["true mean shift"] = true_mean_shift(cells, condition)
        effects["mean shift"] = mean_shift(train, cells, condition)
        logs["mean shift"] = np.maximum(metrics.log_normalize(cells.X) + effects["mean shift"], 0.0)
        for method in dict.fromkeys([*logs, *effects]):
            for kind in np.unique(context):
                rows = context == kind
                row = {"method": method, "cells": "held out" if (condition, kind) in HELD_OUT else "seen", "seed": seed}
                if method in effects:
                    row |= single_cell_scores(effects[method][rows], truth[rows], responder[rows])
                if method in logs:
                    real, control = (metrics.log_normalize(group(fresh, c, kind).X) for c in (condition, "control"))
                    ratio = metrics.normalised_energy(logs[method][rows], real, control, np.random.default_rng(0))
                    row |= {"distance": ratio.distance, "scale": ratio.scale}
                yield row


def predictions(
    model: CFMVC, known: CFMVC, cells: AnnData, condition: str
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Effects on single cells, and log1p CP10k of counts, by method; `known` has the true mean."""
    variants: dict[str, tuple[CFMVC, float, Callable[[], AbstractContextManager[object]]]] = {
        "CFMVC": (model, 1.0, nullcontext),
        "CFMVC, no filter": (model, 1.0, unfiltered),
        "no flow": (model, 0.0, nullcontext),
        "true mean + flow": (known, 1.0, nullcontext),
        "true mean, no flow": (known, 0.0, nullcontext),
    }
    effects, logs = {}, {}
    for name, (chosen, share, context) in variants.items():
        with context():
            effects[name] = predicted_effect(chosen, cells, condition, heterogeneity=share)
        if context is nullcontext:
            options = {"heterogeneity": share, "seed": 0}
            counts = chosen.predict_counterfactual(cells.copy(), perturbation=condition, **options).X
            logs[name] = metrics.log_normalize(counts)
    return effects, logs


def single_cell_scores(effect: np.ndarray, truth: np.ndarray, responder: np.ndarray) -> dict[str, float]:
    """Scores of the effects on the cells of one group."""
    size = np.linalg.norm(effect, axis=1)
    return {
        "correlation": metrics.cell_effect_correlation(effect, truth),
        "error": ((effect - truth) ** 2).sum(),
        "size": (truth**2).sum(),
        "responders": roc_auc_score(responder, size),
    }


def cells_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over groups and ratios of sums for each seed, and the mean over seeds."""
    by = rows.groupby(["cells", "method", "seed"], sort=False)
    table = by[["correlation", "responders"]].mean()
    total = by[["error", "size", "distance", "scale"]].sum(min_count=1)
    table["error"] = np.sqrt(total["error"] / total["size"])
    table["energy"] = total["distance"] / total["scale"]
    return table[["energy", "correlation", "error", "responders"]]


def interaction_part(seed: int) -> Iterator[dict[str, object]]:
    """Share of right signs and size of predicted interactions, by where the combination was seen."""
    adata = simulated_perturbation(2000, seed=seed, config=SimulationConfig(interaction=1.0))
    combined, types = adata.obs["perturbation"] == "A+B", list(adata.obs["cell_type"].cat.categories)
    for everywhere in (False, True):
        hidden = combined & (everywhere | (adata.obs["cell_type"] == types[0]))
        model, cells = trained(adata[~hidden], seed), controls(adata)
        for kind in types:
            mine = cells[cells.obs["cell_type"] == kind].copy()
            truth, found = (
                both - a - b
                for a, b, both in (
                    [effect(mine, c).mean(axis=0) for c in ("A", "B", "A+B")]
                    for effect in (true_effect, lambda x, c, model=model: predicted_effect(model, x, c))
                )
            )
            clear = np.abs(truth) > INTERACTING
            yield {
                "combination": "never seen" if everywhere else f"seen in {'other types' if kind == types[0] else 'it'}",
                "seed": seed,
                "genes": int(clear.sum()),
                "right signs": (np.sign(found) == np.sign(truth))[clear].mean(),
                "correlation": np.corrcoef(found, truth)[0, 1],
                "size": np.linalg.norm(found[clear]) / np.linalg.norm(truth[clear]),
            }


def combination_part(seed: int) -> Iterator[dict[str, object]]:
    """Error of the mean effect of a combination, in cell types that saw it and in one that did not."""
    for interaction in (0.0, 1.0):
        adata = simulated_perturbation(2000, 300, seed=seed, config=SimulationConfig(interaction=interaction))
        types, cells = list(adata.obs["cell_type"].cat.categories), controls(adata)
        train = adata[~((adata.obs["perturbation"] == "A+B") & (adata.obs["cell_type"] == types[0]))].copy()
        unrelated = train.copy()
        unrelated.obs["perturbation"] = train.obs["perturbation"].astype(str).replace("A+B", "C")
        around, alone = (trained(each, seed, means_only=True) for each in (train, unrelated))
        effects = {name: around.get_effect(name) for name in ("A", "B", "A+B")} | {"C": alone.get_effect("C")}
        for kind in types:
            truth = true_effect(cells[cells.obs["cell_type"] == kind].copy(), "A+B").mean(axis=0)
            found = {
                name: table[table["context"] == kind].set_index("gene")["delta"][adata.var_names].to_numpy()
                for name, table in effects.items()
            }
            yield {
                "interaction": "planted" if interaction else "none",
                "combination": f"seen in {'other types' if kind == types[0] else 'it'}",
                "seed": seed,
                "around its parts": np.linalg.norm(found["A+B"] - truth) / np.linalg.norm(truth),
                "as unrelated": np.linalg.norm(found["C"] - truth) / np.linalg.norm(truth),
                "sum of its parts": np.linalg.norm(found["A"] + found["B"] - truth) / np.linalg.norm(truth),
            }


def counted_effect(model: CFMVC, cells: AnnData, condition: str, dose: float) -> np.ndarray:
    """Change of log1p CP10k of each cell's predicted counts."""
    moved = model.predict_counterfactual(cells.copy(), perturbation=condition, dose=dose, seed=0)
    return metrics.log_normalize(moved.X) - metrics.log_normalize(cells.X)


def dose_part(seed: int) -> Iterator[dict[str, object]]:
    """Monotone curves and errors over doses of one perturbation, one dose held out everywhere."""
    adata = simulated_perturbation(3000, perturbations=("A",), doses=DOSES, seed=seed)
    model = trained(adata[adata.obs["dose"] != HELD_OUT_DOSE], seed, dose_key="dose")
    cells = controls(adata)
    for kind in cells.obs["cell_type"].cat.categories:
        mine = cells[cells.obs["cell_type"] == kind].copy()
        truth = np.stack([true_effect(mine, "A", dose).mean(axis=0) for dose in DOSES])
        up = np.sign(truth[-1])
        clear = (np.abs(truth[-1]) > CLEAR_EFFECT) & (np.diff(truth, axis=0) * up >= 0).all(axis=0)
        for output, effect in (("counts", counted_effect), ("expected counts", predicted_effect)):
            found = np.stack([effect(model, mine, "A", dose=dose).mean(axis=0) for dose in DOSES])
            steps = np.diff(found, axis=0, prepend=0.0) * up >= -TOLERANCE
            error = np.linalg.norm(found - truth, axis=1) / np.linalg.norm(truth, axis=1)
            yield {
                "output": output,
                "seed": seed,
                "genes": int(clear.sum()),
                "monotone steps": steps[:, clear].mean(),
                "monotone curves": steps.all(axis=0)[clear].mean(),
                "error at held-out dose": error[DOSES.index(HELD_OUT_DOSE)],
                "error at the doses around it": (error[1] + error[3]) / 2,
            }


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="of simulation and training")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--out", type=Path, help="write the tidy rows to files of this folder")
    args = parser.parse_args()
    start = time.perf_counter()
    scvi.settings.verbosity = logging.ERROR
    pd.set_option("display.width", 200)
    for name in args.parts:
        part, keys = PARTS[name]
        rows = pd.DataFrame([row for seed in args.seeds for row in part(seed)])
        if args.out:
            args.out.mkdir(parents=True, exist_ok=True)
            rows.to_csv(args.out / f"{name}.csv", index=False)
        by_seed = cells_table(rows) if name == "cells" else rows.groupby([*keys, "seed"], sort=False).mean()
        by_seed = by_seed.unstack("seed")
        mean = by_seed.T.groupby(level=0, sort=False).mean().T
        print(f"\n{name}, mean over seeds\n{mean.round(3).to_string()}")
        print(f"\n{name}, each seed\n{by_seed.round(3).to_string()}", flush=True)
    print(f"\n{time.perf_counter() - start:.1f} s")


PARTS: dict[str, tuple[Callable[[int], Iterator[dict[str, object]]], list[str]]] = {
    "cells": (cells_part, ["cells", "method"]),
    "interaction": (interaction_part, ["combination"]),
    "combination": (combination_part, ["interaction", "combination"]),
    "dose": (dose_part, ["output"]),
}


if __name__ == "__main__":
    main()
