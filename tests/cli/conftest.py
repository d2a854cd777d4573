from collections.abc import Callable
from pathlib import Path

import anndata as ad
import pytest
from click.testing import Result
from typer.testing import CliRunner

from cfmvc_scvi.cli import app

Run = Callable[..., Result]


@pytest.fixture(scope="session")
def run() -> Run:
    """Call the command line with the given words."""
    runner = CliRunner()
    return lambda *words: runner.invoke(app, [str(word) for word in words])


@pytest.fixture(scope="session")
def data(_counts_adata: ad.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Counts of conftest in a file."""
    path = tmp_path_factory.mktemp("data") / "cells.h5ad"
    _counts_adata.write_h5ad(path)
    return path


@pytest.fixture(scope="session")
def model(run: Run, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a model trained for two epochs, by the command line."""
    path = tmp_path_factory.mktemp("models") / "model"
    epochs = ("--epochs-representation", 2, "--epochs-flow", 1)
    result = run("train", data, "--labels-key", "cell_type", "--batch-key", "batch", "--out", path, *epochs)
    assert result.exit_code == 0, result.output
    return path
