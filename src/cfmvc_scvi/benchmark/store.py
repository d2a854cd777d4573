"""The directory of a benchmark run: predictions as h5ad files, what was asked, and the scores."""

from __future__ import annotations

__all__ = ["PredictionStore", "data_fingerprint", "read_prediction", "write_prediction"]

import json
import os
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from cfmvc_scvi.benchmark.cells import Prediction, Scale
from cfmvc_scvi.benchmark.fold import Fold, slug
from cfmvc_scvi.data import assert_self_contained, match_genes
from cfmvc_scvi.errors import DataError

KEY = "cfmvc_benchmark"  # of uns
_GROWING = ("methods", "seeds", "folds")  # parts of a run to which a later call may add


class PredictionStore:
    """Predictions, request and scores of a benchmark run in one directory.

    ``predictions/<method>/<fold id>-seed<k>.h5ad``, ``run.json`` and ``scores.csv``. Files are written beside their
    place and renamed, so that a killed run leaves none half-written.

    Parameters
    ----------
    directory
        Made when something is first written.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)

    def path(self, method: str, fold: Fold, seed: int) -> Path:
        """Where the prediction of a method in a fold stands."""
        return self.directory / "predictions" / slug(method) / f"{fold.id}-seed{seed}.h5ad"

    def write(self, method: str, fold: Fold, seed: int, prediction: Prediction, genes: Iterable[str]) -> None:
        """Write a prediction; `genes` are the names of its columns."""
        about = {"method": method, "condition": fold.condition, "context": fold.context, "seed": seed}
        write_prediction(self.path(method, fold, seed), prediction, genes, about)

    def read(self, method: str, fold: Fold, seed: int, genes: Iterable[str]) -> Prediction | None:
        """Read a prediction, its genes in the order of `genes`; None if there is no file."""
        path = self.path(method, fold, seed)
        return read_prediction(path, genes, fold) if path.exists() else None

    def open_run(self, run: Mapping[str, Any], *, resume: bool) -> None:
        """Write what is asked to ``run.json``, or add it to what is there.

        Parameters
        ----------
        run
            What can be written as JSON. ``methods`` (name to settings), ``seeds`` and ``folds`` may grow from one call
            to the next; all else, and the settings of a method, must be as they were.
        resume
            Whether a run that is there may be gone on with.

        Raises
        ------
        DataError
            If there is a run of other data, folds or settings, or any run without `resume`.
        """
        path = self.directory / "run.json"
        merged = json.loads(json.dumps(run))
        if path.exists():
            if not resume:
                raise DataError(f"'{self.directory}' has a run already; pass resume=True, or another directory.")
            merged = _merged(json.loads(path.read_text()), merged, self.directory)
        self._refuse_equal_slugs(merged["methods"])
        _replace(path, lambda target: target.write_text(json.dumps(merged, indent=1) + "\n"))

    def read_run(self) -> dict[str, Any]:
        """What was asked; DataError if nothing was."""
        path = self.directory / "run.json"
        if not path.exists():
            raise DataError(f"'{self.directory}' has no run.json: it is not the directory of a benchmark run.")
        return json.loads(path.read_text())

    def write_scores(self, scores: pd.DataFrame) -> None:
        """Write the tidy table of scores."""
        _replace(self.directory / "scores.csv", lambda target: scores.to_csv(target, index=False))

    def read_scores(self) -> pd.DataFrame:
        """Read the tidy table of scores; DataError if the run has not been scored."""
        path = self.directory / "scores.csv"
        if not path.exists():
            raise DataError(f"'{self.directory}' has no scores.csv: the run is not finished; call tl.benchmark again.")
        text = dict.fromkeys(("method", "condition", "context", "metric"), str)
        return pd.read_csv(
            path, dtype=text, keep_default_na=False, na_values={"value": [""]}, float_precision="round_trip"
        )

    def _refuse_equal_slugs(self, methods: Iterable[str]) -> None:
        names: dict[str, str] = {}
        for method in methods:
            first = names.setdefault(slug(method).lower(), method)
            if first != method:
                raise DataError(f"'{first}' and '{method}' would share the directory '{slug(method)}'; rename one.")


def write_prediction(path: Path, prediction: Prediction, genes: Iterable[str], about: Mapping[str, Any]) -> None:
    """Write predicted cells to `path`, atomically, with `about` in ``uns["cfmvc_benchmark"]``.

    Parameters
    ----------
    path
        File (.h5ad); its directory is made.
    prediction
        Predicted cells.
    genes
        Names of its columns.
    about
        ``method``, ``condition``, ``context`` and ``seed``.
    """
    dense = prediction.scale == "log1p_cp10k" and not sp.issparse(prediction.values)
    values = np.asarray(prediction.values) if dense else sp.csr_matrix(prediction.values)
    cells = ad.AnnData(values.astype(np.float32), var=pd.DataFrame(index=pd.Index(list(genes), dtype=str)))
    cells.obs_names = [f"predicted{i}" for i in range(cells.n_obs)]
    cells.uns[KEY] = {**about, "scale": prediction.scale, "cpu_seconds": float(prediction.cpu_seconds or 0.0)}
    _replace(path, lambda target: cells.write_h5ad(target, compression="gzip"))


def read_prediction(path: Path, genes: Iterable[str], fold: Fold | None = None) -> Prediction:
    """Read predicted cells, matched by name to `genes`.

    Raises
    ------
    UnsafeFileError
        If the file refers to other files.
    DataError
        If it is no prediction, of another condition or context than the fold's, or lacks genes.
    """
    assert_self_contained(path)
    cells = ad.read_h5ad(path)
    about = cells.uns.get(KEY)
    if about is None or "scale" not in about:
        raise DataError(f"'{path}' has no uns['{KEY}'] with 'scale' ('counts' or 'log1p_cp10k').")
    if fold is not None:
        _check_group(path, about, fold)
    values = match_genes(cells, np.asarray(list(genes), dtype=str)).X
    return Prediction(values, cast(Scale, str(about["scale"])), float(about.get("cpu_seconds", 0.0)))


def _check_group(path: Path, about: Mapping[str, Any], fold: Fold) -> None:
    accepted = {"condition": (fold.condition, fold.perturbation), "context": (fold.context,)}
    for name, wanted in accepted.items():
        if name in about and str(about[name]) not in wanted:
            raise DataError(f"'{path}' predicts {name} '{about[name]}', the fold '{fold.id}' holds out '{wanted[0]}'.")


def data_fingerprint(adata: ad.AnnData, columns: Iterable[str]) -> str:
    """Hash of counts, names and some columns of obs: the same data give the same text."""
    digest = blake2b(digest_size=16)
    counts = sp.csr_matrix(adata.X)
    counts.sort_indices()
    for part in (counts.data.astype(np.float64), counts.indices.astype(np.int64), counts.indptr.astype(np.int64)):
        digest.update(part.tobytes())
    names = [adata.obs_names, adata.var_names, *(adata.obs[column].astype(str) for column in sorted(columns))]
    for values in names:
        digest.update("\0".join(map(str, values)).encode() + b"\1")
    return digest.hexdigest()


def _merged(before: dict[str, Any], now: dict[str, Any], directory: Path) -> dict[str, Any]:
    fixed = [name for name in sorted(before.keys() | now.keys()) if name not in _GROWING]
    changed = [name for name in fixed if before.get(name) != now.get(name)]
    folds = {fold["id"]: fold for fold in before["folds"]}
    changed += ["folds"] * any(folds.get(fold["id"], fold) != fold for fold in now["folds"])
    changed += [
        f"settings of '{name}'"
        for name, settings in now["methods"].items()
        if name in before["methods"] and before["methods"][name] != settings
    ]
    if changed:
        raise DataError(
            f"'{directory}' has a run of other data or settings; different: {', '.join(changed)}. Choose another "
            "directory, or remove this one."
        )
    folds |= {fold["id"]: fold for fold in now["folds"]}
    return {
        **now,
        "methods": before["methods"] | now["methods"],
        "seeds": sorted({*before["seeds"], *now["seeds"]}),
        "folds": [folds[name] for name in sorted(folds)],
    }


def _replace(path: Path, write: Any) -> None:
    """Let `write` make a file beside `path`, then move it there in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
