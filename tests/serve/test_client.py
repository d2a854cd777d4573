"""The client takes and returns AnnData, and says in words what went wrong (needs the extras onnx, serve and client)."""

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from cfmvc_scvi.client import Client, ServiceError
from cfmvc_scvi.config import SolverConfig
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.runtime import Bundle

pytestmark = pytest.mark.serving
TOKEN = "a-token-for-the-tests"
ASKED: dict[str, Any] = {"perturbation": "A", "dose": 2.0, "seed": 5}


def test_the_client_takes_and_returns_anndata(live: Any, bundle: Bundle, few: ad.AnnData) -> None:
    with Client(live.url, token=TOKEN, cells_at_a_time=5) as client:
        shuffled = few[:, ::-1].copy()
        for output in ("counts", "normalized", "latent"):
            answer = client.counterfactual(shuffled, **ASKED, output=output)
            expected = bundle.counterfactual(few, **ASKED, output=output)
            if expected.X is None:
                assert answer.X is None
            else:
                dense = answer.X.toarray() if sparse.issparse(answer.X) else answer.X
                np.testing.assert_allclose(dense, expected.dense, rtol=1e-5)
            after = expected.obsm["X_cfmvc_counterfactual"]
            np.testing.assert_allclose(answer.obsm["X_cfmvc_counterfactual"], after, atol=1e-5)
            assert list(answer.var_names) == bundle.genes and list(answer.obs_names) == list(few.obs_names)
            assert list(answer.obs["target_condition"]) == list(expected.obs["target_condition"])
        np.testing.assert_allclose(client.encode(shuffled), bundle.latent(few), atol=1e-6)
        assert client.encode(few, "both").shape == (few.n_obs, 7)
        with pytest.raises(ServiceError, match=r"genes of the model not in the data.*status 422, request"):
            client.counterfactual(few[:, 3:].copy(), **ASKED)
        assert client.counterfactual(few[:, 3:].copy(), **ASKED, pad_missing=True).n_vars == 80
    with Client(live.url, token="another-token-than-that") as client, pytest.raises(ServiceError, match="token"):
        client.model()


@pytest.mark.parametrize(
    "options",
    [
        {"n_samples": 3},
        {"strength": 0.4, "output": "rate"},
        {"guidance_scale": 1.7, "heterogeneity": 0.3},
        {"solver": SolverConfig("midpoint", 9)},
    ],
    ids=str,
)
def test_its_options_are_those_of_the_model(live: Any, bundle: Bundle, few: ad.AnnData, options: dict) -> None:
    with Client(live.url, token=TOKEN, cells_at_a_time=7) as client:
        answer = client.counterfactual(few, **ASKED, **options)
    expected = bundle.counterfactual(few, **ASKED, **options)
    dense = answer.X.toarray() if sparse.issparse(answer.X) else answer.X
    np.testing.assert_allclose(dense, expected.dense, rtol=1e-5)
    assert list(answer.obs_names) == list(expected.obs_names)
    after = expected.obsm["X_cfmvc_counterfactual"]
    np.testing.assert_allclose(answer.obsm["X_cfmvc_counterfactual"], after, atol=1e-5)
    for column, values in expected.obs.items():
        assert list(answer.obs[column]) == list(values)
    assert list(answer.obs["cell_type"]) == list(few.obs["cell_type"]) * options.get("n_samples", 1)


def test_what_it_cannot_ask_it_says_in_words(live: Any, few: ad.AnnData) -> None:
    with Client(live.url, token=TOKEN) as client:
        with pytest.raises(DataError, match="part is 'spatial'"):
            client.encode(few, "spatial")  # type: ignore[arg-type]
        few.obs["cell_type"] = pd.Series(few.obs["cell_type"].astype(str)).where(np.arange(few.n_obs) > 1)
        with pytest.raises(DataError, match=rf"2 cells have no value in obs\['cell_type'\]: {few.obs_names[0]}"):
            client.encode(few)
        with pytest.raises(ServiceError, match="n_samples is 9") as error:
            client.counterfactual(few[2:].copy(), **ASKED, n_samples=9)
        assert error.value.status == 422 and error.value.request_id
    with (
        Client("http://127.0.0.1:9", token=TOKEN) as client,
        pytest.raises(ServiceError, match=r"127\.0\.0\.1:9.*running"),
    ):
        client.model()
