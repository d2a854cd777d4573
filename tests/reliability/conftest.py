"""Small models for long tests, and what was tried, printed at the end of the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import anndata as ad
import pytest
import scvi

from cfmvc_scvi import CFMVC

_TRIED: dict[str, Counter[str]] = {}


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the counts of cases."""
    if _TRIED:
        terminalreporter.section("what was tried")
        for name, counts in _TRIED.items():
            terminalreporter.write_line(f"{name}: {', '.join(f'{n:,} {what}' for what, n in counts.items())}")


@pytest.fixture(scope="session")
def tried() -> Callable[..., None]:
    """Count cases under a heading: ``tried("bit flips", caught=1)``."""

    def count(heading: str, **cases: int) -> None:
        _TRIED.setdefault(heading, Counter()).update({name.replace("_", " "): n for name, n in cases.items()})

    return count


@pytest.fixture(scope="session")
def make_model() -> Callable[..., CFMVC]:
    """Set data up and return a small untrained model."""

    def make(adata: ad.AnnData, **options: Any) -> CFMVC:
        CFMVC.setup_anndata(adata, batch_key="batch", labels_key="cell_type", perturbation_key="perturbation")
        small = {"n_intrinsic": 4, "n_technical": 2, "n_hidden": 16, "flow_kwargs": {"n_hidden": 16}}
        return CFMVC(adata, **(small | options))

    return make


@pytest.fixture(scope="session")
def quick() -> dict[str, Any]:
    """Options of a short training."""
    return {
        "max_epochs": 2,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "pair_kwargs": {"batch_size": 32, "steps_per_epoch": 3},
    }


@pytest.fixture
def seeded():
    """Run with `scvi.settings.seed` 0, and unset it afterwards."""
    scvi.settings.seed = 0
    yield
    scvi.settings.seed = None
