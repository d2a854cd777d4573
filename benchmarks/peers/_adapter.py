"""What all adapters share: the command line, labelled cells, sampling counts, the prediction file.

It runs in every peer's environment: numpy, scipy, pandas and anndata of any age, and nothing of this project.
"""

from __future__ import annotations

__all__ = ["Task", "log_normalize", "run", "sample_counts"]

import argparse
import os
import resource
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

LABELS = ("perturbation", "cell_type", "batch")


@dataclass(frozen=True)
class Task:
    """One fold as a peer sees it.

    Parameters
    ----------
    train
        Training cells: UMI counts (CSR, float32) in X; obs has `perturbation`, `cell_type` and `batch` as categories.
    query
        Control cells to perturb, which are also training cells, in the same format and with the same genes.
    condition, context
        What is to be predicted.
    covariates
        Columns of obs for peers that take several covariates: the cell type, and the context where it is another one.
    control
        Name of unperturbed cells.
    seed
        Of the peer's training and of sampling.
    budget
        Length of the training, in the unit of the adapter; None for what it recommends.
    """

    train: ad.AnnData
    query: ad.AnnData
    condition: str
    context: str
    covariates: list[str]
    control: str
    seed: int
    budget: int | None = None

    def rng(self) -> np.random.Generator:
        """A generator for what the adapter itself draws."""
        return np.random.default_rng(self.seed)

    def is_control(self) -> np.ndarray:
        """Which training cells are unperturbed, (cells,)."""
        return (self.train.obs["perturbation"] == self.control).to_numpy()


def log_normalize(counts: sp.csr_matrix) -> sp.csr_matrix:
    """log1p of counts per 10,000, (cells, genes)."""
    total = np.asarray(counts.sum(axis=1)).ravel()
    scaled = sp.diags(1e4 / np.maximum(total, 1.0)) @ counts
    return sp.csr_matrix(scaled).log1p().astype(np.float32)


def sample_counts(
    mean: np.ndarray, theta: np.ndarray, rng: np.random.Generator, zero_probability: np.ndarray | None = None
) -> sp.csr_matrix:
    """Counts of a (zero-inflated) negative binomial, as a gamma-Poisson mixture.

    Parameters
    ----------
    mean
        Of the negative binomial, (cells, genes).
    theta
        Inverse dispersion, anything that broadcasts to `mean`; the variance is mean + mean^2 / theta.
    rng
        Draws the counts.
    zero_probability
        Share of further zeros, (cells, genes).
    """
    theta = np.broadcast_to(np.asarray(theta, dtype=np.float64), mean.shape)
    counts = rng.poisson(rng.gamma(theta, np.asarray(mean, dtype=np.float64) / theta))
    if zero_probability is not None:
        counts[rng.random(mean.shape) < zero_probability] = 0
    return sp.csr_matrix(counts.astype(np.float32))


def _labelled(path: str, context_key: str) -> ad.AnnData:
    raw = ad.read_h5ad(path)
    entries = raw.X.data if sp.issparse(raw.X) else np.asarray(raw.X)
    if np.any(entries != np.rint(entries)) or np.any(entries < 0):
        raise ValueError(f"{path}: X does not hold raw counts.")
    obs = raw.obs[list(dict.fromkeys([*LABELS, context_key]))].astype(str).astype("category")
    counts = sp.csr_matrix(raw.X, dtype=np.float32)
    return ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=raw.var_names.astype(str)))


def read_task(args: argparse.Namespace) -> Task:
    """Read both files; what is asked for must be one condition in one context."""
    train, query = _labelled(args.train, args.context), _labelled(args.query, args.context)
    if list(train.var_names) != list(query.var_names):
        raise ValueError("Training and query cells do not have the same genes.")
    targets = sorted(set(ad.read_h5ad(args.query).obs["target_perturbation"].astype(str)))
    contexts = sorted(set(query.obs[args.context]))
    if len(targets) != 1 or len(contexts) != 1:
        raise ValueError(f"The query asks for {targets} in {contexts}; a file has one condition in one context.")
    covariates = list(dict.fromkeys(["cell_type", args.context]))
    return Task(
        train, query, targets[0], contexts[0], covariates, args.control, args.seed, getattr(args, "budget", None)
    )


def cpu_seconds() -> float:
    """CPU time of this process and of the ones that it waited for, from the start of Python on."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return float(sum(usage.ru_utime + usage.ru_stime for usage in usages))


def write_prediction(path: str, values: object, scale: str, task: Task, method: str) -> None:
    """Write cells as the store of a benchmark wants them, to a temporary sibling that is then renamed."""
    if values.shape != task.query.shape:
        raise ValueError(f"{values.shape} values were predicted; the query is {task.query.shape}.")
    values = sp.csr_matrix(values, dtype=np.float32)
    if not np.isfinite(values.data).all():
        raise ValueError(f"{method} predicted {np.count_nonzero(~np.isfinite(values.data))} non-finite values.")
    names = {"method": method, "condition": task.condition, "context": task.context, "seed": task.seed}
    obs = pd.DataFrame(index=np.array(task.query.obs_names, dtype=object))
    result = ad.AnnData(values, obs=obs, var=pd.DataFrame(index=np.array(task.query.var_names, dtype=object)))
    result.uns["cfmvc_benchmark"] = {**names, "scale": scale, "cpu_seconds": cpu_seconds()}
    part = f"{path}.part"
    result.write_h5ad(part)
    os.replace(part, path)


def run(method: str, predict: Callable[[Task], tuple[object, str]], budget: str | None = None) -> None:
    """Command line of an adapter: read a fold, let `predict` train and predict, write the file.

    Parameters
    ----------
    method
        Name in tables.
    predict
        From a task to predicted cells (query cells, genes) and their scale: 'counts' or 'log1p_cp10k'.
    budget
        What the length of its training is counted in, if it may be chosen.
    """
    parser = argparse.ArgumentParser(description=f"Train {method} on TRAIN and predict the cells of QUERY.")
    parser.add_argument("train", help="h5ad with raw counts; obs: perturbation, cell_type, batch")
    parser.add_argument("query", help="h5ad with the control cells to perturb; obs also: target_perturbation")
    parser.add_argument("out", help="h5ad to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--context", default="cell_type", help="column of obs whose groups are held out")
    parser.add_argument("--control", default="control", help="name of unperturbed cells")
    if budget is not None:
        parser.add_argument("--budget", type=int, help=f"{budget} of the training")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # of packages much older than those they run on
    task = read_task(args)
    values, scale = predict(task)
    write_prediction(args.out, values, scale, task, method)
