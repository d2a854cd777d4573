"""CPU seconds until a model predicts held-out cells as well as another does, in energy distance.

python benchmarks/time_to_energy.py DATA/kang_small.h5ad --environments ENVS --out runs/time_to_energy \
    --table docs/tables/time_to_energy.md

Each model is trained for a ladder of lengths, from the beginning each time, and predicts; each is a process that reads
a file, imports, trains, predicts and writes, and all of that is counted. ENVS are the environments of
`benchmarks/peers/run.py --setup`. What was run already is not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import anndata as ad
import pandas as pd
from accuracy import markdown

from cfmvc_scvi import benchmark as bm
from cfmvc_scvi import tl

sys.path.insert(0, str(Path(__file__).parent / "peers"))
import run as peers

LADDERS = {  # the last is what a model recommends
    "CFMVC": (peers.OURS, (1, 2, 4, 8)),
    "CellFlow": (peers.PEERS["cellflow"], (125, 250, 500, 1000, 2000, 4000)),
    "scGen": (peers.PEERS["scgen"], (3, 6, 12, 25, 50, 100)),
}
BASELINES = "best simple baseline"


def predict(args: argparse.Namespace) -> list[Path]:
    """Run every step of every ladder in turn; return the directories of the predictions."""
    adata = ad.read_h5ad(args.data)
    folds = [fold for fold in bm.make_folds(adata, args.holdout) if fold.context in args.contexts]
    store = bm.PredictionStore(args.store)
    places = bm.export_folds(adata, folds, args.store)
    found = {}
    for fold, place in zip(folds, places, strict=True):
        for method, (peer, budgets) in LADDERS.items():
            for budget in budgets:
                out = store.path(f"{method} {budget}", fold, args.seed)
                found[out.parent] = None
                if not out.exists():
                    reason = peers.predict_fold(args, peer, place, out, args.seed, budget)
                    if reason:
                        raise SystemExit(f"{out.parent.name}, {fold.context}: {reason}")
                    print(out.parent.name, fold.context, flush=True)
    return list(found)


def measured(scores: pd.DataFrame) -> pd.DataFrame:
    """Normalised energy distance over all groups and mean CPU seconds of a group, by method."""
    return bm.summarise(scores)[["energy", "cpu_seconds"]]


def ladders(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows of each model, from the shortest training to the longest, indexed by its length."""
    found = {}
    for method, (_, budgets) in LADDERS.items():
        rows = table.loc[[f"{method}_{budget}" for budget in budgets]]
        found[method] = rows.set_axis(list(budgets))
    return found


def goals(table: pd.DataFrame, steps: Mapping[str, pd.DataFrame]) -> dict[str, float]:
    """What there is to reach: the best energy of the simple baselines and of each model, CFMVC's too."""
    trained = {f"{method}_{budget}" for method, rows in steps.items() for budget in rows.index}
    simple = table.loc[[name for name in table.index if name not in trained and name != bm.CEILING], "energy"]
    return {BASELINES: float(simple.min())} | {method: float(rows["energy"].min()) for method, rows in steps.items()}


def seconds_to(goal: float, rows: pd.DataFrame) -> float | None:
    """CPU seconds of the cheapest training that reaches an energy, None if none does."""
    enough = rows.loc[rows["energy"] <= goal, "cpu_seconds"]
    return None if enough.empty else float(enough.min())


def results(table: pd.DataFrame) -> dict[str, object]:
    """Everything measured, as JSON takes it."""
    steps = ladders(table)
    aims = goals(table, steps)
    reached = {name: {method: seconds_to(goal, rows) for method, rows in steps.items()} for name, goal in aims.items()}
    ladder = {method: rows.reset_index(names="budget").to_dict("records") for method, rows in steps.items()}
    return {"ladders": ladder, "goals": aims, "cpu_seconds_to": reached}


def text(found: Mapping[str, Mapping[str, object]]) -> str:
    """The table in Markdown."""
    rows = [
        (f"{method}, {step['budget']}", f"{step['energy']:.3f}", f"{step['cpu_seconds']:.0f}")
        for method, ladder in found["ladders"].items()
        for step in ladder
    ]
    steps = pd.DataFrame(rows, columns=["", "energy", "CPU s"]).set_index("")
    reached = pd.DataFrame(
        {
            f"{name} ({found['goals'][name]:.3f})": {
                method: "not reached" if seconds is None else f"{seconds:.0f}" for method, seconds in by_method.items()
            }
            for name, by_method in found["cpu_seconds_to"].items()
        }
    )
    return "\n".join(
        [
            "Energy distance of held-out cells, and CPU seconds of training and predicting, by length of training:",
            "",
            markdown(steps),
            "",
            "CPU seconds until a model is as good as the best of another (its energy in brackets):",
            "",
            markdown(reached),
            "",
        ]
    )


def main() -> None:
    """Run, score and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="h5ad, counts in X; obs: perturbation, cell_type, batch")
    parser.add_argument("--environments", type=Path, required=True, help="environments of the peers")
    parser.add_argument("--holdout", default="cell_type", help="column of obs whose groups are left out")
    parser.add_argument("--contexts", nargs="+", default=["B cells", "CD14+ Monocytes"], help="groups left out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=3600, help="seconds that one run may take")
    parser.add_argument("--out", type=Path, required=True, help="directory of the run")
    parser.add_argument("--table", type=Path, help="Markdown file, such as docs/tables/time_to_energy.md")
    args = parser.parse_args()
    args.environments, args.store = args.environments.absolute(), args.out.absolute() / "runs"
    directories = predict(args)
    scores = tl.benchmark(
        ad.read_h5ad(args.data),
        args.holdout,
        models=directories,
        seeds=[args.seed],
        only=args.contexts,
        out=args.out / "scored",
    )
    found = results(measured(scores))
    (args.out / "time_to_energy.json").write_text(json.dumps(found, indent=1) + "\n")
    if args.table is not None:
        args.table.write_text(text(found), encoding="utf-8")
    print(text(found))


if __name__ == "__main__":
    main()
