"""Questions beyond one perturbation of one cell type, on real data: reverse, tissue, combinations, strength.

python benchmarks/breadth.py DATA [--questions rank niche combinations strength] [--out DIR] [--tables DIR]

DATA is a directory with papalexi.h5ad, spatial_merfish.h5ad, spatial_osmfish.h5ad, gasperini_small.h5ad and
kang_small.h5ad; a question whose file is missing is left out, which is said.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from accuracy import markdown
from scipy.stats import spearmanr

from cfmvc_scvi import CFMVC, tl
from cfmvc_scvi.metrics import log_normalize, normalised_energy

QUIET = {"accelerator": "cpu", "enable_progress_bar": False}
Table = tuple[str, pd.DataFrame, dict[str, Any]]


def trained(cells: ad.AnnData, setup: dict[str, Any], seed: int, held_out: float = 0.0, **options: Any) -> CFMVC:
    """Return a model of these cells but for a share held out, with default settings but for those named."""
    from scvi import settings

    settings.seed = seed
    CFMVC.setup_anndata(cells, perturbation_key="perturbation", control_category="control", **setup)
    model = CFMVC(cells, **options)
    model.train(**QUIET, **({"train_size": 1 - held_out, "check_val_every_n_epoch": 1} if held_out else {}))
    return model


def rank(data: Path, seeds: int) -> Table:
    """Ask which knock-out made these cells, whose replicate training saw no knock-out of."""
    everything = ad.read_h5ad(data / "papalexi.h5ad")
    hidden = (everything.obs["batch"] == "rep_2") & (everything.obs["perturbation"] != "control")
    rows = []
    for seed in range(seeds):
        model = trained(everything[~hidden].copy(), {"labels_key": "batch"}, seed)
        control = everything[(everything.obs["batch"] == "rep_2") & ~hidden].copy()
        for name, number in everything.obs.loc[hidden, "perturbation"].value_counts().items():
            if number < 50:
                continue
            target = everything[hidden & (everything.obs["perturbation"] == name)].copy()
            table = tl.rank_perturbations(control, model, target, n_cells=250, n_resamples=50, seed=seed)
            order = table.loc[table["perturbation"] != "no change", "perturbation"].tolist()
            unchanged = table.set_index("perturbation").loc["no change"]
            told = bool(unchanged["low"] > table["energy"].min())
            closed = table.set_index("perturbation").loc[name, "closed"]
            rows.append((seed, name, int(number), order.index(name) + 1, len(order), unchanged["energy"], told, closed))
    columns = [
        "seed",
        "knock-out",
        "cells",
        "place",
        "candidates",
        "distance of control",
        "told from control",
        "closed",
    ]
    found = pd.DataFrame(rows, columns=columns)
    far = found["distance of control"] > strong(found)
    table = pd.DataFrame({"all": summary(found), "strong": summary(found[far])})
    text = (
        "Which of the knock-outs moves control cells of replicate 2 closest to these cells of replicate 2, of which "
        "training saw controls only? *Strong*: the third of knock-outs furthest from control."
    )
    return text, table.T, {"places": found.to_dict("records")}


def strong(found: pd.DataFrame) -> float:
    """Return the distance beyond which a third of the knock-outs are."""
    return float(found["distance of control"].quantile(2 / 3))


def summary(found: pd.DataFrame) -> pd.Series:
    """Return how often the true knock-out comes first, and where it stands on average."""
    n = found["candidates"].mean()
    return pd.Series(
        {
            "knock-outs": found["knock-out"].nunique(),
            "first": (found["place"] == 1).mean(),
            "in the first three": (found["place"] <= 3).mean(),
            "in the first three by chance": 3 / n,
            "mean place": found["place"].mean(),
            "mean place by chance": (n + 1) / 2,
            "closed": found["closed"].median(),
        }
    )


def niche(data: Path, seeds: int) -> Table:
    """Compare the held-out loss of the flow with coordinates, without, and with coordinates that were shuffled.

    The slices hold no perturbation. So half of the cells, drawn at random, are called perturbed, and the flow from
    noise learns the cells of a type as they are: what the neighbours tell of a cell lowers its loss.
    """
    rows = []
    for file in ("spatial_merfish", "spatial_osmfish"):
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            cells = ad.read_h5ad(data / f"{file}.h5ad")
            cells.obs["perturbation"] = rng.choice(["control", "placebo"], cells.n_obs)
            known = cells.obs.groupby("cell_type", observed=True)["batch"].transform("size") >= 30
            cells = cells[known.to_numpy()].copy()
            place = cells.obsm["spatial"][:, :2].copy()
            losses, latents = {}, []
            for name, spatial in (("with", place), ("without", None), ("shuffled", rng.permutation(place))):
                asked = cells.copy()
                if spatial is not None:
                    asked.obsm["spatial"] = spatial
                setup = {"labels_key": "cell_type", **({} if spatial is None else {"spatial_key": "spatial"})}
                model = trained(asked, setup, seed, held_out=0.2, source="noise")
                losses[name] = float(model.history["flow_loss_validation"].dropna().to_numpy().ravel()[-1])
                latents.append(model.get_latent_representation())
            same = all(np.array_equal(latents[0], other) for other in latents[1:])
            rows.append({"slice": file, "seed": seed, **losses, "latents are the same": same})
    found = pd.DataFrame(rows)
    table = found.groupby("slice")[["with", "without", "shuffled"]].mean()
    wins = found.assign(lower=(found["with"] < found[["without", "shuffled"]].min(axis=1)))
    table["with is lowest"] = wins.groupby("slice")["lower"].mean()
    return (
        "Loss of the flow on cells held out of its training (of one seed the same cells and latents), with the "
        "coordinates of the slice, without, and with coordinates shuffled among the cells. The slices hold no "
        "perturbation: half of the cells, drawn at random, are called perturbed.",
        table,
        {"losses": rows},
    )


def combinations(data: Path, seeds: int) -> Table:
    """Predict the knock-down of targeted genes, alone in a hidden batch and in combinations never seen."""
    everything = ad.read_h5ad(data / "gasperini_small.h5ad")
    label = everything.obs["perturbation"].astype(str)
    combined, second = label.str.contains("+", regex=False), everything.obs["batch"] == "b2"
    train = everything[~combined & ~(second & (label != "control"))].copy()
    rows = []
    for seed in range(seeds):
        model = trained(train.copy(), {"labels_key": "batch"}, seed)
        control = everything[second & (label == "control")][:1500].copy()
        for kind, chosen in (("single", ~combined & second & (label != "control")), ("combination", combined & second)):
            for name in sorted(set(label[chosen])):
                targets = [part.split("_")[0] for part in name.split("+")]
                if not set(name.split("+")) <= set(model.vocabulary.perturbations) or not set(targets) <= set(
                    everything.var_names
                ):
                    continue
                real = everything[chosen & (label == name)]
                predicted = model.predict_counterfactual(control, perturbation=name, output="rate", seed=seed)
                rows += [
                    {"seed": seed, "kind": kind, "perturbation": name, "gene": gene, "cells": real.n_obs}
                    | {"real": share(real, gene), "predicted": share(predicted, gene), "control": share(control, gene)}
                    for gene in targets
                ]
    found = pd.DataFrame(rows)
    table = pd.DataFrame({kind: knock_down(part) for kind, part in found.groupby("kind")}).T
    text = (
        "Share of the counts left of the targeted genes (CRISPRi), in batch 2 whose perturbed cells training did not "
        "see; it saw no combination either. Pooled over perturbations, since a combination has a handful of cells."
    )
    return text, table, {"targets": rows}


def share(cells: ad.AnnData, gene: str) -> float:
    """Return the share of a gene in the counts of all cells."""
    return float(cells[:, gene].X.sum() / cells.X.sum())


def knock_down(found: pd.DataFrame) -> pd.Series:
    """Return how much is left of the targeted genes, real and predicted, and whether targets are told apart."""
    weight = found["cells"]
    left = {name: float(np.average(found[name], weights=weight)) for name in ("real", "predicted", "control")}
    per_gene = found.groupby("gene")[["real", "predicted", "control"]].mean()
    ratios = per_gene[["real", "predicted"]].div(per_gene["control"], axis=0)
    return pd.Series(
        {
            "perturbations": found["perturbation"].nunique(),
            "cells": found.drop_duplicates(["seed", "perturbation"])["cells"].sum() / found["seed"].nunique(),
            "left, real": left["real"] / left["control"],
            "left, predicted": left["predicted"] / left["control"],
            "rank correlation over genes": float(spearmanr(ratios["real"], ratios["predicted"]).statistic),
        }
    )


def strength(data: Path, seeds: int) -> Table:
    """Go from the control cells of a hidden cell type part of the way, all of it and beyond."""
    everything = ad.read_h5ad(data / "kang_small.h5ad")
    treated = everything.obs["perturbation"] != "control"
    name = str(everything.obs.loc[treated, "perturbation"].iloc[0])
    rows = []
    for seed in range(seeds):
        for kind in sorted(set(everything.obs["cell_type"])):
            own = everything.obs["cell_type"] == kind
            setup = {"labels_key": "cell_type", "batch_key": "batch"}
            model = trained(everything[~(own & treated)].copy(), setup, seed)
            control, real = everything[own & ~treated].copy(), everything[own & treated]
            for part in (0.0, 0.25, 0.5, 0.75, 1.0, 1.25):
                moved = model.predict_counterfactual(control, perturbation=name, strength=part, seed=seed)
                logs = [log_normalize(each.X) for each in (moved, real, control)]
                energy = normalised_energy(*logs, np.random.default_rng(seed)).value
                rows.append({"seed": seed, "cell type": kind, "strength": part, "energy": energy})
    found = pd.DataFrame(rows)
    table = found.pivot_table(index="cell type", columns="strength", values="energy")
    return (
        "Energy distance to the treated cells of a cell type that training did not see treated (0: their like, 1: the "
        "control cells), by `strength`.",
        table,
        {"energies": rows},
    )


QUESTIONS: dict[str, tuple[Callable[[Path, int], Table], tuple[str, ...]]] = {
    "rank": (rank, ("papalexi",)),
    "niche": (niche, ("spatial_merfish", "spatial_osmfish")),
    "combinations": (combinations, ("gasperini_small",)),
    "strength": (strength, ("kang_small",)),
}


def main() -> None:
    """Ask, print and if asked for write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--questions", nargs="+", choices=QUESTIONS, default=list(QUESTIONS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="directory for breadth_<question>.json")
    parser.add_argument("--tables", type=Path, help="directory for breadth_<question>.md")
    args = parser.parse_args()
    for name in args.questions:
        ask, files = QUESTIONS[name]
        missing = [file for file in files if not (args.data / f"{file}.h5ad").is_file()]
        if missing:
            print(f"{name}: left out, there is no {', '.join(missing)}")
            continue
        start = time.process_time()
        said, table, found = ask(args.data, args.seeds)
        text = f"{said} Seeds: {args.seeds}.\n\n{markdown(table)}\n"
        print(f"## {name} ({time.process_time() - start:.0f} CPU s)\n\n{text}")
        if args.out is not None:
            args.out.mkdir(parents=True, exist_ok=True)
            told = {"question": name, "seeds": args.seeds, "table": table.reset_index().to_dict("records"), **found}
            (args.out / f"breadth_{name}.json").write_text(json.dumps(told, indent=1, default=float) + "\n")
        if args.tables is not None:
            (args.tables / f"breadth_{name}.md").write_text(text)


if __name__ == "__main__":
    main()
