"""Training and predicting from a file gives what training and predicting in memory gives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest

from cfmvc_scvi import CFMVC
from cfmvc_scvi.data import CountRows


@pytest.mark.usefixtures("seeded")
def test_a_backed_file_trains_the_same_model(
    tiny_adata: ad.AnnData,
    make_model: Callable[..., CFMVC],
    quick: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny_adata.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    monkeypatch.setattr("cfmvc_scvi.shift.pseudobulk._BLOCK", 50 * tiny_adata.n_vars)
    sizes: list[int] = []
    read = CountRows.__getitem__

    def noted(self: CountRows, rows: Any) -> Any:
        found = read(self, rows)
        sizes.append(found.shape[0])
        return found

    monkeypatch.setattr(CountRows, "__getitem__", noted)
    model = make_model(backed)
    model.train(**quick)
    assert max(sizes[:-1]) <= 50 and len(sizes) == 9  # eight blocks, then the panel
    assert backed.isbacked
    answer = model.predict_counterfactual(perturbation="A", seed=0, indices=range(30))
    other = make_model(tiny_adata)
    other.train(**quick)
    for field in ("log_mean", "log_noise", "rate", "rate_noise", "depth_quantiles"):
        np.testing.assert_allclose(getattr(model._reference.bulk, field), getattr(other._reference.bulk, field))
    assert (model._reference.panel.counts != other._reference.panel.counts).nnz == 0
    assert list(answer.obs_names) == list(tiny_adata.obs_names[:30])
    assert answer.X.shape == (30, 60)
