from collections.abc import Callable
from pathlib import Path

import pytest

from cfmvc_scvi import CFMVC
from cfmvc_scvi.runtime import Bundle


@pytest.fixture(scope="session")
def exported(served: CFMVC, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of the model with all that can be registered, exported with all solvers."""
    from cfmvc_scvi.export import to_onnx

    path = tmp_path_factory.mktemp("exports") / "exported"
    to_onnx(served, path)
    return path


@pytest.fixture(scope="session")
def onnx_bundle(exported: Path) -> Bundle:
    """The same, on ONNX Runtime."""
    return Bundle.load(exported)


@pytest.fixture
def variant(fit: Callable[..., CFMVC], tmp_path: Path) -> Callable[..., tuple[CFMVC, Bundle]]:
    """Fit another model and export it with one solver."""

    def make(setup: dict, **options) -> tuple[CFMVC, Bundle]:
        from cfmvc_scvi.export import to_onnx

        model = fit(setup, **options)
        to_onnx(model, tmp_path / "variant", solvers=["midpoint"])
        return model, Bundle.load(tmp_path / "variant")

    return make
