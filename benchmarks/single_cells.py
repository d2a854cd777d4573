"""Effect on individual cells against the planted truth of simulated data, mean effects removed.

python benchmarks/single_cells.py --seeds 2
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
import scvi
from anndata import AnnData

from cfmvc_scvi import CFMVC, datasets
from cfmvc_scvi.metrics import cell_effect_correlation


def true_effects(control: AnnData, perturbation: str) -> tuple[np.ndarray, np.ndarray]:
    """True log1p CP10k of control cells as they are, and its true change under the perturbation."""
    own, other = (datasets.true_counterfactual(control, perturbation=name) for name in ("control", perturbation))
    return np.log1p(own), np.log1p(other) - np.log1p(own)


def rows(seed: int, source: str) -> list[dict[str, float | str | int]]:
    """Correlations of one simulated data set."""
    scvi.settings.seed = seed
    adata = datasets.simulated_perturbation(perturbations=("A", "B"), combinations=False, seed=seed)
    CFMVC.setup_anndata(adata, batch_key="batch", labels_key="cell_type", perturbation_key="perturbation")
    model = CFMVC(adata, source=source)
    model.train(accelerator="cpu", enable_progress_bar=False)
    control = adata[adata.obs["perturbation"] == "control"].copy()
    groups = control.obs["cell_type"].astype(str).to_numpy()
    result = []
    for name in ("A", "B"):
        base, truth = true_effects(control, name)
        mean = np.stack([np.expm1(base + truth)[groups == group].mean(axis=0) for group in groups])
        mean -= np.stack([np.expm1(base)[groups == group].mean(axis=0) for group in groups])
        predictions = {"true mean shift of CP10k": np.log1p(np.maximum(np.expm1(base) + mean, 0)) - base}
        for label, share in (("CFMVC", 1.0), ("CFMVC, heterogeneity=0", 0.0)):
            before, after = (
                np.log1p(
                    model.predict_counterfactual(
                        control, perturbation=target, output="normalized", heterogeneity=share, seed=0
                    ).X
                )
                for target in ("control", name)
            )
            predictions[label] = after - before
        for label, effect in predictions.items():
            value = cell_effect_correlation(effect, truth, groups)
            result.append({"method": label, "perturbation": name, "seed": seed, "correlation": value})
    return result


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--source", choices=("control", "noise"), default="control")
    args = parser.parse_args()
    table = pd.DataFrame([row for seed in range(args.seeds) for row in rows(seed, args.source)])
    print(
        table.pivot_table(index="method", columns=["seed", "perturbation"], values="correlation").round(3).to_string()
    )


if __name__ == "__main__":
    main()
